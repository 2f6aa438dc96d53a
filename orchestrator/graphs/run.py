"""The graph of a run: route -> explore -> verify -> answer, and back from verify to explore.

route      names the strategy (a router may put another one in its place)
explore    lets the policy work until it picks
verify     reads the verdict the executor already has on the pick
backtrack  tells the same policy that its pick was rejected
answer     settles the answer; asks a last time if the budget ended every line of thought
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command

from longthought.errors import BackendError, BudgetExhausted
from longthought.orchestrator.effects import call_model
from longthought.orchestrator.graphs.branch import last_call
from longthought.orchestrator.graphs.placed import Builder
from longthought.orchestrator.search import Search
from longthought.orchestrator.strategies import Pick, Policy
from longthought.types import Candidate, JSONObject, Verdict, text_of

if TYPE_CHECKING:
    from longthought.orchestrator.context import Context

__all__ = ["RunState", "answer", "backtrack", "explore", "route", "run_graph", "verify"]


class RunState(TypedDict, total=False):
    """The state of a run's graph.

    ``outcome`` is what the run comes to: answer, text, stop_reason, support, ask; ``unfinished`` if
    the thought it was taken from did not come to its end, and ``error`` if failed branches are why
    none did. A graph of your own is read for ``answer`` and ``text`` at its end.
    """

    policy: Policy
    search: Search
    pick: Pick
    candidate: Candidate | None
    verdict: Verdict | None
    rejected: bool
    outcome: JSONObject


async def route(state: RunState, runtime: Runtime[Context]) -> dict[str, Any]:
    """Choose the strategy: the workflow's own."""
    return {"policy": state.get("policy") or runtime.context.session.definition.strategy}


async def explore(state: RunState, runtime: Runtime[Context]) -> dict[str, Any]:
    """Let the policy ask until it picks."""
    search = state.get("search") or runtime.context.new_search(state["policy"])
    pick = await search.explore()
    branch = search.branches[pick.ask] if pick.ask is not None else None
    return {
        "search": search,
        "pick": pick,
        "candidate": branch.candidate if branch else None,
        "verdict": branch.verdict if branch else None,
    }


async def verify(state: RunState, runtime: Runtime[Context]) -> dict[str, Any]:
    """Read the verdict on the pick; a pick that failed is rejected."""
    verdict = state.get("verdict")
    return {"rejected": verdict is not None and verdict.passed is False}


def after_verify(state: RunState) -> Literal["backtrack", "answer"]:
    """Back if the pick was rejected and the policy can go on."""
    again = state["rejected"] and not state["pick"].final
    return "backtrack" if again else "answer"


async def backtrack(state: RunState, runtime: Runtime[Context]) -> dict[str, Any]:
    """Tell the policy; it goes on from the state it is in."""
    state["search"].reject(state["pick"])
    return {"rejected": False}


async def answer(state: RunState, runtime: Runtime[Context]) -> dict[str, Any]:
    """Settle the answer, with a last question to the model if all ran out before one was given."""
    pick, candidate = state["pick"], state.get("candidate")
    if candidate is None:
        candidate = await _last_answer(state, runtime.context)
    reason = "rejected" if state["rejected"] and pick.stop_reason == "all_samples" else None
    outcome: JSONObject = {
        "answer": candidate.answer if candidate else None,
        "text": candidate.text if candidate else "",
        "stop_reason": reason or pick.stop_reason,
        "support": pick.support,
        "ask": pick.ask,
    }
    error = None
    if candidate is None or not candidate.final:
        error = _first_failure(state["search"])
    if error is None and outcome["answer"] is None:
        error = _first_misfit(state["search"])
    outcome |= {} if error is None else {"error": error}
    if candidate is not None and not candidate.final:
        outcome["unfinished"] = True
    return {"outcome": outcome}


def _first_failure(search: Search) -> str | None:
    """Why the first of the failed branches failed, in the order in which they were asked for."""
    failed = (branch.reason for branch in search.branches.values() if branch.status == "failed")
    return next((reason for reason in failed if reason), None)


def _first_misfit(search: Search) -> str | None:
    """What was wrong with the typed answer of the first branch whose was not valid."""
    misfits = (branch.misfit for branch in search.branches.values() if branch.misfit)
    return next((f"output: {misfit}" for misfit in misfits), None)


async def _last_answer(state: RunState, ctx: Context) -> Candidate | None:
    """Spend what was kept back for the end on the line of thought that got furthest."""
    branches = state["search"].branches.values()
    cut = [b for b in branches if b.status == "exhausted" or b.reason.startswith("branch.")]
    own = any(b.reason.startswith("branch.") for b in cut)
    if not cut or not (own or ctx.session.scope.keeps_back):
        return None
    furthest = max(cut, key=lambda branch: len(branch.messages))
    call = last_call(ctx.session, furthest)
    left = ctx.session.clocks.look_in(ctx.session.budget)  # nothing is begun that time is up for
    # a raised limit may bring the run here again, with another line of thought
    place = ctx.label(f"limit{state['search'].raises}")
    try:
        with place:
            async with asyncio.timeout(left):
                reply = await call_model(ctx.session, call)
    except (BackendError, BudgetExhausted, TimeoutError):
        return None
    return ctx.candidate(text_of(reply["message"]))


async def _verify_and_go(
    state: RunState, runtime: Runtime[Context]
) -> Command[Literal["backtrack", "answer"]]:
    """``verify`` and ``after_verify`` in one: a conditional edge costs half a superstep more."""
    update = await verify(state, runtime)
    return Command(update=update, goto=after_verify({**state, **update}))  # type: ignore[typeddict-item]


def run_graph() -> Builder:
    """The graph a workflow runs on unless it brings its own."""
    from longthought.orchestrator.context import Context

    graph: Builder = StateGraph(RunState, context_schema=Context)
    for node in (route, explore, backtrack, answer):
        graph.add_node(node.__name__, node)
    graph.add_node("verify", _verify_and_go, destinations=("backtrack", "answer"))
    graph.add_edge(START, "route")
    graph.add_edge("route", "explore")
    graph.add_edge("explore", "verify")
    graph.add_edge("backtrack", "explore")
    graph.add_edge("answer", END)
    return graph
