"""Letter counting: tokens and text, what is understood, what training never sees, the weights."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longthought.errors import InvalidInput, QuestionRefused
from longthought.orchestrator.curves import task_questions
from longthought.orchestrator.models.allowance import Allowance
from longthought.orchestrator.models.embedded import EmbeddedModel, Network
from longthought.orchestrator.models.embedded.catalogue import MODELS
from longthought.orchestrator.models.embedded.letters import (
    LetterTask,
    Problem,
    held_out,
    is_reserved,
    parse_question,
)
from longthought.orchestrator.models.embedded.letters import problems as p
from longthought.orchestrator.models.embedded.letters import vocabulary as v
from longthought.orchestrator.models.embedded.letters.wordlist import WORDS
from longthought.orchestrator.models.embedded.training import letter_data
from longthought.types import Message, ModelReply, ModelRequest, Sampling
from longthought.verifiers import answers

THOUGHT = "s 0, t 0, r 1, a 1, w 1, b 1, e 1, r 2, r 3, y 3, so the answer is 3."
QUESTION = "How many r's are in strawberry?"


def chance(problems: Sequence[Problem]) -> float:
    """The control: the share that the one answer which is right most often gets right."""
    return Counter(problem.answer for problem in problems).most_common(1)[0][1] / len(problems)


# -- text and tokens ----------------------------------------------------------------------------

anything = st.lists(st.integers(0, v.SIZE - 1), max_size=40)


@given(anything)
def test_any_sequence_survives_its_text(tokens: list[int]) -> None:
    text = v.decode(tokens)
    assert v.encode(text) == tokens
    assert v.decode(v.encode(text)) == text


@given(anything, anything)
def test_a_text_can_be_cut_anywhere_and_continued(first: list[int], second: list[int]) -> None:
    whole, start = v.decode(first + second), v.decode(first)
    assert whole.startswith(start)
    assert v.encode(start) + v.encode(whole[len(start) :]) == first + second


@given(st.sampled_from(v.LETTERS), st.sampled_from(v.COUNTS), st.sampled_from(v.LETTERS))
def test_a_comma_cut_off_as_stop_string_comes_back(letter: int, count: int, after: int) -> None:
    cut, _, rest = v.decode([letter, count, after]).partition(",")
    assert v.encode(cut) == [letter, count]
    assert LetterTask().between(cut) == ","
    renderer = v.Renderer()
    for token in v.encode(cut):
        renderer.feed(token)
    assert renderer.feed(after) == rest


@pytest.mark.parametrize(
    ("text", "between"),
    [
        ("s 0", ","),
        ("s 0, t 0", ","),
        ("<C> s 0", ","),
        ("s 0,", ""),
        ("s 0, t", ""),
        ("s 0, ", None),
        ("s 0\n", None),
        ("so the answer is 3", ""),
        ("The answer is", ""),
        ("", ""),
    ],
)
def test_what_stands_between_a_text_and_its_continuation(text: str, between: str | None) -> None:
    assert LetterTask().between(text) == between


def test_the_documented_form() -> None:
    tokens = v.encode(THOUGHT)
    assert len(tokens) == 2 * len("strawberry") + 3
    assert v.decode(tokens) == THOUGHT
    assert tokens[-3:] == v.encode("The answer is 3.") == [v.ANSWER, v.count_of(3), v.END]
    assert v.decode(tokens[-3:]) == "The answer is 3."
    for text in (THOUGHT, "The answer is 3."):
        assert answers.number().find(text) == "3"
        assert answers.number().concludes(text)
    assert not answers.number().concludes("s 0, t 0, r 1")


@pytest.mark.parametrize("text", ["s 17", "s 03", "ab 0", "S 0", "s -1", "the answer isn't", "ä 0"])
def test_other_words_are_an_error(text: str) -> None:
    with pytest.raises(InvalidInput):
        v.encode(text)


def test_the_task_calls_no_tool_and_ends_with_the_full_stop() -> None:
    task = LetterTask()
    asked = task.ask(QUESTION)
    assert asked is not None
    assert asked.modes == ("chain", "direct")
    assert asked.problem == Problem("strawberry", "r")
    assert [task.language.word_of(token) for token in task.head(asked, "direct")] == [
        *("r", ":"),
        *"strawberry",
        *(":", "<D>"),
    ]
    assert task.call < 0
    assert task.expression([0, 1]) is None
    assert task.returned("3") is None
    assert "no tools" in task.unusable("3")
    assert [task.ends("chain", token) for token in (v.END, v.ANSWER)] == [True, False]
    assert [task.finished(token) for token in (v.END, v.ANSWER)] == [True, False]


# -- what is understood -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (QUESTION, "r in strawberry"),
        ("how many times does the letter r appear in 'strawberry'?", "r in strawberry"),
        ("How many letters r are there in the word strawberry?", "r in strawberry"),
        ("HOW MANY R\u2019s ARE THERE IN \u201cSTRAWBERRY\u201d?", "r in strawberry"),
        ("  How many\n'r's are in strawberry ?", "r in strawberry"),
        ('how many "r"s are in "strawberry?"', "r in strawberry"),
        ("how many rs in strawberry", "r in strawberry"),
        ("how many r in strawberry", "r in strawberry"),
        ("count the letter e in cheese", "e in cheese"),
        ("Can you count the o's in voodoo?", "o in voodoo"),
        ("Count how many times the letter a appears in banana.", "a in banana"),
        ("count the number of a's in banana", "a in banana"),
        ("Please tell me how many p's there are in apple.", "p in apple"),
        ("how many p's does the word apple contain?", "p in apple"),
        ("How many p does apple have?", "p in apple"),
        ("What is the number of p's in apple?", "p in apple"),
        ("number of times the letter p appears in apple", "p in apple"),
        ('how many occurrences of the letter a are there in the word "banana"', "a in banana"),
        ("How often does s occur in mississippi?", "s in mississippi"),
        ("how many times does the letter s appear in ss?", "s in ss"),
        ("how many ss are in mississippi", "s in mississippi"),
        ("how many is are there in mississippi", "i in mississippi"),
        ("How many e's are in the English word: cheese", "e in cheese"),
        ("how many d's are in word", "d in word"),
        ("how many a's are in a", "a in a"),
        ("how many q's are in abcdefghijklmnop", "q in abcdefghijklmnop"),
    ],
)
def test_questions_that_are_understood(text: str, problem: str) -> None:
    letter, _, word = problem.partition(" in ")
    assert parse_question(text) == Problem(word, letter)


def test_every_problem_asks_for_itself() -> None:
    for word, letter in itertools.product((*WORDS, "a", "i", "in", "there", "ten"), p.ALPHABET):
        assert parse_question(str(Problem(word, letter))) == Problem(word, letter)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("How many r's and s's are in strawberry?", "more than one letter"),
        ("how many letters a and b are in cab", "more than one letter"),
        ("count the letters r, s and t in strawberry", "more than one letter"),
        ("how often does the letter r or the letter s appear in stress", "more than one letter"),
        ("how many times does the letter ab appear in abba", "more than one letter"),
        ("how many letters are in strawberry?", "no letter is named"),
        ("how many letters does strawberry have?", "no letter is named"),
        ("how many ä's are in bar", "'ä' is no letter from a to z"),
        ("how many r's are in Bär", "'bär' is no single word of 1 to 16 letters from a to z"),
        ("how many r's are in strawberry1", "'strawberry1' is no single word"),
        ("how many r's are in merry-go-round", "'merry-go-round' is no single word"),
        ("how many r's are in the quick brown fox", "'the quick brown fox' is no single word"),
        ("how many r's are in strawberry? Think step by step.", "no single word"),
        ("how many q's are in abcdefghijklmnopq", "of 1 to 16 letters"),
        ("how many r's are in", "no word is given"),
        ("how many r's are there?", "no word is given"),
        ("how many r's are in the word?", "no word is given"),
        ('how many r\'s are in ""?', "no word is given"),
    ],
)
def test_questions_outside_are_refused_with_their_reason(text: str, reason: str) -> None:
    with pytest.raises(QuestionRefused, match=reason):
        parse_question(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "hello", "how many", "count to ten", "4 7 8 8 -> 24", "use 4, 7, 8 and 8 to make 24"),
        "How many people are in France?",
        "How many days are in a week?",
        "How many are there now?",
        "How many apples are left?",
        "How many apples does Ada have now?",
        "How many letters did Ada write?",
        "How many times does 7 go into 42?",
        "How many 1's are in 1001?",
        "count the sheep in the field",
        "Ada has 30 apples. She buys 3 more. How many apples does Ada have now?",
    ],
)
def test_what_is_no_question_about_letters_is_left_to_others(text: str) -> None:
    assert LetterTask().ask(text) is None


@given(st.text(max_size=100))
def test_reading_never_stumbles(text: str) -> None:
    for wrapped in (text, f"how many {text} are in {text}", f"count the letter {text} in a"):
        with contextlib.suppress(QuestionRefused):
            parse_question(wrapped)


@pytest.mark.parametrize(
    "text",
    [
        "how many " + "r" * 2_000_000,
        "how many" + " in" * 700_000,
        "how many r's are in " + "a " * 1_000_000,
        "how many " + "r and " * 350_000 + "s are in x",
        "how many times does " + "the letter " * 200_000,
        "how many r does " + "have " * 400_000,
        "how many r" + "'" * 2_000_000 + "s in x",
    ],
)
def test_a_long_text_is_read_in_one_pass(text: str) -> None:
    # Two million characters: a reader that goes over them again from each would never come back.
    with contextlib.suppress(QuestionRefused):
        assert parse_question(text) is None


# -- problems and training ----------------------------------------------------------------------


def test_the_words_are_what_they_should_be() -> None:
    assert len(set(WORDS)) == len(WORDS) >= 600
    assert list(WORDS) == sorted(WORDS)
    assert all(3 <= len(word) <= 14 and set(word) <= set(p.ALPHABET) for word in WORDS)
    assert 0.45 < len(p.held_out_words()) / len(WORDS) < 0.55
    assert is_reserved("strawberry")


def test_held_out_problems_come_from_a_seed_and_are_reserved() -> None:
    chosen = held_out(200, seed=4)
    assert chosen == held_out(200, seed=4) != held_out(200, seed=5)
    assert len(set(chosen)) == 200
    assert all(is_reserved(problem.word) and problem.word in WORDS for problem in chosen)
    found = [min(problem.answer, 4) for problem in chosen]
    assert [found.count(answer) for answer in range(5)] == [40, 50, 60, 40, 10]
    assert len({problem.answer for problem in held_out(10)}) >= 3
    with pytest.raises(InvalidInput):
        held_out(10_000)


def test_the_control_is_the_best_constant_answer() -> None:
    problems = [Problem("banana", letter) for letter in "abnxn"]  # 3, 1, 2, 0, 2
    assert chance(problems) == pytest.approx(0.4)
    assert chance(held_out(200)) == pytest.approx(0.3)
    asked = task_questions("letters", 200)
    (control,) = asked.controls
    luck = [control.chance(question, 1) for question in asked.questions]
    assert sum(luck) / len(luck) == pytest.approx(chance(held_out(200)))


def test_no_held_out_problem_can_come_out_of_the_training_generator() -> None:
    # By the rule: the generator draws a reserved word again, and every word asked is reserved.
    draw = random.Random("a test's own seed")
    words = [letter_data.random_word(draw) for _ in range(20_000)]
    assert not any(map(is_reserved, words))
    assert all(map(is_reserved, p.held_out_words()))
    # And by looking: short words are met by chance, so the rule is what keeps them apart.
    assert {len(word) for word in words} == set(range(1, p.LONGEST + 1))
    assert {word for word in words if len(word) == 1} == {
        letter for letter in p.ALPHABET if not is_reserved(letter)
    }
    for segment in itertools.islice(letter_data.segments("another seed"), 20_000):
        first, second = (n for n, token in enumerate(segment.tokens) if token == v.COLON)
        word = "".join(map(v.word_of, segment.tokens[first + 1 : second]))
        assert not is_reserved(word)


def test_every_training_trace_is_right() -> None:
    seen = set()
    for segment in itertools.islice(letter_data.segments(5), 3_000):
        letter, _, word, *_ = v.decode(segment.tokens).replace(" ", "").partition(":")
        problem = Problem(word.rstrip(":"), letter)
        seen.add(problem.answer)
        assert segment.tokens == v.prompt(problem.letter, problem.word)
        assert not any(segment.trained)
        chain, at_once = segment.branches
        counts = [problem.word[: n + 1].count(letter) for n in range(len(problem.word))]
        spelled = ", ".join(f"{a} {n}" for a, n in zip(problem.word, counts, strict=True))
        assert v.decode(chain.tokens) == (f"<C> {spelled}, so the answer is {problem.answer}.")
        assert v.decode(at_once.tokens) == f"<D> so the answer is {problem.answer}."
        for branch in segment.branches:
            assert branch.trained == [False] + [True] * (len(branch) - 1)
            assert len(segment.tokens) + len(branch) <= 96
    assert set(range(8)) <= seen


# -- the weights --------------------------------------------------------------------------------


@pytest.fixture
async def model() -> AsyncIterator[EmbeddedModel]:
    made = EmbeddedModel("letters", slots=64)
    yield made
    await made.aclose()


async def reply_to(
    model: EmbeddedModel, question: str, written: str | None = None, **sampling: object
) -> ModelReply:
    request = ModelRequest(
        model=model.name,
        messages=[Message(role="user", content=question)],
        sampling=Sampling(**sampling),
    )
    if written is not None:
        request["messages"].append(Message(role="assistant", content=written))
        request["continue_last"] = True
    return await model.generate(request, Allowance())


async def accuracy(model: EmbeddedModel, problems: list[Problem], **sampling: object) -> float:
    replies = await asyncio.gather(
        *(reply_to(model, str(each), seed=seed, **sampling) for seed, each in enumerate(problems))
    )
    number = answers.number()
    texts = [str(reply["message"]["content"]) for reply in replies]
    right = [
        text.endswith(".") and number.find(text) == str(problem.answer)
        for text, problem in zip(texts, problems, strict=True)
    ]
    return sum(right) / len(right)


async def test_the_question_everybody_asks_first(model: EmbeddedModel) -> None:
    reply = await reply_to(model, QUESTION, temperature=0.0)
    assert reply["message"]["content"] == THOUGHT
    assert reply["finish_reason"] == "stop"
    at_once = await reply_to(model, QUESTION, temperature=0.0, reasoning_effort="none")
    assert str(at_once["message"]["content"]).startswith("The answer is ")


async def test_spelling_beats_the_answer_at_once_and_that_beats_chance(
    model: EmbeddedModel,
) -> None:
    problems = held_out(200, seed=0)
    assert await accuracy(model, problems) >= 0.93
    at_once = await accuracy(model, problems, temperature=0.0, reasoning_effort="none")
    assert chance(problems) < at_once < 0.7


async def test_random_weights_are_no_better_than_chance() -> None:
    problems = held_out(60, seed=1)
    shape = MODELS["embedded/letters"][0].shape()
    control = EmbeddedModel("letters", slots=64, network=Network.random(shape, seed=0))
    for effort in ("none", "high"):
        assert await accuracy(control, problems, reasoning_effort=effort) <= chance(problems)
    await control.aclose()


async def test_letter_by_letter_is_the_same_thought(model: EmbeddedModel) -> None:
    written = ""
    for _ in range(20):
        reply = await reply_to(model, QUESTION, written, temperature=0.0, stop=[","])
        written += str(reply["message"]["content"])
        if written.endswith("."):
            break
    assert written == THOUGHT
    # What was written may be corrected: the thought goes on from there.
    reply = await reply_to(model, QUESTION, "s 0, t 0, r 2", temperature=0.0)
    assert str(reply["message"]["content"]).startswith(", a 2, w 2, b 2, e 2, r 3, r 4, y 4, so")
