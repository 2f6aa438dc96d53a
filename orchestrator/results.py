"""What a run comes to: its answer, how it ended, and what was spent on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from longthought.budgets import Amount, Clocks
from longthought.orchestrator.typed import output_json
from longthought.types import JSONObject

__all__ = ["ENDED", "Result", "counts_of", "out_of_budget", "spent_of"]

ENDED = ("completed", "incomplete")
"""Statuses of a run that has nothing left to do."""

_LIMITS = (
    "tokens",
    "output_tokens",
    "usd",
    "wall",
    "thinking",
    "thinking_tokens",
    "model_calls",
    "branches",
    "budget",
)


def out_of_budget(stop_reason: str) -> bool:
    """Whether a limit ended a run: one of its own (``tokens``), or of a scope above or below it,
    whose name then stands before it (``pool.tokens``)."""
    return stop_reason.rpartition(".")[2] in _LIMITS


@dataclass(frozen=True, slots=True)
class Result:
    """How an attempt left its run.

    ``status``: completed, incomplete (the best answer so far; ``stop_reason`` says why no more),
    parked, needs_attention, failed or cancelled. ``spent`` counts tokens, dollars, calls and
    seconds over all attempts. ``support`` says what the answer rests on. ``error`` says what went
    wrong: why the run failed, or why the first branch did where no thought came to its end.
    """

    id: str
    status: str
    stop_reason: str
    answer: str | None = None
    text: str = ""
    spent: JSONObject = field(default_factory=dict)
    support: JSONObject = field(default_factory=dict)
    waiting: Sequence[JSONObject] = ()
    error: str | None = None
    output: Any = None
    """The typed answer: an instance of the model given as ``output``, or the parsed JSON."""
    state: JSONObject = field(default_factory=dict, repr=False)
    """The final state of a graph of your own."""
    model_calls: int = 0
    """Calls this attempt made itself; 0 in a replay."""
    tool_calls: int = 0
    effects: int = 0

    def to_json(self) -> JSONObject:
        """What ``--json`` prints."""
        value: JSONObject = {
            "id": self.id,
            "answer": self.answer,
            "status": self.status,
            "stop_reason": self.stop_reason,
            "spent": self.spent,
        }
        if self.output is not None:
            value["output"] = output_json(self.output)
        if self.support:
            value["support"] = self.support
        if self.waiting:
            value["waiting"] = list(self.waiting)
        if self.error is not None:
            value["error"] = self.error
        return value


def spent_of(spent: Amount, overrun: Amount, clocks: Clocks) -> JSONObject:
    """What was spent, as results and traces show it: dollars and seconds beside the counts."""
    value = counts_of(spent)
    value["tool_calls"] = spent.tool_calls
    value["branches"] = spent.branches
    value["seconds"] = {name: round(seconds, 3) for name, seconds in clocks.view().items()}
    if overrun:
        value["overrun"] = overrun.to_json()
    return value


def counts_of(spent: Amount) -> JSONObject:
    """What calls of models have cost: tokens, dollars and their number."""
    amount = spent.to_json()
    value: JSONObject = {name: amount.get(name, 0) for name in ("tokens", "output_tokens")}
    if spent.thinking_tokens:
        value["thinking_tokens"] = spent.thinking_tokens
    return {**value, "usd": float(spent.usd), "model_calls": spent.model_calls}
