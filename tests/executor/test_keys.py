"""Keys name where an effect is, never when it was called."""

from __future__ import annotations

import asyncio
import operator
import random
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import RetryPolicy, Send

from longthought import Context, Store, Workflow, strategies, tool
from longthought.errors import InvalidInput, UnlabelledConcurrency
from longthought.orchestrator.graphs.placed import compile_graph
from longthought.orchestrator.models.scripted import ScriptedModel, call, says
from tests.executor.workflows import jitter, looking

RUNS = 50


class State(TypedDict, total=False):
    out: Annotated[list[str], operator.add]
    item: int
    answer: str


def echo(request: Any) -> str:
    return f"re: {request['messages'][-1]['content']}"


async def ask(ctx: Context, text: str) -> str:
    await asyncio.sleep(random.SystemRandom().uniform(0, 0.002))
    reply = await ctx.model(text)
    return str(reply["message"]["content"])


async def inner_first(state: State, runtime: Runtime[Context]) -> State:
    ctx = runtime.context
    return {"out": [await ask(ctx, f"first {state['item']} {i}") for i in range(2)]}


async def inner_second(state: State, runtime: Runtime[Context]) -> State:
    ctx = runtime.context
    parts = await ctx.gather(
        a=ask(ctx, f"second {state['item']} a"), b=ask(ctx, f"second {state['item']} b")
    )
    return {"out": list(parts.values())}


def inner_graph() -> Any:
    graph: Any = StateGraph(State, context_schema=Context)
    graph.add_node("first", inner_first)
    graph.add_node("second", inner_second)
    graph.add_edge(START, "first")
    graph.add_edge("first", "second")
    graph.add_edge("second", END)
    return graph


async def by_hand(state: State, runtime: Runtime[Context]) -> State:
    """A node that calls a graph itself, twice in a row, then two labelled ones side by side."""
    graph = compile_graph(inner_graph())
    out: list[str] = []
    for item in (70, 71):
        out += (await graph.ainvoke({"item": item}, context=runtime.context))["out"]
    ctx = runtime.context
    both = await ctx.gather(
        left=graph.ainvoke({"item": 80}, context=ctx),
        right=graph.ainvoke({"item": 81}, context=ctx),
    )
    return {"out": out + both["left"]["out"] + both["right"]["out"]}


def user_graph() -> Any:
    """Nested graph, subgraph under Send, labelled concurrency, plain nodes side by side."""
    graph: Any = StateGraph(State, context_schema=Context)
    graph.add_node("spread", lambda state: {})
    graph.add_node("sub", inner_graph().compile())
    graph.add_node("hand", by_hand)
    graph.add_node("beside", inner_first)
    graph.add_node("end", lambda state: {"answer": "|".join(sorted(state["out"]))})
    graph.add_edge(START, "spread")
    graph.add_conditional_edges(
        "spread",
        lambda state: (
            [Send("sub", {"item": i}) for i in range(3)]
            + [Send("beside", {"item": 50}), Send("hand", {})]
        ),
        ["sub", "beside", "hand"],
    )
    for node in ("sub", "beside", "hand"):
        graph.add_edge(node, "end")
    graph.add_edge("end", END)
    return graph


async def keys_and_requests(store: Store, run_id: str) -> dict[str, str]:
    recording = await store.read(run_id)
    found = [e for e in recording.events if e.type == "effect_finished"]
    keys = {e.key: e.body["request"] for e in found}
    assert len(keys) == len(found), "two effects have the same key"
    return keys


async def test_keys_are_distinct_and_equal_over_many_runs(sqlite_store: Store) -> None:
    model = ScriptedModel(echo, latency=jitter, slots=64)
    workflow = Workflow("nested", model=model, graph=user_graph(), store=sqlite_store)
    seen: dict[str, str] | None = None
    answers: set[Any] = set()
    for _ in range(RUNS):
        result = await workflow.run("go", run_key=b"k" * 16)
        answers.add(result.answer)
        keys = await keys_and_requests(sqlite_store, result.id)
        assert seen is None or keys == seen
        seen = keys
        assert (await workflow.replay(result.id)).answer == result.answer
    assert len(answers) == 1
    assert seen is not None
    assert len(seen) == 3 * 4 + 2 + 4 * 4


async def test_keys_of_searches_are_equal_over_many_runs(sqlite_store: Store) -> None:
    workflow = looking(sqlite_store)
    found = []
    for _ in range(RUNS):
        result = await workflow.run("q", run_key=b"k" * 16)
        found.append(await keys_and_requests(sqlite_store, result.id))
    assert all(keys == found[0] for keys in found)


async def test_graphs_that_a_tool_of_a_branch_runs_have_places_of_their_own(
    sqlite_store: Store,
) -> None:
    inner = compile_graph(one_node(inner_first))
    contexts: list[Context] = []

    @tool(effect="read")
    async def twice() -> str:
        """Run a graph twice."""
        found = [await inner.ainvoke({"item": i}, context=contexts[0]) for i in range(2)]
        return str(found)

    async def search(state: State, runtime: Runtime[Context]) -> State:
        contexts.append(runtime.context)
        await runtime.context.explore(strategies.single())
        return {"answer": "done"}

    def calls_once(request: Any) -> Any:
        last = request["messages"][-1]
        return says("", call("twice")) if last["content"] == "go" else "said"

    workflow = Workflow(
        "w",
        model=ScriptedModel(calls_once),
        tools=[twice],
        graph=one_node(search),
        store=sqlite_store,
    )
    keys = await keys_and_requests(sqlite_store, (await workflow.run("go")).id)
    inside = sorted(key.partition("tool/")[2] for key in keys if "tool/" in key)
    assert inside == [f"1.only{turn}#{i}:model" for turn in ("", "~1") for i in range(2)]


async def unlabelled(state: State, runtime: Runtime[Context]) -> State:
    ctx = runtime.context
    parts = await asyncio.gather(*(ask(ctx, str(i)) for i in range(3)))
    return {"answer": " ".join(parts)}


async def same_label(state: State, runtime: Runtime[Context]) -> State:
    ctx = runtime.context

    async def one(text: str) -> str:
        with ctx.label("same"):
            return await ask(ctx, text)

    return {"answer": " ".join(await asyncio.gather(one("a"), one("b")))}


async def late_tasks(state: State, runtime: Runtime[Context]) -> State:
    """Never two effects in flight at once, and still no order that a replay could rely on."""
    ctx = runtime.context
    first = await asyncio.create_task(ask(ctx, "a"))
    return {"answer": first + await asyncio.create_task(ask(ctx, "b"))}


async def two_graphs(state: State, runtime: Runtime[Context]) -> State:
    graph = compile_graph(inner_graph())
    ctx = runtime.context
    both = await asyncio.gather(*(graph.ainvoke({"item": i}, context=ctx) for i in range(2)))
    return {"answer": str(both)}


def one_node(node: Any) -> Any:
    graph: Any = StateGraph(State, context_schema=Context)
    graph.add_node("only", node)
    graph.add_edge(START, "only")
    graph.add_edge("only", END)
    return graph


@pytest.mark.parametrize("node", [unlabelled, same_label, late_tasks, two_graphs])
async def test_unlabelled_concurrency_raises(sqlite_store: Store, node: Any) -> None:
    workflow = Workflow("w", model=ScriptedModel(echo), graph=one_node(node), store=sqlite_store)
    result = await workflow.run("go")
    assert result.status == "failed"
    assert "label" in str(result.error)


async def test_a_graph_that_was_not_wrapped_is_noticed(sqlite_store: Store) -> None:
    async def calls_plain_graph(state: State, runtime: Runtime[Context]) -> State:
        await ask(runtime.context, "mine")
        plain = inner_graph().compile()
        return {"out": (await plain.ainvoke({"item": 1}, context=runtime.context))["out"]}

    workflow = Workflow(
        "w", model=ScriptedModel(echo), graph=one_node(calls_plain_graph), store=sqlite_store
    )
    result = await workflow.run("go")
    assert result.status == "failed"
    assert UnlabelledConcurrency.__name__ in result.stop_reason


def test_policies_of_langgraph_are_refused() -> None:
    graph: Any = StateGraph(State)
    graph.add_node("only", unlabelled, retry_policy=RetryPolicy())
    graph.add_edge(START, "only")
    with pytest.raises(InvalidInput, match="retry"):
        compile_graph(graph)
