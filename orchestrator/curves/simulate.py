"""A policy at work on samples that are there already: the real one, asked and told, no call."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from longthought.errors import InvalidInput, PolicyError
from longthought.orchestrator.curves.bank import Draw
from longthought.orchestrator.strategies import Ask, Policy
from longthought.types import JSONObject

__all__ = ["Simulated", "orders", "simulate"]

Order = tuple[int, ...]
"""The places of the samples in the bank, in the order in which a policy is given them."""

_ORDERS = 16
"""Orders that an estimate averages over at least, where the bank has so many."""


@dataclass(frozen=True, slots=True)
class Simulated:
    """What a policy did: which sample it picked (its place in the bank) and how many it asked for.

    ``picked`` is None if it settled on no answer.
    """

    picked: int | None
    used: int


def orders(count: int, size: int, seed: str) -> list[Order]:
    """Orders in which ``count`` samples are given to policies that use up to ``size`` of them.

    They are rotations of random permutations. So every sample stands equally often at every place
    as far as the numbers allow, an estimate at one sample is the exact mean of the bank, and the
    whole bank is used at every size. They depend on nothing but the arguments: all policies of one
    size meet the same luck.
    """
    rotations = max(-(-count // size), min(count, _ORDERS))
    draw = random.Random(seed)
    found: list[Order] = []
    while len(found) < min(_ORDERS, rotations * count):
        permutation = list(range(count))
        draw.shuffle(permutation)
        for number in range(rotations):
            start = number * count // rotations
            found.append((*permutation[start:], *permutation[:start]))
    return found


def simulate(
    policy: Policy,
    draws: Sequence[Draw],
    order: Sequence[int],
    *,
    verified: bool = False,
    question: str = "",
) -> Simulated:
    """Drive a policy with recorded samples in an order, as the executor would.

    A wave that was asked for counts in full, also if its first sample settles the matter: the
    others are under way by then. Outcomes are told in order; ``verified`` says whether with the
    verifier's verdict.

    Raises:
        InvalidInput: the policy asks for something else than independent samples.
        PolicyError: it neither asks nor ends.
    """
    return fold(policy, [draw.outcome(verified) for draw in draws], order, question)


def fold(
    policy: Policy, outcomes: Sequence[JSONObject], order: Sequence[int], question: str
) -> Simulated:
    """:func:`simulate` on outcomes as policies are told them, built once for many orders."""
    state = policy.start(question, 0)
    places: dict[str, int] = {}
    waiting: list[str] = []
    exhausted = False
    while True:
        pick = policy.done(state)
        if pick is not None:
            picked = places[pick.ask] if pick.ask is not None else None
            rejected = picked is not None and outcomes[picked]["passed"] is False
            if not rejected or pick.final:
                return Simulated(picked, len(places))
            # as the run's verify node does
            policy.tell(state, {"type": "rejected", "ask": pick.ask})
        if waiting:
            ask = waiting.pop(0)
            policy.tell(state, {**outcomes[places[ask]], "ask": ask})
            continue
        left = len(order) - len(places)
        asks = policy.ask(state, left) if left else []
        for ask_, place in zip(asks, order[len(places) :], strict=False):
            _check(policy, ask_)
            places[ask_.id] = place
            waiting.append(ask_.id)
        if not asks and (left or exhausted) and policy.done(state) is None:
            raise PolicyError(f"{policy.name} neither asks nor ends")
        if not asks:
            policy.tell(state, {"type": "exhausted", "scope": "bank", "kind": "branches"})
            exhausted = True


def _check(policy: Policy, ask: Ask) -> None:
    changes = set(ask.sampling) - {"seed"}
    if ask.kind != "sample" or ask.parent is not None or ask.model or changes:
        raise InvalidInput(
            "strategies",
            f"{policy.name} asks for more than independent samples ({ask.to_json()})",
            "Run it as a live way",
        )
