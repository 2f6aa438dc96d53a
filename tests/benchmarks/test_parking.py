"""Many parked runs hold nothing, and each is woken once, whoever else wakes or is killed."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections import Counter
from dataclasses import astuple
from pathlib import Path

import pytest

from benchmarks import parking
from longthought import Workflow
from longthought.storage import Store, audit

RUNS = 120
WARM = 30
pytestmark = pytest.mark.timeout(900)  # a disk that is shared takes its time over so many commits
MOST_BYTES = 4_096
"""Of Python's own memory for each parked run: one that is under way has tens of thousands."""


async def nothing_more_is_held(workflow: Workflow, store: Store, before: parking.Held) -> None:
    """Threads of the store may let go of the last run a moment after it has ended."""
    for _ in range(1000):
        now = await parking.held(workflow, store)
        if all(a <= b for a, b in zip(astuple(now), astuple(before), strict=True)):
            return
        await asyncio.sleep(0.01)
    assert now == before


async def test_parked_runs_hold_nothing_and_two_wakers_wake_each_once(
    store: Store, store_url: str, tmp_path: Path
) -> None:
    workflow = parking.waiting(store)
    warm = [f"warm-{number}" for number in range(WARM)]
    await parking.park(workflow, warm)
    await parking.answer_all(store, warm)
    with parking.ahead():
        assert len(await workflow.wake()) == WARM

    before = await parking.held(workflow, store)
    tracemalloc.start()
    try:
        traced = tracemalloc.get_traced_memory()[0]
        ids = [f"run-{number}" for number in range(RUNS)]
        await parking.park(workflow, ids)
        await nothing_more_is_held(workflow, store, before)
        assert (before.slots, before.branches, before.leases) == (0, 0, 0)
        assert (tracemalloc.get_traced_memory()[0] - traced) / RUNS < MOST_BYTES
    finally:
        tracemalloc.stop()

    await parking.answer_all(store, ids)
    async with Store(store_url, directory=tmp_path) as other:
        with parking.ahead():
            both = await asyncio.gather(workflow.wake(), parking.waiting(other).wake())
    woken = Counter(result.id for results in both for result in results)
    assert woken == dict.fromkeys(ids, 1)
    assert {result.status for results in both for result in results} == {"completed"}
    assert await parking.ends_of(store, ids) == dict.fromkeys(ids, 1)
    assert {row.attempt for row in await store.list_runs(limit=RUNS + WARM)} == {2}
    del both
    gc.collect()
    await nothing_more_is_held(workflow, store, before)
    for run_id in ids[:3]:
        report = await audit(store, run_id)
        assert report.ok, report.findings
        assert (await workflow.replay(run_id)).status == "completed"


async def test_a_waker_that_is_killed_loses_no_run(
    store: Store, store_url: str, tmp_path: Path
) -> None:
    ids = [f"run-{number}" for number in range(48)]
    figures = await parking.killed_in_the_middle(store, store_url, tmp_path, ids)
    assert (figures["killed_lost"], figures["killed_ended_twice"]) == (0, 0)
    report = await audit(store)
    assert report.ok, report.findings
    left = await parking.held(parking.waiting(store), store)
    assert (left.slots, left.branches, left.leases) == (0, 0, 0)
