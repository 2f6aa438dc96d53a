"""Reading a word problem: are its sentences those the model was trained on?

Nothing is computed here and nothing is solved: the words go to the model as they are.
"""

from __future__ import annotations

import re

from longthought.errors import QuestionRefused

from . import templates as t
from .problems import LARGEST

__all__ = ["CAN", "parse_question"]

_MOST_SENTENCES = 9
_LONGEST = 2_000  # characters: far beyond the longest problem
_COMMA = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_SENTENCE = re.compile(r"[^.?!]*[.?!]?")
CAN = (
    "word problems of a small grammar, such as 'Ada has 38 apples. She buys 3 boxes with 12 apples "
    "each. Ben takes 19 apples. How many apples are left?'"
)


def parse_question(text: str) -> str | None:
    """The problem in lower case and single spaces, or None if the text is no word problem.

    Raises:
        QuestionRefused: it is one, but has a sentence or a number the model does not know.
    """
    plain = " ".join(_COMMA.sub("", text).lower().split())
    if not re.search(r"\b\d", plain) or "how m" not in plain:
        return None
    if len(plain) > _LONGEST:
        raise _refused(f"the problem is longer than {_LONGEST:,} characters")
    _check_numbers(plain)
    place = _match("start", plain, 0)
    sentences = 1
    while place is not None and place < len(plain) and sentences <= _MOST_SENTENCES:
        if _match("question", plain, place) == len(plain):
            return plain
        before, place = place, _match("event", plain, place)
        sentences += 1
        if place is None:
            raise _unknown(plain, before, sentences)
    if place is None:
        raise _unknown(plain, 0, 1)
    if sentences > _MOST_SENTENCES:
        raise _refused(f"there are more than {_MOST_SENTENCES} sentences")
    raise _refused("the question at its end is missing")


def _match(part: str, plain: str, place: int) -> int | None:
    """Where the sentence that begins at ``place`` ends, with the space behind it."""
    for template in t.templates(part):
        found = template.pattern.match(plain, place)
        if found and (found.end() == len(plain) or plain[found.end()] == " "):
            _check_limits(template, found)
            return min(found.end() + 1, len(plain))
    return None


def _check_limits(template: t.Template, found: re.Match[str]) -> None:
    """The model reads only numbers that it has seen in such a sentence."""
    for slot, (low, high) in zip("ab", t.NUMBERS.get(template.kind, ()), strict=False):
        number = found[slot]
        if not low <= int(number) <= high:
            limits = f"the model was made for numbers from {low} to {high:,} there"
            raise _refused(f"{number} in {_shortened(found.group())}: {limits}")


def _check_numbers(plain: str) -> None:
    # Compared by length first: a number of a thousand digits is refused, not converted.
    for digits in re.findall(r"\d+", plain):
        if len(digits) > len(str(LARGEST)) or not 1 <= int(digits) <= LARGEST:
            shown = digits if len(digits) <= 12 else digits[:9] + "..."
            raise _refused(f"{shown} is no number from 1 to {LARGEST:,}")


def _unknown(plain: str, place: int, number: int) -> QuestionRefused:
    found = _SENTENCE.match(plain, place)
    sentence = _shortened(found.group().strip() if found else "")
    names = ", ".join(t.NAMES)
    return _refused(
        f"sentence {number}, {sentence}, is none that the model knows (its people are {names})"
    )


def _shortened(sentence: str) -> str:
    return repr(sentence if len(sentence) <= 60 else sentence[:57] + "...")


def _refused(problem: str) -> QuestionRefused:
    return QuestionRefused("question", problem)
