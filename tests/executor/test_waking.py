"""Parked runs are woken when they are due: by a timer, by a signal, by a tool's late result."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from longthought import Budget, Context, Result, Store, Workflow, strategies
from longthought.errors import InvalidInput
from longthought.orchestrator.models.scripted import ScriptedModel, call, says
from longthought.storage import audit, export_run, verify_export
from longthought.tools import ToolCall, ToolContext, pending, run_tool, tool
from tests.executor.copies import copy_prefix
from tests.executor.workflows import turns_of
from tests.moved_time import TimeOfDay

HOUR = 3600.0


class State(TypedDict, total=False):
    question: str
    answer: str


def graph_of(*nodes: Any) -> Any:
    graph: Any = StateGraph(State, context_schema=Context)
    before = START
    for node in nodes:
        graph.add_node(node.__name__, node)
        graph.add_edge(before, node.__name__)
        before = node.__name__
    graph.add_edge(before, END)
    return graph


async def ask_first(state: State, runtime: Runtime[Context]) -> State:
    await runtime.context.model("first")
    return {}


async def rest(state: State, runtime: Runtime[Context]) -> State:
    await runtime.context.sleep(HOUR)
    return {}


async def ask_last(state: State, runtime: Runtime[Context]) -> State:
    reply = await runtime.context.model("last")
    return {"answer": str(reply["message"]["content"])}


def sleeping(store: Store, **more: Any) -> Workflow:
    model = ScriptedModel(lambda request: f"re: {request['messages'][-1]['content']}")
    nodes = graph_of(ask_first, rest, ask_last)
    return Workflow("sleeping", model=model, graph=nodes, store=store, **more)


def nothing_is_held(workflow: Workflow) -> bool:
    """No permit, no lease and no branch of the generation controller."""
    view = workflow._shared_controller().view()
    held = [(one["in_use"], one["waiting"]) for one in view["backends"].values()]
    return view["branches"] == {} and set(held) == {(0, 0)}


async def attempts_of(store: Store, run_id: str) -> int:
    return (await store.row(run_id)).attempt


async def sound(store: Store) -> None:
    report = await audit(store)
    assert report.ok, report.findings


async def test_a_long_sleep_parks_the_run_until_it_is_due(store: Store, clock: TimeOfDay) -> None:
    workflow = sleeping(store)
    parked = await workflow.run("go")
    assert (parked.status, parked.model_calls) == ("parked", 1)
    (wait,) = parked.waiting
    assert wait["name"] == "sleep"
    assert nothing_is_held(workflow)
    await sound(store)
    assert (await workflow.replay(parked.id)).status == "parked"

    assert await workflow.wake() == []
    clock.ahead = HOUR - 120
    assert await workflow.wake() == []
    still = await workflow.resume(parked.id)  # by hand, and too early
    assert (still.status, still.waiting) == ("parked", [wait])
    await sound(store)

    clock.ahead = HOUR + 1
    (done,) = await workflow.wake()
    assert (done.id, done.status, done.model_calls) == (parked.id, "completed", 1)
    assert await workflow.wake() == []
    assert await attempts_of(store, parked.id) == 3
    assert nothing_is_held(workflow)
    await sound(store)
    assert verify_export(await export_run(store, parked.id)) == []
    replayed = await workflow.replay(parked.id)
    assert (replayed.answer, replayed.model_calls) == (done.answer, 0)


async def test_a_parked_run_spends_no_time(store: Store, clock: TimeOfDay) -> None:
    workflow = sleeping(store, budget=Budget(wall=600))
    parked = await workflow.run("go")
    clock.ahead = 2 * HOUR
    (done,) = await workflow.wake()
    assert done.status == "completed"
    assert done.spent["seconds"]["wall"] < 600
    assert parked.status == "parked"


@pytest.mark.parametrize("park_after", [None, 60.0])
async def test_a_short_sleep_stays_in_the_process(store: Store, park_after: float | None) -> None:
    async def nap(state: State, runtime: Runtime[Context]) -> State:
        await runtime.context.sleep(0.001)
        return {}

    model = ScriptedModel(lambda _: "done")
    nodes = graph_of(nap, ask_last)
    workflow = Workflow("nap", model=model, graph=nodes, store=store, park_after=park_after)
    done = await workflow.run("go")
    assert (done.status, done.model_calls) == ("completed", 1)
    assert await attempts_of(store, done.id) == 1
    kinds = [e.body["kind"] for e in (await store.read(done.id)).events if "kind" in e.body]
    assert kinds.count("sleep") == 2
    assert (await workflow.replay(done.id)).status == "completed"


async def test_the_time_of_a_sleep_is_kept_over_a_crash(store: Store, clock: TimeOfDay) -> None:
    """The sleep of an attempt that was killed is gone on with, not begun anew."""
    begun = asyncio.Event()

    async def until_then(state: State, runtime: Runtime[Context]) -> State:
        begun.set()
        await runtime.context.sleep(HOUR)
        return {}

    model = ScriptedModel(lambda _: "done")
    nodes = graph_of(until_then, ask_last)
    workflow = Workflow("long", model=model, graph=nodes, store=store, park_after=None)
    task = asyncio.create_task(workflow.run("go", run_id="r"))
    while not any(event.type == "effect_started" for event in await _events(store, "r")):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    clock.ahead = HOUR + 1
    done = await workflow.resume("r")  # there is nothing left to sleep
    assert done.status == "completed"
    await sound(store)


async def _events(store: Store, run_id: str) -> list[Any]:
    try:
        return (await store.read(run_id)).events
    except InvalidInput:
        return []


async def test_another_time_to_sleep_is_another_workflow(store: Store, clock: TimeOfDay) -> None:
    parked = await sleeping(store).run("go")

    async def longer(state: State, runtime: Runtime[Context]) -> State:
        await runtime.context.sleep(2 * HOUR)
        return {}

    longer.__name__ = "rest"
    model = ScriptedModel(lambda request: f"re: {request['messages'][-1]['content']}")
    nodes = graph_of(ask_first, longer, ask_last)
    changed = Workflow("sleeping", model=model, graph=nodes, store=store)
    clock.ahead = 3 * HOUR
    (result,) = await changed.wake()
    assert (result.id, result.status) == (parked.id, "needs_attention")
    assert "3600 s" in str(result.error)
    assert await changed.wake() == []  # it waits for a person
    assert (await sleeping(store).resume(parked.id)).status == "completed"
    await sound(store)


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), True])
async def test_what_is_no_time_is_told(sqlite_store: Store, seconds: float) -> None:
    async def badly(state: State, runtime: Runtime[Context]) -> State:
        await runtime.context.sleep(seconds)
        return {}

    model = ScriptedModel(lambda _: "done")
    workflow = Workflow("bad", model=model, graph=graph_of(badly), store=sqlite_store)
    with pytest.raises(InvalidInput, match="seconds"):
        await workflow.run("go")


@pytest.mark.parametrize("wrong", [-1.0, float("nan")])
def test_a_threshold_that_is_no_time_is_told(wrong: float) -> None:
    with pytest.raises(InvalidInput, match="park_after"):
        Workflow("bad", park_after=wrong)


async def test_bad_figures_for_a_waker_are_told(sqlite_store: Store) -> None:
    with pytest.raises(InvalidInput, match="at_once"):
        await sleeping(sqlite_store).wake(at_once=0)
    with pytest.raises(InvalidInput, match="limit"):
        await sleeping(sqlite_store).wake(limit=0)


# -- whose a run is -----------------------------------------------------------------------------


def told_whose(store: Store, seen: list[str | None]) -> Workflow:
    """A workflow that waits for a review and notes for whom its slots count."""

    async def whose(state: State, runtime: Runtime[Context]) -> State:
        context = runtime.context
        seen.append(context.session.seats.at("/whose").slot.tenant)  # type: ignore[arg-type]
        await context.model("ask")
        await context.suspend("review")
        return {}

    model = ScriptedModel(lambda _: "x")
    return Workflow("whose", model=model, graph=graph_of(whose), store=store)


async def test_a_woken_run_keeps_its_tenant(store: Store) -> None:
    seen: list[str | None] = []
    parked = await told_whose(store, seen).run("go", tenant="blue")
    other = told_whose(store, seen)  # as in another process
    assert (await other.resume(parked.id)).status == "parked"
    assert (await other.resume(parked.id, tenant="red")).status == "parked"
    await store.send_signal(parked.id, "review")
    (done,) = await other.wake()
    assert (done.status, seen) == ("completed", ["blue", "blue", "red", "blue"])
    await sound(store)


async def test_a_tenant_is_no_part_of_what_is_asked(sqlite_store: Store) -> None:
    runs = [
        await told_whose(sqlite_store, []).run("go", tenant=tenant, run_key=b"k" * 16)
        for tenant in ("blue", None)
    ]
    asked = [
        [(e.key, e.body["request"]) for e in (await sqlite_store.read(run.id)).events if e.key]
        for run in runs
    ]
    assert asked[0] == asked[1] != []
    manifests = [(await sqlite_store.read(run.id)).manifest() for run in runs]
    assert [one.pop("tenant", None) for one in manifests] == ["blue", None]
    assert manifests[0] == manifests[1]
    with pytest.raises(InvalidInput, match="tenant"):
        await told_whose(sqlite_store, []).run("go", tenant="")


# -- signals and tools --------------------------------------------------------------------------


async def review(state: State, runtime: Runtime[Context]) -> State:
    return {"answer": str(await runtime.context.suspend("review"))}


def reviewed(store: Store, name: str = "reviewed") -> Workflow:
    return Workflow(name, model=ScriptedModel(lambda _: "x"), graph=graph_of(review), store=store)


async def test_a_signal_wakes_its_run_and_no_other(store: Store) -> None:
    workflow = reviewed(store)
    ids = [(await workflow.run("go")).id for _ in range(3)]
    other = (await reviewed(store, "another").run("go")).id
    await store.send_signal(ids[1], "review", "good")
    await store.send_signal(other, "review", "not mine")
    (done,) = await workflow.wake()
    assert (done.id, done.answer) == (ids[1], "good")
    assert [await attempts_of(store, run_id) for run_id in ids] == [1, 2, 1]
    assert (await store.row(other)).status == "parked"


async def test_a_signal_for_something_else_wakes_once_and_for_nothing(store: Store) -> None:
    workflow = reviewed(store)
    parked = await workflow.run("go")
    await store.send_signal(parked.id, "weather", "fine")
    (still,) = await workflow.wake()
    assert still.status == "parked"
    assert await workflow.wake() == []
    assert await attempts_of(store, parked.id) == 2
    await sound(store)


JOBS: Counter[str] = Counter()
TOLD: dict[str, tuple[str, str, str]] = {}


async def begin(name: str, context: ToolContext) -> Any:
    JOBS[name] += 1
    TOLD[name] = (context.run_id, context.signal, context.key)
    return pending({"job": name})


@tool(effect="write", name="build")
async def build(name: str, context: ToolContext) -> Any:
    """Build something.

    Args:
        name: what.
    """
    return await begin(name, context)


@tool(effect="read", name="build")
async def survey(name: str, context: ToolContext) -> Any:
    """Look at something for long.

    Args:
        name: what.
    """
    return await begin(name, context)


@tool(effect="write", idempotent=True, name="build")
async def build_again(name: str, context: ToolContext) -> Any:
    """Build something, once for each key.

    Args:
        name: what.
    """
    return await begin(name, context)


def building(request: Any) -> Any:
    if turns_of(request) == 0:
        return says("building", call("build", name="a"), call("build", name="b"))
    texts = [str(m["content"]) for m in request["messages"] if m["role"] == "tool"]
    return " and ".join(texts)


def builds(store: Store, job: Any, **more: Any) -> Workflow:
    JOBS.clear()
    TOLD.clear()
    return Workflow("builds", model=ScriptedModel(building), tools=[job], store=store, **more)


async def test_a_tool_finished_from_outside_parks_its_run(store: Store) -> None:
    """Writes one after the other: each is begun once, its result comes by a signal."""
    workflow = builds(store, build)
    parked = await workflow.run("go")
    assert (parked.status, JOBS) == ("parked", {"a": 1})
    (wait,) = parked.waiting
    assert (wait["name"], wait["ask"]) == ("result:build", {"job": "a"})
    assert TOLD["a"] == (parked.id, "result:build", wait["key"])
    assert parked.spent["tool_calls"] == 1
    assert nothing_is_held(workflow)
    await sound(store)
    assert (await workflow.replay(parked.id)).status == "parked"
    assert (await workflow.resume(parked.id)).status == "parked"
    assert JOBS == {"a": 1}

    await workflow.signal(TOLD["a"][0], TOLD["a"][1], {"size": 3}, key=TOLD["a"][2])
    (again,) = await workflow.wake()
    assert (again.status, JOBS) == ("parked", {"a": 1, "b": 1})
    assert again.spent["tool_calls"] == 2
    await workflow.signal(parked.id, "result:build", {"error": "no space"}, key=TOLD["b"][2])
    (done,) = await workflow.wake()
    assert (done.status, done.answer) == ("completed", '{"size": 3} and no space')
    assert done.spent["tool_calls"] == 2
    assert JOBS == {"a": 1, "b": 1}
    await sound(store)
    replayed = await workflow.replay(parked.id)
    assert (replayed.answer, replayed.tool_calls) == (done.answer, 0)
    assert replayed.spent["tool_calls"] == 2
    recording = await store.read(parked.id)
    ends = [
        recording.get(e.body["result"])["status"]
        for e in recording.events
        if e.type == "effect_finished" and e.body["kind"] == "tool"
    ]
    assert ends == ["ok", "tool_error"]


async def test_reads_that_are_finished_from_outside_wait_side_by_side(store: Store) -> None:
    workflow = builds(store, survey)
    parked = await workflow.run("go")
    assert (parked.status, JOBS, len(parked.waiting)) == ("parked", {"a": 1, "b": 1}, 2)
    for name in ("b", "a"):
        run_id, signal, key = TOLD[name]
        await workflow.signal(run_id, signal, name.upper(), key=key)
    (done,) = await workflow.wake()
    assert (done.status, done.answer) == ("completed", "A and B")
    assert JOBS == {"a": 1, "b": 1}
    assert done.spent["tool_calls"] == 2
    await sound(store)
    assert (await workflow.replay(parked.id)).answer == done.answer


async def test_a_result_that_comes_before_the_run_has_parked_is_not_lost(store: Store) -> None:
    @tool(effect="write", name="build")
    async def quick(name: str, context: ToolContext) -> Any:
        """Begin and end at once.

        Args:
            name: what.
        """
        await store.send_signal(context.run_id, context.signal, name, context.key)
        return pending()

    done = await builds(store, quick).run("go")
    assert (done.status, done.answer) == ("completed", "a and b")


async def test_a_call_of_a_graphs_own_may_be_finished_from_outside(store: Store) -> None:
    async def act(state: State, runtime: Runtime[Context]) -> State:
        result = await runtime.context.tool("build", name="a")
        return {"answer": result.content}

    JOBS.clear()
    model = ScriptedModel(lambda _: "x")
    workflow = Workflow("own", model=model, tools=[survey], graph=graph_of(act), store=store)
    parked = await workflow.run("go")
    assert (parked.status, len(parked.waiting)) == ("parked", 1)
    assert (await workflow.replay(parked.id)).status == "parked"
    await workflow.signal(parked.id, "result:build", "built")
    (done,) = await workflow.wake()
    assert (done.status, done.answer, JOBS) == ("completed", "built", {"a": 1})
    assert (await workflow.replay(parked.id)).answer == "built"
    await sound(store)


async def test_a_pending_result_outside_a_run_says_so() -> None:
    result = await run_tool(survey, ToolCall("c1", "build", {"name": "a"}))
    assert (result.status, result.data) == ("pending", {"job": "a"})


async def test_searches_wait_for_tools_of_several_branches(store: Store) -> None:
    def script(request: Any) -> Any:
        if turns_of(request) == 0:
            return says("", call("build", name=f"s{request['sampling']['seed']}"))
        return str(request["messages"][-1]["content"])

    JOBS.clear()
    workflow = Workflow(
        "votes",
        model=ScriptedModel(script),
        tools=[build],
        strategy=strategies.sample(3, select=strategies.majority()),
        parallel=3,
        store=store,
    )
    parked = await workflow.run("go")
    assert (parked.status, len(parked.waiting)) == ("parked", 3)
    assert nothing_is_held(workflow)
    for wait in parked.waiting:
        await workflow.signal(parked.id, wait["name"], "the same", key=wait["key"])
    (done,) = await workflow.wake()
    assert (done.status, done.answer, sum(JOBS.values())) == ("completed", "the same", 3)
    assert (await workflow.replay(parked.id)).answer == done.answer
    await sound(store)


# -- cut off anywhere ---------------------------------------------------------------------------


async def _until_done(workflow: Workflow, run_id: str) -> Result:
    """Resume, and answer whatever it waits for."""
    result = await workflow.resume(run_id, force=True)
    for _ in range(3):
        for wait in result.waiting:
            await workflow.signal(run_id, wait["name"], wait["ask"]["job"], key=wait["key"])
        if result.status == "parked":
            result = await workflow.resume(run_id)
    return result


@pytest.mark.parametrize("job", [survey, build_again], ids=["read", "write"])
async def test_a_waiting_call_resumes_from_any_prefix(sqlite_store: Store, job: Any) -> None:
    """Whatever was last recorded: a call that waits is not made again, and its result is told."""
    store = sqlite_store
    workflow = builds(store, job)
    whole = await _until_done(workflow, (await workflow.run("go", run_key=b"k" * 16)).id)
    assert (whole.status, whole.answer) == ("completed", "a and b")
    recording = await store.read(whole.id)
    for length in range(2, recording.length):
        copied = await copy_prefix(store, recording, length)
        begun = {e.key for e in recording.events[:length] if e.key.endswith("!result:signal")}
        JOBS.clear()
        result = await _until_done(workflow, copied)
        where = f"cut after event {length}: {recording.events[length - 1]}"
        assert (result.status, result.answer) == (whole.status, whole.answer), where
        assert sum(JOBS.values()) == 2 - len(begun), where
        after = (await store.read(copied)).events
        finished = Counter(e.key for e in after if e.type == "effect_finished")
        assert set(finished.values()) == {1}, where
        assert (await workflow.replay(copied)).answer == whole.answer, where
        assert nothing_is_held(workflow), where
