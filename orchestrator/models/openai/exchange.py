"""One request and its reply over an open connection, whole or streamed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from functools import partial

import httpx2

from longthought.orchestrator.models.openai.connection import Connection
from longthought.orchestrator.models.openai.dialect import Incoming, ServerFault
from longthought.orchestrator.models.openai.patience import Stalled, Watch
from longthought.orchestrator.models.openai.sse import ServerEvents
from longthought.types import JSONObject

__all__ = ["Lost", "read_object", "receive", "receive_events", "receive_stream"]

_LAST_SECONDS = 1.0
"""How long the end of a stream may come after the end of its reply."""


class Lost(ServerFault):
    """Raised for a stream that broke off in mid-reply."""


async def receive(connection: Connection, path: str, body: JSONObject) -> JSONObject:
    """Post a request and read the reply, which comes in one piece.

    Raises:
        ServerFault: the reply is no JSON object, or an error with status 200, or late.
        openai.OpenAIError, httpx2.HTTPError: the client or its transport failed.
    """
    with Watch(connection.patience):
        response = await connection.client.ask(path, body)
    connection.pacing.heard(response.headers)
    reply = read_object(response)
    if reply.get("error"):
        raise ServerFault("an error instead of a reply", reply["error"])
    return reply


def read_object(response: httpx2.Response) -> JSONObject:
    """The JSON object that a response holds.

    Raises:
        ServerFault: it holds none.
    """
    try:
        reply = json.loads(response.content)
    except ValueError:
        reply = None
    if not isinstance(reply, dict):
        raise ServerFault("the reply is not JSON")
    return reply


async def receive_stream(
    connection: Connection, path: str, body: JSONObject, reply: Incoming, limit: int
) -> bool:
    """Post a request and take in the stream, see :func:`receive_events`."""
    send = partial(connection.client.ask, path, body, stream=True)
    return await receive_events(connection, send, reply, limit)


async def receive_events(
    connection: Connection,
    send: Callable[[], Awaitable[httpx2.Response]],
    reply: Incoming,
    limit: int,
    heard: Callable[[], Awaitable[None]] | None = None,
) -> bool:
    """Take in the stream that ``send`` opens; true if it was cut.

    It is at more than ``limit`` tokens, or for what the reply itself says (``cut_for``). ``heard``
    is awaited whenever something has come.

    Raises:
        Lost: the connection was lost, or the stream ended, in mid-reply.
        ServerFault: the stream stalled, or holds something that cannot be read.
        openai.OpenAIError, httpx2.HTTPError: the client or its transport failed.
    """
    try:
        with Watch(connection.patience, reply):
            cut = await _exchange(connection, send, reply, limit, heard)
    except (httpx2.TransportError, Stalled) as error:
        # If the reply itself is whole, at most its usage is lost.
        if reply.complete:
            return False
        fault = error if isinstance(error, Stalled) else Lost(_lost(error, reply))
    else:
        if cut or reply.complete:
            return cut
        fault = Lost("the stream ended in mid-reply")
    raise fault


async def _exchange(
    connection: Connection,
    send: Callable[[], Awaitable[httpx2.Response]],
    reply: Incoming,
    limit: int,
    heard: Callable[[], Awaitable[None]] | None,
) -> bool:
    response = await send()
    try:
        connection.pacing.heard(response.headers)
        return await _read(response, reply, limit, heard)
    finally:
        await response.aclose()


def _lost(error: httpx2.TransportError, reply: Incoming) -> str:
    when = f"in mid-reply, after {reply.tokens} tokens" if reply.tokens else "before any token"
    return f"the connection was lost {when} ({error or type(error).__name__})"


async def _read(
    response: httpx2.Response,
    reply: Incoming,
    limit: int,
    heard: Callable[[], Awaitable[None]] | None,
) -> bool:
    events = ServerEvents()
    plain = "content-encoding" not in response.headers  # decoding costs calls for every chunk
    pieces = response.aiter_raw() if plain else response.aiter_bytes()
    async with aclosing(pieces) as chunks:
        async for chunk in chunks:
            for kind, data in events.feed(chunk):
                reply.take(kind, data)
                if (reply.tokens > limit or reply.cut_for) and not reply.ended:
                    return True
            if heard is not None:
                await heard()
            if reply.done:
                await _read_out(chunks)
                return False
    for kind, data in events.finish():
        reply.take(kind, data)
    return False


async def _read_out(chunks: AsyncIterator[bytes]) -> None:
    """Read to the end of the stream, which leaves the connection usable, unless it stays open."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_LAST_SECONDS):
            async for _ in chunks:
                pass
