"""Arithmetic expressions over whole numbers: parsed, valued, and brought to one form.

Two texts that differ by the order of summands or factors, or by brackets that change nothing, have
one normal form; it is the vote key of puzzle answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

from longthought.tools.signs import ARITHMETIC

__all__ = ["Expression", "Operation", "apply", "normal_form", "numbers_of", "parse", "value_of"]

MAX_CHARS = 500
MAX_DEPTH = 30

_TOKEN = re.compile(r"\s*(\d{1,12}|[-+*/()])", re.ASCII)


@dataclass(frozen=True, slots=True)
class Operation:
    """``left sign right`` with sign one of ``+ - * /``."""

    sign: str
    left: Expression
    right: Expression


Expression: TypeAlias = Operation | Fraction


def parse(text: str) -> Expression | None:
    """The expression a text is, or None when it is none or is unreasonably long."""
    text = text.translate(ARITHMETIC).strip()
    if not text or len(text) > MAX_CHARS:
        return None
    tokens: list[str] = []
    position = 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        if not found:
            return None
        tokens.append(found[1])
        position = found.end()
    try:
        return _Parser(tokens).whole()
    except _NoExpression:
        return None


def apply(sign: str, left: Fraction, right: Fraction) -> Fraction | None:
    """The exact value of one operation, None for a division by zero."""
    if sign == "+":
        return left + right
    if sign == "-":
        return left - right
    if sign == "*":
        return left * right
    return left / right if right else None


def value_of(expression: Expression) -> Fraction | None:
    """The exact value, None when it divides by zero somewhere."""
    if isinstance(expression, Fraction):
        return expression
    left, right = value_of(expression.left), value_of(expression.right)
    return None if left is None or right is None else apply(expression.sign, left, right)


def numbers_of(expression: Expression) -> list[Fraction]:
    """The numbers it is written with, from left to right."""
    if isinstance(expression, Fraction):
        return [expression]
    return numbers_of(expression.left) + numbers_of(expression.right)


def normal_form(expression: Expression) -> str:
    """The one text for every expression that differs only in order and needless brackets."""
    return _sum_text(expression) if _is_sum(expression) else _product_text(expression)


class _NoExpression(Exception):
    """The tokens are no expression."""


class _Parser:
    """Recursive descent over tokens; minus is only ever between two operands."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._next = 0

    def whole(self) -> Expression:
        result = self._chain("+-", lambda: self._chain("*/", self._atom))
        if self._next != len(self._tokens):
            raise _NoExpression
        return result

    def _chain(self, signs: str, operand: Callable[[], Expression]) -> Expression:
        left = operand()
        while self._peek() and self._peek() in signs:
            sign = self._take()
            left = Operation(sign, left, operand())
        return left

    def _atom(self) -> Expression:
        symbol = self._take()
        if symbol.isdigit():
            return Fraction(symbol)
        if symbol != "(" or self._tokens[: self._next].count("(") > MAX_DEPTH:
            raise _NoExpression
        inner = self._chain("+-", lambda: self._chain("*/", self._atom))
        if self._take() != ")":
            raise _NoExpression
        return inner

    def _peek(self) -> str:
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def _take(self) -> str:
        symbol = self._peek()
        if not symbol:
            raise _NoExpression
        self._next += 1
        return symbol


def _is_sum(expression: Expression) -> bool:
    return isinstance(expression, Operation) and expression.sign in "+-"


def _terms(
    expression: Expression, plus: list[Expression], minus: list[Expression], signs: str
) -> None:
    """Collect the operands of nested ``+ -`` (or ``* /``), those taken away apart."""
    if not isinstance(expression, Operation) or expression.sign not in signs:
        plus.append(expression)
        return
    _terms(expression.left, plus, minus, signs)
    if expression.sign == signs[0]:
        _terms(expression.right, plus, minus, signs)
    else:
        _terms(expression.right, minus, plus, signs)


def _sum_text(expression: Expression) -> str:
    plus: list[Expression] = []
    minus: list[Expression] = []
    _terms(expression, plus, minus, "+-")
    text = " + ".join(sorted(map(_product_text, plus), key=_order))
    return text + "".join(f" - {one}" for one in sorted(map(_product_text, minus), key=_order))


def _product_text(expression: Expression) -> str:
    times: list[Expression] = []
    over: list[Expression] = []
    _terms(expression, times, over, "*/")
    text = " * ".join(sorted(map(_factor_text, times), key=_order))
    return text + "".join(f" / {one}" for one in sorted(map(_factor_text, over), key=_order))


def _factor_text(expression: Expression) -> str:
    return f"({_sum_text(expression)})" if _is_sum(expression) else str(expression)


def _order(text: str) -> tuple[int, int, str]:
    """Plain numbers first, by value; then by length and text."""
    return (0, int(text), "") if text.isdigit() else (1, len(text), text)
