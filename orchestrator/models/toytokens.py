"""A toy tokenizer for models without one: exact, lossless and the same on every machine.

One token is a word (a run of letters, digits and underscores) or a single other character, with
the white space in front of it; white space at the very end of a text is one more token. Joined
together the tokens of a text are the text, so a reply can be cut after any token, and as each has
at least one byte no text has more tokens than UTF-8 bytes.
"""

from __future__ import annotations

import json
import re

from longthought.types import JSON, Message, ModelRequest

__all__ = ["MESSAGE_TOKENS", "count", "count_message", "count_request", "split"]

MESSAGE_TOKENS = 4
"""Tokens that every message of a prompt costs besides its text: its role and its borders."""

_TOKEN = re.compile(r"\s*(?:\w+|[^\w\s])|\s+")


def split(text: str) -> list[str]:
    """The tokens of a text; joined they are the text."""
    return _TOKEN.findall(text)


def count(text: str) -> int:
    """Number of tokens in a text."""
    return len(_TOKEN.findall(text))


def count_message(message: Message) -> int:
    """Tokens of what a message says, without the :data:`MESSAGE_TOKENS` of its borders."""
    content = message.get("content")
    total = 0
    if isinstance(content, str):
        total += count(content)
    elif content:
        total += sum(count(_part_text(part)) for part in content)
    for item in message.get("reasoning", ()):
        total += count(item.get("text", ""))
    for part in message.get("tool_calls", ()):
        total += 1 + count(part["arguments"])
    return total


def count_request(request: ModelRequest) -> int:
    """Tokens of a request's prompt: its messages with their borders, its tools, its schema."""
    total = 0
    for message in request["messages"]:
        total += MESSAGE_TOKENS + count_message(message)
    for tool in request.get("tools", ()):
        total += count(_compact(tool))
    if "output" in request:
        total += count(_compact(request["output"]))
    return total


def _part_text(part: JSON) -> str:
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        return str(part["text"])
    return _compact(part)


def _compact(value: JSON) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
