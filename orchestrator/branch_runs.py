"""A branch from its ask to its end: what it starts from, and how what happens in it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from longthought.budgets import Scope
from longthought.errors import (
    BudgetExhausted,
    ControlFlow,
    Diverged,
    InvalidInput,
    PolicyError,
    ReplayStopped,
    StorageError,
    Suspended,
    UnknownOutcome,
    UnlabelledConcurrency,
)
from longthought.orchestrator.branches import Branch
from longthought.orchestrator.places import current_frame
from longthought.orchestrator.session import Session
from longthought.orchestrator.strategies.policy import Ask, Outcome

__all__ = ["FATAL", "RunBranch", "ended_by_limit", "new_branch", "run_to_end"]

FATAL = (Diverged, StorageError, UnlabelledConcurrency, UnknownOutcome, InvalidInput, PolicyError)
"""What ends the run, not just a branch: the run itself cannot be trusted to go on."""

RunBranch = Callable[[Session, Branch], Awaitable[None]]


def new_branch(
    session: Session,
    search: str,
    scope: Scope,
    ask: Ask,
    parent: Branch | None,
    live: asyncio.Event,
) -> Branch:
    """The branch for an ask of the search at a place; it goes on from its parent's conversation.

    ``scope`` is that of the search.
    """
    model, step = session.models[ask.model], ask.kind == "step"
    begun = parent.messages if parent else session.opening_of(model, step=step)
    messages = [dict(m) for m in begun]
    place = f"{search}/{ask.id}"
    return Branch(
        ask=ask,
        place=place,
        model=model,
        seat=session.seats.at(place, shares=True),
        scope=scope.child(
            ask.id, session.branch_budget, level="branch", spent=session.index.spent.get(place)
        ),
        sampling={**session.definition.sampling, **ask.sampling},
        live=live,
        messages=messages,  # type: ignore[arg-type]
        step=step,
        opening=parent.opening if parent else len(begun),
    )


async def run_to_end(session: Session, branch: Branch, run_branch: RunBranch) -> str:
    """Run a branch to its end and say how it ended; what ends the run as well is raised."""
    try:
        with current_frame().places.enter(branch.ask.id, branch=branch):
            await run_branch(session, branch)
    except ReplayStopped:
        return _recorded_end(session, branch)
    except Suspended:
        branch.status = "parked"
        return "parked"
    except asyncio.CancelledError:
        if branch.status == "cancelling":
            branch.status = "cancelled"
            return "cancelled"
        if branch.task.cancelling():
            raise
        branch.reason = "CancelledError: something inside the branch was cancelled"
    except BudgetExhausted as error:
        branch.reason = error.reason
        # out of its own limit it has failed alone: the search goes on
        branch.status = "failed" if error.scope == "branch" else "exhausted"
        return "failed"
    except (*FATAL, ControlFlow):
        raise
    except Exception as error:  # whatever goes wrong in one branch leaves its siblings alone
        branch.reason = f"{type(error).__name__}: {error}"
    else:
        branch.status = "finished"
        return "finished"
    branch.status = "failed"
    return "failed"


def _recorded_end(session: Session, branch: Branch) -> str:
    """How a branch ended whose recording stops before it is through."""
    event = session.index.ends.get(branch.place)
    if event is None:
        branch.status = "cut off"
        return "cancelled"
    how: str = event.body["how"]
    branch.reason = event.body.get("reason", "")
    branch.status = "failed" if how == "failed" else how
    return how


def ended_by_limit(outcome: Outcome) -> bool:
    """Whether a limit of more than the branch cut it short, or left it unjudged."""
    return outcome["status"] != "failed" and bool(outcome.get("reason"))
