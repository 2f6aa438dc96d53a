"""The control: legal moves drawn at random, without any model. Draw it beside every result.

The puzzles are small, so luck goes far: what a model adds is only what lies above this curve.
"""

from __future__ import annotations

import functools
import random

from . import vocabulary as v
from .problems import Puzzle, State, moves

__all__ = ["random_chance", "random_play"]


def random_play(puzzle: Puzzle, draw: random.Random) -> str:
    """One attempt in the model's text form, every legal move equally likely.

    It always ends with DONE, whether it reached the target or not.
    """
    tokens: list[int] = []
    state = puzzle.numbers
    while len(state) > 1:
        move = draw.choice(moves(state))
        tokens += [move.left, move.operator, move.right, v.EQUALS, move.result]
        state = move.rest
        tokens += [*state, v.SEMICOLON] if len(state) > 1 else [v.DONE]
    return v.decode(tokens)


def random_chance(puzzle: Puzzle, attempts: int = 1) -> float:
    """The exact probability that at least one of ``attempts`` random attempts is right."""
    return 1 - (1 - _chance(puzzle.numbers, puzzle.target)) ** attempts


@functools.cache
def _chance(state: State, target: int) -> float:
    if len(state) == 1:
        return float(state[0] == target)
    options = moves(state)
    return sum(_chance(move.rest, target) for move in options) / len(options)
