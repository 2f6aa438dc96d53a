"""A task for tests alone: sums of two numbers, written digit by digit with the units first.

Its text turns the numbers round, so a number is shown only when the token after it has come. A
semicolon ends each equation.
"""

from __future__ import annotations

import re

from longthought.errors import InvalidInput, QuestionRefused
from longthought.orchestrator.models.embedded.tasks import Asked, Language, Mode

PLUS, EQUALS, SEMICOLON, CALL, RETURN, END, CHAIN, TOOL = range(10, 18)
SIZE = 18
WORDS = [*map(str, range(10)), "+", "=", ";", "CALL", "RET", "END", "<C>", "<X>"]


def digits(number: str) -> list[int]:
    return [int(digit) for digit in reversed(number)]


class Renderer:
    def __init__(self) -> None:
        self._digits = ""
        self._space = ""

    def fresh(self) -> None:
        self._space = ""

    def feed(self, token: int) -> str:
        if token < 10:
            self._digits = f"{token}{self._digits}"
            return ""
        number = self.settle()
        space, self._space = self._space, " "
        return number + (";" if token == SEMICOLON else space + WORDS[token])

    def settle(self) -> str:
        if not self._digits:
            return ""
        text, self._digits, self._space = self._space + self._digits, "", " "
        return text


def encode(text: str) -> list[int]:
    tokens: list[int] = []
    for word in re.findall(r"\d+|[A-Z]+|\S", text):
        if not word.isdigit() and word not in WORDS:
            raise InvalidInput("text", f"{word!r} is no word")
        tokens += digits(word) if word.isdigit() else [WORDS.index(word)]
    return tokens


class SumTask:
    name = "sums"
    call = CALL
    language = Language(Renderer, WORDS.__getitem__, encode)

    def ask(self, text: str) -> Asked | None:
        found = re.fullmatch(r"sum (\d+) (\d+)", text)
        if found is None:
            return None
        if max(map(len, found.groups())) > 3:
            raise QuestionRefused("question", "numbers have at most 3 digits")
        return Asked(self, found.groups(), ("chain", "tool"))

    def can(self) -> str:
        return "sums, such as 'sum 12 7'"

    def head(self, asked: Asked, mode: Mode) -> list[int]:
        assert isinstance(asked.problem, tuple)
        left, right = asked.problem
        return [*digits(left), PLUS, *digits(right), TOOL if mode == "tool" else CHAIN]

    def ends(self, mode: Mode, token: int) -> bool:
        return token == END

    def finished(self, token: int) -> bool:
        return token == END

    def between(self, continued: str) -> str | None:
        return None if continued != continued.rstrip() else ""

    def expression(self, tokens: list[int]) -> str | None:
        text = "".join(WORDS[token] for token in reversed(tokens[:-1]))
        found = re.match(r"(\d+)\+(\d+)", text)
        return f"{found[2]} + {found[1]}" if found else None

    def returned(self, result: str) -> list[int] | None:
        return [*digits(result), RETURN] if result.isdigit() else None

    def unusable(self, result: str) -> str:
        return f"{result} is no number"
