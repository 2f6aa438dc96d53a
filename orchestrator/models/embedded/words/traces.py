"""Exact judgement of what was written for a word problem, line by line.

This is the referee of the tests and of the model card. It checks sums, it does not solve problems.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .problems import Problem, Step, apply

__all__ = ["Judgement", "judge"]

_LINE = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")
_ANSWER = re.compile(r"The answer is (\d+)\.")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a reply came to: its answer, its lines, and whether both are right.

    ``sound``: every line is a right sum; a sound reply may still have used the wrong numbers.
    """

    answer: int | None
    lines: tuple[Step, ...]
    right: bool
    sound: bool


def judge(problem: Problem, text: str) -> Judgement:
    """Judge the text of a reply; that of a tool conversation as ``trace_text`` puts it together."""
    *thought, last = text.split("\n")
    found = _ANSWER.fullmatch(last.strip())
    answer = int(found[1]) if found else None
    lines = [_LINE.fullmatch(line.strip()) for line in thought]
    steps = tuple(Step(int(m[1]), m[2], int(m[3]), int(m[4])) for m in lines if m)
    sound = all(lines) and all(apply(s.left, s.operator, s.right) == s.result for s in steps)
    return Judgement(answer, steps, answer == problem.answer, sound)
