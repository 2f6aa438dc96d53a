"""The token vocabulary of letter counting and its readable text form.

A letter is one token, and so is a count from 0 to 16. A thought spells the word, each letter with
the number of hits so far:

    s 0, t 0, r 1, a 1, w 1, b 1, e 1, r 2, r 3, y 3, so the answer is 3.

Every token has exactly one word in the text, and everything else in the text is decoration (commas,
white space, how the last sentence begins), so any sequence, well formed or not, survives tokens ->
text -> tokens. The text of a token depends only on the tokens before it: a reply can be streamed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from longthought.errors import InvalidInput

__all__ = [
    "ANSWER",
    "COLON",
    "COUNTS",
    "END",
    "LETTERS",
    "MODE_CHAIN",
    "MODE_DIRECT",
    "PADDING",
    "SIZE",
    "Renderer",
    "count_of",
    "decode",
    "encode",
    "ends_with_pair",
    "letter_of",
    "prompt",
    "word_of",
]

LETTERS = range(26)
"""The letters from a to z."""

COUNTS = range(26, 43)
"""The counts from 0 to 16."""

_SIGNS = (":", "The answer is", "END", "<C>", "<D>", "PAD")
COLON, ANSWER, END, MODE_CHAIN, MODE_DIRECT, PADDING = range(43, 49)
_NAMES: tuple[str, ...] = (*"abcdefghijklmnopqrstuvwxyz", *map(str, range(len(COUNTS))), *_SIGNS)
SIZE = len(_NAMES)
"""How many tokens there are."""

_TOKEN = {name: token for token, name in enumerate(_NAMES)}
# A comma is how a count right after a letter ends; a stop string may have taken it away.
_LEXEME = re.compile(
    r"(?P<skip>[\s,]+)|(?P<answer>(?:so t|T|t)he answer is(?![a-z]))|(?P<end>\.)"
    r"|(?P<word>[a-z](?![a-z])|\d+|PAD|<[CD]>|:)"
)
_PAIR = re.compile(r"(?:^|[\s,:.>])[a-z]\s+\d+$")


def word_of(token: int) -> str:
    """The word of one token, without decoration."""
    return _NAMES[token]


def letter_of(letter: str) -> int:
    """The token of a small letter from a to z."""
    return _TOKEN[letter]


def prompt(letter: str, word: str) -> list[int]:
    """The tokens of a question, both in small letters: the letter, the word, a colon after each."""
    return [letter_of(letter), COLON, *map(letter_of, word), COLON]


def count_of(number: int) -> int:
    """The token of a count from 0 to 16."""
    return COUNTS[number]


class Renderer:
    """Writes tokens as text, one at a time; a count that follows a letter brings its comma."""

    def __init__(self) -> None:
        self._last = -1
        self._glue = True

    def fresh(self) -> None:
        """The next piece starts a text of its own: no white space before it."""
        self._glue = True

    def feed(self, token: int) -> str:
        """The text this token adds."""
        space = "" if self._glue or token == END else " "
        text = space + self._word(token)
        self._last, self._glue = token, False
        return text

    def _word(self, token: int) -> str:
        if token == END:
            return "."
        if token == ANSWER and self._last >= 0:  # it goes on with a sentence
            return "so the answer is"
        return _NAMES[token] + ("," if token in COUNTS and self._last in LETTERS else "")

    def settle(self) -> str:
        """Nothing: a count is one token, so no text is ever held back."""
        return ""


def decode(tokens: Iterable[int]) -> str:
    """The text of a whole sequence."""
    renderer = Renderer()
    return "".join(renderer.feed(token) for token in tokens)


def ends_with_pair(text: str) -> bool:
    """Whether a text ends with a letter and its count, the comma after them missing."""
    return _PAIR.search(text[-8:]) is not None


def encode(text: str) -> list[int]:
    """The tokens of a text in the form that :func:`decode` writes; decoration is skipped.

    ``encode(decode(tokens)) == tokens`` for every sequence of tokens.

    Raises:
        InvalidInput: a word outside the vocabulary.
    """
    tokens: list[int] = []
    place = 0
    while place < len(text):
        found = _LEXEME.match(text, place)
        if found is None or (found["word"] and found["word"] not in _TOKEN):
            raise InvalidInput("text", f"{text[place : place + 20]!r} is no word of this model")
        place = found.end()
        if found["answer"]:
            tokens.append(ANSWER)
        elif found["end"]:
            tokens.append(END)
        elif found["word"]:
            tokens.append(_TOKEN[found["word"]])
    return tokens
