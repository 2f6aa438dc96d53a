"""Question sets and models with fixed answers: what a curve over them is can be counted by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from longthought.errors import BackendError
from longthought.orchestrator.curves import Question, QuestionSet, Setup
from longthought.orchestrator.models import ScriptedModel
from longthought.types import ModelRequest, text_of
from longthought.verifiers import answers


def questions(gold: Mapping[str, str], **more: Any) -> QuestionSet:
    """A set of numbers: text -> gold answer."""
    rows = tuple(Question(f"q{n}", text, right) for n, (text, right) in enumerate(gold.items()))
    return QuestionSet("numbers", rows, answers.number(), **more)


def number_of(request: ModelRequest) -> int:
    """Which sample of its question this is: the seeds of a question begin at a round thousand."""
    return request["sampling"]["seed"] % 1000


def asked(request: ModelRequest) -> str:
    return text_of(request["messages"][-1])


def model(table: Mapping[str, Sequence[str]], **options: Any) -> ScriptedModel:
    """Sample n of a question is item n of its row, which starts over at its end; "!" fails."""

    def script(request: ModelRequest) -> str:
        row = table[asked(request)]
        said = row[number_of(request) % len(row)]
        if said == "!":
            raise BackendError("the server said no", status=400)
        return f"So the answer is {said}" if said else "I do not know"

    return ScriptedModel(script, **options)


def setup(chosen: Any, **more: Any) -> Setup:
    return Setup(chosen, answers.number(), **more)
