"""Real processes that share a store, are stopped, killed, and lose what the disk had not kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from longthought.storage import Store
from longthought.storage.audit import audit

DRIVER = Path(__file__).with_name("driver.py")
UNSYNCED = Path(__file__).with_name("unsynced.c")
ENOUGH = 60  # acknowledged appends before the axe falls


@contextmanager
def driving(url: str, directory: Path, mode: str, **environment: str) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(
        [sys.executable, str(DRIVER), url, str(directory), mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        with process:
            yield process
            process.kill()
    finally:
        process.kill()


def kill_amid_appends(process: subprocess.Popen, enough: int = ENOUGH) -> dict[str, int]:
    """Kill the driver; how many appends of each run it had acknowledged."""
    lines = [process.stdout.readline() for _ in range(enough)]
    process.send_signal(signal.SIGKILL)
    lines += process.stdout.read().splitlines()
    acknowledged: dict[str, int] = {}
    for line in lines:
        if len(words := line.split()) == 2:  # the last line may be cut
            acknowledged[words[0]] = max(acknowledged.get(words[0], 0), int(words[1]) + 1)
    assert sum(acknowledged.values()) >= enough
    return acknowledged


async def kept(store: Store) -> dict[str, int]:
    """How many appends of each run the store holds; every payload must be there."""
    counts = {}
    for row in await store.list_runs():
        recording = await store.read(row.id)
        finished = [e for e in recording.events if e.type == "effect_finished"]
        assert [recording.get(e.body["result"])["number"] for e in finished] == list(
            range(len(finished))
        )
        counts[row.id] = len(finished)
    return counts


async def test_a_killed_process_loses_nothing_acknowledged(store_url, tmp_path):
    with driving(store_url, tmp_path, "endless") as process:
        acknowledged = kill_amid_appends(process)
    async with Store(store_url, directory=tmp_path) as store:
        counts = await kept(store)
        for run_id, count in acknowledged.items():
            assert count <= counts[run_id] <= count + 1
            await store.claim(run_id)  # its owner is dead: no lease to wait for
        report = await audit(store)
        assert report.ok, report.findings


async def test_of_two_processes_on_one_run_one_wins(store_url, tmp_path):
    with driving(store_url, tmp_path, "until_fenced") as first:
        for number in range(20):
            assert first.stdout.readline() == f"acknowledged {number}\n"
        with driving(store_url, tmp_path, "take_over") as second:
            assert second.stdout.readline() == "done\n"
            assert second.wait() == 0
        *before, last = first.stdout.read().splitlines()
        assert first.wait() == 0
    assert last == f"fenced {20 + len(before)}"
    async with Store(store_url, directory=tmp_path) as store:
        types = [e.key or e.type for e in (await store.read("run-1")).events]
        report = await audit(store)
    mine = [f"k{number}" for number in range(20 + len(before))]
    theirs = [f"k{number}" for number in range(1_000_000, 1_000_020)]
    assert types == ["run_started", "attempt_started", *mine, "attempt_started", *theirs]
    assert report.ok, report.findings


async def test_a_stopped_process_writes_nothing_when_it_wakes(store_url, tmp_path):
    with driving(store_url, tmp_path, "waiting") as sleeper:
        assert sleeper.stdout.readline() == "ready\n"
        sleeper.send_signal(signal.SIGSTOP)
        assert os.WIFSTOPPED(os.waitpid(sleeper.pid, os.WUNTRACED)[1])
        async with Store(store_url, directory=tmp_path) as store:
            journal = await store.claim("run-1", force=True)
            await journal.append("branch_ended", "taken over", how="finished")
            head = journal.head
            sleeper.stdin.write("go on\n")
            sleeper.stdin.flush()
            sleeper.send_signal(signal.SIGCONT)
            assert sleeper.stdout.read() == "fenced\n" * 3
            assert sleeper.wait() == 0
            assert (await store.read("run-1")).head == head
            await journal.append("branch_ended", "goes on", how="finished")
            report = await audit(store)
            assert report.ok, report.findings


@pytest.fixture(scope="session")
def forgetful(tmp_path_factory) -> Path:
    """The library that forgets what was not synced. Without a compiler this fails: it must run."""
    library = tmp_path_factory.mktemp("unsynced") / "unsynced.so"
    command = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, UNSYNCED]
    subprocess.run([*command, "-ldl", "-lpthread"], check=True)
    return library


def cut_the_power(directory: Path) -> None:
    """Leave of each file what had been synced."""
    for file in directory.glob("longthought.db*"):
        if not file.name.endswith(".synced"):
            file.unlink()
    for file in directory.glob("*.synced"):
        file.rename(file.with_suffix(""))


async def after_a_power_cut(
    forgetful: Path, directory: Path, enough: int, **environment: str
) -> tuple[dict[str, int], dict[str, int]]:
    url = f"sqlite:///{directory / 'longthought.db'}"
    preload = {"LD_PRELOAD": str(forgetful), "UNSYNCED_MARK": str(directory / "longthought.db")}
    with driving(url, directory, "endless", **preload, **environment) as process:
        acknowledged = kill_amid_appends(process, enough)
    cut_the_power(directory)
    async with Store(url, directory=directory) as store:
        report = await audit(store)
        assert report.ok, report.findings
        return acknowledged, await kept(store)


@pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD")
@pytest.mark.parametrize("enough", [ENOUGH, 1500], ids=["log alone", "log and file"])
async def test_a_power_cut_loses_nothing_acknowledged(forgetful, tmp_path, enough):
    acknowledged, counts = await after_a_power_cut(forgetful, tmp_path, enough)
    for run_id, count in acknowledged.items():
        assert counts[run_id] >= count


@pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD")
async def test_the_forgetful_disk_does_forget(forgetful, tmp_path):
    """The test above can fail: with fewer syncs, acknowledged appends are lost."""
    acknowledged, counts = await after_a_power_cut(
        forgetful, tmp_path, ENOUGH, TEST_SYNCHRONOUS="NORMAL"
    )
    assert any(counts.get(run_id, 0) < count for run_id, count in acknowledged.items())
