"""Puzzles as a task: how they are asked, thought about, continued and ended."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import cast

from longthought.orchestrator.models.embedded.tasks import Asked, Language, Mode

from . import vocabulary as v
from .problems import LARGEST_NUMBER, LARGEST_TARGET, Puzzle
from .questions import parse_question

__all__ = ["PuzzleTask"]

_MODES: dict[Mode, int] = {
    "chain": v.MODE_CHAIN,
    "tool": v.MODE_TOOL,
    "direct": v.MODE_DIRECT,
    "value": v.MODE_VALUE,
}
_INTEGER = re.compile(r"\d{1,3}(?:\.0+)?")


class PuzzleTask:
    """Make a target from three or four numbers; or say whether it can be made (``value``)."""

    name = "puzzles"
    call = v.CALL
    language = Language(v.Renderer, v.word_of, v.encode)

    def ask(self, text: str) -> Asked | None:
        """The puzzle in a user's message (see :func:`parse_question`), or None if it is none.

        Raises:
            QuestionRefused: a puzzle with numbers that the model was not made for.
        """
        question = parse_question(text)
        if question is None:
            return None
        modes: tuple[Mode, ...] = ("value",) if question.value else ("chain", "tool", "direct")
        return Asked(self, question.puzzle, modes)

    def can(self) -> str:
        """What may be asked."""
        return (
            f"make-a-target puzzles with 3 or 4 numbers from 1 to {LARGEST_NUMBER} "
            f"and a target from 1 to {LARGEST_TARGET}, such as '4 7 8 8 -> 24'"
        )

    def head(self, asked: Asked, mode: Mode) -> list[int]:
        """Mode, target and numbers."""
        puzzle = cast("Puzzle", asked.problem)
        return [_MODES[mode], puzzle.target, *puzzle.numbers, v.COLON]

    def ends(self, mode: Mode, token: int) -> bool:
        """DONE ends a thought, YES or NO a judgement."""
        return token == v.DONE or (mode == "value" and token in (v.YES, v.NO))

    def finished(self, token: int) -> bool:
        """Nothing follows DONE, YES and NO."""
        return token in (v.DONE, v.YES, v.NO)

    def between(self, continued: str) -> str | None:
        """A stop string took ``;`` off after ``left]``, or the line break after BACK."""
        if continued != continued.rstrip():
            return None
        if continued.endswith("left]"):
            return ";"
        return "\n" if continued.endswith("BACK") else ""

    def expression(self, tokens: Sequence[int]) -> str | None:
        """The operation in front of CALL, or None if there is none."""
        if len(tokens) < 4:
            return None
        left, operator, right = tokens[-4:-1]
        if operator not in v.OPERATORS or max(left, right) > v.NUMBER_MAX:
            return None
        return f"{left} {v.OPERATORS[operator]} {right}"

    def returned(self, result: str) -> list[int] | None:
        """The number and RETURN; None for what is no integer from 0 to 255."""
        if not _INTEGER.fullmatch(result):
            return None
        value = int(result.partition(".")[0])
        return [value, v.RETURN] if value <= v.NUMBER_MAX else None

    def unusable(self, result: str) -> str:
        """What is said of a result without a token."""
        return (
            f"The calculator's result {result!r} could not be used: "
            f"this model knows the integers from 0 to {v.NUMBER_MAX}."
        )
