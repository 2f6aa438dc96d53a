"""Bounds of the tokens of a call, where the server sent no usage: no token is under a byte."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from longthought.orchestrator.models.openai.dialect import Answer
from longthought.types import JSON, Message, ModelRequest, Usage

__all__ = ["estimated_usage", "output_bytes", "prompt_bytes", "shared_usage"]

_MESSAGE_BYTES = 8


def estimated_usage(request: ModelRequest, message: Message, limit: int, counted: int) -> Usage:
    """Upper bounds where the server sent no usage: no token is shorter than a byte.

    ``limit`` is the maximum that was sent, ``counted`` the tokens that were seen arriving.
    """
    completion = max(counted, min(limit, output_bytes(message)))
    return Usage(prompt_bytes(request), completion, calls=1, estimated=True)


def shared_usage(
    request: ModelRequest, total: Usage | None, answers: Sequence[Answer | None], limit: int
) -> list[Answer | None]:
    """The answers of one call, each with its part of the call's usage; the sum is the total.

    The first that came has the prompt, which was read once. Output is divided by what can be seen
    of it, since servers tell its sum alone.
    """
    came = [answer for answer in answers if answer is not None]
    if total is None:
        for answer in came:
            answer.usage = estimated_usage(request, answer.message, limit, 0)
            if answer is not came[0]:
                answer.usage = replace(answer.usage, prompt_tokens=0)
        return list(answers)
    weights = [1 + output_bytes(answer.message) for answer in came]
    output = _divided(total.completion_tokens, weights)
    thought = _divided(total.reasoning_tokens, weights)
    for answer, tokens, reasoning in zip(came, output, thought, strict=True):
        answer.usage = Usage(completion_tokens=tokens, reasoning_tokens=reasoning, calls=1)
    if came and came[0].usage is not None:
        first = came[0].usage
        prompt, cached = total.prompt_tokens, total.cached_tokens
        came[0].usage = replace(first, prompt_tokens=prompt, cached_tokens=cached)
    return list(answers)


def _divided(total: int, weights: Sequence[int]) -> list[int]:
    """A whole number in parts that are as the weights, and sum up to it."""
    parts, given, seen = [], 0, 0
    for weight in weights:
        seen += weight
        parts.append(total * seen // sum(weights) - given)
        given += parts[-1]
    return parts


def prompt_bytes(request: ModelRequest) -> int:
    """UTF-8 bytes of all that a request says, and 8 for the borders of each message."""
    total = sum(_MESSAGE_BYTES + output_bytes(message) for message in request["messages"])
    for part in (request.get("tools"), request.get("output")):
        if part:
            total += _json_bytes(part)
    return total


def output_bytes(message: Message) -> int:
    """UTF-8 bytes of the text, the reasoning and the tool calls of a message."""
    content = message["content"]
    total = len(content.encode()) if isinstance(content, str) else 0
    if isinstance(content, list):
        total = _json_bytes(content)
    for item in message.get("reasoning", ()):
        total += len(item.get("text", "").encode()) + len(item.get("encrypted", ""))
    for part in message.get("tool_calls", ()):
        total += len(part["name"].encode()) + len(part["arguments"].encode())
    return total


def _json_bytes(value: JSON) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
