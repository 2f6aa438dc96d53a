"""The sentences a word problem is made of.

A problem is a start, some events and a question. Every template is plain English with slots:
``{who}`` and ``{other}`` are names, ``{she}`` the pronoun of ``who``, ``{things}`` and ``{boxes}``
nouns, ``{a}`` and ``{b}`` numbers. What a template does to the number of things stands in
``problems.py``, under the name of its kind.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

__all__ = [
    "BOXES",
    "EVENTS",
    "NAMES",
    "NUMBERS",
    "QUESTIONS",
    "STARTS",
    "THINGS",
    "Template",
    "templates",
    "words",
]

NAMES = {
    "Ada": "She",
    "Ben": "He",
    "Carl": "He",
    "Dora": "She",
    "Emil": "He",
    "Frida": "She",
    "Hugo": "He",
    "Ida": "She",
}
"""Name -> pronoun."""

THINGS = ("apples", "beads", "books", "cards", "coins", "eggs", "marbles", "pens", "shells", "nuts")
BOXES = ("bags", "baskets", "boxes", "crates", "jars", "packs")

STARTS = {
    "has": (
        "{who} has {a} {things}.",
        "{who} starts with {a} {things}.",
        "There are {a} {things} in the shop of {who}.",
    ),
    "boxed": (
        "{who} has {a} {boxes} with {b} {things} each.",
        "{who} buys {a} {boxes} of {b} {things} each.",
        "{who} fills {a} {boxes} with {b} {things} each.",
    ),
    "sorts": (
        "{who} has {a} red and {b} blue {things}.",
        "{who} owns {a} old and {b} new {things}.",
    ),
}
EVENTS = {
    "gain": (
        "{she} buys {a} more.",
        "{she} finds {a} {things}.",
        "{other} gives {who} {a} {things}.",
        "Then {a} more arrive.",
    ),
    "lose": (
        "{she} gives away {a}.",
        "{she} loses {a} {things}.",
        "{she} sells {a} of them.",
        "{other} takes {a} {things}.",
    ),
    "times": (
        "{she} works until there are {a} times as many.",
        "The number becomes {a} times as large.",
    ),
    "double": ("{she} doubles the number.", "The number doubles."),
    "triple": ("{she} triples the number.", "The number triples."),
    "half": ("{she} gives half of them to {other}.", "Half of them are lost."),
    "share": (
        "{she} shares them in {a} equal parts and keeps one.",
        "{she} makes {a} equal piles and keeps one of them.",
    ),
    "gain_boxed": (
        "{she} buys {a} {boxes} with {b} {things} each.",
        "{other} brings {a} {boxes} of {b} {things} each.",
    ),
    "lose_boxed": (
        "{she} gives {b} to each of {a} friends.",
        "{she} fills {a} {boxes} with {b} each and sells them.",
    ),
    "aside": (
        "The shop is {a} km away.",
        "{other} is {a} years old.",
        "It is day {a} of the year.",
    ),
}
QUESTIONS = {
    "now": (
        "How many {things} does {who} have now?",
        "How many {things} are left?",
        "How many are there now?",
    ),
    "more": ("{other} has {a} more than {who}. How many do they have together?",),
    "fewer": ("{other} has {a} fewer than {who}. How many do they have together?",),
    "price": (
        "Each costs {a} coins. How much do they cost together?",
        "{who} sells all of them for {a} coins each. How many coins is that?",
    ),
}

NUMBERS: dict[str, tuple[tuple[int, int], ...]] = {
    "has": ((20, 999),),
    "boxed": ((2, 19), (11, 99)),
    "sorts": ((11, 499), (11, 499)),
    "gain": ((11, 999),),
    "lose": ((11, 999),),
    "times": ((2, 9),),
    "share": ((3, 5),),
    "gain_boxed": ((2, 9), (11, 99)),
    "lose_boxed": ((2, 9), (11, 99)),
    "aside": ((11, 99),),
    "more": ((11, 999),),
    "fewer": ((11, 999),),
    "price": ((2, 9),),
}
"""Kind of a template -> the smallest and largest number of its slots ``{a}`` and ``{b}``.

The model has seen no others there: what it would read is as good as chance.
"""

_SLOT = re.compile(r"\{(\w+)\}")
_PATTERNS = {
    "who": "(?:" + "|".join(NAMES).lower() + ")",
    "other": "(?:" + "|".join(NAMES).lower() + ")",
    "she": "(?:she|he)",
    "things": "(?:" + "|".join(THINGS) + ")",
    "boxes": "(?:" + "|".join(BOXES) + ")",
    "a": r"(?P<a>\d+)",
    "b": r"(?P<b>\d+)",
}


@dataclass(frozen=True, slots=True)
class Template:
    """One template: its kind and number (``gain2``) and the pattern of its lower-case text."""

    kind: str
    label: str
    text: str
    pattern: re.Pattern[str]


@functools.cache
def templates(part: str) -> tuple[Template, ...]:
    """The templates of ``start``, ``event`` or ``question``."""
    kinds = {"start": STARTS, "event": EVENTS, "question": QUESTIONS}[part]
    return tuple(
        Template(kind, f"{kind}{number}", text, _pattern(text))
        for kind, texts in kinds.items()
        for number, text in enumerate(texts)
    )


def _pattern(text: str) -> re.Pattern[str]:
    parts = _SLOT.split(text.lower())
    pattern = "".join(
        _PATTERNS[part] if place % 2 else re.escape(part).replace(r"\ ", " ")
        for place, part in enumerate(parts)
    )
    return re.compile(pattern)


@functools.cache
def words() -> tuple[str, ...]:
    """Every lower-case word that can stand in a problem, in alphabetical order."""
    plain = [
        word
        for part in ("start", "event", "question")
        for template in templates(part)
        for word in re.findall(r"[a-z]+", _SLOT.sub("", template.text).lower())
    ]
    nouns = [*(name.lower() for name in NAMES), *THINGS, *BOXES, "she", "he"]
    return tuple(sorted({*plain, *nouns}))
