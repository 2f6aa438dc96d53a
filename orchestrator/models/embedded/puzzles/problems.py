"""Make-a-target puzzles: legal moves, what can be reached, and the split of training and held out.

Use every number once, with ``+ - * /``, and reach the target. Every intermediate result is an
integer from 0 to 255 and division is exact. Four-number puzzles are split by a hash of their
numbers: about three tenths of all multisets are reserved and never trained on, under any target.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import random
from dataclasses import dataclass
from typing import NamedTuple

from longthought.errors import InvalidInput

from . import vocabulary as v

__all__ = [
    "HELD_OUT_TARGET",
    "LARGEST_NUMBER",
    "LARGEST_TARGET",
    "Move",
    "Puzzle",
    "State",
    "apply",
    "held_out",
    "held_out_pool",
    "is_reserved",
    "moves",
    "multisets",
    "reachable",
    "solution_count",
    "training_multisets",
]

LARGEST_NUMBER = 13
LARGEST_TARGET = 100
HELD_OUT_TARGET = 24
_RESERVED_SHARE = 0.3

State = tuple[int, ...]
"""The numbers at hand, in ascending order."""


@dataclass(frozen=True, slots=True)
class Puzzle:
    """Numbers in ascending order and the target they are to make."""

    numbers: State
    target: int

    def __str__(self) -> str:
        return f"{' '.join(map(str, self.numbers))} -> {self.target}"


class Move(NamedTuple):
    """One step: two numbers become one. ``operator`` is a token, ``rest`` the numbers then left."""

    left: int
    operator: int
    right: int
    result: int
    rest: State


def apply(left: int, operator: int, right: int) -> int | None:
    """The exact result of one operation, or None if it is not an integer from 0 to 255."""
    if operator == v.PLUS:
        result = left + right
    elif operator == v.MINUS:
        result = left - right
    elif operator == v.TIMES:
        result = left * right
    elif operator == v.DIVIDE and right and left % right == 0:
        result = left // right
    else:
        return None
    return result if 0 <= result <= v.NUMBER_MAX else None


@functools.cache
def moves(state: State) -> tuple[Move, ...]:
    """Every distinct legal move; the larger number of a pair stands on the left."""
    found: set[Move] = set()
    for i, j in itertools.combinations(range(len(state)), 2):
        small, large = state[i], state[j]
        others = state[:i] + state[i + 1 : j] + state[j + 1 :]
        for operator in v.OPERATORS:
            result = apply(large, operator, small)
            if result is not None:
                rest = tuple(sorted((*others, result)))
                found.add(Move(large, operator, small, result, rest))
    return tuple(sorted(found))


@functools.cache
def reachable(state: State) -> frozenset[int]:
    """Every number that can be made from all the numbers of the state."""
    if len(state) == 1:
        return frozenset(state)
    return frozenset().union(*(reachable(move.rest) for move in moves(state)))


@functools.cache
def solution_count(state: State, target: int) -> int:
    """How many sequences of moves end at the target."""
    if len(state) == 1:
        return int(state[0] == target)
    return sum(solution_count(move.rest, target) for move in moves(state))


@functools.cache
def multisets(size: int) -> tuple[State, ...]:
    """Every multiset of ``size`` numbers from 1 to 13, in ascending order."""
    return tuple(itertools.combinations_with_replacement(range(1, LARGEST_NUMBER + 1), size))


def is_reserved(numbers: State) -> bool:
    """Whether this multiset of four numbers is kept out of training (a rule, not a list)."""
    if len(numbers) != 4:
        return False
    label = "held out: " + " ".join(map(str, sorted(numbers)))
    share = int.from_bytes(hashlib.sha256(label.encode()).digest()[:4], "big") / 2**32
    return share < _RESERVED_SHARE


@functools.cache
def training_multisets(size: int) -> tuple[State, ...]:
    """The only multisets a training prompt may start from."""
    return tuple(numbers for numbers in multisets(size) if not is_reserved(numbers))


@functools.cache
def held_out_pool() -> tuple[Puzzle, ...]:
    """Every reserved multiset from which 24 can be reached, in ascending order."""
    return tuple(
        Puzzle(numbers, HELD_OUT_TARGET)
        for numbers in multisets(4)
        if is_reserved(numbers) and HELD_OUT_TARGET in reachable(numbers)
    )


def held_out(count: int = 200, seed: int = 0) -> list[Puzzle]:
    """``count`` different solvable puzzles (target 24) that no training run has seen.

    Raises:
        InvalidInput: more puzzles than the reserved pool holds.
    """
    pool = held_out_pool()
    if not 0 <= count <= len(pool):
        raise InvalidInput("count", f"{count} held-out puzzles wanted, {len(pool)} exist")
    return random.Random(seed).sample(pool, count)
