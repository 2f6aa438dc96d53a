"""A conversation as one sequence of tokens: the question and what was written since."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from longthought.errors import InvalidInput, QuestionRefused
from longthought.types import Message, ModelRequest, text_of

from .questions import understand
from .tasks import Asked, Mode, Task

__all__ = ["CALCULATOR", "Conversation", "read", "trace_text"]

CALCULATOR = "calculator"
"""The name of the tool whose offer switches the model into tool mode."""

_LONGEST = 20_000  # characters that it wrote: far more than any network has positions for
_ONLY_OWN = "Continue only with what this model wrote"


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a request comes down to.

    ``prompt`` holds every token so far; ``trace`` is its part after the question itself; ``calls``
    is the number of tool calls made. ``continued`` is the text of the unfinished message that the
    reply goes on with. ``unusable`` is a tool result that the task has no tokens for.
    """

    asked: Asked
    mode: Mode
    prompt: list[int]
    trace: list[int]
    calls: int
    continued: str | None = None
    unusable: str | None = None

    @property
    def task(self) -> Task:
        """The task that understood the question."""
        return self.asked.task


def read(request: ModelRequest, tasks: Sequence[Task]) -> Conversation:
    """The conversation of a request; system messages and all before the last user are ignored.

    Raises:
        QuestionRefused: the last user message is a question of none of the tasks, or the messages
            after it are not what this model writes.
    """
    messages = request["messages"]
    last_user = max((i for i, m in enumerate(messages) if m["role"] == "user"), default=None)
    if last_user is None:
        raise QuestionRefused("messages", "there is no user message")
    asked = understand(text_of(messages[last_user]), tasks)
    mode = _mode(request, asked)
    trace, calls, unusable = _trace(asked.task, messages[last_user + 1 :])
    continued = None
    last = messages[-1]
    if request.get("continue_last"):
        if last["role"] != "assistant" or last.get("tool_calls"):
            raise QuestionRefused("messages", "continue_last needs an unfinished assistant message")
        continued = text_of(last)
    elif last["role"] == "assistant":
        fix = "Set continue_last to go on with it, or answer its tool call"
        raise QuestionRefused("messages", "the last message is the assistant's own", fix)
    head = asked.task.head(asked, mode)
    return Conversation(asked, mode, head + trace, trace, calls, continued, unusable)


def trace_text(messages: Sequence[Message]) -> str:
    """All that was written after the last user message as one text in the form of a thought.

    A tool call and its result become the right side of an equation: ``8 / 8`` answered by ``1``
    reads ``8 / 8 = 1``, and what follows fits on without another space.
    """
    users = [i for i, message in enumerate(messages) if message["role"] == "user"]
    return "".join(
        f" = {text_of(message)}" if message["role"] == "tool" else text_of(message)
        for message in messages[users[-1] + 1 if users else 0 :]
    )


def _mode(request: ModelRequest, asked: Asked) -> Mode:
    """The mode that the request calls for, if the question can be answered in it."""
    direct = request.get("sampling", {}).get("reasoning_effort") == "none"
    if direct and "direct" in asked.modes:
        return "direct"
    offered = any(tool["name"] == CALCULATOR for tool in request.get("tools", []))
    if offered and "tool" in asked.modes:
        return "tool"
    return asked.modes[0]


def _trace(task: Task, messages: Sequence[Message]) -> tuple[list[int], int, str | None]:
    """The tokens of these messages, the number of tool calls, and a result that has no tokens."""
    _check_length(messages)
    tokens: list[int] = []
    calls = 0
    for message in messages:
        if message["role"] == "assistant":
            tokens += _written(task, text_of(message))
            for call in message.get("tool_calls", []):
                calls += 1
                tokens += _called(task, tokens, _expression(call["arguments"]))
        elif message["role"] == "tool":
            result = text_of(message).strip()
            returned = task.returned(result)
            if returned is None:
                return tokens, calls, result
            tokens += returned
    return tokens, calls, None


def _check_length(messages: Sequence[Message]) -> None:
    said = [message for message in messages if message["role"] == "assistant"]
    written = sum(len(text_of(message)) for message in said)
    calls = (call for message in said for call in message.get("tool_calls", []))
    if written + sum(len(call["arguments"]) for call in calls) > _LONGEST:
        problem = f"more than {_LONGEST:,} characters were written after the question"
        raise QuestionRefused("messages", problem, _ONLY_OWN)


def _called(task: Task, before: list[int], expression: str) -> list[int]:
    """What a call adds to the tokens before it: the text may say the expression, or even CALL."""
    if task.call < 0:
        raise QuestionRefused("messages", f"{task.name} are answered without a tool call")
    written = _written(task, expression)
    if before[-1:] == [task.call]:
        return []
    return [task.call] if before[-len(written) :] == written else [*written, task.call]


def _written(task: Task, text: str) -> list[int]:
    try:
        return task.language.encode(text)
    except InvalidInput as error:
        raise QuestionRefused("messages", error.problem, _ONLY_OWN) from error


def _expression(arguments: str) -> str:
    try:
        return str(json.loads(arguments)["expression"])
    except (ValueError, KeyError, TypeError) as error:
        raise QuestionRefused("messages", "a tool call has no expression") from error
