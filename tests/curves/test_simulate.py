"""Policies on samples that are there: the real ones, compared with what can be counted by hand."""

from __future__ import annotations

from collections import Counter
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longthought import strategies
from longthought.errors import InvalidInput, PolicyError
from longthought.orchestrator.curves import Banked, Draw, Question, Simulated, orders, simulate
from longthought.orchestrator.curves.estimate import coverage, estimate
from longthought.orchestrator.strategies import Ask, Pick


def draws(*texts: str) -> list[Draw]:
    """Samples: an answer, "" for none, "!" for one that failed, "+" for one that was verified."""
    return [
        Draw(
            answer=text.strip("+-") or None if text != "!" else None,
            status="failed" if text == "!" else "finished",
            passed="+" in text if "+" in text or "-" in text else None,
            score=1.0 if "+" in text else 0.0,
        )
        for text in texts
    ]


def banked(drawn: list[Draw]) -> Banked:
    return Banked(Question("q", "1+1?", "2"), "run", tuple(drawn))


@given(count=st.integers(1, 70), data=st.data())
@settings(max_examples=80, deadline=None)
def test_orders_use_every_sample_equally(count: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, count))
    found = orders(count, size, "seed")
    assert all(sorted(order) == list(range(count)) for order in found)
    assert found == orders(count, size, "seed")
    used = Counter(place for order in found for place in order[:size])
    assert set(used) == set(range(count))
    if size == 1:  # an estimate at one sample is the mean of the bank
        assert len(set(used.values())) == 1


def test_orders_are_the_same_luck_for_every_strategy() -> None:
    assert orders(16, 4, "1 q") == orders(16, 4, "1 q") != orders(16, 4, "2 q")


def test_votes_are_counted_by_the_first_samples_of_the_order() -> None:
    bank = draws("1", "2", "2", "1", "1")
    assert simulate(strategies.sample(3), bank, (0, 1, 2, 3, 4)) == Simulated(1, 3)
    assert simulate(strategies.sample(3), bank, (4, 3, 2, 1, 0)) == Simulated(4, 3)
    assert simulate(strategies.sample(2), bank, (1, 0, 2, 3, 4)) == Simulated(1, 2)  # first seen
    assert simulate(strategies.sample(2), draws("", "!"), (0, 1)) == Simulated(None, 2)
    assert simulate(strategies.single(), bank, (2, 0, 1, 3, 4)) == Simulated(2, 1)


def test_a_wave_that_was_asked_for_counts_in_full() -> None:
    bank = draws("1-", "2+", "3-", "4-", "5-")
    order = (0, 1, 2, 3, 4)
    best = strategies.best_of(5)
    assert simulate(best, bank, order, verified=True) == Simulated(1, 4)
    assert simulate(strategies.best_of(5, wave=1), bank, order, verified=True) == Simulated(1, 2)
    beta = strategies.sample(5, wave=1, stop=strategies.beta(0.9))
    assert simulate(beta, draws(*"77712"), order) == Simulated(0, 3)


def test_only_a_verified_way_hears_verdicts() -> None:
    bank = draws("1-", "1-", "2+")
    vote = strategies.sample(3)
    assert simulate(vote, bank, (0, 1, 2)) == Simulated(0, 3)
    assert simulate(vote, bank, (0, 1, 2), verified=True) == Simulated(2, 3)


def test_a_bank_that_is_too_small_ends_the_search() -> None:
    assert simulate(strategies.sample(9), draws("1", "2", "2"), (0, 1, 2)) == Simulated(1, 3)


@given(
    texts=st.lists(st.sampled_from(["1", "2", "3", "", "!", "2+", "1-"]), min_size=1, max_size=5),
    kind=st.sampled_from(["majority", "checked", "best-of", "beta", "weighted"]),
    verified=st.booleans(),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_over_all_orders_it_is_the_expectation(
    texts: list[str], kind: str, verified: bool, data: st.DataObject
) -> None:
    """``estimate`` over every permutation is what a count over every permutation gives."""
    size = data.draw(st.integers(1, len(texts)))
    policy = {
        "majority": strategies.sample(size),
        "checked": strategies.sample(size, select=strategies.majority(fallback=True)),
        "best-of": strategies.best_of(size, wave=1),
        "beta": strategies.sample(size, wave=1, stop=strategies.beta(0.6)),
        "weighted": strategies.sample(size, select=strategies.weighted()),
    }[kind]
    bank = draws(*texts)
    graded = [draw.answer == "2" for draw in bank]
    every = list(permutations(range(len(bank))))
    right, cost = estimate(policy, banked(bank), graded, every, verified)
    expected = [by_hand(kind, [bank[place] for place in order], size, verified) for order in every]
    assert right == pytest.approx(sum(answer == "2" for answer, _ in expected) / len(every))
    assert cost[0] == pytest.approx(sum(used for _, used in expected) / len(every))


def by_hand(kind: str, drawn: list[Draw], size: int, verified: bool) -> tuple[str | None, int]:
    """Answer and samples used, written down once more without any policy."""
    seen: list[Draw] = []
    for draw in drawn[:size]:
        seen.append(draw)
        able = [d for d in seen if not (verified and d.passed is False)]
        votes = Counter(d.answer for d in able if d.answer).most_common(2)
        if kind == "best-of" and verified and draw.passed:
            return draw.answer, len(seen)
        if kind == "beta" and votes:
            ahead = strategies.stoppers.lead_probability(
                votes[0][1], votes[1][1] if len(votes) > 1 else 0
            )
            if ahead > 0.6:
                break
    if kind == "checked" and verified and all(d.passed is False for d in seen if d.answer):
        verified = False
    weights: dict[str, float] = {}
    for draw in seen:
        turned_down = verified and draw.passed is False
        if draw.answer and kind in ("majority", "checked", "beta") and not turned_down:
            weights[draw.answer] = weights.get(draw.answer, 0) + 1
        if draw.answer and kind == "weighted" and verified and (draw.score or 0) > 0:
            weights[draw.answer] = weights.get(draw.answer, 0) + (draw.score or 0)
    if kind == "best-of":
        able = [draw for draw in seen if draw.status == "finished"]
        rank: Any = lambda d: (d.score if verified else -1.0, d.answer is not None)  # noqa: E731
        return (max(able, key=rank).answer if able else None), len(seen)
    return (max(weights, key=lambda a: weights[a]) if weights else None), len(seen)


def test_the_expectation_at_one_sample_is_the_mean() -> None:
    bank = draws("2", "1", "2", "", "!", "2", "3")
    found = orders(len(bank), 1, "any")
    graded = [draw.answer == "2" for draw in bank]
    right, _ = estimate(strategies.sample(1), banked(bank), graded, found)
    assert right == pytest.approx(3 / 7)


@given(
    graded=st.lists(st.booleans(), min_size=1, max_size=7),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_coverage_is_the_share_of_subsets_with_a_right_one(
    graded: list[bool], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(graded)))
    every = list(permutations(graded, k))
    expected = sum(any(chosen) for chosen in every) / len(every)
    assert coverage(len(graded), sum(graded), k) == pytest.approx(expected)


class Odd:
    """Asks for what no bank holds, or for nothing."""

    name = "odd"

    def __init__(self, *asks: Ask) -> None:
        self.asks = list(asks)

    def spec(self) -> dict[str, Any]:
        return {"name": self.name}

    def start(self, question: str, seed: int) -> dict[str, Any]:
        return {"rejected": []}

    def ask(self, state: dict[str, Any], room: int) -> list[Ask]:
        return self.asks[:room]

    def tell(self, state: dict[str, Any], outcome: dict[str, Any]) -> None:
        if outcome["type"] == "rejected":
            state["rejected"].append(outcome["ask"])
        elif outcome["type"] == "told":
            state["last"] = outcome["ask"]
            self.asks = []

    def done(self, state: dict[str, Any]) -> Pick | None:
        last = state.get("last")
        if last is None:
            return None
        return Pick(last, "done", final=last in state["rejected"])


def test_what_is_no_function_of_independent_samples_is_refused() -> None:
    bank = draws("1-")
    for ask in (
        Ask("a", "step"),
        Ask("a", parent="b"),
        Ask("a", sampling={"temperature": 0.0}),
        Ask("a", model=1),
    ):
        with pytest.raises(InvalidInput, match="more than independent samples"):
            simulate(Odd(ask), bank, (0,))
    with pytest.raises(PolicyError, match="neither asks nor ends"):
        simulate(Odd(), bank, (0,))


def test_a_pick_that_the_verifier_turned_down_is_rejected_as_in_a_run() -> None:
    policy = Odd(Ask("a"))
    assert simulate(policy, draws("1-"), (0,), verified=True) == Simulated(0, 1)
