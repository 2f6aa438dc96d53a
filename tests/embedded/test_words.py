"""Word problems: their text and tokens, what is understood, what training never sees."""

from __future__ import annotations

import contextlib
import itertools
import random
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longthought.errors import InvalidInput, QuestionRefused
from longthought.orchestrator.models.embedded.network import digit_places
from longthought.orchestrator.models.embedded.training import word_data
from longthought.orchestrator.models.embedded.training.packing import Segment, pack
from longthought.orchestrator.models.embedded.words import (
    Step,
    WordTask,
    held_out,
    kept_back,
    random_problem,
)
from longthought.orchestrator.models.embedded.words import problems as p
from longthought.orchestrator.models.embedded.words import vocabulary as v
from longthought.orchestrator.models.embedded.words.questions import parse_question

THOUGHT = "386 + 57 = 443\n443 * 2 = 886\nThe answer is 886."

# -- text and tokens ----------------------------------------------------------------------------


def test_numbers_are_tokens_units_first_and_text_the_right_way_round() -> None:
    tokens = v.encode(THOUGHT)
    assert tokens[:8] == [6, 8, 3, v.PLUS, 7, 5, v.EQUALS, 3]
    assert tokens[-5:] == [v.ANSWER, 6, 8, 8, v.END]
    assert v.decode(tokens) == THOUGHT


_SPOKEN = st.sampled_from(
    [*v.DIGITS, *v.OPERATORS, v.EQUALS, v.NEWLINE, v.COLON, v.CALL, v.MODE_CHAIN, v.SIZE - 1]
)


@given(st.lists(_SPOKEN, max_size=30))
def test_any_reply_survives_its_text(tokens: list[int]) -> None:
    # digits at the end belong to no complete number, and line breaks at the ends to what is around
    body = [v.PLUS, *tokens, v.PLUS]
    assert v.encode(v.decode(body)) == body


def test_a_number_is_shown_when_it_is_complete() -> None:
    renderer = v.Renderer()
    assert [renderer.feed(token) for token in (6, 8, 3, v.PLUS, 7, 5)] == [
        *("", "", ""),
        "386 +",
        *("", ""),
    ]


@pytest.mark.parametrize(
    ("text", "between"),
    [
        ("386 + 57 = 443", "\n"),
        ("386 + 57 = 443\n443 * 2 = 886", "\n"),
        ("386 + 57 = 443\n", None),
        ("386 +", ""),
        ("386 + 57", ""),
    ],
)
def test_what_a_stop_string_took_away_comes_back(text: str, between: str | None) -> None:
    task = WordTask()
    assert task.between(text) == between
    assert (task.language.encode(text)[-1] == v.NEWLINE) == ("= 443" in text)


def test_calls_and_results() -> None:
    task = WordTask()
    assert task.expression([*v.encode("2 + 386 + 57"), v.CALL]) == "386 + 57"
    assert task.expression([*v.encode("386 +"), v.CALL]) is None
    assert task.expression([v.CALL]) is None
    assert task.returned(" 443 ") == [3, 4, 4, v.RETURN] == task.returned("443.00")
    assert task.returned("007") == [7, v.RETURN]
    assert task.returned("0" * 5_000) == [0, v.RETURN]  # more digits than int() takes
    for useless in ("9" * 5_000, "12345", "-3", "1.5", "a lot", "", "٣"):
        assert task.returned(useless) is None
    assert "0 to 9,999" in task.unusable("12345")


def test_places_of_digits_count_within_a_number() -> None:
    tokens = np.array([[1, 2, v.PLUS, 3, 4, 5, 6, 7, 8, v.EQUALS]])
    assert digit_places(tokens, 10).tolist() == [[1, 2, 0, 1, 2, 3, 4, 5, 5, 0]]
    assert digit_places(tokens[:, :1], 10, np.array([3])).tolist() == [[4]]


# -- what is understood -------------------------------------------------------------------------


def test_every_problem_that_can_be_written_is_understood() -> None:
    draw = random.Random(1)
    for problem in (random_problem(draw) for _ in range(2000)):
        assert parse_question(problem.text) == problem.text.lower()
        assert len(v.encode(problem.text)) <= 90


def test_spaces_case_and_thousands_separators_do_not_matter() -> None:
    text = "  ADA has 234 apples.\n She buys 17 more.  How many are there now?"
    plain = "ada has 234 apples. she buys 17 more. how many are there now?"
    assert parse_question(text) == plain


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Tom has 3 apples. How many are there now?", "sentence 1, 'tom has 3 apples.'"),
        ("Ada has 30 apples. She eats 2. How many are left?", "sentence 2, 'she eats 2.'"),
        ("Ada has 30 apples. How many, she buys 3 more.", "sentence 2"),
        ("Ada has 99999 apples. How many are there now?", "99999 is no number from 1 to 9,999"),
        ("Ada has 0 apples. How many are there now?", "0 is no number"),
        (f"Ada has {'9' * 5000} apples. How many are there now?", "longer than"),
        (
            "Ada has 30 apples. " + "She buys 20 more. " * 9 + "How many are there now?",
            "more than 9",
        ),
        ("How many litres do 3 cows give?", "sentence 1"),
        (
            "Ada has 30 apples. She sells 9 of them. How many are left?",
            "9 in 'she sells 9 of them.': the model was made for numbers from 11 to 999 there",
        ),
        ("Ada has 1,234 apples. How many are there now?", "from 20 to 999"),
    ],
)
def test_a_problem_outside_the_grammar_is_refused_with_its_reason(text: str, named: str) -> None:
    with pytest.raises(QuestionRefused, match=re.escape(named)):
        parse_question(text)


@pytest.mark.parametrize("text", ["", "hello", "4 7 8 8 -> 24", "How many r's are in strawberry?"])
def test_what_is_no_word_problem_is_left_to_others(text: str) -> None:
    assert WordTask().ask(text) is None


@given(st.text(max_size=200))
def test_reading_never_stumbles(text: str) -> None:
    for wrapped in (text, f"Ada has 30 apples. {text} How many are there now?"):
        with contextlib.suppress(QuestionRefused):
            parse_question(wrapped)


def test_a_long_text_is_read_in_one_go() -> None:
    assert len(v.encode("+ " * 200_000)) == 200_000  # the square of it would take minutes


def test_words_outside_the_vocabulary_are_named() -> None:
    with pytest.raises(InvalidInput, match="xylophone"):
        v.encode("3 + xylophone")


# -- problems and training ----------------------------------------------------------------------


def test_solutions_are_right_and_as_long_as_asked() -> None:
    draw = random.Random(2)
    for steps in range(1, p.MOST_STEPS + 1):
        for _ in range(200):
            problem = random_problem(draw, steps)
            assert len(problem.steps) == steps
            for step in problem.steps:
                assert p.apply(step.left, step.operator, step.right) == step.result
            given_ = {int(number) for number in re.findall(r"\d+", problem.text)} | {2, 3}
            for place, step in enumerate(problem.steps):
                known = given_ | {earlier.result for earlier in problem.steps[:place]}
                assert {step.left, step.right} <= known


@pytest.mark.parametrize("kind", ["usual", "templates", "numbers"])
def test_held_out_problems_come_from_a_seed_and_are_reserved(kind: p.Kind) -> None:
    chosen = held_out(100, seed=4, kind=kind)
    assert chosen == held_out(100, seed=4, kind=kind) != held_out(100, seed=5, kind=kind)
    assert len({problem.text for problem in chosen}) == 100
    assert all(kind in kept_back(problem) for problem in chosen)
    assert [len(problem.steps) for problem in chosen[:5]] == [1, 2, 3, 4, 5]


def _prompt(segment: Segment) -> str:
    return v.decode(segment.tokens[: segment.tokens.index(v.COLON)])


def test_no_held_out_problem_can_come_out_of_the_training_generator() -> None:
    # The rules are about the text alone, so they can be asked of every prompt of the generator.
    reserved = {
        problem.text.lower() for kind in p.RULES for problem in held_out(300, seed=9, kind=kind)
    }
    seen = 0
    for segment in itertools.islice(word_data.segments("a test's own seed"), 20_000):
        if segment.branches:
            seen += 1
            assert _prompt(segment) not in reserved
    assert seen > 8_000
    draw = random.Random(3)
    for _ in range(2_000):
        problem = word_data.training_problem(draw)
        assert not kept_back(problem)
        assert problem.text.lower() not in reserved


def test_every_clean_training_trace_is_right() -> None:
    for segment in itertools.islice(word_data.segments(5, progress=0.2), 3_000):
        written = " ".join(v.decode(part.tokens) for part in [segment, *segment.branches])
        for line in re.findall(r"\d+ [-+*/] \d+ = \d+", written):
            left, operator, right, _, result = line.split()
            assert p.apply(int(left), operator, int(right)) == int(result)
        answers = {v.decode(branch.tokens).split()[-1] for branch in segment.branches}
        assert len(answers) <= 1


def test_slips_come_in_the_second_half_and_are_followed() -> None:
    wrong = lines = 0
    for segment in itertools.islice(word_data.segments(6, progress=0.5), 3_000):
        if not segment.branches:
            continue
        chain = v.decode(segment.branches[0].tokens)
        found = re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)", chain)
        for left, operator, right, result in found:
            lines += 1
            wrong += p.apply(int(left), operator, int(right)) != int(result)
        assert chain.endswith(f"The answer is {found[-1][3]}.")
    assert 0.08 < wrong / lines < 0.13


def test_a_product_with_a_number_of_two_digits_is_thought_in_parts() -> None:
    assert word_data.chain_lines([Step(12, "*", 37, 444), Step(444, "-", 4, 440)]) == [
        Step(37, "*", 2, 74),
        Step(37, "*", 10, 370),
        Step(74, "+", 370, 444),
        Step(444, "-", 4, 440),
    ]


def test_branches_share_their_prompt_and_do_not_see_each_other() -> None:
    rows = pack(word_data.segments("rows"), 30, 256, v.PADDING)
    assert (rows.segment > 0).mean() > 0.9
    ends = rows.tokens == v.MODE_TOOL
    assert ends.any()
    for row, column in zip(*np.nonzero(ends), strict=True):
        same = rows.segment[row] == rows.segment[row, column]
        shared = same & (rows.branch[row] == 0)
        # a branch goes on at the position after the common part, wherever it stands in the row
        assert rows.position[row, column] == rows.position[row][shared].max() + 1
