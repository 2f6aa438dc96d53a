"""The calculator: exact values, exact text, and an answer at once to anything hostile."""

import contextlib
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longthought.errors import InvalidInput
from longthought.tools import Tool, ToolCall, calculator, run_tool
from longthought.tools.calculator import MAX_PLACES, evaluate, exact_text


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("8 / 8", "1"),
        ("1/3", "1/3"),
        ("0.1 + 0.2", "0.3"),
        (".5 + 1.", "1.5"),
        ("1e3 * 2E-3", "2"),
        ("-2**2", "-4"),
        ("(-2)**2", "4"),
        ("2**3**2", "512"),
        ("2**-2", "0.25"),
        ("2^10", "1024"),
        ("-7 // 2", "-4"),
        ("-7 % 3", "2"),
        ("7.5 % 2", "1.5"),
        ("+5", "5"),
        ("2*-3", "-6"),
        ("-2*3+1", "-5"),
        ("10 - 4 - 3", "3"),
        ("100 / 10 / 5", "2"),
        ("3 \u00d7 4 \u00f7 2 \u2212 1", "5"),
        ("(7 - 8 / 8) * 4 =", "24"),
        ("1,234,567 + 1", "1234568"),
        ("0 ** 0", "1"),
        ("0 ** 5", "0"),
        ("(-1) ** 999999999999999", "-1"),
        ("(-1) ** -2", "1"),
        ("1/8", "0.125"),
        ("-1/8", "-0.125"),
        ("1/7", "1/7"),
        (" \t8\n", "8"),
        ("9007199254740993 * 1", "9007199254740993"),
    ],
)
def test_values_are_exact(expression, text):
    assert exact_text(evaluate(expression)) == text


@pytest.mark.parametrize("expression", ["1/0", "1//0", "1%0", "0**-1", "1/(2-2)"])
async def test_division_by_zero_is_told(expression):
    result = await call(expression)
    assert (result.status, result.content) == ("tool_error", "ZeroDivisionError: division by zero")


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "   ",
        "=",
        "1 +",
        "(1",
        "1)",
        "()",
        "1 2",
        "* 3",
        "2(3)",
        "1 + x",
        "__import__('os')",
        "1; 2",
        "2 ** 0.5",
        "2 ** (1/3)",
        "1,23",
        "\x00",
        "1e",
        "٣ + ٤",
        "1 if 2 else 3",
        "lambda: 0",
        "'a' * 9",
        "1 == 1",
        "1" * 2001,
        "1" * 999999,
        "(" * 400 + "1" + ")" * 400,
        "-" * 900 + "1",
        "2**2**2**2**2**2**2",
        "9**9**9**9",
        "1e999999999",
        "1e-999999999",
        "1e" + "9" * 900,
        "10**100000",
        "(1/3)**100000",
        "2**-100000",
        "1.5**99999999",
        "*".join(["9" * 100] * 9) + "**99",
    ],
)
def test_what_is_no_expression_or_too_large_is_refused(expression):
    with pytest.raises(InvalidInput):
        evaluate(expression)


async def call(expression):
    it = calculator()
    assert isinstance(it, Tool)
    return await run_tool(it, ToolCall("c1", "calculator", {"expression": expression}))


async def test_the_tool_is_pure_and_answers_in_text():
    assert calculator().spec.effect == "pure"
    result = await call("8 / 8")
    assert (result.status, result.content) == ("ok", "1")
    result = await call("1 + x")
    assert result.status == "tool_error"
    assert "cannot read 'x'" in result.content


NUMBERS = st.integers(0, 99).map(lambda n: (str(n), Fraction(n))) | st.decimals(
    0, 50, places=2, allow_nan=False
).map(lambda d: (str(d), Fraction(str(d))))


def combine(children):
    return st.tuples(st.sampled_from("+-*/"), children, children).map(build)


def build(parts):
    sign, (left, a), (right, b) = parts
    text = f"({left} {sign} {right})"
    if a is None or b is None or (sign == "/" and b == 0):
        return text, None
    return text, {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else None}[sign]


@given(st.recursive(NUMBERS, combine, max_leaves=12))
def test_agrees_with_fractions(pair):
    text, value = pair
    if value is None:
        with pytest.raises(ZeroDivisionError):
            evaluate(text)
    else:
        assert evaluate(text) == value


@given(st.text(max_size=60))
@pytest.mark.filterwarnings("error")
def test_any_text_is_answered(text):
    with contextlib.suppress(InvalidInput, ZeroDivisionError):
        assert isinstance(evaluate(text), Fraction)


@given(st.text(alphabet="0123456789+-*/%^(). e,", max_size=80))
def test_any_arithmetic_looking_text_is_answered(text):
    with contextlib.suppress(InvalidInput, ZeroDivisionError):
        exact_text(evaluate(text))


@given(st.fractions())
def test_the_text_of_a_value_reads_back(value):
    assert Fraction(exact_text(value)) == value


@given(st.integers(-(10**9), 10**9), st.integers(0, 9))
def test_terminating_decimals_are_written_as_such(number, places):
    assert "/" not in exact_text(Fraction(number, 10**places))


def test_endless_decimals_and_very_long_ones_stay_fractions():
    assert exact_text(Fraction(1, 2**MAX_PLACES)).startswith("0.")
    assert exact_text(Fraction(1, 2 ** (MAX_PLACES + 1))).startswith("1/")
    assert exact_text(Fraction(1, 5 ** (MAX_PLACES + 1))).startswith("1/")
