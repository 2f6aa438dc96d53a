"""The token vocabulary of word problems and its readable text form.

Words and signs are one token each. A number is one token per digit, **units first**: that is the
order in which sums are carried, and it is what makes arithmetic learnable for so small a network.
The text turns every number round again, so a reader sees ``386 + 57 = 443``; a number is shown when
the token after its last digit has come. A reply that is cut in mid-number ends before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from longthought.errors import InvalidInput

from .templates import words

__all__ = [
    "ANSWER",
    "CALL",
    "COLON",
    "DIGITS",
    "DIVIDE",
    "END",
    "EQUALS",
    "MINUS",
    "MODE_CHAIN",
    "MODE_DIRECT",
    "MODE_SUM",
    "MODE_TOOL",
    "NEWLINE",
    "OPERATORS",
    "PADDING",
    "PLUS",
    "RETURN",
    "SIZE",
    "TIMES",
    "Renderer",
    "decode",
    "digits_of",
    "encode",
    "number_of",
    "word_of",
]

DIGITS = range(10)
"""The digits stand for themselves."""

_SIGNS = (
    *("+", "-", "*", "/", "=", "CALL", "RET", "\n", ":", "."),
    *("?", "The answer is", "END", "<C>", "<X>", "<D>", "<S>", "PAD"),
)
PLUS, MINUS, TIMES, DIVIDE, EQUALS, CALL, RETURN, NEWLINE, COLON, _STOP = range(10, 20)
_ASK, ANSWER, END, MODE_CHAIN, MODE_TOOL, MODE_DIRECT, MODE_SUM, PADDING = range(20, 28)
_WORDS = words()
SIZE = len(DIGITS) + len(_SIGNS) + len(_WORDS)
"""How many tokens there are."""

OPERATORS = {PLUS: "+", MINUS: "-", TIMES: "*", DIVIDE: "/"}
"""The four operations: token -> sign."""

_NAMES = [*map(str, DIGITS), *_SIGNS, *_WORDS]
_TOKEN = {name.lower(): token for token, name in enumerate(_NAMES)}
_LEXEME = re.compile(
    r"(?P<number>\d+)|(?P<answer>the answer is)|(?P<end>\.(?=\s*$))|(?P<newline>\n)"
    r"|(?P<word>[a-z]+|<[cxds]>|[-+*/=:.?])"
)


def word_of(token: int) -> str:
    """The word of one token, without decoration."""
    return _NAMES[token]


def digits_of(number: int | str) -> list[int]:
    """The tokens of a number, units first."""
    return [int(digit) for digit in reversed(str(number))]


def number_of(digits: Sequence[int]) -> int:
    """The number that these digit tokens stand for."""
    return int("".join(map(str, reversed(digits))))


class Renderer:
    """Writes tokens as text, one at a time; digits are held back until their number is complete."""

    def __init__(self) -> None:
        self._digits: list[int] = []
        self._before = ""  # what comes before the next piece: a space, a line break, nothing

    def fresh(self) -> None:
        """The next piece starts a text of its own: no white space before it."""
        self._before = ""

    def feed(self, token: int) -> str:
        """The text this token adds; empty while a number is being written."""
        if token in DIGITS:
            self._digits.append(token)
            return ""
        text = self._number()
        if token == RETURN:  # its line ends where the next piece begins
            self._before = "\n"
        elif token == NEWLINE:
            text += "\n"
            self._before = ""
        elif token in (END, _STOP, _ASK):
            text += "?" if token == _ASK else "."
            self._before = " "
        else:
            text += self._before + _NAMES[token]
            self._before = " "
        return text

    def settle(self) -> str:
        """The number that is still held back: it is complete, whatever follows."""
        return self._number()

    def _number(self) -> str:
        if not self._digits:
            return ""
        number = "".join(map(str, reversed(self._digits)))
        self._digits.clear()
        text, self._before = self._before + number, " "
        return text


def decode(tokens: Iterable[int]) -> str:
    """The text of a whole sequence; digits at its very end belong to no complete number."""
    renderer = Renderer()
    return "".join(renderer.feed(token) for token in tokens)


def encode(text: str) -> list[int]:
    """The tokens of a text in the form that :func:`decode` writes, or of a question.

    A full stop at the very end of an answer is END. A result at the very end of the text closes
    with the line break that a stop string took away; a line break at the beginning belongs to the
    tool result before it.

    Raises:
        InvalidInput: a word outside the vocabulary.
    """
    plain = text.strip("\n").lower() + ("\n" if text.rstrip(" ").endswith("\n") else "")
    tokens: list[int] = []
    place, answered = 0, False
    while place < len(plain):
        found = _LEXEME.match(plain, place)
        if found is None and plain[place].isspace():
            place += 1
            continue
        if found is None or (found["word"] and found["word"] not in _TOKEN):
            raise InvalidInput("text", f"{plain[place : place + 20]!r} is no word of this model")
        place = found.end()
        tokens.extend(_tokens(found, answered=answered))
        answered = answered or bool(found["answer"])
    return [*tokens, NEWLINE] if _open_result(tokens) else tokens


def _tokens(found: re.Match[str], *, answered: bool) -> list[int]:
    if found["number"]:
        return digits_of(found["number"])
    if found["answer"]:
        return [ANSWER]
    if found["newline"]:
        return [NEWLINE]
    if found["end"]:
        return [END if answered else _STOP]
    return [_TOKEN[found["word"]]]


def _open_result(tokens: Sequence[int]) -> bool:
    """Whether the tokens end with a number right after an equals sign."""
    place = len(tokens)
    while place and tokens[place - 1] in DIGITS:
        place -= 1
    return place < len(tokens) and place > 0 and tokens[place - 1] == EQUALS
