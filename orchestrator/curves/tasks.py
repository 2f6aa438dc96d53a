"""The tasks of the embedded model as sets of questions, each with its control."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from longthought import verifiers
from longthought.errors import InvalidInput
from longthought.orchestrator.curves.questions import Control, Question, QuestionSet
from longthought.verifiers import answers

__all__ = ["TASKS", "letters", "puzzles", "task_questions", "words"]


def puzzles(count: int = 50, seed: int = 0) -> QuestionSet:
    """``count`` held-out make-a-target puzzles, with random legal play as their control.

    Raises:
        InvalidInput: more puzzles than were held out.
    """
    from longthought.orchestrator.models.embedded import held_out, random_chance

    drawn = {str(puzzle): puzzle for puzzle in held_out(count, seed)}
    return QuestionSet(
        name="puzzles",
        # the gold answer of a puzzle is its question: whatever solves it is right
        questions=tuple(Question(text, text, text) for text in drawn),
        answer=answers.puzzle(),
        verifier=verifiers.puzzle(integers=True),
        controls=(
            Control("random legal play", lambda q, tries: random_chance(drawn[q.id], tries)),
        ),
        strategies=("majority", "beta:0.95", "best-of", "direct", "greedy", "backtrack"),
        options={"answer": "puzzle", "verifier": "puzzle"},
    )


def words(count: int = 50, seed: int = 0, *, kind: str = "usual") -> QuestionSet:
    """``count`` held-out word problems, grouped by their number of steps.

    ``kind`` says what training has not seen: the very ``usual`` text, its pairs of ``templates``,
    or the ``numbers`` in it. The control always gives the answer that is most frequent among them.
    """
    from longthought.orchestrator.models.embedded.words import RULES, held_out

    rule = next(rule for rule in RULES if rule == kind)
    drawn = held_out(count, seed, rule)
    questions = tuple(
        Question(f"{n}", problem.text, str(problem.answer), _steps(len(problem.steps)))
        for n, problem in enumerate(drawn)
    )
    return QuestionSet(
        name="words" if kind == "usual" else f"words-{kind}",
        questions=questions,
        answer=answers.number(),
        verifier=verifiers.equations(),
        controls=(_most_frequent(questions),),
        strategies=(
            *("majority", "checked", "beta:0.9"),
            *("direct", "greedy", "tools", "backtrack:4"),
        ),
        options={"answer": "number", "verifier": "equations"},
    )


def letters(count: int = 50, seed: int = 0) -> QuestionSet:
    """``count`` questions about letters in held-out words, grouped by the length of the word.

    The control always gives the answer that is most frequent among them.

    Raises:
        InvalidInput: more questions than were held out.
    """
    from longthought.orchestrator.models.embedded.letters import held_out

    questions = tuple(
        Question(
            f"{problem.letter} in {problem.word}",
            str(problem),
            str(problem.answer),
            _length(len(problem.word)),
        )
        for problem in held_out(count, seed)
    )
    return QuestionSet(
        name="letters",
        questions=questions,
        answer=answers.number(),
        controls=(_most_frequent(questions),),
        strategies=("majority", "direct", "greedy"),
        options={"answer": "number"},
    )


def _most_frequent(questions: Sequence[Question]) -> Control:
    """The one answer that is right most often: luck that looks at no question, however often.

    It is right or wrong on each question, so that its band says how far it would move.
    """
    [(guess, _)] = Counter(question.gold for question in questions).most_common(1)
    return Control("the most frequent answer", lambda question, _tries: question.gold == guess)


def _steps(number: int) -> str:
    return "1 step" if number == 1 else f"{number} steps"


def _length(letters: int) -> str:
    if letters <= 5:
        return "up to 5 letters"
    return "6 to 8 letters" if letters <= 8 else "9 letters or more"


TASKS: dict[str, Callable[[int, int], QuestionSet]] = {
    "puzzles": puzzles,
    "words": words,
    "words-templates": partial(words, kind="templates"),
    "words-numbers": partial(words, kind="numbers"),
    "letters": letters,
}
"""Name of a task -> its held-out questions, from how many and a seed."""


def task_questions(name: str, count: int | None = None, seed: int = 0) -> QuestionSet:
    """Held-out questions of a task of the embedded model, 50 unless ``count`` says otherwise.

    Raises:
        InvalidInput: there is no such task, or it has not so many questions.
    """
    if name not in TASKS:
        raise InvalidInput("task", f"there is no {name!r}", f"Use {', '.join(TASKS)}")
    return TASKS[name](50 if count is None else count, seed)
