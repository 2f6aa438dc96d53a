"""A run that ends every process that drives it is woken less and less often, then no more."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from longthought import Store
from longthought.storage import audit
from longthought.storage.deaths import MOST_DEATHS
from tests.executor.crash_worker import KILLER, deadly

ROOT = Path(__file__).resolve().parents[2]
OTHERS = ["b", "c", "d"]


class Wakers:
    """Wakers in processes of their own, one after the other."""

    def __init__(self, process: Any) -> None:
        self._process, self._begun = process, round(time.time()) + 60

    async def wake(self, ahead: float) -> tuple[list[list[str]], int]:
        """What one of them woke, so many seconds after the first, and how it ended."""
        self._process.stdin.write(f"{self._begun + ahead}\n".encode())
        await self._process.stdin.drain()
        told = []
        while (said := json.loads(await self._process.stdout.readline()))[0] != "died":
            told.append(said)
        return told, said[1]


async def test_a_run_that_kills_its_wakers_needs_attention(
    store: Store, store_url: str, tmp_path: Path
) -> None:
    """And those that died beside it get through without it."""
    workflow = deadly(store)
    for run in (KILLER, *OTHERS):
        await workflow.run("go", run_id=run)
        await store.send_signal(run, "review", "good")
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "tests.executor.crash_worker", store_url, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    wakers, killed = Wakers(process), ([], -signal.SIGKILL)
    try:
        assert await wakers.wake(0) == killed, "after the review was taken in, which is progress"
        for _ in range(2):
            assert await wakers.wake(0) == killed, "the first death may be anybody's fault"
        told, ended = await wakers.wake(0)  # others may have got further beside it
        assert ended == 0, "it is not tried at once after two in a row"
        for ahead in (11, 11 + 41, 11 + 41 + 161):
            found, ended = await wakers.wake(ahead)
            told += found
            assert ended == -signal.SIGKILL
        told += (await wakers.wake(300))[0]
        assert sorted(told) == [
            [KILLER, "needs_attention", "keeps_crashing"],
            *[[run, "completed", "graph_ended"] for run in OTHERS],
        ]
        assert await wakers.wake(1e6) == ([], 0)
    finally:
        process.stdin.close()
        await process.wait()

    recording = await store.read(KILLER)
    attempts = [e.body.get("lost", False) for e in recording.events if e.type == "attempt_started"]
    assert attempts == [False, False, True, *[True] * MOST_DEATHS]
    ended = recording.ended()
    assert ended is not None
    outcome = recording.get(ended.body["outcome"])
    assert f"longthought resume {KILLER}" in outcome["difference"]
    assert f"{MOST_DEATHS} attempts" in outcome["difference"]
    assert (await workflow.replay(KILLER)).status == "needs_attention"
    done = await workflow.resume(KILLER)  # by hand, where it does not kill
    assert (done.status, done.answer) == ("completed", "good")
    report = await audit(store)
    assert report.ok, report.findings
