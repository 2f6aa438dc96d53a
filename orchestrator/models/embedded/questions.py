"""Reading the user's question: which puzzle is asked for, or a refusal that says what can be."""

from __future__ import annotations

import re
from dataclasses import dataclass

from longthought.errors import QuestionRefused

from .puzzles import LARGEST_NUMBER, LARGEST_TARGET, Puzzle
from .vocabulary import NUMBER_MAX

__all__ = ["Question", "parse_question"]

_LIST = r"(?P<numbers>\d+(?:(?:\s*,\s*(?:and\s+)?|\s+and\s+|\s*&\s*|\s+)\d+)*)"
_LEAD = r"(?:please\s+)?(?:(?:use|using|with|from|combine)\s+)?(?:the\s+)?(?:numbers\s+)?"
_VERB = r"(?:make|reach|get|obtain|form)"
_SOURCE = r"(?:from|with|using|out\s+of)(?:\s+the)?(?:\s+numbers)?"
_TARGET = r"(?P<target>\d+)"
_FORMS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"{_LEAD}{_LIST}\s*(?:->|=>|→|⇒|,?\s*(?:to\s+)?{_VERB})\s*{_TARGET}",
        rf"(?:please\s+)?{_VERB}\s+{_TARGET}\s+{_SOURCE}\s+{_LIST}",
    )
)
_CAN = re.compile(rf"can\s+{_LIST}\s+(?:still\s+)?{_VERB}\s+{_TARGET}")

_FIX = (
    "The embedded model is a demonstration that solves make-a-target puzzles only: 3 or 4 numbers "
    f"from 1 to {LARGEST_NUMBER} and a target from 1 to {LARGEST_TARGET}, such as "
    "'4 7 8 8 -> 24'. For anything else point at a real endpoint: longthought solve "
    "--model openai/NAME --base-url http://localhost:11434/v1"
)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: solve the puzzle, or (``value``) say whether its target can be reached."""

    puzzle: Puzzle
    value: bool = False


def parse_question(text: str) -> Question:
    """The question in a user's message.

    Understood are ``4 7 8 8 -> 24``, ``make 24 from 4 7 8 8``, ``use 4, 7, 8 and 8 to make 24``
    and, answered with YES or NO, ``can 4 6 7 make 24?`` (1 to 4 numbers from 0 to 255).

    Raises:
        QuestionRefused: anything else; the message says what would be taken.
    """
    plain = text.strip().lower()
    ending = plain.rstrip(" .!?")
    found = _CAN.fullmatch(ending)
    if found:
        return Question(_puzzle(found, 1, 0, NUMBER_MAX, NUMBER_MAX), value=True)
    for form in _FORMS:
        found = form.fullmatch(ending)
        if found:
            return Question(_puzzle(found, 3, 1, LARGEST_NUMBER, LARGEST_TARGET))
    shown = plain if len(plain) <= 60 else plain[:57] + "..."
    raise QuestionRefused("question", f"{shown!r} is no puzzle of this kind", _FIX)


def _puzzle(
    found: re.Match[str], fewest: int, smallest: int, largest: int, largest_target: int
) -> Puzzle:
    digits = re.findall(r"\d+", found["numbers"])
    if not fewest <= len(digits) <= 4:
        problem = f"{len(digits)} numbers are given, {fewest} to 4 are needed"
        raise QuestionRefused("question", problem, _FIX)
    # Compared by length first: a number of a thousand digits is refused, not converted.
    if any(len(d) > 3 or not smallest <= int(d) <= largest for d in digits):
        raise QuestionRefused("question", f"numbers run from {smallest} to {largest}", _FIX)
    target = found["target"]
    if len(target) > 3 or not 1 <= int(target) <= largest_target:
        raise QuestionRefused("question", f"the target runs from 1 to {largest_target}", _FIX)
    return Puzzle(tuple(sorted(map(int, digits))), int(target))
