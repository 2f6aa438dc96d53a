"""Limits are raised while a run ends, is cancelled, or has ended: nothing that was told is lost."""

from __future__ import annotations

import asyncio
from typing import Any, TypedDict

import pytest
import sqlalchemy as sa
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from longthought import Budget, Context, Store, Workflow, strategies
from longthought.errors import InvalidInput
from longthought.orchestrator.handle import RunHandle
from longthought.orchestrator.raising import RAISE
from longthought.orchestrator.waking import Waker
from longthought.storage import Journal
from longthought.storage.tables import runs
from tests.executor.copies import copy_prefix
from tests.executor.test_raising import Gate, gated
from tests.executor.workflows import looking
from tests.moved_time import MovedTime


class State(TypedDict, total=False):
    answer: Any


def own_graph(store: Store, work: Any, **changes: Any) -> Workflow:
    graph: Any = StateGraph(State, context_schema=Context)
    graph.add_node("work", work)
    graph.add_edge(START, "work")
    graph.add_edge("work", END)
    options: dict[str, Any] = {"script": seven, "tools": [], "graph": graph, **changes}
    return looking(store, **options)


async def wake_at(store: Store, run_id: str) -> Any:
    ((at,),) = await store._fetch(sa.select(runs.c.wake_at).where(runs.c.id == run_id))
    return at


def seven(request: Any) -> str:
    return "The answer is 7"


async def test_a_raise_taken_in_while_the_run_ends_is_not_lost(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in the chain and no longer in the store, and the attempt is over before it acts."""
    gate, take = Gate(), sqlite_store.take_signals

    async def until_over(journal: Journal, name: str | None = None, **more: Any) -> int:
        taken = await take(journal, name, **more)
        if taken:
            gate.open.set()
            while journal.events[-1].type != "run_ended":
                await asyncio.sleep(0)
        return taken

    monkeypatch.setattr(sqlite_store, "take_signals", until_over)
    workflow = gated(sqlite_store, gate, strategy=strategies.sample(6))
    run = await workflow.start("q")
    await gate.reached.wait()
    await run.raise_limit(Budget(tokens=9_000))
    result = await run.result()
    assert (result.status, result.answer) == ("completed", "7")
    assert (await workflow.replay(run.id)).status == "completed"

    recording = await sqlite_store.read(run.id)
    ended = next(e for e in recording.events if e.type == "run_ended")
    assert ended.body["stop_reason"] == "tokens"
    copy = await copy_prefix(sqlite_store, recording, ended.seq)
    assert (await workflow.resume(copy)).status == "completed"


async def test_a_raise_whose_caller_is_cancelled_is_in_force_with_the_next_look(
    sqlite_store: Store,
) -> None:
    gate = Gate()
    workflow = gated(sqlite_store, gate, strategy=strategies.sample(4))
    run = await workflow.start("q")
    await gate.reached.wait()
    attempt = run._now
    asked = asyncio.create_task(run.raise_limit(Budget(tokens=5_000)))
    while attempt.recording.events[-1].type != "signal":
        await asyncio.sleep(0)
    asked.cancel()
    await asyncio.wait([asked])
    assert asked.cancelled()
    assert not attempt.session.limits_raised
    await attempt.take_raises()
    assert run.view()["scopes"]["limits"]["tokens"] == 5_000
    assert attempt.session.limits_raised
    gate.open.set()
    assert (await run.result()).status == "completed"


async def test_a_raise_is_in_force_before_it_is_written(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, flush, seen = Gate(), Journal.flush, []

    async def looked_at(self: Journal, status: str | None = None) -> None:
        if self.events[-1].body.get("input") == "limit_raised":
            seen.append(run.view()["scopes"]["limits"]["tokens"])
        await flush(self, status)

    run = await gated(sqlite_store, gate).start("q")
    await gate.reached.wait()
    monkeypatch.setattr(Journal, "flush", looked_at)
    await run.raise_limit(Budget(tokens=5_000))
    gate.open.set()
    await run.result()
    assert seen[0] == 5_000


async def test_a_resume_with_one_limit_keeps_the_others_and_what_waits(
    sqlite_store: Store,
) -> None:
    async def work(state: State, runtime: Runtime[Context]) -> State:
        await runtime.context.suspend("go")
        return {"answer": 1}

    budget = Budget(tokens=5_000, wall=60, model_calls=50)
    workflow = own_graph(sqlite_store, work, budget=budget)
    run = await workflow.run("q")
    await workflow.raise_limit(run.id, Budget(model_calls=100))
    for wanted, problem in (
        (Budget(wall=30), "lower"),
        (Budget(tokens=1), "lower"),
        (Budget(usd=1), "not limited"),
    ):
        with pytest.raises(InvalidInput, match=problem):
            await workflow.resume(run.id, budget=wanted)
    await workflow.resume(run.id, budget=Budget(tokens=6_000))
    raised = [
        e.body["data"]["budget"]
        for e in (await sqlite_store.read(run.id)).events
        if e.body.get("input") == "limit_raised"
    ]
    assert raised == [Budget(tokens=6_000, wall=60, model_calls=100).to_json()]


async def test_time_raised_just_as_it_ends_ones_own_graph(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    time, known = MovedTime(monkeypatch), asyncio.Event()
    begun: list[RunHandle] = []
    tried: list[int] = []

    async def work(state: State, runtime: Runtime[Context]) -> State:
        tried.append(1)
        if len(tried) == 1:
            try:
                await known.wait()
                time.ahead = 100.0
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await begun[0].raise_limit(Budget(wall=1_000))
                raise
        return {"answer": 1}

    workflow = own_graph(sqlite_store, work, budget=Budget(wall=100))
    begun.append(await workflow.start("q"))
    known.set()
    result = await begun[0].result()
    assert (result.status, len(tried)) == ("completed", 2)


async def test_ones_own_graph_that_ran_out_replays(sqlite_store: Store) -> None:
    async def work(state: State, runtime: Runtime[Context]) -> State:
        await runtime.context.model("one")
        await runtime.context.model("two")
        return {"answer": 1}

    workflow = own_graph(sqlite_store, work, budget=Budget(model_calls=1))
    first = await workflow.run("q")
    assert first.status == "incomplete"
    for again in (await workflow.replay(first.id), await workflow.resume(first.id)):
        assert (again.status, again.stop_reason) == ("incomplete", first.stop_reason)


async def test_a_cancel_during_the_last_commit_leaves_the_end_alone(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = Journal.flush

    async def cancelled(self: Journal, status: str | None = None) -> None:
        if status == "completed":
            task.cancel()
        await flush(self, status)

    monkeypatch.setattr(Journal, "flush", cancelled)
    workflow = looking(sqlite_store, script=seven)
    task = asyncio.create_task(workflow.run("q", run_id="ended"))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await sqlite_store.row("ended")).status == "completed"
    ends = [e for e in (await sqlite_store.read("ended")).events if e.type == "run_ended"]
    assert len(ends) == 1
    assert (await workflow.replay("ended")).status == "completed"


async def test_a_raise_too_late_for_a_completed_run_changes_nothing(sqlite_store: Store) -> None:
    workflow = looking(sqlite_store, script=seven)
    run = await workflow.run("q")
    await sqlite_store.send_signal(run.id, RAISE, {"tokens": 200_000})
    assert (await workflow.resume(run.id)).model_calls == 0
    assert (await sqlite_store.row(run.id)).attempt == 1


async def test_a_woken_run_that_was_raised_late_stays_due(sqlite_store: Store) -> None:
    """Until an attempt has come to an end: its waker may die on the second one, too."""
    due: list[float | None] = []

    async def work(state: State, runtime: Runtime[Context]) -> State:
        context = runtime.context
        await context.suspend("go")
        await context.model("one")
        due.append(await wake_at(sqlite_store, "r"))
        if len(due) == 1:
            await sqlite_store.send_signal("r", RAISE, {"model_calls": 2})
        await context.model("two")
        return {"answer": 1}

    workflow = own_graph(sqlite_store, work, budget=Budget(model_calls=1))
    await workflow.run("q", run_id="r")
    await workflow.signal("r", "go")
    (done,) = await workflow.wake()
    assert (done.status, len(due), None in due) == ("completed", 2, False)
    assert await wake_at(sqlite_store, "r") is None


async def test_a_run_that_fails_after_it_was_claimed_is_refused_once(sqlite_store: Store) -> None:
    async def work(state: State, runtime: Runtime[Context]) -> State:
        await runtime.context.suspend("go")
        return {"answer": 1}

    run = await own_graph(sqlite_store, work).run("q")
    await sqlite_store.send_signal(run.id, "go")
    woken: list[int] = []

    async def go_on(row: Any) -> Any:
        woken.append(row.attempt)
        await sqlite_store.release(await sqlite_store.claim(row.id, after=row.attempt))
        raise RuntimeError("no deps")

    await Waker(sqlite_store, go_on, lambda _: None, limit=3).run()
    assert woken == [1]
