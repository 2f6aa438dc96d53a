"""Limits are raised while a run is under way, from inside and outside."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from longthought import Budget, Store, strategies
from longthought.errors import InvalidInput
from longthought.orchestrator.raising import RAISE
from longthought.orchestrator.strategies import Policy
from tests.executor.copies import copy_prefix
from tests.executor.test_parking import approving
from tests.executor.workflows import looking

ROOT = Path(__file__).resolve().parents[2]
POLICIES: dict[str, Policy] = {
    "majority": strategies.sample(6),
    "waves": strategies.sample(6, wave=2),
}


class Gate:
    """A model whose first call waits until it is let through."""

    def __init__(self) -> None:
        self.reached, self.open = asyncio.Event(), asyncio.Event()

    async def __call__(self, request: Any) -> str:
        self.reached.set()
        await self.open.wait()
        return "thinking " * 20 + "The answer is 7"


def gated(store: Store, gate: Any, **changes: Any) -> Any:
    options: dict[str, Any] = {
        "script": gate,
        "tools": [],
        "budget": Budget(tokens=100, final_answer=0),
        "parallel": 1,
        **changes,
    }
    return looking(store, **options)


@pytest.mark.parametrize("name", list(POLICIES))
async def test_a_run_under_way_is_given_more(store: Store, name: str) -> None:
    gate = Gate()
    workflow = gated(store, gate, strategy=POLICIES[name])
    run = await workflow.start("q")
    await gate.reached.wait()
    assert run.view()["scopes"]["limits"]["tokens"] == 100
    await run.raise_limit(Budget(tokens=5_000))
    assert run.view()["scopes"]["limits"]["tokens"] == 5_000
    gate.open.set()
    result = await run.result()
    assert (result.status, result.answer) == ("completed", "7")
    assert result.spent["tokens"] > 100
    events = (await store.read(run.id)).events
    assert [e.body["name"] for e in events if e.type == "signal"] == [RAISE]
    raised = [
        e.body["data"]["budget"]["tokens"] for e in events if e.body.get("input") == "limit_raised"
    ]
    assert set(raised) == {5_000}
    again = await workflow.replay(run.id)
    assert (again.answer, again.model_calls) == ("7", 0)


async def test_who_waits_for_room_is_served(sqlite_store: Store) -> None:
    """Two calls side by side, and room for one: the other one waits until there is more."""
    gate = Gate()
    workflow = gated(
        sqlite_store,
        gate,
        strategy=strategies.sample(2),
        budget=Budget(model_calls=1),
        parallel=2,
    )
    run = await workflow.start("q")
    await gate.reached.wait()
    while not run.view()["scopes"].get("waiting"):
        await asyncio.sleep(0)
    await run.raise_limit(Budget(model_calls=2))
    gate.open.set()
    result = await run.result()
    assert (result.status, result.spent["model_calls"]) == ("completed", 2)


async def test_another_process_is_heard_with_the_next_heartbeat(store: Store) -> None:
    gate = Gate()
    store.lease = 0.3
    workflow = gated(store, gate, strategy=strategies.sample(4))
    run = await workflow.start("q")
    await gate.reached.wait()
    program = (
        "import asyncio, sys\n"
        "from longthought import Budget, Workflow\n"
        "w = Workflow('looking', store=sys.argv[1])\n"
        "asyncio.run(w.raise_limit(sys.argv[2], Budget(tokens=9_000)))\n"
    )
    url = store.url.render_as_string(hide_password=False)
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, url, run.id, cwd=ROOT
    )
    assert await other.wait() == 0
    while run.view()["scopes"]["limits"]["tokens"] != 9_000:
        await asyncio.sleep(0.01)
    gate.open.set()
    assert (await run.result()).status == "completed"


async def test_a_parked_run_has_it_in_force_when_it_is_woken(store: Store) -> None:
    from typing import TypedDict

    from langgraph.graph import END, START, StateGraph
    from langgraph.runtime import Runtime

    from longthought import Context

    class State(TypedDict, total=False):
        answer: Any

    async def work(state: State, runtime: Runtime[Context]) -> State:
        await runtime.context.model("one")
        await runtime.context.suspend("go")
        await runtime.context.model("two")
        return {"answer": 1}

    graph: Any = StateGraph(State, context_schema=Context)
    graph.add_node("work", work)
    graph.add_edge(START, "work")
    graph.add_edge("work", END)
    workflow = gated(
        store, lambda request: "The answer is 7", graph=graph, budget=Budget(model_calls=1)
    )
    run = await workflow.run("q")
    assert run.status == "parked"
    assert await workflow.raise_limit(run.id, Budget(model_calls=2)) == Budget(model_calls=2)
    await workflow.signal(run.id, "go")
    (woken,) = await workflow.wake()
    assert (woken.status, woken.spent["model_calls"]) == ("completed", 2)
    assert (await workflow.replay(run.id)).status == "completed"


async def test_raises_that_wait_count_for_the_next_one(store: Store) -> None:
    workflow = approving(store, budget=Budget(tokens=500, model_calls=5))
    run = await workflow.run("q")
    await workflow.raise_limit(run.id, Budget(tokens=900))
    limits = await workflow.raise_limit(run.id, Budget(model_calls=9))
    assert limits == Budget(tokens=900, model_calls=9)
    with pytest.raises(InvalidInput, match="600 is lower than the limit in force, 900"):
        await workflow.raise_limit(run.id, Budget(tokens=600))


async def test_lower_limits_new_ones_and_ended_runs_are_refused(sqlite_store: Store) -> None:
    gate = Gate()
    workflow = gated(sqlite_store, gate, budget=Budget(tokens=100, wall=500))
    run = await workflow.start("q")
    await gate.reached.wait()
    for wanted, problem in (
        (Budget(tokens=99), "lower"),
        (Budget(wall=1), "lower"),
        (Budget(usd=1), "not limited"),
        (Budget(), "nothing"),
    ):
        with pytest.raises(InvalidInput, match=problem):
            await run.raise_limit(wanted)
    gate.open.set()
    await run.result()
    with pytest.raises(InvalidInput, match="longthought resume"):
        await run.raise_limit(Budget(tokens=10_000))
    with pytest.raises(InvalidInput, match="has ended"):
        await workflow.raise_limit(run.id, Budget(tokens=10_000))
    assert await sqlite_store.waiting_signals(run.id) == 0


async def test_a_raise_that_comes_just_as_the_limit_ends_the_run(sqlite_store: Store) -> None:
    """It is left in the store while the last branch ends: the run goes on by itself."""

    async def script(request: Any) -> str:
        if not sent:
            sent.append(1)
            await sqlite_store.send_signal("late", RAISE, {"tokens": 9_000})
        return "thinking " * 20 + "The answer is 7"

    sent: list[int] = []
    workflow = gated(sqlite_store, script, strategy=strategies.sample(6))
    result = await workflow.run("q", run_id="late")
    assert (result.status, result.answer, result.spent["branches"] >= 6) == ("completed", "7", True)
    assert (await workflow.replay("late")).status == "completed"


async def test_killed_anywhere_after_it_the_raise_is_in_force(sqlite_store: Store) -> None:
    gate = Gate()
    workflow = gated(sqlite_store, gate, strategy=strategies.sample(4))
    run = await workflow.start("q")
    await gate.reached.wait()
    await run.raise_limit(Budget(tokens=5_000))
    gate.open.set()
    whole = await run.result()
    recording = await sqlite_store.read(run.id)
    at = next(e.seq for e in recording.events if e.type == "signal")
    for length in range(at, recording.length):
        copy = await copy_prefix(sqlite_store, recording, length)
        more = await workflow.resume(copy)
        assert (more.status, more.answer) == (whole.status, whole.answer)
        assert (await workflow.replay(copy)).answer == whole.answer


async def test_what_is_no_raise_is_passed_over(sqlite_store: Store) -> None:
    gate = Gate()
    workflow = gated(sqlite_store, gate, budget=Budget(tokens=1_000))
    run = await workflow.start("q")
    await gate.reached.wait()
    await sqlite_store.send_signal(run.id, RAISE, {"tokens": "many"})
    await sqlite_store.send_signal(run.id, RAISE, [1])
    await run.raise_limit(Budget(tokens=2_000))
    assert run.view()["scopes"]["limits"]["tokens"] == 2_000
    gate.open.set()
    assert (await run.result()).status == "completed"


async def test_a_handle_is_cancelled_and_the_run_goes_on_later(sqlite_store: Store) -> None:
    gate = Gate()
    workflow = gated(sqlite_store, gate, budget=Budget(tokens=1_000))
    run = await workflow.start("q")
    await gate.reached.wait()
    assert not run.done
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run.result()
    assert run.done
    gate.open.set()
    assert (await workflow.resume(run.id)).status == "completed"


async def test_what_cannot_begin_is_told_at_once(sqlite_store: Store) -> None:
    with pytest.raises(InvalidInput, match="empty"):
        await looking(sqlite_store).start(" ")
