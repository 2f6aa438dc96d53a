"""From the text of a question to the task that understands it, or a refusal that says what does."""

from __future__ import annotations

from collections.abc import Sequence

from longthought.errors import QuestionRefused

from .catalogue import MODELS
from .tasks import Asked, Task

__all__ = ["task_of", "understand"]

_ENDPOINT = (
    "For anything else point at a real endpoint: --model openai/NAME --base-url "
    "http://localhost:11434/v1 (Ollama; the port is 1234 for LM Studio, 8000 for vLLM, 8080 for "
    "llama.cpp)"
)
_SHOWN = 60
"""Characters of a question that are shown in a refusal."""


def understand(text: str, tasks: Sequence[Task]) -> Asked:
    """The question in a user's message, as the first of these tasks that knows it understands it.

    Raises:
        QuestionRefused: none of them does. If one alone knows the kind and the question is out of
            its range, that is what the message says; else what all of them can do.
    """
    claims: list[tuple[Task, QuestionRefused]] = []
    for task in tasks:
        try:
            asked = task.ask(text)
        except QuestionRefused as error:
            claims.append((task, error))
        else:
            if asked is not None:
                return asked
    if len(claims) == 1:
        task, refusal = claims[0]
        raise QuestionRefused(refusal.field, refusal.problem, _advice([task])) from refusal
    problem = f"{_shortened(text)!r} is no question that this model was made for"
    raise QuestionRefused("question", problem, _advice(tasks))


def task_of(model: str, question: str) -> str | None:
    """The name of the task that answers a question; None if there is none, or no such model.

    A question that is answered with a judgement (YES or NO) is no problem of its task.
    """
    try:
        asked = understand(question, [weights.task for weights in MODELS.get(model, ())])
    except QuestionRefused:
        return None
    return None if asked.modes == ("value",) else asked.task.name


def _advice(tasks: Sequence[Task]) -> str:
    can = "; ".join(task.can() for task in tasks)
    return f"The embedded model is a demonstration that answers {can}. {_ENDPOINT}"


def _shortened(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= _SHOWN else plain[: _SHOWN - 3] + "..."
