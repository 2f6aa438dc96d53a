"""The policy protocol: a strategy is a pure fold that asks, is told, and picks.

A policy never waits, never reads a clock and keeps everything in a JSON state that the executor
hands it: the same inputs in the same order give the same asks. Concurrency, budgets, recording and
cancellation are the executor's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from longthought.types import JSON, JSONObject, Sampling

__all__ = ["Ask", "AskKind", "Outcome", "Pick", "Policy", "State", "told"]

State: TypeAlias = JSONObject
"""The state of a policy: JSON, changed in place by the policy alone."""

AskKind: TypeAlias = Literal["sample", "step", "revise", "continue", "verify"]


@dataclass(frozen=True, slots=True)
class Ask:
    """One branch the policy wants.

    ``id`` is unique within the search and names the branch in keys and traces. ``parent`` is the
    branch whose conversation it goes on from, None for the question alone. ``sampling`` is merged
    over the workflow's. ``model`` is the index of one of the workflow's models.
    """

    id: str
    kind: AskKind = "sample"
    parent: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    model: int = 0

    def to_json(self) -> JSONObject:
        """The form that is shown and recorded."""
        value: JSONObject = {"id": self.id, "kind": self.kind}
        if self.parent is not None:
            value["parent"] = self.parent
        if self.sampling:
            value["sampling"] = dict(self.sampling)
        if self.model:
            value["model"] = self.model
        return value


Outcome: TypeAlias = JSONObject
"""What a policy is told. ``type`` is one of

- ``told``: a branch ended. ``ask``, ``status`` (finished, failed, exhausted), ``answer`` (canonical
  or None), ``final`` (the line of thought has ended), ``score`` and ``passed`` (None without a
  verifier), ``tokens``; ``reason`` names the limit or the error of one that is not finished.
- ``cancelled``: the branches in ``asks`` will not be told.
- ``rejected``: the run's verify node turned down the pick ``ask``.
- ``exhausted``: the limit ``kind`` of ``scope`` is used up; nothing more can be asked.
- ``limit_raised``: there is room again.
"""


@dataclass(frozen=True, slots=True)
class Pick:
    """What the policy settles on. ``ask`` None: there is no answer.

    ``final`` says that the policy will not go on even if the pick is rejected. ``support`` says
    what the pick rests on: votes and margin, scores, how many of N came back.
    """

    ask: str | None
    stop_reason: str
    final: bool = False
    support: JSONObject = field(default_factory=dict)


class Policy(Protocol):
    """A strategy. Everything in it is configuration; what happens is in the state."""

    @property
    def name(self) -> str:
        """The strategy's name, as in ``single``."""
        ...

    def spec(self) -> JSONObject:
        """Name and parameters, for fingerprints and listings."""
        ...

    def start(self, question: str, seed: int) -> State:
        """The state before anything was asked."""
        ...

    def ask(self, state: State, room: int) -> list[Ask]:
        """At most ``room`` new branches; none when it waits for those under way or has ended."""
        ...

    def tell(self, state: State, outcome: Outcome) -> None:
        """Take one input in."""
        ...

    def done(self, state: State) -> Pick | None:
        """The pick, or None to go on. Changes nothing."""
        ...


def told(state: State) -> list[Outcome]:
    """The outcomes of all branches told so far, in order."""
    outcomes: list[Outcome] = state["told"]
    return outcomes


def brief(outcome: Outcome) -> dict[str, JSON]:
    """The fields of an outcome that policies keep in their state."""
    names = ("ask", "status", "answer", "final", "score", "passed", "reason")
    return {name: outcome.get(name) for name in names}
