"""Waiting for signals: the run parks, and goes on where it was."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Send

from longthought import Budget, Context, Store, Workflow, answers, strategies
from longthought.errors import InvalidInput
from longthought.orchestrator.models.scripted import ScriptedModel, call, says
from longthought.tools import tool
from tests.executor.workflows import jitter, turns_of


class State(TypedDict, total=False):
    out: Annotated[list[str], operator.add]
    item: int
    answer: str


def echo(request: Any) -> str:
    return f"re: {request['messages'][-1]['content']}"


async def prepare(state: State, runtime: Runtime[Context]) -> State:
    reply = await runtime.context.model("prepare")
    return {"out": [str(reply["message"]["content"])]}


async def approve(state: State, runtime: Runtime[Context]) -> State:
    value = await runtime.context.suspend("approval", {"really": True})
    return {"out": [f"approved: {value}"]}


async def finish(state: State, runtime: Runtime[Context]) -> State:
    reply = await runtime.context.model("finish")
    return {"answer": "; ".join([*state["out"], str(reply["message"]["content"])])}


def approval_graph() -> Any:
    graph: Any = StateGraph(State, context_schema=Context)
    for node in (prepare, approve, finish):
        graph.add_node(node.__name__, node)
    graph.add_edge(START, "prepare")
    graph.add_edge("prepare", "approve")
    graph.add_edge("approve", "finish")
    graph.add_edge("finish", END)
    return graph


def approving(store: Store, script: Any = echo, **more: Any) -> Workflow:
    model = ScriptedModel(script, latency=jitter)
    return Workflow("approving", model=model, graph=approval_graph(), store=store, **more)


async def test_a_run_parks_and_goes_on_after_its_signal(store: Store) -> None:
    workflow = approving(store)
    parked = await workflow.run("go")
    assert (parked.status, parked.model_calls) == ("parked", 1)
    assert parked.waiting[0]["name"] == "approval"
    assert parked.waiting[0]["ask"] == {"really": True}
    assert (await workflow.replay(parked.id)).status == "parked"

    still = await workflow.resume(parked.id)
    assert (still.status, still.model_calls) == ("parked", 0)

    await workflow.signal(parked.id, "approval", {"by": "Ada", "ja": "ü"})
    done = await workflow.resume(parked.id)
    assert (done.status, done.model_calls) == ("completed", 1)
    assert "Ada" in str(done.answer)
    replayed = await workflow.replay(parked.id)
    assert (replayed.answer, replayed.model_calls) == (done.answer, 0)


async def test_a_signal_for_something_else_does_not_wake(store: Store) -> None:
    workflow = approving(store)
    parked = await workflow.run("go")
    await workflow.signal(parked.id, "weather", "fine")
    assert (await workflow.resume(parked.id)).status == "parked"


async def test_parked_runs_survive_a_changed_prompt(store: Store) -> None:
    """Twenty parked runs and a deployed change: none lost, none silently different."""
    ids = [(await approving(store).run(f"question {i}")).id for i in range(20)]
    for run_id in ids:
        await store.send_signal(run_id, "approval", "yes")

    async def changed_prepare(state: State, runtime: Runtime[Context]) -> State:
        reply = await runtime.context.model("prepare differently")
        return {"out": [str(reply["message"]["content"])]}

    graph = approval_graph()
    graph.nodes["prepare"].runnable = _node_of(changed_prepare)
    changed = Workflow("approving", model=ScriptedModel(echo), graph=graph, store=store)
    for run_id in ids:
        result = await changed.resume(run_id)
        assert result.status == "needs_attention"
        assert "prepare differently" in str(result.error)
        assert result.model_calls == 0
    for run_id in ids:
        result = await approving(store).resume(run_id)
        assert (result.status, result.model_calls) == ("completed", 1)
        assert "yes" in str(result.answer)


def _node_of(function: Any) -> Any:
    graph: Any = StateGraph(State, context_schema=Context)
    graph.add_node("node", function)
    return graph.nodes["node"].runnable


async def test_patched_lets_new_code_serve_old_runs(store: Store) -> None:
    old = await approving(store).run("go")

    async def patched_prepare(state: State, runtime: Runtime[Context]) -> State:
        new = await runtime.context.patched("politely")
        reply = await runtime.context.model("prepare, please" if new else "prepare")
        return {"out": [str(reply["message"]["content"])]}

    def patched_workflow() -> Workflow:
        graph = approval_graph()
        graph.nodes["prepare"].runnable = _node_of(patched_prepare)
        return Workflow("approving", model=ScriptedModel(echo), graph=graph, store=store)

    await store.send_signal(old.id, "approval", "yes")
    result = await patched_workflow().resume(old.id)
    assert result.status == "completed"
    assert "please" not in str(result.answer)
    new = await patched_workflow().run("go")
    await store.send_signal(new.id, "approval", "yes")
    result = await patched_workflow().resume(new.id)
    assert "please" in str(result.answer)
    assert (await patched_workflow().replay(new.id)).answer == result.answer
    assert (await patched_workflow().replay(old.id)).status == "completed"


async def side(state: State, runtime: Runtime[Context]) -> State:
    ctx = runtime.context
    first = str((await ctx.model(f"side {state['item']}"))["message"]["content"])
    if state["item"] % 2:
        value = await ctx.suspend(f"side{state['item']}")
        first += f" {value}"
    second = str((await ctx.model(f"more {state['item']}"))["message"]["content"])
    return {"out": [first, second]}


async def test_a_suspension_lets_its_siblings_finish(store: Store) -> None:
    """LangGraph cancels the siblings of a node that raises; here none of their work is lost."""
    graph: Any = StateGraph(State, context_schema=Context)
    graph.add_node("side", side)
    graph.add_node("end", lambda state: {"answer": "|".join(sorted(state["out"]))})
    graph.add_conditional_edges(
        START, lambda state: [Send("side", {"item": i}) for i in range(4)], ["side"]
    )
    graph.add_edge("side", "end")
    graph.add_edge("end", END)
    model = ScriptedModel(echo, latency=jitter)
    workflow = Workflow("sides", model=model, graph=graph, store=store)
    parked = await workflow.run("go")
    assert (parked.status, parked.model_calls) == ("parked", 4 + 2)
    assert sorted(wait["name"] for wait in parked.waiting) == ["side1", "side3"]
    await workflow.signal(parked.id, "side1", "one")
    again = await workflow.resume(parked.id)
    assert (again.status, again.model_calls) == ("parked", 1)
    await workflow.signal(parked.id, "side3", "three")
    done = await workflow.resume(parked.id)
    assert (done.status, done.model_calls) == ("completed", 1)
    assert "one" in str(done.answer)
    assert "three" in str(done.answer)


@tool(effect="write", approval="always")
async def launch(what: str) -> str:
    """Launch something.

    Args:
        what: it.
    """
    return f"launched {what}"


def launching(request: Any) -> Any:
    if turns_of(request) == 0:
        return says("now", call("launch", what="rocket"))
    return f"done: {request['messages'][-1]['content']}"


async def test_approval_parks_a_branch_of_a_search(store: Store) -> None:
    model = ScriptedModel(launching, latency=jitter)
    workflow = Workflow(
        "launching",
        model=model,
        tools=[launch],
        strategy=strategies.sample(2, select=strategies.best()),
        store=store,
    )
    parked = await workflow.run("go")
    assert (parked.status, len(parked.waiting)) == ("parked", 2)
    first, second = (wait["key"] for wait in parked.waiting)
    await workflow.signal(parked.id, "approve:launch", True, key=first)
    await workflow.signal(parked.id, "approve:launch", False, key=second)
    done = await workflow.resume(parked.id)
    assert (done.status, done.tool_calls) == ("completed", 1)
    recording = await store.read(parked.id)
    results = [
        recording.get(e.body["result"])["status"]
        for e in recording.events
        if e.type == "effect_finished" and e.body["kind"] == "tool"
    ]
    assert sorted(results) == ["denied", "ok"]
    assert (await workflow.replay(parked.id)).answer == done.answer


async def test_data_of_a_tool_reads_the_same_after_a_wait(store: Store) -> None:
    """Code may say it in a prompt as it stands: the order of its keys is part of that."""

    @tool(effect="read")
    async def look(at: str) -> dict[str, Any]:
        """Look."""
        return {"z": 1, "a": [{"y": 2, "b": at}]}

    async def work(state: State, runtime: Runtime[Context]) -> State:
        seen = await runtime.context.tool("look", {"at": "it"})
        await runtime.context.model(f"Seen: {seen.data}")
        return {"answer": await runtime.context.suspend("go")}

    graph: Any = StateGraph(State, context_schema=Context)
    graph.add_node("work", work)
    graph.add_edge(START, "work")
    graph.add_edge("work", END)
    workflow = Workflow(
        "ordered", model=ScriptedModel(echo), graph=graph, tools=[look], store=store
    )
    run = await workflow.run("q")
    await workflow.signal(run.id, "go", "on")
    (woken,) = await workflow.wake()
    assert (woken.status, woken.answer) == ("completed", "on")


@pytest.mark.parametrize("name", ["", "a\nb", "bell\a", "\x85", None])
async def test_what_is_no_name_is_neither_sent_nor_waited_for(
    sqlite_store: Store, name: Any
) -> None:
    workflow = approving(sqlite_store)
    parked = await workflow.run("go")
    with pytest.raises(InvalidInput, match=r"is no name|control characters"):
        await workflow.signal(parked.id, name, "yes")
    assert await sqlite_store.waiting_signals(parked.id) == 0

    async def wait(state: State, runtime: Runtime[Context]) -> State:
        await runtime.context.suspend(name)
        return {"answer": "never"}

    graph = approval_graph()
    graph.nodes["approve"].runnable = _node_of(wait)
    waiting = Workflow("waiting", model=ScriptedModel(echo), graph=graph, store=sqlite_store)
    with pytest.raises(InvalidInput, match=r"is no name|control characters"):
        await waiting.run("go")


async def test_a_run_that_has_ended_takes_no_signal(sqlite_store: Store) -> None:
    workflow = approving(sqlite_store)
    parked = await workflow.run("go")
    await workflow.signal(parked.id, "approval", "yes")
    assert (await workflow.resume(parked.id)).status == "completed"
    with pytest.raises(InvalidInput, match=r"has ended \(completed\) and takes no signal"):
        await workflow.signal(parked.id, "approval", "again")
    assert await sqlite_store.waiting_signals(parked.id) == 0

    unsure = Workflow("unsure", model=ScriptedModel(echo), answer=answers.number())
    unsure.store = sqlite_store
    unanswered = await unsure.run("go")
    assert unanswered.status == "incomplete"
    with pytest.raises(InvalidInput, match="takes no signal"):
        await unsure.signal(unanswered.id, "approval", "yes")


async def test_a_run_that_a_limit_has_ended_still_takes_a_signal(sqlite_store: Store) -> None:
    workflow = approving(sqlite_store, budget=Budget(model_calls=1))
    parked = await workflow.run("go")
    await workflow.signal(parked.id, "approval", "yes")
    short = await workflow.resume(parked.id)
    assert (short.status, short.stop_reason) == ("incomplete", "model_calls")
    await workflow.signal(parked.id, "other", "yes")
    assert await sqlite_store.waiting_signals(parked.id) == 1
    done = await workflow.resume(parked.id, budget=Budget(model_calls=9))
    assert done.status == "completed"
