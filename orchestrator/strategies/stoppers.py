"""When to stop asking for samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Protocol

from longthought.errors import InvalidInput
from longthought.orchestrator.strategies.policy import Outcome
from longthought.types import JSONObject

__all__ = [
    "Beta",
    "FirstPass",
    "Never",
    "Stopper",
    "beta",
    "first_pass",
    "lead_probability",
    "never",
]


class Stopper(Protocol):
    """Says, from what was told, whether more samples would be wasted."""

    def spec(self) -> JSONObject:
        """Name and parameters."""
        ...

    def stop(self, outcomes: Sequence[Outcome]) -> str | None:
        """The reason to stop, or None to go on."""
        ...


@dataclass(frozen=True, slots=True)
class Never:
    """Goes on until all samples are there."""

    def spec(self) -> JSONObject:
        """Name and parameters."""
        return {"name": "never"}

    def stop(self, outcomes: Sequence[Outcome]) -> str | None:
        """Never."""
        return None


@dataclass(frozen=True, slots=True)
class FirstPass:
    """Stops at the first sample that the verifier passed."""

    def spec(self) -> JSONObject:
        """Name and parameters."""
        return {"name": "first_pass"}

    def stop(self, outcomes: Sequence[Outcome]) -> str | None:
        """``first_pass`` once a sample passed."""
        return "first_pass" if any(outcome["passed"] for outcome in outcomes) else None


@dataclass(frozen=True, slots=True)
class Beta:
    """Stops when the leading answer is ahead for good with more than this probability.

    Adaptive-Consistency, arXiv:2305.11860: the shares of the two most frequent answers are Beta
    distributed with a uniform prior. What the verifier turned down does not count, as in the vote:
    agreement on a refused answer is no reason to stop looking for another one.
    """

    threshold: float

    def spec(self) -> JSONObject:
        """Name and parameters."""
        return {"name": "beta", "threshold": self.threshold}

    def stop(self, outcomes: Sequence[Outcome]) -> str | None:
        """``agreement`` once the leader is certain enough."""
        able = [o for o in outcomes if o["answer"] is not None and o["passed"] is not False]
        votes = Counter(o["answer"] for o in able)
        counts = [count for _, count in votes.most_common(2)]
        if not counts:
            return None
        runner_up = counts[1] if len(counts) > 1 else 0
        return "agreement" if lead_probability(counts[0], runner_up) > self.threshold else None


def lead_probability(leader: int, runner_up: int) -> float:
    """P(the leader's true share is the larger one), Beta(leader + 1, runner_up + 1)."""
    n = leader + runner_up + 1
    return 1.0 - sum(comb(n, k) for k in range(runner_up + 1)) / float(2**n)


def never() -> Never:
    """Ask for all samples."""
    return Never()


def first_pass() -> FirstPass:
    """Stop at the first sample that the verifier passes."""
    return FirstPass()


def beta(threshold: float = 0.95) -> Beta:
    """Stop when the leading answer leads for good with more than ``threshold`` probability.

    Raises:
        InvalidInput: the threshold is not between 0.5 and 1.
    """
    if not 0.5 <= threshold < 1:
        raise InvalidInput("beta", f"{threshold} is no probability to lead", "Use 0.5 to 0.999")
    return Beta(threshold)
