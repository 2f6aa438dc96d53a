"""Word problems as a task of the embedded model."""

from __future__ import annotations

from longthought.orchestrator.models.embedded.tasks import Asked, Language, Mode

from . import vocabulary as v
from .problems import LARGEST
from .questions import CAN, parse_question

__all__ = ["WordTask"]

_MODES: dict[Mode, int] = {
    "chain": v.MODE_CHAIN,
    "tool": v.MODE_TOOL,
    "direct": v.MODE_DIRECT,
}


class WordTask:
    """Word problems with one right answer; see :mod:`problems` for what they are made of."""

    name = "words"
    call = v.CALL
    language = Language(v.Renderer, v.word_of, v.encode)

    def ask(self, text: str) -> Asked | None:
        """The problem in a user's message, or None if it is no word problem.

        Raises:
            QuestionRefused: it is one, but has a sentence or a number the model does not know.
        """
        problem = parse_question(text)
        return None if problem is None else Asked(self, problem, ("chain", "tool", "direct"))

    def can(self) -> str:
        """What may be asked, with an example."""
        return CAN

    def head(self, asked: Asked, mode: Mode) -> list[int]:
        """The problem, then the mode: so one prefill serves every way of answering."""
        return [*v.encode(str(asked.problem)), v.COLON, _MODES[mode]]

    def ends(self, mode: Mode, token: int) -> bool:
        """A reply ends with the full stop behind the answer."""
        del mode
        return token == v.END

    def finished(self, token: int) -> bool:
        """Nothing follows the end."""
        return token == v.END

    def between(self, continued: str) -> str | None:
        """The line break that a stop string took away, when the text ends with a result."""
        if continued != continued.rstrip():
            return None
        return "\n" if v.encode(continued)[-1:] == [v.NEWLINE] else ""

    def expression(self, tokens: list[int]) -> str | None:
        """The operation in front of a call, as in ``386 + 57``."""
        left, operator, right = _operation(tokens[:-1])
        if operator is None or not left or not right:
            return None
        return f"{v.number_of(left)} {v.OPERATORS[operator]} {v.number_of(right)}"

    def returned(self, result: str) -> list[int] | None:
        """The digits of a result and RET, or None if it is no number the model can write."""
        digits, _, zeros = result.strip().partition(".")
        if not digits.isdecimal() or not digits.isascii() or zeros.strip("0"):
            return None
        digits = digits.lstrip("0") or "0"
        return [*v.digits_of(digits), v.RETURN] if len(digits) <= len(str(LARGEST)) else None

    def unusable(self, result: str) -> str:
        """What is said of a result that is no such number."""
        return (
            f"The calculator's result {result!r} could not be used: "
            f"this model knows the integers from 0 to {LARGEST:,}."
        )


def _operation(tokens: list[int]) -> tuple[list[int], int | None, list[int]]:
    """Left digits, operator and right digits at the end of a sequence."""
    middle = len(tokens)
    while middle and tokens[middle - 1] in v.DIGITS:
        middle -= 1
    if not middle or tokens[middle - 1] not in v.OPERATORS:
        return [], None, []
    start = middle - 1
    while start and tokens[start - 1] in v.DIGITS:
        start -= 1
    return tokens[start : middle - 1], tokens[middle - 1], tokens[middle:]
