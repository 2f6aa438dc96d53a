"""Make-a-target puzzles: use every number once, with ``+ - * /``, and reach the target.

A question reads ``4 7 8 8 -> 24``. An answer is a line of steps, or one expression:

    8 / 8 = 1 [1 4 7 left]; 7 - 1 = 6 [4 6 left]; 6 * 4 = 24. DONE
    (7 - 8 / 8) * 4

``BACK`` in a line of steps drops everything before it. All arithmetic is exact.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from longthought.tools.signs import ARITHMETIC
from longthought.verifiers.expressions import (
    Expression,
    Operation,
    apply,
    numbers_of,
    parse,
    value_of,
)
from longthought.verifiers.numerals import last_mark

__all__ = [
    "Puzzle",
    "Step",
    "marked_expression",
    "parse_puzzle",
    "reachable",
    "show",
    "solution_in",
    "steps_in",
    "walk",
]

MAX_CHARS = 50_000  # of a text; the last attempt stands at its end
MAX_QUESTION_CHARS = 2_000
MAX_NUMBERS = 12

_ARROW = re.compile(
    r"(?<!\d)(\d{1,9}(?:[\s,]+(?:and\s+)?\d{1,9})*)\s*(?:->|→|=>)\s*(-?\d{1,9})\b", re.ASCII
)
_MAKE = re.compile(
    r"\b(?:make|reach|get|obtain|target)\b(?:\s+(?:is|of|the|value|number))*[\s:]*(-?\d{1,9})\b",
    re.IGNORECASE | re.ASCII,
)
_INTEGER = re.compile(r"\d{1,9}", re.ASCII)
_LATEX = {"\\times": "*", "\\cdot": "*", "\\div": "/", "\\left": "", "\\right": "", "$": " "}

_VALUE = r"-?\d{1,12}(?:/\d{1,12})?"
_OPERAND = rf"(?:\({_VALUE}\)|{_VALUE})"
_STEP = re.compile(
    rf"(?<![\d.])(?P<left>{_OPERAND})\s*(?P<sign>[-+*/])\s*(?P<right>{_OPERAND})\s*(?:=|CALL)\s*"
    r"(?P<result>-?\d{1,12}(?:/\d{1,12}|\.\d{1,12})?)(?![\d/])(?!\s*[-+*=]\s*[\d(])(?:\s*RET\b)?",
    re.ASCII,
)
_LEFT = re.compile(
    rf"\s*(?:[\[(]\s*(?:(?:numbers\s+)?(?:left|remaining)\s*:?)?\s*(?P<listed>{_VALUE}(?:[\s,]+{_VALUE})*)"
    rf"\s*(?:left|remaining)?\s*[\])]|(?P<bare>{_VALUE}(?:\s+{_VALUE})*)\s*(?=;|\n|DONE))",
    re.ASCII,
)
_EXPRESSION = re.compile(r"[-+*/()\d \t]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Puzzle:
    """The numbers at hand and the target they are to make."""

    numbers: tuple[int, ...]
    target: int

    def solved_by(self, expression: Expression, *, integers: bool = False) -> str:
        """Empty when the expression solves the puzzle, else what is wrong with it.

        ``integers``: every intermediate value must be a whole number not below zero.
        """
        used, have = Counter(numbers_of(expression)), Counter(map(Fraction, self.numbers))
        if used != have:
            wrong = "unused: " + show((have - used).elements()) if have - used else ""
            extra = "not at hand: " + show((used - have).elements()) if used - have else ""
            return "; ".join(filter(None, (wrong, extra)))
        value = value_of(expression)
        if value is None:
            return "it divides by zero"
        if value != self.target:
            return f"it makes {value}, not {self.target}"
        if integers and not _whole(expression):
            return "an intermediate value is no whole number from zero up"
        return ""


@dataclass(frozen=True, slots=True)
class Step:
    """``left sign right = result`` as written; ``remaining`` are the numbers said to be left.

    ``open`` is true when the result is the very end of the text and may go on.
    """

    left: Fraction
    sign: str
    right: Fraction
    result: Fraction
    remaining: tuple[Fraction, ...] | None
    open: bool
    text: str


def parse_puzzle(question: str) -> Puzzle | None:
    """The puzzle a question asks: ``4 7 8 8 -> 24`` or "make 24 from 4, 7, 8 and 8"."""
    question = question[-MAX_QUESTION_CHARS:]
    arrows = _ARROW.findall(question)
    if arrows:
        numbers, target = arrows[-1]
        found = _INTEGER.findall(numbers)
    else:
        make = _MAKE.search(question)
        if not make:
            return None
        target = make[1]
        found = _INTEGER.findall(question[: make.start()] + " " + question[make.end() :])
    if not 1 <= len(found) <= MAX_NUMBERS:
        return None
    return Puzzle(tuple(map(int, found)), int(target))


def steps_in(text: str) -> list[Step]:
    """The steps of the last attempt, in order."""
    text = _attempt(text)
    steps: list[Step] = []
    for found in _STEP.finditer(text):
        before = text[: found.start()].rstrip()
        if before and before[-1] in "+-*/=(" and not before.endswith(("->", "=>")):
            continue  # the tail of a longer expression, not a step of its own
        result = _fraction(found["result"])
        values = (_fraction(found["left"].strip("()")), _fraction(found["right"].strip("()")))
        if result is None or None in values:
            continue
        left, right = (value for value in values if value is not None)
        after = _LEFT.match(text, found.end())
        listed = after and (after["listed"] or after["bare"])
        remaining = _fractions(listed) if listed else None
        ends = found.end() == len(text)
        steps.append(Step(left, found["sign"], right, result, remaining, ends, found[0]))
    return steps


def solution_in(text: str) -> Expression | None:
    """The expression a text gives as its answer, or None when it gives none.

    A marked answer (``\\boxed{}``, ``Answer:``) that is an expression goes before steps, and steps
    go before an expression that merely stands in the text. Steps are no answer yet while they leave
    more than one number or a result that no later step uses, or when a ``;`` announces another.
    """
    marked = marked_expression(text)
    if marked is not None:
        return marked
    steps = steps_in(text)
    if not steps:
        return _last_expression(_attempt(text))
    return None if text.rstrip().endswith(";") else _composed(steps)


def marked_expression(text: str) -> Expression | None:
    """The expression in the text's marked answer; steps there are left to :func:`steps_in`."""
    marked = last_mark(_attempt(text))
    return None if marked is None or steps_in(marked) else _last_expression(marked)


def walk(
    numbers: Iterable[int], steps: Iterable[Step], *, integers: bool = False
) -> tuple[tuple[Fraction, ...], str]:
    """Follow the steps: the numbers then at hand, and what is wrong with the first bad step.

    ``integers``: every result must be a whole number not below zero.
    """
    hand = Counter(map(Fraction, numbers))
    for step in steps:
        problem = _take(hand, step) or _wrong(step, integers)
        if problem:
            return _sorted(hand), f"{step.text.strip()}: {problem}"
        # A number at the very end may be half written; what it has to become is known.
        value = apply(step.sign, step.left, step.right) if step.open else None
        hand[step.result if value is None else value] += 1
        if step.remaining is not None and Counter(step.remaining) != +hand:
            stated, real = show(step.remaining), show(_sorted(hand))
            return _sorted(hand), f"{step.text.strip()}: {real} are left, not {stated}"
    return _sorted(hand), ""


@lru_cache(maxsize=100_000)
def reachable(numbers: tuple[Fraction, ...], target: int, integers: bool = False) -> bool:
    """Whether the target can be made from all the (sorted) numbers. Slow beyond five numbers."""
    if len(numbers) == 1:
        return numbers[0] == target
    seen: set[tuple[Fraction, ...]] = set()
    for i, small in enumerate(numbers):
        for j in range(i + 1, len(numbers)):
            large = numbers[j]
            others = numbers[:i] + numbers[i + 1 : j] + numbers[j + 1 :]
            for value in _values(small, large, integers):
                rest = tuple(sorted((*others, value)))
                if rest not in seen:
                    seen.add(rest)
                    if reachable(rest, target, integers):
                        return True
    return False


def show(numbers: Iterable[Fraction]) -> str:
    """Numbers as they stand in a text: ``1 4 7``."""
    return " ".join(str(number) for number in numbers)


def _attempt(text: str) -> str:
    """What follows the last BACK, with one sign for each operation."""
    text = re.split(r"\bBACK\b", text[-MAX_CHARS:])[-1].rstrip().replace("**", " ")
    for latex, plain in _LATEX.items():
        text = text.replace(latex, plain)
    return re.sub(r"(?<=[\d)\s])x(?=[\d(\s])", "*", text).translate(ARITHMETIC)


def _fraction(text: str) -> Fraction | None:
    try:
        return Fraction(text)
    except ZeroDivisionError:
        return None


def _fractions(text: str) -> tuple[Fraction, ...] | None:
    values = [_fraction(part) for part in re.split(r"[\s,]+", text)]
    return None if None in values else tuple(value for value in values if value is not None)


def _sorted(hand: Counter[Fraction]) -> tuple[Fraction, ...]:
    return tuple(sorted(hand.elements()))


def _take(hand: Counter[Fraction], step: Step) -> str:
    """Take both operands out of the hand; says which is missing."""
    at_hand = show(_sorted(hand))
    for operand in (step.left, step.right):
        if not hand[operand]:
            return f"{operand} is not among the numbers at hand ({at_hand})"
        hand[operand] -= 1
    return ""


def _wrong(step: Step, integers: bool) -> str:
    """What is wrong with the arithmetic of a step."""
    value = apply(step.sign, step.left, step.right)
    if value is None:
        return "division by zero"
    if value != step.result and not (step.open and _may_become(step.result, value)):
        return f"{step.left} {step.sign} {step.right} is {value}"
    if integers and (value.denominator != 1 or value < 0):
        return f"{value} is no whole number from zero up"
    return ""


def _may_become(written: Fraction, value: Fraction) -> bool:
    """Whether a number at the very end of an unfinished text may be the beginning of the value."""
    return str(value).startswith(str(written))


def _values(small: Fraction, large: Fraction, integers: bool) -> set[Fraction]:
    """Every value two numbers can become."""
    values = {small + large, small * large, large - small, small - large}
    values |= {large / small} if small else set()
    values |= {small / large} if large else set()
    return {v for v in values if v.denominator == 1 and v >= 0} if integers else values


def _composed(steps: list[Step]) -> Expression | None:
    """The expression the steps build up, None while they leave more than one part."""
    made: dict[Fraction, list[Expression]] = {}

    def operand(value: Fraction) -> Expression | None:
        if made.get(value):
            return made[value].pop()
        return value if value.denominator == 1 and value >= 0 else None

    for step in steps:
        left, right = operand(step.left), operand(step.right)
        if left is None or right is None:
            return None
        made.setdefault(step.result, []).append(Operation(step.sign, left, right))
    parts = [part for same in made.values() for part in same]
    left_over = steps[-1].remaining
    if len(parts) != 1 or (left_over is not None and len(left_over) > 1):
        return None
    return parts[0]


def _last_expression(text: str) -> Expression | None:
    """The last part of a text that is an expression with at least one operation."""
    for found in reversed(_EXPRESSION.findall(text)):
        expression = parse(found.strip("+-*/ \t"))
        if isinstance(expression, Operation):
            return expression
    return None


def _whole(expression: Expression) -> bool:
    """Whether the expression and all its parts are whole numbers from zero up."""
    if isinstance(expression, Operation) and not (
        _whole(expression.left) and _whole(expression.right)
    ):
        return False
    value = value_of(expression)
    return value is not None and value.denominator == 1 and value >= 0
