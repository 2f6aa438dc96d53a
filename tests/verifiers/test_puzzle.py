"""The puzzle verifier against brute force, and against every way to go wrong."""

import itertools
import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longthought.types import Candidate, Verifier
from longthought.verifiers import puzzle
from longthought.verifiers.expressions import (
    Operation,
    apply,
    normal_form,
    numbers_of,
    parse,
    value_of,
)
from longthought.verifiers.puzzles import Puzzle, parse_puzzle, reachable, solution_in

QUESTION = "4 7 8 8 -> 24"
SOLVED = "8 / 8 = 1 [1 4 7 left]; 7 - 1 = 6 [4 6 left]; 6 * 4 = 24. DONE"


async def judge(text, *, final=True, question=QUESTION, answer=None, **options):
    candidate = Candidate(question, text, answer, final)
    return await puzzle(**options).judge(candidate, None)


def test_it_is_a_verifier_that_labels_its_oracle():
    assert isinstance(puzzle().name, str)
    verifier: Verifier = puzzle(oracle=True, integers=True)
    assert verifier.spec() == {"kind": "puzzle", "oracle": True, "integers": True}
    assert puzzle().spec() == {"kind": "puzzle"}


# --- finished ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        SOLVED,
        "(7 - 8 / 8) * 4",
        "8/8=1; 7-1=6; 6*4=24",
        "8 + 8 = 17 BACK " + SOLVED,
        "8 \u00f7 8 = 1, 7 \u2212 1 = 6, 6 \u00d7 4 = 24",
        "8 * 9 = 3 is nonsense. Answer: (7 - 8/8) * 4 = 24",
        "Answer: 8 / 8 = 1; 7 - 1 = 6; 6 * 4 = 24",
    ],
)
async def test_right_answers_pass(text):
    verdict = await judge(text)
    assert (verdict.score, verdict.passed) == (1.0, True)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("8 / 8 = 2; 7 - 1 = 6; 6 * 4 = 24", "8 / 8 is 1"),
        ("8 / 7 = 1; 8 - 1 = 7; 7 * 4 = 28", "8 / 7 is 8/7"),
        ("9 - 1 = 8; 8 * 3 = 24", "9 is not among the numbers at hand (4 7 8 8)"),
        ("8 / 8 = 1; 8 - 1 = 7; 7 * 4 = 28", "8 is not among the numbers at hand (1 4 7)"),
        ("4 + 4 = 8; 8 * 3 = 24", "4 is not among the numbers at hand"),
        ("8 / 8 = 1 [1 1 4 7 left]; 7 - 1 = 6; 6 * 4 = 24", "1 4 7 are left, not 1 1 4 7"),
        ("7 - 4 = 3; 3 * 8 = 24. DONE", "numbers are left over: 8 24"),
        ("8 / 8 = 1; 7 - 1 = 6; 6 + 4 = 10. DONE", "the steps end at 10, not at 24"),
        ("8 - 8 = 0; 7 / 0 = 4", "division by zero"),
        ("(7 - 8) * 4", "unused: 8"),
        ("(7 - 8 / 8) * 4 + 3 - 3", "not at hand: 3 3"),
        ("(7 + 8 / 8) * 4", "it makes 32, not 24"),
        ("4 + 7 / (8 - 8)", "divides by zero"),
        ("", "no steps and no expression found"),
        ("24", "no steps and no expression found"),
        ("The answer is 24. DONE", "no steps and no expression found"),
        (SOLVED + " BACK", "no steps and no expression found"),
    ],
)
async def test_wrong_answers_fail_with_a_reason(text, reason):
    verdict = await judge(text)
    assert (verdict.score, verdict.passed) == (0.0, False)
    assert reason in verdict.reason


async def test_the_canonical_answer_counts_when_the_text_holds_nothing():
    assert (await judge("done", answer="4 * (7 - 8 / 8)")).passed


async def test_a_question_that_is_no_puzzle():
    verdict = await judge(SOLVED, question="How many?")
    assert (verdict.score, verdict.passed) == (0.0, None)


async def test_fractions_are_legal_unless_whole_numbers_are_asked_for():
    text = "8 / 3 = 8/3; 3 - 8/3 = 1/3; 8 / (1/3) = 24"
    question = "3 3 8 8 -> 24"
    assert (await judge(text, question=question)).passed
    assert (await judge("8 / (3 - 8 / 3)", question=question)).passed
    for wrong in (text, "8 / (3 - 8 / 3)"):
        verdict = await judge(wrong, question=question, integers=True)
        assert not verdict.passed
        assert "no whole number" in verdict.reason


# --- unfinished --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8",
        "8 /",
        "8 / 8",
        "8 / 8 =",
        "8 / 8 = 1",
        "8 / 8 = 1 [1 4",
        "8 / 8 = 1 [1 4 7 left]",
        "8 / 8 = 1 [1 4 7 left]; 7 -",
        "8 * 8 = 6",  # the result may become 64
        "8 + 8 = 99. BACK\n8 / 8 = 1",
        "(7 - 8",
    ],
)
async def test_what_is_right_so_far_passes_with_a_half(text):
    verdict = await judge(text, final=False)
    assert (verdict.score, verdict.passed) == (0.5, True)


@pytest.mark.parametrize(
    "text",
    [
        "8 / 8 = 2",
        "8 * 8 = 6;",
        "8 * 8 = 65",
        "8 / 8 = 1 [1 4 8 left]",
        "8 / 8 = 1 [1 4 7 left]; 8 - 1 = 7",
        "9 + 1 = 10;",
        "8 + 8 = 16; 16 + 7 = 23; 23 + 4 = 27;",
    ],
)
async def test_a_wrong_step_fails_at_once(text):
    verdict = await judge(text, final=False)
    assert (verdict.score, verdict.passed) == (0.0, False)


async def test_all_steps_made_is_decided_before_done():
    verdict = await judge(SOLVED.removesuffix(" DONE"), final=False)
    assert (verdict.score, verdict.passed) == (1.0, True)


async def test_the_oracle_knows_what_can_be_reached():
    text = "8 * 8 = 64 [4 7 64 left];"
    assert (await judge(text, final=False)).passed
    verdict = await judge(text, final=False, oracle=True)
    assert verdict.passed is False
    assert "24 cannot be reached from 4 7 64" in verdict.reason
    assert (await judge("8 / 8 = 1;", final=False, oracle=True)).passed
    assert (await judge("", final=False, oracle=True, question="1 1 1 1 1 -> 99")).passed is False
    many = "1 1 1 1 1 1 1 -> 99"
    assert (await judge("", final=False, oracle=True, question=many)).passed  # too many to search


# --- questions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "numbers", "target"),
    [
        ("4 7 8 8 -> 24", (4, 7, 8, 8), 24),
        ("4, 7, 8 and 8 \u2192 24", (4, 7, 8, 8), 24),
        ("Make 24 from 4, 7, 8 and 8.", (4, 7, 8, 8), 24),
        ("Use 4 7 8 8 to make 24", (4, 7, 8, 8), 24),
        ("Example: 1 2 3 -> 6\nNow: 4 7 8 8 -> 24", (4, 7, 8, 8), 24),
        ("target: 24 numbers: 1 2 3", (1, 2, 3), 24),
        ("1 2 => -1", (1, 2), -1),
    ],
)
def test_questions(question, numbers, target):
    assert parse_puzzle(question) == Puzzle(numbers, target)


@pytest.mark.parametrize("question", ["", "hello", "-> 24", "make 24", "1 " * 13 + "-> 2"])
def test_no_questions(question):
    assert parse_puzzle(question) is None


@given(st.text(max_size=100), st.text(max_size=100), st.booleans())
async def test_any_text_is_judged(question, text, final):
    await judge(text, final=final, question=question)
    await judge(text, final=final)


@given(st.text(alphabet="0123456789+-*/=()[];. leftDONEBACKx\n", max_size=120), st.booleans())
async def test_any_step_soup_is_judged(text, final):
    verdict = await judge(text, final=final, oracle=True)
    assert 0 <= verdict.score <= 1


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "piece",
    ["1", " ", "(", ")", "1 ", "+", "8 / 8 = 1; ", "BACK ", "x ", "1 + ", "[1 ", "=", "\\boxed{",
     "1/", "-1", "1 -> ", "make ", "answer is "],
)  # fmt: skip
async def test_huge_texts_end(piece):
    text = piece * (500_000 // len(piece))
    await judge(text)
    await judge(text, final=False, question=text)


# --- brute force -------------------------------------------------------------------------------


def brute(numbers):
    """Every value that all the numbers can make, by plain recursion."""
    if len(numbers) == 1:
        return {numbers[0]}
    found = set()
    for i, j in itertools.permutations(range(len(numbers)), 2):
        rest = [n for k, n in enumerate(numbers) if k not in (i, j)]
        for sign in "+-*/":
            value = apply(sign, numbers[i], numbers[j])
            if value is not None:
                found |= brute([*rest, value])
    return found


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 13), min_size=1, max_size=3), st.integers(0, 60))
def test_reachable_agrees_with_brute_force(numbers, target):
    values = tuple(sorted(map(Fraction, numbers)))
    assert reachable(values, target) == (target in brute(list(values)))


def play(numbers, rng, *, careless=0.0):
    """A random legal play, written out; with ``careless`` some results are off by one."""
    hand, lines, wrong = [Fraction(n) for n in numbers], [], False
    while len(hand) > 1:
        rng.shuffle(hand)
        left, right = hand.pop(), hand.pop()
        sign = rng.choice("+-*/")
        value = apply(sign, left, right)
        if value is None or value < 0:
            sign, value = "+", left + right
        if rng.random() < careless:
            value, wrong = value + 1, True
        hand.append(value)
        left_over = " ".join(map(str, sorted(hand)))
        note = f" [{left_over} left]" if len(hand) > 1 else ""
        lines.append(f"{show(left)} {sign} {show(right)} = {value}{note}")
    return "; ".join(lines) + ". DONE", hand[0], wrong


def show(value):
    return str(value) if value.denominator == 1 else f"({value})"


@settings(max_examples=150)
@given(
    st.lists(st.integers(0, 13), min_size=2, max_size=5),
    st.integers(0, 10**6),
    st.sampled_from([0.0, 0.3]),
)
async def test_every_legal_play_is_recognised(numbers, seed, careless):
    text, made, wrong = play(numbers, random.Random(seed), careless=careless)
    line = " ".join(map(str, numbers))
    if made.denominator != 1:
        return
    verdict = await judge(text, question=f"{line} -> {made}")
    assert verdict.passed is (not wrong)
    assert not (await judge(text, question=f"{line} -> {made + 1}")).passed
    prefixes = [text[:end] for end in range(0, len(text), 3)]
    partial = [await judge(p, final=False, question=f"{line} -> {made}") for p in prefixes]
    if not wrong:
        assert all(verdict.passed for verdict in partial)
        expression = solution_in(text)
        assert expression is not None
        assert value_of(expression) == made
        assert sorted(numbers_of(expression)) == sorted(numbers)


# --- expressions -------------------------------------------------------------------------------

EXPRESSIONS = st.recursive(
    st.integers(0, 20).map(Fraction),
    lambda parts: st.builds(Operation, st.sampled_from("+-*/"), parts, parts),
    max_leaves=8,
)


@given(EXPRESSIONS)
def test_the_normal_form_keeps_value_and_numbers_and_is_stable(expression):
    form = normal_form(expression)
    again = parse(form)
    assert again is not None
    assert normal_form(again) == form
    assert sorted(numbers_of(again)) == sorted(numbers_of(expression))
    if value_of(expression) is not None and value_of(again) is not None:
        assert value_of(again) == value_of(expression)


@given(EXPRESSIONS, st.randoms())
def test_order_does_not_change_the_normal_form(expression, rng):
    def shuffled(e):
        if isinstance(e, Fraction):
            return e
        left, right = shuffled(e.left), shuffled(e.right)
        if e.sign in "+*" and rng.random() < 0.5:
            left, right = right, left
        return Operation(e.sign, left, right)

    assert normal_form(shuffled(expression)) == normal_form(expression)


@pytest.mark.parametrize("text", ["", "1 +", "(1", "1)", "1 2", "a", "-1", "1 ** 2", "(" * 400])
def test_what_is_no_expression(text):
    assert parse(text) is None
