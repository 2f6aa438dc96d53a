"""The grammar of puzzles: which one a text asks for, if it asks for any."""

from __future__ import annotations

import re
from dataclasses import dataclass

from longthought.errors import QuestionRefused

from .problems import LARGEST_NUMBER, LARGEST_TARGET, Puzzle
from .vocabulary import NUMBER_MAX

__all__ = ["Question", "parse_question"]

_LIST = r"(?P<numbers>[0-9]+(?:(?:\s*,\s*(?:and\s+)?|\s+and\s+|\s*&\s*|\s+)[0-9]+)*)"
_LEAD = r"(?:please\s+)?(?:(?:use|using|with|from|combine)\s+)?(?:the\s+)?(?:numbers\s+)?"
_VERB = r"(?:make|reach|get|obtain|form)"
_SOURCE = r"(?:from|with|using|out\s+of)(?:\s+the)?(?:\s+numbers)?"
_TARGET = r"(?P<target>[0-9]+)"
_FORMS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"{_LEAD}{_LIST}\s*(?:->|=>|→|⇒|,?\s*(?:to\s+)?{_VERB})\s*{_TARGET}",
        rf"(?:please\s+)?{_VERB}\s+{_TARGET}\s+{_SOURCE}\s+{_LIST}",
    )
)
_CAN = re.compile(rf"can\s+{_LIST}\s+(?:still\s+)?{_VERB}\s+{_TARGET}")


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: solve the puzzle, or (``value``) say whether its target can be reached."""

    puzzle: Puzzle
    value: bool = False


def parse_question(text: str) -> Question | None:
    """The question in a user's message, or None if it is about no puzzle.

    Understood are ``4 7 8 8 -> 24``, ``make 24 from 4 7 8 8``, ``use 4, 7, 8 and 8 to make 24``
    and, answered with YES or NO, ``can 4 6 7 make 24?`` (1 to 4 numbers from 0 to 255).

    Raises:
        QuestionRefused: it is a puzzle, but with too many or too few numbers, or too large ones.
    """
    # One space each: the time is then linear in the length of the text.
    ending = " ".join(text.lower().split()).rstrip(" .!?")
    found = _CAN.fullmatch(ending)
    if found:
        return Question(_puzzle(found, 1, 0, NUMBER_MAX, NUMBER_MAX), value=True)
    for form in _FORMS:
        found = form.fullmatch(ending)
        if found:
            return Question(_puzzle(found, 3, 1, LARGEST_NUMBER, LARGEST_TARGET))
    return None


def _puzzle(
    found: re.Match[str], fewest: int, smallest: int, largest: int, largest_target: int
) -> Puzzle:
    digits = re.findall("[0-9]+", found["numbers"])
    if not fewest <= len(digits) <= 4:
        problem = f"{len(digits)} numbers are given, {fewest} to 4 are needed"
        raise QuestionRefused("question", problem)
    # Compared by length first: a number of a thousand digits is refused, not converted.
    if any(len(d) > 3 or not smallest <= int(d) <= largest for d in digits):
        raise QuestionRefused("question", f"numbers run from {smallest} to {largest}")
    target = found["target"]
    if len(target) > 3 or not 1 <= int(target) <= largest_target:
        raise QuestionRefused("question", f"the target runs from 1 to {largest_target}")
    return Puzzle(tuple(sorted(map(int, digits))), int(target))
