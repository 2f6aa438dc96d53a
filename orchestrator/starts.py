"""Shared starts: what the beginnings of conversations have in common, by what they say.

Runs record conversations under ids of their own, so that nobody can tell from a trace what another
one holds. The controller's book of leases asks something else: whether two branches of one process
lean on the same computed tokens. Here a start has the digest of the model, the tools and the
messages up to some point. It is never recorded, and no part of a request or a key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from longthought.storage import canonical
from longthought.types import Message, ToolDefinition

__all__ = ["Beginning", "beginning_of"]

Beginning = tuple[tuple[str, float], ...]
"""Starts from the shortest to the whole prompt: a digest, and the share of the prompt's text."""


def beginning_of(
    model: str, tools: Sequence[ToolDefinition], messages: Sequence[Message], opening: int
) -> Beginning:
    """Where a prompt may part from others: after its system prompt, after its question, at its end.

    The first ``opening`` messages are system prompt and question. Tools stand before all messages.
    """
    system = next((n for n, one in enumerate(messages) if one["role"] != "system"), len(messages))
    cuts = {system} if system or tools else set()
    cuts |= {min(opening, len(messages)), len(messages)} - {0}
    digest = hashlib.sha256(model.encode())
    found, size = [], 0
    for number, text in enumerate(_texts(tools, messages)):
        digest.update(text)
        size += len(text)
        if number in cuts:
            found.append((digest.hexdigest(), size))
    return tuple((start, length / size) for start, length in found)


def _texts(tools: Sequence[ToolDefinition], messages: Iterable[Message]) -> Iterable[bytes]:
    yield canonical([dict(tool) for tool in tools]).encode() if tools else b""
    for message in messages:
        yield b"\n" + canonical(dict(message)).encode()
