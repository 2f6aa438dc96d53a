"""Which of the samples to answer with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from longthought.orchestrator.strategies.policy import Outcome
from longthought.types import JSONObject

__all__ = ["Best", "Majority", "Selection", "Selector", "Weighted", "best", "majority", "weighted"]


@dataclass(frozen=True, slots=True)
class Selection:
    """The chosen branch and what it rests on."""

    ask: str | None
    support: JSONObject


class Selector(Protocol):
    """Chooses among outcomes. Failed and unparsable samples never vote; ties go to the first."""

    def spec(self) -> JSONObject:
        """Name and parameters."""
        ...

    def select(self, outcomes: Sequence[Outcome]) -> Selection:
        """The choice; ``ask`` is None when nothing can be chosen."""
        ...


class _Votes:
    """Votes or weights per answer, in the order in which the answers were first seen."""

    def __init__(self) -> None:
        self.first: dict[str, str] = {}
        self.weight: dict[str, float] = {}

    def add(self, outcome: Outcome, weight: float) -> None:
        answer = outcome["answer"]
        self.first.setdefault(answer, outcome["ask"])
        self.weight[answer] = self.weight.get(answer, 0.0) + weight

    def selection(self) -> Selection:
        if not self.weight:
            return Selection(None, {"votes": {}})
        ranked = sorted(self.weight.items(), key=lambda pair: -pair[1])  # stable: first seen wins
        margin = ranked[0][1] - (ranked[1][1] if len(ranked) > 1 else 0)
        return Selection(
            self.first[ranked[0][0]],
            {
                "votes": {answer: _number(weight) for answer, weight in ranked},
                "margin": _number(margin),
            },
        )


@dataclass(frozen=True, slots=True)
class Majority:
    """The most frequent answer; candidates the verifier turned down do not vote.

    With ``fallback`` they do where all of them were turned down.
    """

    fallback: bool = False

    def spec(self) -> JSONObject:
        """Name and parameters; ``fallback`` stands there when it is on."""
        pairs: JSONObject = {"name": "majority"}
        return {**pairs, "fallback": True} if self.fallback else pairs

    def select(self, outcomes: Sequence[Outcome]) -> Selection:
        """The first sample with the answer that has most votes."""
        answered = [outcome for outcome in outcomes if outcome["answer"] is not None]
        voters = [outcome for outcome in answered if outcome["passed"] is not False]
        if not voters and answered and self.fallback:
            fallen = _counted(answered).selection()
            return Selection(fallen.ask, {**fallen.support, "fallback": True})
        return _counted(voters).selection()


@dataclass(frozen=True, slots=True)
class Weighted:
    """The answer with the largest sum of verifier scores."""

    def spec(self) -> JSONObject:
        """Name and parameters."""
        return {"name": "weighted"}

    def select(self, outcomes: Sequence[Outcome]) -> Selection:
        """The first sample with the answer whose scores add up to most."""
        votes = _Votes()
        for outcome in outcomes:
            if outcome["answer"] is not None and (outcome["score"] or 0) > 0:
                votes.add(outcome, outcome["score"])
        return votes.selection()


@dataclass(frozen=True, slots=True)
class Best:
    """The sample with the highest score; without scores, the first that has an answer."""

    def spec(self) -> JSONObject:
        """Name and parameters."""
        return {"name": "best"}

    def select(self, outcomes: Sequence[Outcome]) -> Selection:
        """The sample with the highest score; a passed one goes before any other."""
        able = [o for o in outcomes if o["status"] == "finished"]
        if not able:
            return Selection(None, {"scores": {}})
        scores = {o["ask"]: o["score"] for o in able if o["score"] is not None}
        chosen = max(able, key=_rank)  # max keeps the first of equals
        return Selection(chosen["ask"], {"scores": scores})


def _counted(outcomes: Sequence[Outcome]) -> _Votes:
    votes = _Votes()
    for outcome in outcomes:
        votes.add(outcome, 1)
    return votes


def _rank(outcome: Outcome) -> tuple[bool, float, bool]:
    score = outcome["score"]
    return bool(outcome["passed"]), -1.0 if score is None else score, outcome["answer"] is not None


def _number(value: float) -> float | int:
    return int(value) if value == int(value) else round(value, 9)


def majority(*, fallback: bool = False) -> Majority:
    """Answer with the most frequent answer (self-consistency, arXiv:2203.11171).

    Candidates that the verifier turned down do not vote; where it turned all of them down there is
    no answer. With ``fallback`` they vote then, for a verifier that may err: the run has an answer,
    but since the verifier refused it the run ends as ``incomplete`` with ``rejected``.
    """
    return Majority(fallback)


def weighted() -> Weighted:
    """Answer with the answer whose verifier scores add up to most."""
    return Weighted()


def best() -> Best:
    """Answer with the sample that the verifier scored highest (best-of-N)."""
    return Best()
