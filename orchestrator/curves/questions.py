"""Questions with their expected answers, how they are judged, and what luck alone would bring."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from longthought.errors import InvalidInput
from longthought.storage import canonical
from longthought.types import JSONObject, Verifier
from longthought.verifiers import AnswerKind

__all__ = ["Control", "Question", "QuestionSet"]


@dataclass(frozen=True, slots=True)
class Question:
    """One question. ``gold`` is the expected answer: only grading sees it, no strategy does.

    ``group`` is a kind of question within its set, "" without one.
    """

    id: str
    text: str
    gold: str = field(repr=False)
    group: str = ""


@dataclass(frozen=True, slots=True)
class Control:
    """What luck alone would bring: ``chance`` is the probability, in [0, 1], that at least one of
    so many attempts without any model is right.
    """

    name: str
    chance: Callable[[Question, int], float]


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """Questions that are asked and judged alike.

    ``answer`` is how an answer is found and compared, ``verifier`` what judges candidates without
    the gold answer, if there is such a thing. ``strategies`` are the words of the strategies that
    are worth comparing on this set (those that need a verifier only count with one). ``options``
    says ``answer`` and ``verifier`` in the words of the command line, so that ``replay`` finds the
    same parts again.

    Raises:
        InvalidInput: there are no questions, one is empty, or two have one id.
    """

    name: str
    questions: tuple[Question, ...]
    answer: AnswerKind
    verifier: Verifier | None = None
    controls: tuple[Control, ...] = ()
    strategies: tuple[str, ...] = ()
    options: JSONObject = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.questions:
            raise InvalidInput("questions", f"{self.name} has none", "Give one or more")
        for question in self.questions:
            if not question.text.strip():
                raise InvalidInput("questions", f"the question {question.id!r} is empty")
        twice = [id_ for id_, n in Counter(q.id for q in self.questions).items() if n > 1]
        if twice:
            raise InvalidInput("questions", f"two of them have the id {twice[0]!r}")

    def __len__(self) -> int:
        return len(self.questions)

    @property
    def digest(self) -> str:
        """SHA-256 over ids, texts and gold answers in order, 64 hexadecimal digits."""
        rows = [[q.id, q.text, q.gold] for q in self.questions]
        return hashlib.sha256(canonical(rows).encode()).hexdigest()

    def some(self, count: int | None, seed: int = 0) -> QuestionSet:
        """``count`` of the questions, drawn by ``seed``, in their old order; all without a count.

        A larger count of the same seed holds every question of a smaller one, so that a set can be
        grown without asking anything twice.

        Raises:
            InvalidInput: there are not so many.
        """
        if count is None:
            return self
        if not 1 <= count <= len(self.questions):
            raise InvalidInput(
                "questions", f"{count} are wanted, {self.name} has {len(self.questions)}"
            )
        places = list(range(len(self.questions)))
        random.Random(f"questions {seed}").shuffle(places)
        chosen = sorted(places[:count])
        return replace(self, questions=tuple(self.questions[place] for place in chosen))

    def check_gold(self) -> None:
        """Check that every gold answer is one of the set's kind.

        Raises:
            InvalidInput: the answer kind finds nothing in one of them; names it.
        """
        if self.answer.name not in ("number", "choice"):
            return  # the others take any text, or have a gold of another form
        for question in self.questions:
            if self.answer.find(question.gold) is None:
                shown = question.gold if len(question.gold) <= 60 else question.gold[:57] + "..."
                raise InvalidInput(
                    "answer",
                    f"the expected answer {shown!r} of {question.id!r} holds no {self.answer.name}",
                    "Give another --answer kind, or another field of the file",
                )


def numbered(questions: Sequence[Question]) -> list[tuple[Question, int]]:
    """Each question with how many before it have the same text."""
    seen: Counter[str] = Counter()
    pairs = []
    for question in questions:
        pairs.append((question, seen[question.text]))
        seen[question.text] += 1
    return pairs
