"""Wraps the nodes of LangGraph graphs so that every effect inside knows its place."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langgraph.graph.state import CompiledStateGraph, StateGraph

from longthought.errors import ControlFlow, InvalidInput
from longthought.orchestrator.places import enter_node

__all__ = ["compile_graph", "graph_shape"]

# LangGraph's graphs are generic over four types that nothing here depends on.
Builder = StateGraph[Any, Any, Any, Any]
Compiled = CompiledStateGraph[Any, Any, Any, Any]


class _AsyncOnly(Runnable[Any, Any]):
    """What has no synchronous form: effects are awaited."""

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002
        raise InvalidInput("graph", "is run synchronously", "Use ainvoke, or Workflow.run_sync")


class _PlacedNode(_AsyncOnly):
    """A node that enters its place, runs, and on a suspension lets its siblings come to rest."""

    def __init__(self, inner: Runnable[Any, Any], name: str) -> None:
        self.inner, self.node = inner, name

    async def ainvoke(
        self,
        input: Any,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Any:
        assert config is not None  # noqa: S101 - LangGraph always gives one
        with enter_node(self.node, config) as frame:
            try:
                return await self.inner.ainvoke(input, config, **kwargs)
            except ControlFlow:
                if frame.parent is not None:
                    await frame.parent.until_siblings_rest(frame)
                raise


class _Step(_AsyncOnly):
    """A placed node and the writers after it, one after the other.

    LangGraph's own sequence does the same inside a callback manager and a task of their own, which
    costs more than all the rest of a superstep; a run is traced by its record.
    """

    def __init__(self, node: Runnable[Any, Any], writers: Sequence[Runnable[Any, Any]]) -> None:
        self.placed, self.writers = node, writers

    async def ainvoke(
        self,
        input: Any,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Any:
        token = var_child_runnable_config.set(config)  # what get_config() reads in a node
        try:
            output = await self.placed.ainvoke(input, config, **kwargs)
        finally:
            var_child_runnable_config.reset(token)
        for writer in self.writers:
            output = await writer.ainvoke(output, config)
        return output


def compile_graph(builder: Builder, *, name: str | None = None) -> Compiled:
    """Compile a graph with every node wrapped, nodes of subgraphs too; the builder is left alone.

    A graph that a node calls by hand has to be compiled with this function as well.

    Raises:
        InvalidInput: a node has a retry or cache policy (effects are retried and recorded by the
            executor), or a subgraph was compiled with a checkpointer.
    """
    wrapped = copy(builder)
    wrapped.nodes = {}
    for node, spec in builder.nodes.items():
        if spec.retry_policy is not None or spec.cache_policy is not None:
            raise InvalidInput(
                f"node {node!r}",
                "has a retry or cache policy of LangGraph's",
                "Leave it out: model and tool calls are retried and recorded one by one",
            )
        inner: Any = spec.runnable
        if isinstance(inner, CompiledStateGraph):
            inner = _recompiled(inner, node)
        elif isinstance(inner, _PlacedNode):
            raise InvalidInput(f"node {node!r}", "is wrapped already", "Pass the plain builder")
        placed = copy(spec)
        placed.runnable = _PlacedNode(inner, node)
        wrapped.nodes[node] = placed
    compiled = wrapped.compile(name=name)
    for node in wrapped.nodes:
        pregel = compiled.nodes[node]
        if pregel.flat_writers:
            pregel.node = _Step(pregel.bound, pregel.flat_writers)
    return compiled


def _recompiled(graph: Compiled, node: str) -> Compiled:
    if graph.checkpointer not in (None, False):
        raise InvalidInput(
            f"node {node!r}",
            "is a subgraph with a checkpointer",
            "Compile it without: the journal is the only state",
        )
    return compile_graph(graph.builder, name=graph.get_name())


def graph_shape(builder: Builder) -> dict[str, Any]:
    """Node names and edges, for the fingerprint of a workflow."""
    return {
        "nodes": sorted(builder.nodes),
        "edges": sorted([list(edge) for edge in builder.edges]),
        "branches": {node: sorted(branches) for node, branches in sorted(builder.branches.items())},
    }
