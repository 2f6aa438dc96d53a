"""Sets of questions: what may be in one, which ones are drawn, and the tasks."""

from __future__ import annotations

import pytest

from longthought.errors import InvalidInput
from longthought.orchestrator.curves import Question, QuestionSet, puzzles, task_questions
from longthought.verifiers import answers, grade
from tests.curves.scripted import questions


def test_a_larger_choice_holds_the_smaller_one_in_order() -> None:
    whole = questions({f"{n}+0?": str(n) for n in range(50)})
    small, large = whole.some(10, seed=3), whole.some(30, seed=3)
    assert set(small.questions) < set(large.questions)
    assert [q.id for q in large.questions] == sorted(
        (q.id for q in large.questions), key=lambda id_: int(id_[1:])
    )
    assert small != whole.some(10, seed=4)
    assert whole.some(None) is whole
    with pytest.raises(InvalidInput, match="51 are wanted, numbers has 50"):
        whole.some(51)


def test_what_is_no_set() -> None:
    twice = (Question("a", "x", "1"), Question("a", "y", "1"))
    for rows, problem in [
        ((), "has none"),
        ((Question("a", " ", "1"),), "'a' is empty"),
        (twice, "have the id 'a'"),
    ]:
        with pytest.raises(InvalidInput, match=problem):
            QuestionSet("set", rows, answers.exact())


def test_gold_has_to_be_of_the_kind() -> None:
    questions({"q": "She has 3 + 4.\n#### 7"}).check_gold()
    with pytest.raises(InvalidInput, match=r"'blue' of 'q0' holds no number.*--answer"):
        questions({"q": "blue"}).check_gold()


def test_the_digest_tells_sets_apart() -> None:
    assert questions({"a": "1"}).digest == questions({"a": "1"}).digest
    assert questions({"a": "1"}).digest != questions({"a": "2"}).digest


def test_the_gold_is_not_shown() -> None:
    assert "secret" not in repr(Question("a", "b", "secret"))


def test_puzzles_come_with_verifier_and_control() -> None:
    drawn = task_questions("puzzles", 5, seed=1)
    assert drawn == puzzles(5, 1) or len(drawn) == 5  # functions in it are never equal
    assert drawn.verifier is not None
    [control] = drawn.controls
    chances = [control.chance(drawn.questions[0], tries) for tries in (1, 4, 16)]
    assert 0 <= chances[0] <= chances[1] <= chances[2] <= 1
    assert not grade(drawn.answer, "1 + 1", drawn.questions[0].gold)
    with pytest.raises(InvalidInput, match=r"Use .*puzzles"):
        task_questions("riddles")


@pytest.mark.parametrize("name", ["letters", "words", "words-templates", "words-numbers"])
def test_a_guess_is_right_or_wrong_on_each_question(name: str) -> None:
    drawn = task_questions(name, 12, seed=2)
    [control] = drawn.controls
    assert control.name == "the most frequent answer"
    chances = [control.chance(question, 1) for question in drawn.questions]
    assert set(chances) <= {0, 1}  # a mean in every question's place would have no band
    golds = [question.gold for question in drawn.questions]
    assert sum(chances) == max(map(golds.count, golds))
    assert chances == [control.chance(question, 16) for question in drawn.questions]
