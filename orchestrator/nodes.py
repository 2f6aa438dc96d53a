"""The nodes our own graphs are built from, for graphs of your own.

    from longthought.orchestrator import nodes

    graph.add_node("reason", nodes.reason)
    graph.add_node("act", nodes.act)
    graph.add_conditional_edges("reason", nodes.after_reason, {"act": "act", "judge": "judge"})

``reason``, ``act`` and ``judge`` work on the state :class:`Thought`; ``route``, ``explore``,
``verify``, ``backtrack`` and ``answer`` on :class:`RunState`.
"""

from longthought.orchestrator.graphs.branch import Thought, act, after_reason, judge, reason
from longthought.orchestrator.graphs.placed import compile_graph
from longthought.orchestrator.graphs.run import (
    RunState,
    after_verify,
    answer,
    backtrack,
    explore,
    route,
    run_graph,
    verify,
)

__all__ = [
    "RunState",
    "Thought",
    "act",
    "after_reason",
    "after_verify",
    "answer",
    "backtrack",
    "compile_graph",
    "explore",
    "judge",
    "reason",
    "route",
    "run_graph",
    "verify",
]
