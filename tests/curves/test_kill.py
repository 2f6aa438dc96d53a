"""kill -9 in the middle of a measurement: begun again it goes on and draws nothing twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

from longthought import Store
from tests.curves import drawer

ROOT = Path(__file__).resolve().parents[2]
CALLS = drawer.QUESTIONS * (drawer.SAMPLES + 1)


def started(folder: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "tests.curves.drawer", str(folder)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
    )


async def recorded(folder: Path) -> set[str]:
    """The calls whose replies are on record."""
    found = set()
    async with Store(directory=folder) as store:
        for row in await store.list_runs(limit=1000):
            recording = await store.read(row.id)
            question = recording.manifest()["question"]
            for event in recording.events:
                if event.type == "effect_finished" and event.body["status"] == "ok":
                    sampling = recording.get(event.body["request"])["sampling"]
                    greedy = " greedy" if "temperature" in sampling else ""
                    found.add(f"{question} {sampling['seed']}{greedy}")
    return found


async def test_a_killed_measurement_goes_on_and_draws_nothing_twice(tmp_path: Path) -> None:
    plan = random.Random(11)
    points = sorted(plan.sample(range(2, CALLS - 4), 3))
    made: Counter[str] = Counter()
    done: set[str] = set()
    for point in [*points, None]:
        process = started(tmp_path)
        assert process.stdout is not None
        for line in process.stdout:
            call = line.decode().strip()
            assert call not in done, f"{call} was on record and was made again"
            made[call] += 1
            if point is not None and sum(made.values()) >= point:
                process.send_signal(signal.SIGKILL)
                point = None
        assert process.wait() in (0, -signal.SIGKILL)
        process.stdout.close()
        done = await recorded(tmp_path)
    assert process.returncode == 0
    # every call was made, and only those in flight at a kill more than once
    assert len(made) == CALLS
    assert sum(made.values()) <= CALLS + 3 * 4

    killed = await drawer.draw(tmp_path)
    whole = await drawer.draw(tmp_path / "whole")
    assert killed.lines == whole.lines
    assert killed.differences == whole.differences
    assert not killed.unanswered
