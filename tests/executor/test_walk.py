"""A graph that is walked goes through the nodes, states and places that LangGraph would."""

from __future__ import annotations

import asyncio
import operator
from typing import Annotated, Any, TypedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.errors import GraphRecursionError, NodeCancelledError
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command

from longthought.errors import InvalidInput
from longthought.orchestrator.graphs.placed import compile_graph
from longthought.orchestrator.graphs.walk import Walk
from longthought.orchestrator.places import Places, current_frame

NAMES = ("a", "b", "d")
LIMIT = 12


class State(TypedDict, total=False):
    seen: list[str]
    left: list[int]


Table = dict[str, tuple[bool, str]]


def machine(table: Table, seen: list[str]) -> tuple[Any, dict[str, Any]]:
    """A graph whose nodes note their places.

    ``table`` says of each node whether it goes where the state says, and else along which edge.
    """
    builder = StateGraph(State, context_schema=dict)

    def node(name: str, commands: bool) -> Any:
        async def work(state: State, runtime: Any) -> Any:
            assert runtime.context["here"]
            seen.append(current_frame().path)
            where, *left = state.get("left") or [0]
            update = {"seen": [*state.get("seen", []), name], "left": left}
            if not commands:
                return update
            return Command(update=update, goto=(*NAMES, END)[where - 1] if where else ())

        return work

    nodes = {name: node(name, commands) for name, (commands, _) in table.items()}
    for name, function in nodes.items():
        builder.add_node(name, function, destinations=(*NAMES, END))
        commands, target = table[name]
        if target and not (commands and target != END):
            builder.add_edge(name, target)
    builder.add_edge(START, NAMES[0])
    return builder, nodes


@settings(max_examples=60, deadline=None)
@given(
    choices=st.lists(st.integers(0, len(NAMES) + 1), max_size=8),
    rows=st.tuples(*[st.tuples(st.booleans(), st.sampled_from(["", *NAMES, END]))] * len(NAMES)),
)
async def test_a_walk_is_what_langgraph_does(
    choices: list[int], rows: tuple[tuple[bool, str], ...]
) -> None:
    went: list[Any] = []
    for walked in (False, True):
        seen: list[str] = []
        builder, nodes = machine(dict(zip(NAMES, rows, strict=True)), seen)
        state: State = {"left": choices}
        context: Any = {"here": True}
        with Places().root():
            try:
                if walked:
                    end = await Walk(builder, nodes).run(state, context, limit=LIMIT)
                else:
                    graph = compile_graph(builder)
                    config = {"recursion_limit": LIMIT}
                    end = await graph.ainvoke(state, config, context=context)
            except GraphRecursionError:
                end = "no end"
        went.append((end, seen))
    assert went[0] == went[1]


async def walk(builder: Any, nodes: dict[str, Any]) -> Any:
    with Places().root():
        return await Walk(builder, nodes).run({"left": [2]}, {"here": True}, limit=LIMIT)  # type: ignore[arg-type]


async def test_what_forks_is_not_walked() -> None:
    table: Table = dict.fromkeys(NAMES, (False, END))
    builder, nodes = machine(table, [])
    builder.add_edge("a", "d")
    with pytest.raises(InvalidInput, match="forks or joins"):
        Walk(builder, nodes)
    builder, nodes = machine(table, [])
    builder.add_conditional_edges("a", lambda state: "d", ["d"])
    with pytest.raises(InvalidInput, match="conditional edges"):
        Walk(builder, nodes)
    builder, nodes = machine(table, [])
    with pytest.raises(InvalidInput, match="Name \\['a', 'b', 'd'\\]"):
        Walk(builder, {"a": nodes["a"]})
    builder, nodes = machine({**table, "a": (True, "")}, [])
    builder.add_edge("a", "d")
    with pytest.raises(InvalidInput, match="an edge and a command"):
        await walk(builder, nodes)


def test_a_state_that_is_folded_is_not_walked() -> None:
    class Folded(TypedDict):
        seen: Annotated[list[str], operator.add]

    async def node(state: Folded, runtime: Any) -> Folded:
        return {"seen": ["here"]}

    builder = StateGraph(Folded)
    builder.add_node("a", node)
    builder.add_edge(START, "a")
    with pytest.raises(InvalidInput, match="reducers for \\['seen'\\]"):
        Walk(builder, {"a": node})


async def test_a_cancellation_inside_a_node_is_its_failure() -> None:
    builder, nodes = machine(dict.fromkeys(NAMES, (False, END)), [])

    async def cancelled(state: State, runtime: Any) -> State:
        raise asyncio.CancelledError

    with pytest.raises(NodeCancelledError, match="'a'"):
        await walk(builder, {**nodes, "a": cancelled})

    started = asyncio.Event()

    async def waits(state: State, runtime: Any) -> State:
        started.set()
        await asyncio.Event().wait()
        return state

    task = asyncio.create_task(walk(builder, {**nodes, "a": waits}))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
