"""The heartbeat of an attempt: it keeps the lease while the run goes on, and no longer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langgraph.runtime import Runtime

from longthought import Budget, Context, Store
from longthought.orchestrator.runs import Attempt
from longthought.storage import Journal
from tests.executor.test_raised_late import State, own_graph
from tests.executor.test_raising import Gate, gated


class Beats:
    """Counts the looks for raised limits, one with each beat; the first may fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, fails: bool = False) -> None:
        self.seen, take = 0, Attempt.take_raises

        async def counted(attempt: Attempt) -> None:
            self.seen += 1
            if fails and self.seen == 1:
                raise RuntimeError("a mistake")
            await take(attempt)

        monkeypatch.setattr(Attempt, "take_raises", counted)

    async def more(self, count: int) -> None:
        until = self.seen + count
        async with asyncio.timeout(30):
            while self.seen < until:
                await asyncio.sleep(0.001)


async def test_a_mistake_in_a_raise_is_told_and_the_lease_is_kept_up(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, what: told.append(what))
    sqlite_store.lease, gate = 0.03, Gate()
    beats = Beats(monkeypatch, fails=True)
    run = await gated(sqlite_store, gate, budget=Budget()).start("q")
    await gate.reached.wait()
    await beats.more(2)
    gate.open.set()
    assert (await run.result()).status == "completed"
    assert [str(one["exception"]) for one in told] == ["a mistake"]


async def test_a_waker_that_gives_a_run_back_takes_no_lease_again(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats, release, reached = Beats(monkeypatch), sqlite_store.release, asyncio.Event()

    async def work(state: State, runtime: Runtime[Context]) -> State:
        await runtime.context.suspend("go")
        reached.set()
        await asyncio.Event().wait()
        return {}

    async def released(journal: Journal) -> None:
        await release(journal)
        await beats.more(2)

    workflow = own_graph(sqlite_store, work)
    run = await workflow.run("q")
    await workflow.signal(run.id, "go")
    sqlite_store.lease = 0.03
    monkeypatch.setattr(sqlite_store, "release", released)
    waking = asyncio.create_task(workflow.wake())
    await reached.wait()
    waking.cancel()
    await asyncio.wait([waking])
    assert (await sqlite_store.row(run.id)).lease_until == 0
