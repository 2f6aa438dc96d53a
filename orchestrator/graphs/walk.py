"""Goes through a graph whose nodes follow one another, without LangGraph's supersteps.

A superstep finds out which nodes are due, makes a task of each, and folds what they write into
channels. Where one node follows another there is nothing to find out, and a branch takes two
supersteps for every call of a model: they cost more than all that is recorded of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from langgraph.channels import LastValue
from langgraph.errors import GraphRecursionError, NodeCancelledError
from langgraph.graph import END, START
from langgraph.runtime import Runtime
from langgraph.types import Command

from longthought.errors import InvalidInput
from longthought.orchestrator.graphs.placed import Builder
from longthought.orchestrator.places import current_frame, quote

if TYPE_CHECKING:
    from longthought.orchestrator.context import Context

__all__ = ["Walk"]

Node = Callable[[Any, Runtime[Any]], Awaitable[Any]]


class Walk:
    """A graph to be gone through node by node, with the places that LangGraph would give them.

    ``nodes`` are the functions behind the graph's nodes: each takes the state and the runtime and
    returns an update, or a ``Command`` that also says where to go. Every field of the state holds
    the last value written.

    Raises:
        InvalidInput: the graph forks or joins, its state has reducers, or nodes are missing.
    """

    def __init__(self, builder: Builder, nodes: Mapping[str, Node]) -> None:
        _check(builder, nodes)
        self._nodes = dict(nodes)
        self._next = dict(builder.edges)

    async def run(self, state: Mapping[str, Any], context: Context, *, limit: int) -> Any:
        """Go from start to end; returns the final state.

        Raises:
            GraphRecursionError: that takes more than ``limit`` nodes.
            NodeCancelledError: something inside a node was cancelled, and not this task.
            InvalidInput: a node that has an edge gives a command to go elsewhere.
        """
        runtime = Runtime(context=context)
        enter, values = current_frame().places.enter, dict(state)
        node = self._next[START]
        for step in range(1, limit + 1):
            with enter(f"{step}.{quote(node)}"):
                try:
                    update = await self._nodes[node](values, runtime)
                except asyncio.CancelledError as error:
                    task = asyncio.current_task()
                    if task is None or task.cancelling():
                        raise
                    raise NodeCancelledError(node) from error
            after = self._next.get(node, END)
            if isinstance(update, Command):
                after, update = _directed(node, update, after), update.update
            node, values = after, {**values, **(update or {})}
            if node == END:
                return values
        raise GraphRecursionError(f"the graph has not ended after {limit} nodes")


def _directed(node: str, command: Command[Any], after: str) -> str:
    """Where a command goes; LangGraph goes along the node's edge as well."""
    if not command.goto:
        return after
    if after != END:
        raise InvalidInput(f"node {node!r}", "has an edge and a command", "Leave one of them out")
    return str(command.goto)


def _check(builder: Builder, nodes: Mapping[str, Node]) -> None:
    starts = [start for start, _ in builder.edges]
    if set(nodes) != set(builder.nodes):
        raise InvalidInput("nodes", f"are {sorted(nodes)}", f"Name {sorted(builder.nodes)}")
    if len(set(starts)) != len(starts) or builder.waiting_edges or START not in starts:
        raise InvalidInput("graph", "forks or joins", "Compile it: LangGraph runs it")
    if any(builder.branches.values()):
        raise InvalidInput("graph", "has conditional edges", "Return a Command from the node")
    folded = [name for name, field in builder.channels.items() if not isinstance(field, LastValue)]
    if folded:
        raise InvalidInput("graph", f"has reducers for {folded}", "Compile it: LangGraph runs it")
