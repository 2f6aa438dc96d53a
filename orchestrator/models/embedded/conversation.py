"""A conversation as one sequence of tokens: the prompt of the puzzle and what was written since."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from longthought.errors import InvalidInput, QuestionRefused
from longthought.types import Message, ModelRequest, text_of

from . import vocabulary as v
from .questions import Question, parse_question

__all__ = ["CALCULATOR", "Conversation", "expression_before_call", "read", "trace_text"]

CALCULATOR = "calculator"
"""The name of the tool whose offer switches the model into tool mode."""

_INTEGER = re.compile(r"\d{1,3}(?:\.0+)?")


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a request comes down to.

    ``prompt`` holds every token so far; ``trace`` is its part after the puzzle itself; ``calls`` is
    the number of tool calls made. ``continued`` is the text of the unfinished message that the
    reply goes on with. ``unusable`` is a tool result that is no number of the vocabulary.
    """

    question: Question
    mode: int
    prompt: list[int]
    trace: list[int]
    calls: int
    continued: str | None = None
    unusable: str | None = None


def read(request: ModelRequest) -> Conversation:
    """The conversation of a request; system messages and all before the last user are ignored.

    Raises:
        QuestionRefused: the last user message is no puzzle, or the messages after it are not what
            this model writes.
    """
    messages = request["messages"]
    last_user = max((i for i, m in enumerate(messages) if m["role"] == "user"), default=None)
    if last_user is None:
        raise QuestionRefused("messages", "there is no user message")
    question = parse_question(text_of(messages[last_user]))
    mode = _mode(request, question)
    trace, calls, unusable = _trace(messages[last_user + 1 :])
    continued = None
    last = messages[-1]
    if request.get("continue_last"):
        if last["role"] != "assistant" or last.get("tool_calls"):
            raise QuestionRefused("messages", "continue_last needs an unfinished assistant message")
        continued = text_of(last)
    elif last["role"] == "assistant":
        fix = "Set continue_last to go on with it, or answer its tool call"
        raise QuestionRefused("messages", "the last message is the assistant's own", fix)
    puzzle = question.puzzle
    head = [mode, puzzle.target, *puzzle.numbers, v.COLON]
    return Conversation(question, mode, head + trace, trace, calls, continued, unusable)


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


def expression_before_call(tokens: Sequence[int]) -> str | None:
    """The expression of a trace that ends with CALL, or None if no operation stands there."""
    if len(tokens) < 4:
        return None
    left, operator, right = tokens[-4:-1]
    if operator not in v.OPERATORS or max(left, right) > v.NUMBER_MAX:
        return None
    return f"{left} {v.OPERATORS[operator]} {right}"


def _mode(request: ModelRequest, question: Question) -> int:
    if question.value:
        return v.MODE_VALUE
    if request.get("sampling", {}).get("reasoning_effort") == "none":
        return v.MODE_DIRECT
    if any(tool["name"] == CALCULATOR for tool in request.get("tools", [])):
        return v.MODE_TOOL
    return v.MODE_CHAIN


def _trace(messages: Sequence[Message]) -> tuple[list[int], int, str | None]:
    """The tokens of these messages, the number of tool calls, and a result that has no token."""
    tokens: list[int] = []
    calls = 0
    for message in messages:
        if message["role"] == "assistant":
            tokens += _written(text_of(message))
            for call in message.get("tool_calls", []):
                calls += 1
                expression = _written(_expression(call["arguments"]))
                if tokens[-1:] != [v.CALL]:
                    written = tokens[-len(expression) :] == expression
                    tokens += [v.CALL] if written else [*expression, v.CALL]
        elif message["role"] == "tool":
            result = text_of(message).strip()
            value = int(result.split(".")[0]) if _INTEGER.fullmatch(result) else v.NUMBER_MAX + 1
            if value > v.NUMBER_MAX:
                return tokens, calls, result
            tokens += [value, v.RETURN]
    return tokens, calls, None


def _written(text: str) -> list[int]:
    try:
        return v.encode(text)
    except InvalidInput as error:
        fix = "Continue only with what this model wrote"
        raise QuestionRefused("messages", error.problem, fix) from error


def _expression(arguments: str) -> str:
    try:
        return str(json.loads(arguments)["expression"])
    except (ValueError, KeyError, TypeError) as error:
        raise QuestionRefused("messages", "a tool call has no expression") from error
