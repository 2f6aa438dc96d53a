"""Replies drawn from the model itself, without an executor: for the model cards and for tests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from longthought.orchestrator.models.allowance import Allowance
from longthought.types import Message, ModelRequest, Sampling, ToolDefinition, text_of

from .conversation import CALCULATOR, trace_text
from .model import EmbeddedModel

__all__ = ["Reply", "draw_replies", "reply_with_tool"]

_CALCULATOR = ToolDefinition(
    name=CALCULATOR,
    description="The exact value of an arithmetic expression.",
    parameters={"type": "object", "properties": {"expression": {"type": "string"}}},
)


@dataclass(frozen=True, slots=True)
class Reply:
    """The text of a reply and the number of tokens that were drawn for it."""

    text: str
    tokens: int


async def draw_replies(
    model: EmbeddedModel, questions: Sequence[str], count: int, **sampling: object
) -> list[list[Reply]]:
    """``count`` replies to each question, seeded apart; those of a question are drawn together."""

    async def one(question: str, seed: int) -> Reply:
        request = ModelRequest(
            model=model.name,
            messages=[Message(role="user", content=question)],
            sampling=Sampling(seed=seed, **sampling),  # type: ignore[typeddict-item]
        )
        reply = await model.generate(request, Allowance())
        return Reply(text_of(reply["message"]), reply["usage"].get("completion_tokens", 0))

    return [
        await asyncio.gather(*(one(question, 1000 * place + n) for n in range(count)))
        for place, question in enumerate(questions)
    ]


async def reply_with_tool(
    model: EmbeddedModel, question: str, calculate: Callable[[str], str], sampling: Sampling
) -> Reply:
    """One reply in tool mode; ``calculate`` answers each call. The text reads as one thought."""
    messages = [Message(role="user", content=question)]
    tokens = 0
    while True:
        request = ModelRequest(
            model=model.name, messages=messages, tools=[_CALCULATOR], sampling=sampling
        )
        reply = await model.generate(request, Allowance())
        tokens += reply["usage"].get("completion_tokens", 0)
        messages.append(reply["message"])
        if reply["finish_reason"] != "tool_calls":
            return Reply(trace_text(messages), tokens)
        call = reply["message"].get("tool_calls", [])[0]
        result = calculate(json.loads(call["arguments"])["expression"])
        messages.append(Message(role="tool", content=result, tool_call_id=call["id"]))
