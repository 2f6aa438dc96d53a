"""The job by hand: a loop over the typed client that keeps nothing.

It needs nothing of longthought, so that what it costs is what the client costs.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai

__all__ = ["DEFINITION", "MODEL", "QUESTION", "add", "bare", "conversation", "opened"]

QUESTION = "What is the sum of all numbers?"
MODEL = "toy"
DEFINITION: Any = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers.",
        "parameters": {
            "type": "object",
            "properties": {
                "a": {"type": "integer", "description": "one number."},
                "b": {"type": "integer", "description": "the other."},
            },
            "required": ["a", "b"],
            "additionalProperties": False,
        },
    },
}


async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@asynccontextmanager
async def opened(
    address: str, directory: Path, *, stream: bool = False
) -> AsyncIterator[Callable[[], Awaitable[str]]]:
    """The job against the server at ``address``; nothing is written into ``directory``."""
    async with openai.AsyncOpenAI(api_key="any", base_url=address, max_retries=0) as client:
        yield lambda: bare(client, stream=stream)


async def bare(client: openai.AsyncOpenAI, *, stream: bool = False) -> str:
    """The text that the job ends with."""
    return str((await conversation(client, stream=stream))[-1]["content"])


async def conversation(client: openai.AsyncOpenAI, *, stream: bool = False) -> list[Any]:
    """Every message of the job, the question first and the answer last."""
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    step = _streamed if stream else _whole
    while True:
        text, calls = await step(client, messages)
        if not calls:
            return [*messages, {"role": "assistant", "content": text}]
        messages.append({"role": "assistant", "content": text or None, "tool_calls": calls})
        for call in calls:
            result = await add(**json.loads(call["function"]["arguments"]))
            messages.append(
                {"role": "tool", "tool_call_id": call["id"], "content": json.dumps(result)}
            )


async def _whole(
    client: openai.AsyncOpenAI, messages: list[Any]
) -> tuple[str, list[dict[str, Any]]]:
    reply: Any = await client.chat.completions.create(
        model=MODEL, messages=messages, tools=[DEFINITION]
    )
    said = reply.choices[0].message
    return said.content or "", [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.function.name, "arguments": call.function.arguments},
        }
        for call in said.tool_calls or ()
    ]


async def _streamed(
    client: openai.AsyncOpenAI, messages: list[Any]
) -> tuple[str, list[dict[str, Any]]]:
    text: list[str] = []
    calls: list[dict[str, Any]] = []
    chunks: Any = await client.chat.completions.create(
        model=MODEL,
        messages=messages,
        tools=[DEFINITION],
        stream=True,
        stream_options={"include_usage": True},
    )
    async for chunk in chunks:
        for choice in chunk.choices:
            if choice.delta.content:
                text.append(choice.delta.content)
            for part in choice.delta.tool_calls or ():
                if part.id:
                    function = {"name": part.function.name, "arguments": ""}
                    calls.append({"id": part.id, "type": "function", "function": function})
                calls[part.index]["function"]["arguments"] += part.function.arguments or ""
    return "".join(text), calls
