"""A model behind any server that speaks OpenAI's Chat Completions.

Requests go through the client's generic ``post``: its typed ``create`` walks every message by type
hints at every step, which costs more than all the rest together, and its typed streams do the
same for every chunk.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from weakref import WeakKeyDictionary

import httpx2
import openai

from longthought.errors import BackendError, ConfigurationError, QuestionRefused
from longthought.orchestrator.models import openai_wire as wire
from longthought.orchestrator.models.openai_errors import Faults
from longthought.orchestrator.models.openai_stream import ServerFault, StreamedReply
from longthought.orchestrator.models.sse import ServerEvents
from longthought.types import (
    JSON,
    UNBOUNDED_TOKENS,
    Capabilities,
    Delta,
    FinishReason,
    Grant,
    JSONObject,
    ModelReply,
    ModelRequest,
)

__all__ = ["OpenAIModel"]

_OFFICIAL_URL = "https://api.openai.com/v1"
_OFFICIAL_HOST = "api.openai.com"
_PATH = "/chat/completions"
_CONNECT_SECONDS = 15.0


class OpenAIModel:
    """A model of OpenAI or of a compatible server (vLLM, SGLang, llama.cpp, ...).

    ``base_url`` is taken from ``OPENAI_BASE_URL`` if not given, the key from the variable named
    by ``api_key_env``. A key is needed for OpenAI itself only.

    ``timeout`` is in seconds and holds between two bytes, not for a whole reply.
    ``max_retries`` stays 0 below an executor, which retries, and charges, by itself.
    ``capabilities`` replaces single fields of the defaults, for example
    ``{"continues": True}`` for vLLM or ``{"honours_max_tokens": False}``.
    ``max_tokens_field`` is ``max_tokens`` or ``max_completion_tokens``, by default what the model
    is known to want. ``send_reasoning`` sends visible reasoning back in the field it came in.
    ``extra_body`` is added to every request. Neither headers nor key ever show in an error.
    """

    def __init__(
        self,
        name: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        slots: int = 32,
        stream: bool = True,
        capabilities: Mapping[str, Any] | None = None,
        timeout: float = 600.0,
        max_retries: int = 0,
        max_tokens_field: str | None = None,
        include_usage: bool = True,
        send_reasoning: bool = True,
        strict_tools: bool = False,
        extra_headers: Mapping[str, str] | None = None,
        extra_body: Mapping[str, JSON] | None = None,
    ) -> None:
        self.name, self.slots = name, slots
        self.base_url = _checked_url(base_url or os.environ.get("OPENAI_BASE_URL") or _OFFICIAL_URL)
        self.capabilities = _capabilities(stream, capabilities or {})
        self._key, self._key_env = api_key, api_key_env
        self._timeout, self._max_retries = timeout, max_retries
        self._include_usage, self._send_reasoning = include_usage, send_reasoning
        self._strict_tools = strict_tools
        self._headers, self._extra_body = dict(extra_headers or {}), dict(extra_body or {})
        if max_tokens_field is None:
            modern = self._official or wire.takes_completion_tokens(name)
            max_tokens_field = "max_completion_tokens" if modern else "max_tokens"
        self._max_tokens_field = max_tokens_field
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, _Connection]
        self._clients = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"OpenAIModel({self.name!r}, base_url={_public_url(self.base_url)!r})"

    @property
    def _official(self) -> bool:
        return urlsplit(self.base_url).hostname == _OFFICIAL_HOST

    async def generate(
        self,
        request: ModelRequest,
        grant: Grant,
        emit: Callable[[Delta], None] | None = None,
    ) -> ModelReply:
        """Answer one request; cancelling closes the connection, which ends it at the server.

        A server that ignores the maximum is cut off: the reply ends with ``cut`` and its usage
        counts what arrived. Without streaming its whole usage is reported.

        Raises:
            BackendError: the server failed or answered something that cannot be used.
            ConfigurationError: there is no API key and the endpoint needs one.
            QuestionRefused: a message is to be continued and the endpoint cannot.
        """
        limit = min(grant.tokens, request.get("sampling", {}).get("max_tokens", grant.tokens))
        body = self._body(request, limit)
        connection = await self._connection()
        try:
            if self.capabilities.streams:
                return await self._streamed(connection, request, body, limit, emit)
            return await self._whole(connection, request, body, limit)
        except (openai.OpenAIError, httpx2.HTTPError, ServerFault) as error:
            fault = connection.faults.of(error)
        # Out here it is not chained: what was caught carries the request, the key in its headers.
        raise fault

    def count_prompt(self, request: ModelRequest) -> int | None:
        """None: the tokenizer is the server's."""
        return None

    def fingerprint(self) -> JSONObject:
        """Kind, name and endpoint, without user, password or query of its address."""
        return {"kind": "openai", "name": self.name, "endpoint": _public_url(self.base_url)}

    def check(self) -> None:
        """Find out before the first call whether a key is missing.

        Raises:
            ConfigurationError: there is no API key and the endpoint needs one.
        """
        self._api_key()

    async def aclose(self) -> None:
        """Close the connections of this event loop; those of others close with their loops."""
        connection = self._clients.pop(asyncio.get_running_loop(), None)
        if connection is not None:
            await connection.aclose()

    def _body(self, request: ModelRequest, limit: int) -> JSONObject:
        if limit < 1:
            raise BackendError(f"{self.name}: no tokens are granted", sent=False)
        if request.get("continue_last") and not self.capabilities.continues:
            raise QuestionRefused(
                "continue_last",
                f"{self.name} cannot go on with an unfinished message",
                "Ask again instead, or set the capability `continues` if the server can",
            )
        return wire.request_body(
            request,
            self.name,
            max_tokens=None if limit >= UNBOUNDED_TOKENS else limit,
            max_tokens_field=self._max_tokens_field,
            stream=self.capabilities.streams,
            include_usage=self._include_usage,
            send_reasoning=self._send_reasoning,
            strict_tools=self._strict_tools,
            extra=self._extra_body,
        )

    async def _whole(
        self, connection: _Connection, request: ModelRequest, body: JSONObject, limit: int
    ) -> ModelReply:
        response = await connection.client.post(_PATH, cast_to=httpx2.Response, body=body)
        try:
            reply = json.loads(response.content)
        except ValueError:
            reply = None
        if not isinstance(reply, dict):
            raise ServerFault("the reply is not JSON")
        if reply.get("error"):
            raise ServerFault("an error instead of a reply", reply["error"])
        if not reply.get("choices"):
            raise ServerFault("the reply holds no choice")
        with _known_form():
            choice = reply["choices"][0]
            message, finish = choice["message"], choice.get("finish_reason")
            logprobs = (choice.get("logprobs") or {}).get("content")
            return self._reply(request, reply, message, finish, limit, logprobs=logprobs)

    async def _streamed(
        self,
        connection: _Connection,
        request: ModelRequest,
        body: JSONObject,
        limit: int,
        emit: Callable[[Delta], None] | None,
    ) -> ModelReply:
        # Asked for the response, the client hands it over unread, whatever `stream_cls` says.
        answer: Any = await connection.client.post(
            _PATH,
            cast_to=httpx2.Response,
            body=body,
            stream=True,
            stream_cls=openai.AsyncStream[object],
        )
        response: httpx2.Response = answer
        streamed = StreamedReply(emit)
        try:
            cut = await _read(response, streamed, limit)
        except httpx2.TransportError:
            # The reply itself is whole; at most its usage is lost.
            if not streamed.complete:
                raise
            cut = False
        finally:
            await response.aclose()
        if not cut and not streamed.complete:
            raise ServerFault("the stream ended in mid-reply")
        with _known_form():
            return self._reply(
                request,
                {**streamed.head, "usage": streamed.usage},
                streamed.assembled(),
                streamed.finish,
                limit,
                counted=streamed.tokens,
                cut=cut,
                logprobs=streamed.logprobs,
            )

    def _reply(
        self,
        request: ModelRequest,
        head: JSONObject,
        message: JSONObject,
        finish: JSON,
        limit: int,
        *,
        counted: int = 0,
        cut: bool = False,
        logprobs: list[JSONObject] | None = None,
    ) -> ModelReply:
        turn = sum(1 for old in request["messages"] if old["role"] == "assistant")
        said = wire.assistant_message(message, turn)
        usage = wire.reported_usage(head.get("usage"))
        if usage is None:
            usage = wire.estimated_usage(request, said, limit, counted)
        elif cut:
            # A running count, if any: the stream was closed before the last one.
            tokens = max(usage.completion_tokens, counted)
            usage = replace(usage, completion_tokens=tokens, estimated=True)
        reason: FinishReason = "cut"
        if not cut:
            reason = wire.finish_reason(finish, said, bool(message.get("refusal")))
        reply: ModelReply = {
            "message": said,
            "finish_reason": reason,
            "usage": usage.to_json(),
            "model": str(head.get("model") or self.name),
        }
        if head.get("system_fingerprint"):
            reply["fingerprint"] = str(head["system_fingerprint"])
        if logprobs:
            reply["logprobs"] = logprobs
        return reply

    async def _connection(self) -> _Connection:
        loop = asyncio.get_running_loop()
        connection = self._clients.get(loop)
        if connection is None:
            key = self._api_key()
            client = openai.AsyncOpenAI(
                api_key=key or "none",
                base_url=self.base_url,
                timeout=httpx2.Timeout(self._timeout, connect=_CONNECT_SECONDS),
                max_retries=self._max_retries,
                default_headers=self._headers,
            )
            secrets = (key, urlsplit(self.base_url).password or "", *self._headers.values())
            connection = _Connection(client, Faults(self.name, secrets))
            # Before anything is awaited: another call may ask meanwhile.
            self._clients[loop] = connection
            await connection.close_with_loop()
        return connection

    def _api_key(self) -> str:
        key = self._key or os.environ.get(self._key_env, "")
        if not key and self._official:
            raise ConfigurationError(
                "api_key",
                f"{self.name} at {_OFFICIAL_HOST} needs an API key",
                f"Set {self._key_env}, or OPENAI_BASE_URL for a server of your own",
            )
        return key


class _Connection:
    """One client in one event loop, closed when the loop ends if nobody closed it before."""

    def __init__(self, client: openai.AsyncOpenAI, faults: Faults) -> None:
        self.client, self.faults = client, faults
        self._life = self._live()

    async def close_with_loop(self) -> None:
        # A loop closes the async generators that were started in it, before it ends: the only
        # notice of its end that is to be had.
        await anext(self._life)

    async def aclose(self) -> None:
        await self._life.aclose()

    async def _live(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await self.client.close()


async def _read(response: httpx2.Response, streamed: StreamedReply, limit: int) -> bool:
    """Take in the stream; true if it was left because more than ``limit`` tokens came."""
    events = ServerEvents()
    # Read on to the end after [DONE], too: that leaves the connection usable.
    plain = "content-encoding" not in response.headers  # decoding costs calls for every chunk
    pieces = response.aiter_raw() if plain else response.aiter_bytes()
    async with aclosing(pieces) as chunks:
        async for chunk in chunks:
            for kind, data in events.feed(chunk):
                streamed.take(kind, data)
                if streamed.tokens > limit and streamed.finish is None:
                    return True
    for kind, data in () if streamed.done else events.finish():
        streamed.take(kind, data)
    return False


@contextmanager
def _known_form() -> Iterator[None]:
    """What a server may send has no end; all that cannot be read is one fault of the server."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError):
        raise ServerFault("the reply has no known form") from None


def _capabilities(stream: bool, changes: Mapping[str, Any]) -> Capabilities:
    try:
        return replace(Capabilities(streams=stream, seeds=True, logprobs=True), **changes)
    except TypeError:
        known = sorted(Capabilities.__slots__)
        raise ConfigurationError(
            "capabilities", f"unknown among {sorted(changes)}", f"There are {known}"
        ) from None


def _checked_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(
            "base_url", f"{_public_url(url)!r} is no http address", "Write http://host:port/v1"
        )
    return url.rstrip("/")


def _public_url(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
