"""From a bank to figures: each way at each size, question by question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

from longthought.orchestrator.curves.bank import Answered, Banked, Draw
from longthought.orchestrator.curves.bootstrap import Values
from longthought.orchestrator.curves.costs import Cost
from longthought.orchestrator.curves.questions import Question
from longthought.orchestrator.curves.simulate import Order, fold, orders
from longthought.orchestrator.curves.ways import Sampled
from longthought.orchestrator.strategies import Policy
from longthought.verifiers import AnswerKind, grade

__all__ = ["Bank", "Figures", "coverage"]


@dataclass(frozen=True, slots=True)
class Figures:
    """One way at one size: for each question the share of orders in which it was right, in
    [0, 1], and the mean cost over orders and questions.
    """

    right: Values
    cost: Cost


class Bank:
    """The samples of every question, graded once. Policies see the samples and never the grades."""

    def __init__(self, entries: Sequence[Banked], kind: AnswerKind, seed: int = 0) -> None:
        self.entries, self._seed = entries, seed
        self.right = [_graded(kind, entry.question, entry.draws) for entry in entries]

    def per_sample(self) -> Cost:
        """The mean cost of one sample."""
        return _mean([draw.cost for entry in self.entries for draw in entry.draws])

    def sampled(self, way: Sampled, size: int) -> Figures:
        """A way at one size, averaged over orders of the samples; see :func:`orders`.

        Raises:
            InvalidInput: its policy asks for something else than independent samples.
        """
        policy = way.policy(size)
        right, cost = [], np.zeros(len(Cost().values))
        for entry, graded in zip(self.entries, self.right, strict=True):
            found = orders(len(entry.draws), size, f"{self._seed} {entry.question.id}")
            share, spent = estimate(policy, entry, graded, found, way.verified)
            right.append(share)
            cost += spent
        return Figures(np.array(right), Cost(*(cost / len(self.entries)).tolist()))

    def covered(self, size: int) -> Figures:
        """``pass@k``: the probability that one of ``size`` samples is right, without bias."""
        right = [coverage(len(graded), sum(graded), size) for graded in self.right]
        return Figures(np.array(right), scaled(self.per_sample(), size))


def estimate(
    policy: Policy,
    entry: Banked,
    graded: Sequence[bool],
    found: Sequence[Order],
    verified: bool = False,
) -> tuple[float, NDArray[np.float64]]:
    """One question: the share of orders in which the policy is right, and its mean cost."""
    outcomes = [draw.outcome(verified) for draw in entry.draws]
    used = np.zeros(len(entry.draws))  # in how many orders each sample was asked for
    right = 0
    for order in found:
        done = fold(policy, outcomes, order, entry.question.text)
        right += done.picked is not None and graded[done.picked]
        used[list(order[: done.used])] += 1
    costs = np.array([draw.cost.values for draw in entry.draws])
    return right / len(found), used @ costs / len(found)


def coverage(samples: int, right: int, k: int) -> float:
    """The probability that ``k`` of ``samples`` hold at least one of the ``right`` ones.

    The estimator of Chen et al. 2021 (arXiv:2107.03374), exact in whole numbers.
    """
    return 1 - comb(samples - right, k) / comb(samples, k)


def live(answers: Sequence[Answered], kind: AnswerKind) -> Figures:
    """A way that was run once for each question."""
    right = [float(grade(kind, one.answer, one.question.gold)) for one in answers]
    return Figures(np.array(right), _mean([one.cost for one in answers]))


def scaled(cost: Cost, by: float) -> Cost:
    """So many times a cost."""
    return Cost(*(value * by for value in cost.values))


def _mean(costs: Sequence[Cost]) -> Cost:
    return scaled(sum(costs, Cost()), 1 / len(costs))


def _graded(kind: AnswerKind, question: Question, draws: Sequence[Draw]) -> list[bool]:
    known: dict[str | None, bool] = {None: False}
    for draw in draws:
        if draw.answer not in known:
            known[draw.answer] = grade(kind, draw.answer, question.gold)
    return [known[draw.answer] for draw in draws]
