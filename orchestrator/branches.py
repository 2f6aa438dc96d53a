"""A branch as the executor sees it: one line of thought with its own tail of events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from longthought.budgets import Branch as Slot
from longthought.budgets import Scope
from longthought.orchestrator.seats import Seat
from longthought.orchestrator.strategies.policy import Ask, Outcome, Pick
from longthought.types import JSON, Candidate, JSONObject, Message, Model, Sampling, Verdict

if TYPE_CHECKING:
    from longthought.orchestrator.effects.early_starts import EarlyStarts

__all__ = ["Branch", "Decided", "named_by_limit"]


@dataclass(slots=True)
class Decided:
    """An event that is decided and not yet in the chain.

    ``settle`` is called when it enters the chain and may add fields to it. What a call did not use
    is free for others only from then on: freed earlier, it could stand in the record twice.
    """

    type: str
    key: str
    body: dict[str, JSON]
    settle: Callable[[], JSONObject] | None = None


@dataclass(slots=True)
class Branch:
    """State of one branch while it runs.

    ``tail`` holds events that are decided but not yet in the chain: they enter it together with the
    branch's next dispatch or its end, so that a branch's last result and its tell commit together.
    """

    ask: Ask
    place: str
    model: Model
    seat: Seat
    scope: Scope
    """What it spends, and may spend."""
    sampling: Sampling
    live: asyncio.Event
    """Set when the search has taken in every recorded input; live effects wait for it."""
    messages: list[Message]
    """The conversation so far; the branch's own list."""
    step: bool = False
    opening: int = 0
    """How many messages the conversation began with: system prompt and question."""
    tail: list[Decided] = field(default_factory=list)
    candidate: Candidate | None = None
    verdict: Verdict | None = None
    misfit: str = ""
    """What is wrong with its typed answer, empty if nothing is."""
    tokens: int = 0
    early: EarlyStarts | None = None
    """Tools that were started before the reply that asks for them had ended."""
    status: str = "new"
    reason: str = ""
    cut: str = ""
    """The limit of its own that cut it short (``branch.tokens``), whether or not it then gave an
    answer out of what that keeps back; empty if none did."""
    task: Any = None
    """The asyncio task, for cancelling."""

    @property
    def slot(self) -> Slot:
        """The controller's view of it."""
        return self.seat.slot

    def outcome(self) -> Outcome:
        """What the policy is told of the branch."""
        outcome: Outcome = {
            "type": "told",
            "ask": self.ask.id,
            "status": self.status,
            "answer": self.candidate.answer if self.candidate else None,
            "final": self.candidate.final if self.candidate else True,
            "score": self.verdict.score if self.verdict else None,
            "passed": self.verdict.passed if self.verdict else None,
            "tokens": self.tokens,
        }
        if self.reason:
            outcome["reason"] = self.reason
        return outcome


def named_by_limit(pick: Pick, branches: Iterable[Branch]) -> Pick:
    """A pick among all samples; where limits of their own cut short every one, it says which.

    That is the first one's, in the order in which they were asked for.
    """
    cuts = [branch.cut for branch in branches]
    if pick.stop_reason != "all_samples" or not cuts or not all(cuts):
        return pick
    return replace(pick, stop_reason=cuts[0])
