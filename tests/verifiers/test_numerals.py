"""Numbers in prose: which one is the answer, and its exact value."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longthought.verifiers.numerals import find_number, read_number

CASES = [
    ("The answer is 42.", "42"),
    ("so 3+4 = 7", "7"),
    ("\\boxed{\\frac{1}{2}}", "1/2"),
    ("\\boxed{\\dfrac{3}{4}}", "3/4"),
    ("$\\boxed{-12}$", "-12"),
    ("\\boxed{x = 5}", "5"),
    ("\\boxed{1{,}234}", "1234"),
    ("\\boxed{42", "42"),
    ("We had 5 boxes. #### 1,234", "1234"),
    ("####-5", "-5"),
    ("#### $70,000", "70000"),
    ("costs $5.50 in total", "11/2"),
    ("costs \\$5.50", "11/2"),
    ("I get \u22123", "-3"),
    ("1.5e3", "1500"),
    ("6.02\u00d710^23", "602000000000000000000000"),
    ("about 3 \\times 10^{-2}", "3/100"),
    ("answer: 3 + 4 = 7", "7"),
    ("The answer to question 3 is 42", "42"),
    ("The answer is \\boxed{42}", "42"),
    ("**Answer:** 17", "17"),
    ("**Final answer**: **17** apples", "17"),
    ("The answer is:\n\n42", "42"),
    ("answer = 5", "5"),
    ("The answer is about $1,000,000 a year", "1000000"),
    ("The answer is -1/3", "-1/3"),
    ("answer is 5. But wait, the answer is 6", "6"),
    ("Answer: 42 (because 6 * 7)", "42"),
    ("I tried 7, then x = 12, with 3 left over", "12"),
    ("2 1/2 cups", "5/2"),
    ("2\u00bd cups", "5/2"),
    ("\u00bd", "1/2"),
    ("50%", "50"),
    ("50 \\%", "50"),
    ("\u0661\u0662", "12"),
    ("10-3", "3"),
    ("5 - 3", "3"),
    ("x = - 5", "-5"),
    ("-$5", "-5"),
    ("$-5", "-5"),
    ("(-7)", "-7"),
    ("- 3 apples\n- 4 pears", "4"),
    ("1,2,3", "3"),
    (".5", "1/2"),
    ("3.0", "3"),
    ("1/0 and then 4", "4"),
    ("no number", None),
    ("", None),
    ("B12 and x2", None),
    ("1e99999", None),
    ("1/0", None),
    ("NaN inf", None),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_which_number_is_the_answer(text, expected):
    assert find_number(text) == (None if expected is None else Fraction(expected))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("42", 42), (" -1,234.5 ", Fraction(-2469, 2)), ("$3", 3), ("50%", 50), ("1/3", None)],
)
def test_a_text_that_is_one_number(text, expected):
    assert read_number(text) == (Fraction(1, 3) if expected is None else expected)


@pytest.mark.parametrize("text", ["", "4 apples", "x", "3 4", "1/0", "about 4", "4-3"])
def test_a_text_that_is_more_than_a_number(text):
    assert read_number(text) is None


@given(st.fractions(), st.sampled_from(["The answer is {}.", "so x = {}", "#### {}", "{}"]))
def test_fractions_are_found_exactly(value, frame):
    if len(str(value)) < 900:
        assert find_number(frame.format(value)) == value


@given(st.integers(-(10**15), 10**15), st.sampled_from(["The answer is {:,}.", "\\boxed{{{:,}}}"]))
def test_thousands_separators(value, frame):
    assert find_number(frame.format(value)) == value


@given(st.decimals(-(10**6), 10**6, places=3))
def test_decimals_are_exact(value):
    assert find_number(f"It comes to {value} in all") == Fraction(str(value))


@given(st.text(max_size=300))
def test_any_text_is_answered(text):
    value = find_number(text)
    assert value is None or isinstance(value, Fraction)


@given(st.text(alphabet="0123456789.,-+$%/=#\\{}boxedfracanswer: \n", max_size=300))
def test_any_number_soup_is_answered(text):
    find_number(text)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "piece",
    ["1", " ", "1,111", ",111", "-", "=", "= ", "answer ", "answer is ", "\\boxed{", "#### ",
     "1/", "1 ", "{", "}", "\\frac{", "1e", "\u00d7", "$", ".", "\n", "\u00bd", "9 1/"],
)  # fmt: skip
def test_huge_texts_end(piece):
    find_number(piece * (1_000_000 // len(piece)))
