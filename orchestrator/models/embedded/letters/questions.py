"""The grammar of letter counting: which letter in which word a text asks for, if it asks that."""

from __future__ import annotations

import re

from longthought.errors import QuestionRefused

from .problems import ALPHABET, LONGEST, Problem

__all__ = ["parse_question"]

# Curly quotes, primes and accents that stand for quotes; guillemets.
_SINGLE_QUOTES = "\u2018\u2019\u201a\u201b\u2032`\u00b4"
_DOUBLE_QUOTES = "\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb"
_STRAIGHT = str.maketrans(
    {**dict.fromkeys(_SINGLE_QUOTES, "'"), **dict.fromkeys(_DOUBLE_QUOTES, '"')}
)
_LEAD = r"(?:please )?(?:(?:can|could) you )?(?:please )?(?:tell me )?"
# What stands for the letter is short. The bound keeps the time linear in the length of the text.
_ASKED = r"(?P<asked>.{1,60}?)"
_OCCURS = r"(?:appear|occur|come up|show up)s?"
_FOUND = rf"(?:{_OCCURS}|there|(?:be )?(?:found|seen|used))"
_ARE = rf"(?:are|is|can (?:you|i) find|do (?:you|i) (?:see|find)|{_OCCURS})"
_HOW_MANY = r"(?:how (?:many|often) |the number of )"
_WORD = r" (?:with)?in(?: (?P<word>.*))?"
_FORMS = tuple(
    re.compile(_LEAD + pattern)
    for pattern in (
        rf"how (?:many times|often) (?:does|do|is|can) {_ASKED}(?: {_FOUND})?(?:{_WORD})?",
        rf"how many {_ASKED}(?: there)? {_ARE}(?: there)?(?:{_WORD})?",
        rf"how many {_ASKED} (?:does|do) (?P<word>.*) (?:have|contain)",
        rf"how many {_ASKED}{_WORD}",
        rf"(?:what is |what's )?(?:the )?number of {_ASKED}(?: {_OCCURS})?{_WORD}",
        rf"count (?:up )?{_HOW_MANY}?{_ASKED}(?: {_ARE})?(?: there)?{_WORD}",
    )
)
_ONE = re.compile(
    r"(?:of )?(?:all )?(?:the )?(?:times |(?:occurrences|instances) of )?(?:the )?"
    r"(?P<named>letters?(?: |$))?"
    r"""(?:["']?(?P<letters>[^\W\d_]+?)["']?(?:'?s["']?)?)?"""
)
_AND = re.compile(r",? and |,? or | ?[,&/+] ?")
_LABEL = re.compile(
    r"(?:the|this) (?:\w+ )?(?:word|name|string|text)(?::? |:?$)|(?:word|string):? (?=.)"
)


def parse_question(text: str) -> Problem | None:
    """The question in a user's message, or None if it is not of this kind.

    Understood are ``How many r's are in strawberry?``, ``how often does the letter r appear in
    "strawberry"?``, ``count the letter e in cheese`` and their like.

    Raises:
        QuestionRefused: it is of this kind, but not about one letter and one word that the model
            was made for.
    """
    plain = " ".join(text.translate(_STRAIGHT).lower().split()).rstrip(" .!?")
    for form in _FORMS:
        found = form.fullmatch(plain)
        letter = _letter(found["asked"]) if found else None
        if found and letter:
            return Problem(_word(found["word"] or ""), letter)
    return None


def _letter(asked: str) -> str | None:
    """The letter that is asked for; None if no letter is meant."""
    parts = [_ONE.fullmatch(part) for part in _AND.split(asked)]
    found = [part for part in parts if part]
    named = any(part["named"] for part in found)
    letters = [part["letters"] or "" for part in found]
    if len(found) < len(parts) or not (named or all(len(letter) == 1 for letter in letters)):
        return None
    if not any(letters):
        raise QuestionRefused("question", "no letter is named")
    if len(letters) > 1 or len(letters[0]) > 1:
        raise QuestionRefused("question", "more than one letter is named, one can be counted")
    if letters[0] not in ALPHABET:
        raise QuestionRefused("question", f"{letters[0]!r} is no letter from a to z")
    return letters[0]


def _word(rest: str) -> str:
    """The word at the end of a question."""
    label = _LABEL.match(rest)
    word = (rest[label.end() :] if label else rest).strip("\"' .!?,;:")
    if not word:
        raise QuestionRefused("question", f"no word is given, 1 to {LONGEST} letters are needed")
    if len(word) > LONGEST or not all(letter in ALPHABET for letter in word):
        shown = word if len(word) <= 40 else word[:37] + "..."
        problem = f"{shown!r} is no single word of 1 to {LONGEST} letters from a to z"
        raise QuestionRefused("question", problem)
    return word
