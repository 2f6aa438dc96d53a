"""The token vocabulary of the puzzle models and its readable text form.

A token is one integer: the numbers 0..255 stand for themselves, the signs and marks follow. Every
token has exactly one word in the text, and everything else in the text is decoration (brackets,
full stops, white space), so any sequence, well formed or not, survives tokens -> text -> tokens:

    8 / 8 = 1 [1 4 7 left]; 7 - 1 = 6 [4 6 left]; 6 * 4 = 24. DONE

The text of a token depends only on the tokens before it, so a reply can be streamed as it is drawn.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from longthought.errors import InvalidInput

__all__ = [
    "BACK",
    "CALL",
    "CLOSE",
    "COLON",
    "DIVIDE",
    "DONE",
    "EQUALS",
    "MINUS",
    "MODE_CHAIN",
    "MODE_DIRECT",
    "MODE_TOOL",
    "MODE_VALUE",
    "NO",
    "NUMBER_MAX",
    "OPEN",
    "OPERATORS",
    "PADDING",
    "PLUS",
    "RETURN",
    "SEMICOLON",
    "SIZE",
    "TIMES",
    "YES",
    "Renderer",
    "decode",
    "encode",
    "word_of",
]

NUMBER_MAX = 255
"""The largest number that is a token; the puzzles stay within it."""

_WORDS = (
    *("+", "-", "*", "/", "=", "CALL", "RET", ";", ":", "DONE", "BACK"),
    *("<C>", "<X>", "<D>", "<V>", "YES", "NO", "PAD", "(", ")"),
)
PLUS, MINUS, TIMES, DIVIDE, EQUALS, CALL, RETURN, SEMICOLON, COLON, DONE, BACK = range(256, 267)
MODE_CHAIN, MODE_TOOL, MODE_DIRECT, MODE_VALUE, YES, NO, PADDING, OPEN, CLOSE = range(267, 276)
SIZE = NUMBER_MAX + 1 + len(_WORDS)
"""How many tokens there are."""

OPERATORS = {PLUS: "+", MINUS: "-", TIMES: "*", DIVIDE: "/"}
"""The four operations: token -> sign."""

_TOKEN = {word: NUMBER_MAX + 1 + place for place, word in enumerate(_WORDS)}
# `left]` is how a SEMICOLON after a list of numbers is written; the `;` may be missing behind it,
# because a stop string ends the text just before it.
_LEXEME = re.compile(
    r"(?P<skip>[\s.\[]+)|(?P<semicolon>left\]\s*;?)|(?P<number>\d+)"
    r"|(?P<word>CALL|RET|DONE|BACK|YES|NO|PAD|<[CXDV]>|[-+*/=;:()])|(?P<close>\])"
)


def word_of(token: int) -> str:
    """The word of one token, without decoration."""
    return str(token) if token <= NUMBER_MAX else _WORDS[token - NUMBER_MAX - 1]


class Renderer:
    """Writes tokens as text, one at a time; what was fed before decides spaces and brackets.

    ``fresh`` drops the white space before the next piece, as at the start of a message.
    """

    def __init__(self) -> None:
        self._before = -1
        self._last = -1
        self._bracket = False
        self._glue = True

    def fresh(self) -> None:
        """The next piece starts a text of its own: no white space before it."""
        self._glue = True

    def feed(self, token: int) -> str:
        """The text this token adds."""
        opens = (
            not self._bracket
            and token <= NUMBER_MAX
            and (self._last == RETURN or (self._before == EQUALS and 0 <= self._last <= NUMBER_MAX))
        )
        closes = self._bracket and token > NUMBER_MAX
        text = self._decorated(token, opens, closes)
        self._bracket = (self._bracket or opens) and not closes
        self._glue = text.endswith(("\n", "("))
        self._before, self._last = self._last, token
        return text

    def settle(self) -> str:
        """Nothing: a number is one token here, so no text is ever held back."""
        return ""

    def _decorated(self, token: int, opens: bool, closes: bool) -> str:
        space = "" if self._glue else " "
        word = word_of(token)
        if opens:
            return f"{space}[{word}"
        if token == SEMICOLON:
            return f"{space}left];" if closes else ";"
        if token == CLOSE:
            return "])" if closes else ")"
        shut = "]" if closes else ""
        if token in (DONE, BACK):
            ended = 0 <= self._last <= NUMBER_MAX or self._last in (CLOSE, RETURN)
            stop = "." if shut or ended else ""
            gap = " " if stop else space
            return f"{shut}{stop}{gap}{word}" + ("\n" if token == BACK else "")
        return f"{shut}{' ' if shut else space}{word}"


def decode(tokens: Iterable[int]) -> str:
    """The text of a whole sequence."""
    renderer = Renderer()
    return "".join(renderer.feed(token) for token in tokens)


def encode(text: str) -> list[int]:
    """The tokens of a text in the form that :func:`decode` writes; decoration is skipped.

    ``encode(decode(tokens)) == tokens`` for every sequence of tokens.

    Raises:
        InvalidInput: a word outside the vocabulary, or a number above 255.
    """
    tokens: list[int] = []
    place = 0
    while place < len(text):
        found = _LEXEME.match(text, place)
        if found is None:
            raise InvalidInput("text", f"{text[place : place + 20]!r} is no word of this model")
        place = found.end()
        if found["semicolon"]:
            tokens.append(SEMICOLON)
        elif found["number"]:
            tokens.append(_number(found["number"]))
        elif found["word"]:
            tokens.append(_TOKEN[found["word"]])
    return tokens


def _number(digits: str) -> int:
    if len(digits) > 3 or int(digits) > NUMBER_MAX:
        raise InvalidInput("text", f"{digits[:20]} is above {NUMBER_MAX}, the largest number")
    return int(digits)
