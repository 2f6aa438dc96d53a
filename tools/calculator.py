"""An exact calculator: whole numbers, decimals and fractions, never a rounded float."""

from __future__ import annotations

import re
from fractions import Fraction

from longthought.errors import InvalidInput
from longthought.tools.function import tool
from longthought.tools.protocol import Tool
from longthought.tools.signs import ARITHMETIC

__all__ = ["calculator", "evaluate", "exact_text"]

MAX_CHARS = 1_000
MAX_DEPTH = 50
MAX_DIGITS = 2_000  # of a numerator or denominator; below Python's own limit for printing
MAX_PLACES = 100  # a terminating decimal with more places is shown as a fraction

_MAX_BITS = MAX_DIGITS * 3322 // 1000
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d{1,3}(?:,\d{3})+(?![\d,])|\d+)(?:\.\d*)?(?:[eE][+-]?\d+)?"
    r"|\.\d+(?:[eE][+-]?\d+)?)"
    r"|(?P<sign>\*\*|//|[-+*/%^()]))",
    re.ASCII,
)
_BINDS = {"+": 1, "-": 1, "*": 2, "/": 2, "//": 2, "%": 2, "**": 4, "^": 4}
_UNARY = 3  # -2**2 is -(2**2), -2*3 is (-2)*3


def calculator() -> Tool:
    """The tool ``calculator``: evaluates one arithmetic expression exactly. Its effect is pure."""

    @tool(effect="pure", name="calculator", timeout=5.0, version="1")
    async def calculate(expression: str) -> str:
        """Evaluate one arithmetic expression exactly and return its value.

        Args:
            expression: Numbers, parentheses and + - * / // % **, for example (7 - 8 / 8) * 4.
        """
        return exact_text(evaluate(expression))

    return calculate


def evaluate(expression: str) -> Fraction:
    """The exact value of an arithmetic expression.

    Operators are ``+ - * / // % **`` (``^`` is ``**``), with Python's precedence; their
    Unicode forms and thousands separators are accepted, as is a trailing ``=``. Length, depth and
    the digits of every intermediate value are limited, so that any text is answered at once.

    Raises:
        InvalidInput: no expression, or one beyond the limits.
        ZeroDivisionError: a division by zero.
    """
    if len(expression) > MAX_CHARS:
        raise InvalidInput("expression", f"longer than {MAX_CHARS} characters")
    tokens = _tokens(expression.translate(ARITHMETIC).strip().rstrip("=").rstrip())
    if not tokens:
        raise InvalidInput("expression", "is empty", "Write for example 3 * (4 + 5)")
    parser = _Parser(tokens)
    value = parser.expression(0, 0)
    if parser.rest:
        raise InvalidInput("expression", f"unexpected {parser.rest!r} after a complete expression")
    return value


def exact_text(value: Fraction) -> str:
    """The one text for a value: ``6``, a terminating decimal ``0.25``, else a fraction ``1/3``."""
    places = _places(value.denominator)
    if places is None:
        return f"{value.numerator}/{value.denominator}"
    if places == 0:
        return str(value.numerator)
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    sign = "-" if value < 0 else ""
    return f"{sign}{digits[:-places]}.{digits[-places:]}"


def _places(denominator: int) -> int | None:
    """Decimal places of a fraction in lowest terms; None if it does not end, or ends too late."""
    twos = (denominator & -denominator).bit_length() - 1
    denominator >>= twos
    fives = 0
    while denominator % 5 == 0 and fives <= MAX_PLACES:
        denominator //= 5
        fives += 1
    places = max(twos, fives)
    return places if denominator == 1 and places <= MAX_PLACES else None


def _tokens(text: str) -> list[str]:
    """Numbers and signs of an expression, in order."""
    tokens: list[str] = []
    position = 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        if not found:
            part = text[position:].lstrip()[:20]
            fix = "Only numbers, parentheses and + - * / // % ** are understood"
            raise InvalidInput("expression", f"cannot read {part!r}", fix)
        tokens.append(found[0].strip())
        position = found.end()
    return tokens


class _Parser:
    """Precedence climbing over tokens; values are computed on the way, no tree is kept."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._next = 0

    @property
    def rest(self) -> str:
        """The token that comes next, or nothing."""
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def expression(self, binds: int, depth: int) -> Fraction:
        """The value of the longest expression whose operators bind at least this tightly."""
        if depth > MAX_DEPTH:
            raise InvalidInput("expression", f"nested deeper than {MAX_DEPTH}")
        value = self._operand(depth)
        while (sign := self.rest) in _BINDS and _BINDS[sign] >= binds:
            self._next += 1
            # ** groups from the right: 2**3**2 is 2**9
            right = self.expression(_BINDS[sign] + (sign not in ("**", "^")), depth + 1)
            value = _apply(sign, value, right)
        return value

    def _operand(self, depth: int) -> Fraction:
        symbol = self.rest
        self._next += 1
        if symbol in ("-", "+"):
            value = self.expression(_UNARY, depth + 1)
            return -value if symbol == "-" else value
        if symbol == "(":
            value = self.expression(0, depth + 1)
            if self.rest != ")":
                raise InvalidInput("expression", "a parenthesis is not closed")
            self._next += 1
            return value
        if not symbol:
            raise InvalidInput("expression", "ends where a number should be")
        if symbol in _BINDS or symbol == ")":
            raise InvalidInput("expression", f"a number should be where {symbol!r} is")
        return _number(symbol)


def _number(token: str) -> Fraction:
    """The exact value of a literal. A large exponent is refused before it is computed."""
    mantissa, _, exponent = token.replace(",", "").lower().partition("e")
    if len(mantissa) > MAX_DIGITS or len(exponent) > 6 or abs(int(exponent or 0)) > MAX_DIGITS:
        raise InvalidInput("expression", f"a number has more than {MAX_DIGITS} digits")
    return Fraction(mantissa.rstrip(".")) * Fraction(10) ** int(exponent or 0)


def _apply(sign: str, left: Fraction, right: Fraction) -> Fraction:
    """One operation; the result is refused when it grows beyond the limits."""
    if sign in ("/", "//", "%") and right == 0:
        raise ZeroDivisionError("division by zero")
    if sign in ("**", "^"):
        return _power(left, right)
    if sign == "+":
        value = left + right
    elif sign == "-":
        value = left - right
    elif sign == "*":
        value = left * right
    elif sign == "/":
        value = left / right
    elif sign == "//":
        value = Fraction(left // right)
    else:
        value = left % right
    return _bounded(value)


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    """A whole power. Its size is estimated first: nothing is computed that would be refused."""
    if exponent.denominator != 1:
        fix = "Roots are not exact; only whole exponents are"
        raise InvalidInput("expression", f"the exponent {exact_text(exponent)} is not whole", fix)
    if base == 0 and exponent < 0:
        raise ZeroDivisionError("division by zero")
    if base in (0, 1, -1):  # any exponent is fine
        return base ** (2 - exponent.numerator % 2) if exponent else Fraction(1)
    size = max(abs(base.numerator).bit_length(), base.denominator.bit_length())
    if abs(exponent) > _MAX_BITS or (size - 1) * abs(exponent) > _MAX_BITS:
        raise InvalidInput("expression", f"a power has more than {MAX_DIGITS} digits")
    return _bounded(base**exponent.numerator)


def _bounded(value: Fraction) -> Fraction:
    if max(abs(value.numerator).bit_length(), value.denominator.bit_length()) > _MAX_BITS:
        raise InvalidInput("expression", f"a value has more than {MAX_DIGITS} digits")
    return value
