"""Waits with a deadline: a signal, an approval, a tool that is finished from outside."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest
from langgraph.runtime import Runtime

from longthought import Context, Result, Store, Workflow, strategies
from longthought.errors import InvalidInput, SignalTimeout
from longthought.orchestrator.models.scripted import ScriptedModel, call, says
from longthought.storage import audit
from longthought.tools import ToolContext, ToolSpec, pending, tool
from tests.executor.copies import copy_prefix
from tests.executor.test_waking import HOUR, State, graph_of, nothing_is_held
from tests.executor.workflows import turns_of
from tests.moved_time import TimeOfDay

JOBS: Counter[str] = Counter()


async def remind(state: State, runtime: Runtime[Context]) -> State:
    """Ask twice, for an hour each."""
    context = runtime.context
    for number in range(2):
        try:
            return {"answer": str(await context.suspend("review", number, timeout=HOUR))}
        except SignalTimeout as error:
            await context.model(f"remind: {error}")
    return {"answer": "nobody"}


def reminding(store: Store) -> Workflow:
    model = ScriptedModel(lambda request: str(request["messages"][-1]["content"]))
    return Workflow("reminding", model=model, graph=graph_of(remind), store=store)


async def woken(workflow: Workflow) -> Result:
    (result,) = await workflow.wake()
    return result


async def is_sound(workflow: Workflow, store: Store, done: Result) -> None:
    """It replays to the same end without a call, and the chain holds."""
    replayed = await workflow.replay(done.id)
    assert (replayed.status, replayed.answer) == (done.status, done.answer)
    assert (replayed.model_calls, replayed.tool_calls) == (0, 0)
    assert nothing_is_held(workflow)
    report = await audit(store)
    assert report.ok, report.findings


def waits(result: Result) -> list[tuple[str, int]]:
    return [(wait["name"], wait["ask"]) for wait in result.waiting]


async def test_a_wait_whose_time_is_over_is_caught_and_the_late_signal_answers_the_next(
    store: Store, clock: TimeOfDay
) -> None:
    workflow = reminding(store)
    parked = await workflow.run("go")
    assert (parked.status, waits(parked)) == ("parked", [("review", 0)])
    assert abs(parked.waiting[0]["until"] - time.time() - HOUR) < HOUR / 2
    assert (await workflow.replay(parked.id)).status == "parked"
    clock.ahead = HOUR - 60
    assert await workflow.wake() == []
    still = await workflow.resume(parked.id)  # the time is counted from when it was first asked
    assert still.waiting == parked.waiting
    clock.ahead = HOUR + 1
    again = await woken(workflow)
    assert (again.status, waits(again), again.model_calls) == ("parked", [("review", 1)], 1)
    assert await workflow.wake() == []
    await workflow.signal(parked.id, "review", "late")
    done = await woken(workflow)
    assert (done.status, done.answer) == ("completed", "late")
    await is_sound(workflow, store, done)


async def test_a_signal_on_record_before_the_end_of_the_time_counts(
    store: Store, clock: TimeOfDay
) -> None:
    """Both are due together: what was sent before anybody told the time is told."""
    workflow = reminding(store)
    parked = await workflow.run("go")
    await workflow.signal(parked.id, "review", "just now")
    clock.ahead = HOUR + 1
    done = await woken(workflow)
    assert (done.answer, done.model_calls) == ("just now", 0)
    await is_sound(workflow, store, done)


async def test_a_signal_for_a_place_whose_time_is_over_is_kept_and_not_told(
    store: Store, clock: TimeOfDay
) -> None:
    workflow = reminding(store)
    parked = await workflow.run("go")
    place = parked.waiting[0]["key"]
    for hours in (1, 2):
        clock.ahead += HOUR + 1
        last = await woken(workflow)
        if hours == 1:
            await store.send_signal(parked.id, "review", "too late", place)
            assert (await woken(workflow)).status == "parked"
    assert (last.status, last.answer) == ("completed", "nobody")
    signals = [e.body["name"] for e in (await store.read(parked.id)).events if e.type == "signal"]
    assert signals == ["review"]
    await is_sound(workflow, store, last)


async def test_no_time_at_all_looks_whether_it_is_there(sqlite_store: Store) -> None:
    async def look(state: State, runtime: Runtime[Context]) -> State:
        try:
            return {"answer": str(await runtime.context.suspend("review", timeout=0))}
        except SignalTimeout as error:
            return {"answer": str(error)}

    model = ScriptedModel([])
    workflow = Workflow("look", model=model, graph=graph_of(look), store=sqlite_store)
    done = await workflow.run("go")
    assert (done.status, done.answer) == ("completed", "no signal 'review' came within 0 s")
    await is_sound(workflow, sqlite_store, done)


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), True])
async def test_what_is_no_time_is_told(sqlite_store: Store, seconds: float) -> None:
    async def badly(state: State, runtime: Runtime[Context]) -> State:
        await runtime.context.suspend("review", timeout=seconds)
        return {}

    model = ScriptedModel([])
    workflow = Workflow("bad", model=model, graph=graph_of(badly), store=sqlite_store)
    with pytest.raises(InvalidInput, match="timeout"):
        await workflow.run("go")
    with pytest.raises(InvalidInput, match="timeout"):
        pending(timeout=seconds if seconds is not True else 0)
    with pytest.raises(InvalidInput, match="approval_timeout"):
        ToolSpec("t", "d", {}, approval_timeout_s=seconds if seconds is not True else 0)


# -- tools --------------------------------------------------------------------------------------


@tool(effect="write", idempotent=True)
async def build(name: str, context: ToolContext) -> Any:
    """Build something, once for each key.

    Args:
        name: what.
    """
    JOBS[name] += 1
    return pending({"job": name}, timeout=HOUR)


@tool(effect="write", name="build", approval="always", approval_timeout=HOUR)
async def approved_build(name: str) -> str:
    """Build something, if a person says so.

    Args:
        name: what.
    """
    JOBS[name] += 1
    return name


def building(request: Any) -> Any:
    if turns_of(request) == 0:
        return says("building", call("build", name=f"a{request['sampling']['seed']}"))
    return str(request["messages"][-1]["content"])


def builds(store: Store, job: Any, **more: Any) -> Workflow:
    JOBS.clear()
    return Workflow("builds", model=ScriptedModel(building), tools=[job], store=store, **more)


async def test_a_tool_that_nobody_finishes_has_timed_out(store: Store, clock: TimeOfDay) -> None:
    workflow = builds(store, build)
    parked = await workflow.run("go")
    assert (parked.status, sum(JOBS.values())) == ("parked", 1)
    clock.ahead = HOUR + 1
    done = await woken(workflow)
    assert (done.status, sum(JOBS.values()), done.spent["tool_calls"]) == ("completed", 1, 1)
    assert str(done.answer).startswith("build did not finish within 3600 s. It may or may not")
    recording = await store.read(done.id)
    (end,) = [e for e in recording.events if e.key.endswith(":tool") and "result" in e.body]
    assert end.body["status"] == recording.get(end.body["result"])["status"] == "timeout"
    await is_sound(workflow, store, done)


async def test_a_call_that_nobody_approves_is_denied(store: Store, clock: TimeOfDay) -> None:
    workflow = builds(store, approved_build)
    parked = await workflow.run("go")
    assert parked.waiting[0]["name"] == "approve:build"
    clock.ahead = HOUR + 1
    done = await woken(workflow)
    assert (done.status, sum(JOBS.values())) == ("completed", 0)
    assert done.answer == "Nobody approved this call of 'build' within 3600 s."
    await is_sound(workflow, store, done)


async def test_one_branch_is_answered_and_one_is_not(store: Store, clock: TimeOfDay) -> None:
    workflow = builds(store, build, strategy=strategies.sample(2), parallel=2)
    parked = await workflow.run("go")
    first, _ = parked.waiting
    await workflow.signal(parked.id, first["name"], "built", key=first["key"])
    assert (await woken(workflow)).status == "parked"
    clock.ahead = HOUR + 1
    done = await woken(workflow)
    assert sorted(str(vote)[:5] for vote in done.support["votes"]) == ["build", "built"]
    assert sum(JOBS.values()) == 2
    await is_sound(workflow, store, done)


@pytest.mark.parametrize("case", ["signal", "tool", "approval"])
async def test_a_deadline_is_kept_from_any_prefix(
    sqlite_store: Store, clock: TimeOfDay, case: str
) -> None:
    """Wherever the process died: the time that was recorded first is the one that counts."""
    store = sqlite_store
    make = {"tool": lambda: builds(store, build), "approval": lambda: builds(store, approved_build)}
    workflow = make.get(case, lambda: reminding(store))()
    whole = await workflow.run("go", run_key=b"k" * 16)
    while whole.status == "parked":
        clock.ahead += HOUR + 1
        whole = await woken(workflow)
    begun = clock.ahead
    recording = await store.read(whole.id)
    for length in range(2, recording.length):
        clock.ahead = begun
        copied = await copy_prefix(store, recording, length)
        result = await workflow.resume(copied, force=True)
        while result.status == "parked":
            clock.ahead += HOUR + 1
            result = await workflow.resume(copied)
        where = f"cut after event {length}: {recording.events[length - 1]}"
        assert (result.status, result.answer) == (whole.status, whole.answer), where
        finished = Counter(e.key for e in (await store.read(copied)).events if "result" in e.body)
        assert set(finished.values()) == {1}, where
        assert (await workflow.replay(copied)).answer == whole.answer, where
