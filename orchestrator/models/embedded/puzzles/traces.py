"""Exact judgement of what was written for a puzzle: the last attempt, step by step.

This is the referee of the tests and of the model card. It reads attempts, it does not solve.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from longthought.errors import InvalidInput

from . import vocabulary as v
from .problems import Puzzle, apply

__all__ = ["Judgement", "judge", "judge_tokens"]

Outcome = Literal["solved", "missed", "arithmetic", "numbers", "form"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What an attempt came to, and its expression over the puzzle's numbers as far as it is valid.

    ``missed``: everything right but the target; ``arithmetic``: a wrong result; ``numbers``: a
    number used that was not there, or not all used; ``form``: not of the form at all.
    """

    outcome: Outcome
    expression: str | None = None

    @property
    def solved(self) -> bool:
        """Whether the attempt uses every number once and reaches the target."""
        return self.outcome == "solved"


def judge(puzzle: Puzzle, text: str) -> Judgement:
    """Judge the text of a reply; only the attempt after the last BACK counts.

    Text of a tool conversation is put together with ``conversation.trace_text``.
    """
    try:
        tokens = v.encode(text)
    except InvalidInput:
        return Judgement("form")
    return judge_tokens(puzzle, tokens)


def judge_tokens(puzzle: Puzzle, tokens: Sequence[int]) -> Judgement:
    """Like :func:`judge`, for tokens without the prompt."""
    attempt: list[int] = []
    for place, token in enumerate(tokens):
        if token == v.DONE:
            break
        # A BACK that nothing follows ends an attempt given up; that attempt is still the last.
        if token == v.BACK and place + 1 < len(tokens):
            attempt = []
        else:
            attempt.append(token)
    if attempt and attempt[-1] == v.BACK:
        attempt.pop()
    steps = v.EQUALS in attempt or v.CALL in attempt
    return _judge_steps(puzzle, attempt) if steps else _judge_expression(puzzle, attempt)


def _judge_steps(puzzle: Puzzle, tokens: list[int]) -> Judgement:
    state = list(puzzle.numbers)
    made: list[tuple[int, str]] = [(number, str(number)) for number in state]
    place = 0
    while len(state) > 1:
        tool = tokens[place + 3 : place + 4] == [v.CALL]
        length = 6 if tool else 5
        step = tokens[place : place + length]
        if len(step) < length or (tool and step[5] != v.RETURN):
            return Judgement("form")
        left, operator, right, mark, result = step[:5]
        known = operator in v.OPERATORS and mark in (v.EQUALS, v.CALL)
        if not known or max(left, right, result) > v.NUMBER_MAX:
            return Judgement("form")
        try:
            state.remove(left)
            state.remove(right)
        except ValueError:
            return Judgement("numbers")
        if apply(left, operator, right) != result:
            return Judgement("arithmetic")
        first, second = _take(made, left), _take(made, right)
        made.append((result, f"({first} {v.OPERATORS[operator]} {second})"))
        state = sorted([*state, result])
        place += length
        if len(state) > 1:
            listed = tokens[place : place + len(state)]
            place += len(state) + 1
            if tokens[place - 1 : place] != [v.SEMICOLON]:
                return Judgement("form")
            if listed != state:
                return Judgement("numbers")
    if place != len(tokens):
        return Judgement("form")
    return _verdict(puzzle, state[0], made[-1][1])


def _take(made: list[tuple[int, str]], number: int) -> str:
    place = max(i for i, (value, _) in enumerate(made) if value == number)
    return made.pop(place)[1]


def _verdict(puzzle: Puzzle, value: int, expression: str) -> Judgement:
    outer = expression.startswith("(") and expression.endswith(")")
    shown = expression[1:-1] if outer else expression
    return Judgement("solved" if value == puzzle.target else "missed", shown)


def _judge_expression(puzzle: Puzzle, tokens: list[int]) -> Judgement:
    """A direct answer: one operation, its operands numbers or operations in brackets."""
    used = sorted(token for token in tokens if token <= v.NUMBER_MAX)
    try:
        value, rest = _operation(tokens)
    except (IndexError, ValueError):
        return Judgement("form")
    if rest:
        return Judgement("form")
    if used != list(puzzle.numbers):
        return Judgement("numbers")
    if value is None:
        return Judgement("arithmetic")
    return _verdict(puzzle, value, f"({v.decode(tokens)})")


def _operation(tokens: list[int]) -> tuple[int | None, list[int]]:
    left, rest = _operand(tokens)
    operator = rest[0]
    if operator not in v.OPERATORS:
        raise ValueError(operator)
    right, rest = _operand(rest[1:])
    return None if left is None or right is None else apply(left, operator, right), rest


def _operand(tokens: list[int]) -> tuple[int | None, list[int]]:
    if tokens[0] <= v.NUMBER_MAX:
        return tokens[0], tokens[1:]
    if tokens[0] != v.OPEN:
        raise ValueError(tokens[0])
    value, rest = _operation(tokens[1:])
    if rest[0] != v.CLOSE:
        raise ValueError(rest[0])
    return value, rest[1:]
