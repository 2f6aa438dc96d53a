"""Answer kinds: finding, the one canonical form, comparing."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longthought.errors import InvalidInput
from longthought.verifiers import AnswerKind, answers, concludes

SHOUT = answers.callable(lambda text: text.strip().upper() or None)
KINDS = [
    answers.number(),
    answers.exact(),
    answers.exact(case=False),
    answers.choice("ABCD"),
    answers.choice(["yes", "no"]),
    answers.puzzle(),
    SHOUT,
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_each_is_an_answer_kind_with_a_spec(kind):
    assert isinstance(kind, AnswerKind)
    assert kind.spec()["kind"] == kind.name
    assert kind.spec() == kind.spec()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@given(text=st.text(max_size=120))
def test_the_canonical_form_is_found_again(kind, text):
    found = kind.find(text)
    if found is not None:
        assert kind.find(found) == found
        assert kind.equal(found, found)


@given(
    text=st.text(alphabet='Answer: is.the"*`\n ABab', max_size=60),
    kind=st.sampled_from([answers.exact(), answers.exact(case=False), answers.choice("AB")]),
)
def test_the_canonical_form_is_found_again_in_answer_soup(kind, text):
    found = kind.find(text)
    if found is not None:
        assert kind.find(found) == found


# --- number ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["0.5", ".50", "1/2", "2/4", "\\frac{1}{2}", "\u00bd", "5e-1", "$0.50"]
)
def test_one_number_has_one_form(text):
    assert answers.number().find(text) == "0.5"


def test_endless_decimals_are_fractions():
    assert answers.number().find("2/6") == "1/3"
    assert answers.number().find("-4/2") == "-2"


def test_comparing_numbers():
    kind = answers.number()
    assert kind.equal("0.5", "1/2")
    assert not kind.equal("0.5", "0.51")
    assert not kind.equal("many", "5")
    near = answers.number(tolerance=0.01)
    assert near.equal("0.5", "0.51")
    assert not near.equal("0.5", "0.52")
    assert near.spec() == {"kind": "number", "tolerance": 0.01}


@pytest.mark.parametrize("tolerance", [-1, float("nan"), float("inf")])
def test_tolerance_is_checked(tolerance):
    with pytest.raises(InvalidInput):
        answers.number(tolerance)


@given(st.fractions(max_denominator=10**6))
def test_every_value_has_a_form_that_compares_equal(value):
    kind = answers.number()
    form = kind.find(str(value))
    assert form is not None
    assert kind.equal(form, str(value))
    assert Fraction(form) == value


# --- exact -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Paris", "Paris"),
        ("Let me think.\n\nParis.\n\n", "Paris"),
        ("Answer: Paris", "Paris"),
        ("**Answer:** **Paris**", "Paris"),
        ("The answer is Paris.", "Paris"),
        ('The final answer is: "New York"', "New York"),
        ("Answer:\n\nParis", "Paris"),
        ("\\boxed{Paris}", "Paris"),
        ("Answer: Rome. No.\nAnswer: Paris", "Paris"),
        ("\u201cParis\u201d", "Paris"),
        ("", None),
        (" \n ", None),
        ("...", None),
    ],
)
def test_exact_finds_the_last_line_or_the_marked_answer(text, expected):
    assert answers.exact().find(text) == expected


def test_exact_options():
    assert answers.exact(case=False).find("Answer: PaRis") == "paris"
    assert answers.exact(case=False).equal("paris", "Paris")
    assert not answers.exact().equal("paris", "Paris")
    assert answers.exact(strip=False).find("a\n  `b`. ") == "  `b`. "


# --- choice ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("B", "B"),
        ("b", "B"),
        (" (b). ", "B"),
        ("**B**", "B"),
        ("The answer is B.", "B"),
        ("The answer is (B) because C is wrong.", "B"),
        ("The answer is **C**", "C"),
        ("The correct answer is option D, not A.", "D"),
        ("Answer: C", "C"),
        ("Answer: c", "C"),
        ("Final answer:\n(D)", "D"),
        ("So \\boxed{B}", "B"),
        ("\\boxed{\\text{B}}", "B"),
        ("I think A.\nAnswer: A\nWait.\nAnswer: B", "B"),
        ("Therefore the right one is (C).", "C"),
        ("A is wrong.\nB", "B"),
        ("The answer is A or B", None),
        ("Answer: A, B", None),
        ("The answer is A/B", None),
        ("either (A) or (B)", None),
        ("The answer is not B", None),
        ("The answer is a dog", None),
        ("The answer is E", None),
        ("A dog", None),
        ("", None),
    ],
)
def test_choice_of_letters(text, expected):
    assert answers.choice("ABCD").find(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes.", "yes"),
        ("The answer is NO", "no"),
        ("Answer: yes, because", "yes"),
        ("The answer is yes and no", None),
        ("Nothing", None),
        ("I know (no)", "no"),
    ],
)
def test_choice_of_words(text, expected):
    assert answers.choice(["yes", "no"]).find(text) == expected


@pytest.mark.parametrize("options", [[], ["A"], ["A", ""], ["A", "a"]])
def test_choice_refuses_labels_that_cannot_be_told_apart(options):
    with pytest.raises(InvalidInput):
        answers.choice(options)


def test_labels_are_text_not_patterns():
    assert answers.choice(["a.c", "(x"]).find("The answer is abc") is None
    assert answers.choice(["C++", "C"]).find("Answer: C++") == "C++"


# --- callable ----------------------------------------------------------------------------------


def first_word(text: str) -> str | None:
    return text.split()[0] if text else None


def test_callable_uses_the_function_and_names_it():
    kind = answers.callable(first_word)
    assert kind.find("one two") == "one"
    assert kind.find("") is None
    assert kind.find(" ") is None  # the function raised: nothing found
    assert kind.spec()["function"].endswith(".first_word")
    assert len(kind.spec()["version"]) == 16
    with pytest.raises(InvalidInput):
        answers.callable("text")  # type: ignore[arg-type]


# --- puzzle ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "8 / 8 = 1 [1 4 7 left]; 7 - 1 = 6 [4 6 left]; 6 * 4 = 24. DONE",
        "8 / 8 = 1 (1 4 7 left); 7 - 1 = 6 (4 6 left); 4 * 6 = 24. DONE",
        "8 / 8 = 1 1 4 7 ; 7 - 1 = 6 4 6 ; 6 * 4 = 24 DONE",
        "8 / 8 CALL 1 RET [1 4 7 left]; 7 - 1 CALL 6 RET [4 6 left]; 6 * 4 CALL 24 RET. DONE",
        "8 + 8 = 16 [4 7 16 left]; 16 - 7 = 9. BACK\n8/8=1; 7-1=6; 6*4=24",
        "8 / 8 = 1[1 4 7 left]; 7 - 1 = 6[4 6 left]; 6 * 4 = 24. DONE",  # tool results put in
        "(7 - 8 / 8) * 4",
        "4 * (7 - (8 / 8))",
        "Answer: (7 - 8/8) \u00d7 4 = 24",
        "\\boxed{(7 - 8 \\div 8) \\times 4}",
        "Step 1: 8 / 8 = 1\nStep 2: 7 - 1 = 6\nStep 3: 6 x 4 = 24",
        "I tried 8 + 8 = 16 first. Answer: **(7 - 8/8) * 4**",
    ],
)
def test_steps_and_expressions_have_one_form(text):
    assert answers.puzzle().find(text) == "4 * (7 - 8 / 8)"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no idea",
        "24",
        "4 7 8 8 -> 24",
        "8 / 8 = 1 [1 4 7 left]",
        "8 / 8 = 1 [1 4 7 left];",
        "8 / 8 = 1;",
        "8 / 8 = 1; 7 - 4 = 3",
        "8 / 8 = 1 BACK",
    ],
)
def test_what_is_no_puzzle_answer(text):
    assert answers.puzzle().find(text) is None


def test_the_gold_of_a_puzzle_is_its_question():
    kind = answers.puzzle()
    assert kind.equal("4 * (7 - 8 / 8)", "4 7 8 8 -> 24")
    assert not kind.equal("4 * (7 - 8 / 8)", "4 7 8 8 -> 25")
    assert not kind.equal("4 * 6", "4 7 8 8 -> 24")
    assert not kind.equal("4 * 6", "3 * 8")


@pytest.mark.parametrize(
    ("kind", "text", "ends"),
    [
        (answers.number(), "3 * 4 = 12", False),
        (answers.number(), "3 * 4 = 12\nThe answer is 12.", True),
        (answers.number(), "so \\boxed{12}", True),
        (answers.number(), "3 * 4 = 12\nThe answer is", False),
        (answers.number(), "3 * 4 = 12\nThe answer is:\n\n", False),
        (answers.number(), "3 * 4 = 12\nAnswer:\n\n12", True),
        (answers.exact(), "first I look at the map", False),
        (answers.exact(), "I look at the map.\nAnswer: Rome", True),
        (answers.exact(), "I look at the map.\nAnswer:", False),
        (answers.exact(), "I look at the map.\n**Answer:** ", False),
        (answers.choice("AB"), "maybe (A)", True),
        (answers.choice("AB"), "let me see", False),
        (answers.puzzle(), "8 / 8 = 1 [1 4 7 left];", False),
    ],
)
def test_where_a_line_of_thought_ends(kind, text, ends):
    assert concludes(kind, text) is ends
