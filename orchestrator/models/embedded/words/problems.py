"""Word problems with one right answer: how they are made, and which are kept out of training.

One to five operations on whole numbers up to 9,999. A quarter has a sentence that does not matter,
a quarter has small numbers throughout. Three rules decide what training never sees:

- ``usual``: a hash of the text reserves an eighth of all problems;
- ``templates``: a hash reserves a twelfth of all pairs of neighbouring templates;
- ``numbers``: 60 to 69 and 600 to 699 appear in no training problem.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from . import templates as t

__all__ = [
    "LARGEST",
    "MOST_STEPS",
    "RULES",
    "Kind",
    "Problem",
    "Step",
    "apply",
    "held_out",
    "is_reserved",
    "kept_back",
    "random_problem",
]

LARGEST = 9_999
"""The largest number that a problem or its solution may hold."""

MOST_STEPS = 5
Kind: TypeAlias = Literal["usual", "templates", "numbers"]
RULES: tuple[Kind, ...] = ("usual", "templates", "numbers")

_RESERVED_TEXTS = 8  # one in so many
_RESERVED_PAIRS = 12
_ASIDE_SHARE = 0.25
_SMALL_SHARE = 0.25
_DIVISORS = (3, 5)
_EVENTS = {
    "gain": 2,
    "lose": 3,
    "times": 1,
    "double": 1,
    "triple": 1,
    "half": 1,
    "share": 2,
    "gain_boxed": 1,
    "lose_boxed": 2,
}
_QUESTIONS = {"now": 4, "more": 1, "fewer": 1, "price": 1}
_STARTS = {"has": 2, "boxed": 2, "sorts": 1}
_STEPS_OF = {"now": 0, "price": 1, "more": 2, "fewer": 2}


class Step(NamedTuple):
    """One operation of the solution; ``operator`` is its sign."""

    left: int
    operator: str
    right: int
    result: int


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem in plain English, its solution and the labels of its templates in order."""

    text: str
    steps: tuple[Step, ...]
    labels: tuple[str, ...]

    @property
    def answer(self) -> int:
        """The one right answer."""
        return self.steps[-1].result

    def __str__(self) -> str:
        return self.text


def apply(left: int, operator: str, right: int) -> int | None:
    """The exact result of one operation, or None if it is no whole number from 0 to 9,999."""
    if operator == "/":
        if right == 0 or left % right:
            return None
        return left // right
    result = {"+": left + right, "-": left - right, "*": left * right}[operator]
    return result if 0 <= result <= LARGEST else None


# -- what training never sees -------------------------------------------------------------------


def _hashed(label: str, parts: int) -> int:
    digest = hashlib.sha256(label.encode()).digest()
    return int.from_bytes(digest[:4], "big") % parts


def _reserved_text(problem: Problem) -> bool:
    return _hashed("held out: " + problem.text, _RESERVED_TEXTS) == 0


def _reserved_pair(problem: Problem) -> bool:
    pairs = itertools.pairwise(problem.labels)
    return any(_hashed(f"held out: {a} {b}", _RESERVED_PAIRS) == 0 for a, b in pairs)


def _reserved_number(number: int) -> bool:
    return 60 <= number <= 69 or 600 <= number <= 699


def _has_reserved_number(problem: Problem) -> bool:
    return any(_reserved_number(int(number)) for number in re.findall(r"\d+", problem.text))


def is_reserved(problem: Problem) -> bool:
    """Whether a problem is kept out of training, by one of the three rules."""
    return bool(kept_back(problem))


def kept_back(problem: Problem) -> set[Kind]:
    """The rules that keep this problem out of training; empty if it may be trained on."""
    rules: dict[Kind, bool] = {
        "usual": _reserved_text(problem),
        "templates": _reserved_pair(problem),
        "numbers": _has_reserved_number(problem),
    }
    return {kind for kind, holds in rules.items() if holds}


def held_out(
    count: int = 200,
    seed: int = 0,
    kind: Kind = "usual",
    steps: Sequence[int] = (1, 2, 3, 4, 5, 5),
) -> list[Problem]:
    """``count`` different problems that no training run has seen, with these steps in turn.

    ``usual`` problems differ from training by their text alone, ``templates`` and ``numbers`` by
    what these rules reserve as well. Two thirds of the ``numbers`` aim at reserved ones.
    """
    draw = random.Random(f"{seed} {kind}")
    found: dict[str, Problem] = {}
    for wanted in itertools.islice(itertools.cycle(steps), count):
        while True:
            problem = random_problem(draw, wanted, reserved_numbers=kind == "numbers")
            rules = kept_back(problem)
            fits = rules == {kind} or (kind == "numbers" and rules == {kind, "usual"})
            if fits and problem.text not in found:
                found[problem.text] = problem
                break
    return list(found.values())


# -- making problems ----------------------------------------------------------------------------


def random_problem(
    draw: random.Random, steps: int | None = None, *, reserved_numbers: bool = False
) -> Problem:
    """A problem with ``steps`` operations (1 to 5, drawn unless given)."""
    wanted = steps or draw.randint(1, MOST_STEPS)
    while True:
        made = _Author(draw, reserved_numbers=reserved_numbers).write(wanted)
        if made is not None:
            return made


class _Stuck(Exception):
    """The number at hand allows no such operation."""


class _Author:
    """Writes one problem sentence by sentence and keeps the number of things at hand."""

    def __init__(self, draw: random.Random, *, reserved_numbers: bool) -> None:
        self._draw = draw
        self._reserved_numbers = reserved_numbers
        self._small = draw.random() < _SMALL_SHARE
        self._who, self._other = draw.sample(list(t.NAMES), 2)
        self._things = draw.choice(t.THINGS)
        self._sentences: list[str] = []
        self._labels: list[str] = []
        self._steps: list[Step] = []

    def write(self, wanted: int) -> Problem | None:
        """The whole problem, or None if the dice led nowhere."""
        question = self._pick({k: w for k, w in _QUESTIONS.items() if _STEPS_OF[k] < wanted + 1})
        before = wanted - _STEPS_OF[question]
        start = self._pick({k: w for k, w in _STARTS.items() if k == "has" or before})
        try:
            total = self._start(start)
            aside = self._draw.random() < _ASIDE_SHARE
            for _ in range(20):
                if len(self._steps) >= before:
                    break
                total = self._event(total, before - len(self._steps))
                if aside and self._draw.random() < 0.5:
                    self._say(t.EVENTS, "aside", self._operand(*t.NUMBERS["aside"][0]))
                    aside = False
            total = self._question(question, total)
        except _Stuck:
            return None
        if len(self._steps) != wanted or total < 1:
            return None
        return Problem(" ".join(self._sentences), tuple(self._steps), tuple(self._labels))

    def _pick(self, weights: dict[str, int]) -> str:
        return self._draw.choices(list(weights), list(weights.values()))[0]

    def _operand(self, low: int, high: int) -> int:
        """A number from ``low`` to ``high``, reserved or not as this problem is to be."""
        if self._small:
            high = max(low, min(high, 30))
        for _ in range(50):
            near = self._draw.random() < 0.4
            number = self._draw.randint(low, min(high, max(low, 99)) if near else high)
            aimed = self._reserved_numbers and self._draw.random() < 0.8
            if high <= 12 or _reserved_number(number) == aimed:
                return number
        raise _Stuck

    def _say(self, part: dict[str, tuple[str, ...]], kind: str, a: int = 0, b: int = 0) -> None:
        number = self._draw.randrange(len(part[kind]))
        self._labels.append(f"{kind}{number}")
        self._sentences.append(
            part[kind][number].format(
                who=self._who,
                other=self._other,
                she=t.NAMES[self._who],
                things=self._things,
                boxes=self._draw.choice(t.BOXES),
                a=a,
                b=b,
            )
        )

    def _do(self, left: int, operator: str, right: int) -> int:
        result = apply(left, operator, right)
        if result is None:
            raise _Stuck
        self._steps.append(Step(left, operator, right, result))
        return result

    def _start(self, kind: str) -> int:
        if kind == "has":
            total = self._operand(*t.NUMBERS[kind][0])
            self._say(t.STARTS, kind, total)
            return total
        if kind == "boxed":
            large = self._draw.random() < 0.2 and not self._small
            a = self._operand(11, 19) if large else self._draw.randint(2, 9)
            b = self._operand(*t.NUMBERS[kind][1])
            self._say(t.STARTS, kind, a, b)
            return self._do(a, "*", b)
        a, b = (self._operand(*limits) for limits in t.NUMBERS[kind])
        self._say(t.STARTS, kind, a, b)
        return self._do(a, "+", b)

    def _event(self, total: int, room: int) -> int:
        """One event that takes at most ``room`` operations."""
        kind = self._pick({k: w for k, w in _EVENTS.items() if room > 1 or "boxed" not in k})
        if kind == "gain":
            a = self._operand(*t.NUMBERS[kind][0])
            self._say(t.EVENTS, kind, a)
            return self._do(total, "+", a)
        if kind == "lose":
            a = self._operand(11, self._below(total))
            self._say(t.EVENTS, kind, a)
            return self._do(total, "-", a)
        if kind == "times":
            a = self._draw.randint(*t.NUMBERS[kind][0])
            self._say(t.EVENTS, kind, a)
            return self._do(total, "*", a)
        if kind in ("double", "triple", "half"):
            self._say(t.EVENTS, kind)
            return self._do(total, "/" if kind == "half" else "*", 3 if kind == "triple" else 2)
        if kind == "share":
            fitting = [d for d in _DIVISORS if total % d == 0 and total >= 5 * d]
            if not fitting:
                raise _Stuck
            a = self._draw.choice(fitting)
            self._say(t.EVENTS, kind, a)
            return self._do(total, "/", a)
        a, b = self._draw.randint(*t.NUMBERS[kind][0]), self._operand(*t.NUMBERS[kind][1])
        if kind == "lose_boxed" and a * b > total - 5:
            raise _Stuck
        self._say(t.EVENTS, kind, a, b)
        boxed = self._do(a, "*", b)
        return self._do(total, "+" if kind == "gain_boxed" else "-", boxed)

    def _below(self, total: int) -> int:
        """The largest number to take away: something is left."""
        if total < 20:
            raise _Stuck
        return min(999, total - 5)

    def _question(self, kind: str, total: int) -> int:
        if kind == "now":
            self._say(t.QUESTIONS, kind)
            return total
        if kind == "price":
            a = self._draw.randint(*t.NUMBERS[kind][0])
            self._say(t.QUESTIONS, kind, a)
            return self._do(total, "*", a)
        a = self._operand(11, 999 if kind == "more" else self._below(total))
        self._say(t.QUESTIONS, kind, a)
        others = self._do(total, "+" if kind == "more" else "-", a)
        return self._do(total, "+", others)
