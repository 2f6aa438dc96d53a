"""A model behind any server that speaks OpenAI's Chat Completions or Responses.

Requests go through the client's generic ``post``: its typed ``create`` walks every message by type
hints at every step, which costs more than all the rest together, and its typed streams do the
same for every chunk.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx2
import openai

from longthought.budgets.rates import checked_rate
from longthought.errors import BackendError, ConfigurationError, QuestionRefused
from longthought.orchestrator.models.backends.addresses import checked_url, public_url
from longthought.orchestrator.models.backends.parameters import RequestParameters
from longthought.orchestrator.models.openai.background import BackgroundReply, Gone
from longthought.orchestrator.models.openai.chat import ChatDialect, turn_of
from longthought.orchestrator.models.openai.chat_choices import ChatChoices
from longthought.orchestrator.models.openai.chat_wire import takes_completion_tokens
from longthought.orchestrator.models.openai.connection import Connection, Endpoint
from longthought.orchestrator.models.openai.dialect import (
    Answer,
    Dialect,
    Emit,
    ServerFault,
    WireOptions,
)
from longthought.orchestrator.models.openai.exchange import receive, receive_stream
from longthought.orchestrator.models.openai.faults import Faults
from longthought.orchestrator.models.openai.pacing import CallTurn, Pacing
from longthought.orchestrator.models.openai.patience import Patience
from longthought.orchestrator.models.openai.responses import ResponsesDialect
from longthought.orchestrator.models.openai.responses_stream import ResponsesStream
from longthought.orchestrator.models.openai.siblings import Siblings
from longthought.orchestrator.models.openai.usage import estimated_usage, shared_usage
from longthought.orchestrator.models.scheduling import scheduling_now
from longthought.orchestrator.models.thoughts import too_short
from longthought.types import (
    JSON,
    UNBOUNDED_TOKENS,
    Capabilities,
    Delta,
    Grant,
    JSONObject,
    ModelReply,
    ModelRequest,
)

__all__ = ["OpenAIModel"]

_OFFICIAL_URL = "https://api.openai.com/v1"
_OFFICIAL_HOST = "api.openai.com"
_CONNECT_SECONDS = 15.0


class OpenAIModel:
    """A model of OpenAI or of a compatible server (vLLM, SGLang, llama.cpp, ...).

    ``name`` stands in traces and price books; ``served_as`` is the model's name at its endpoint if
    that is another. ``base_url`` is taken from ``OPENAI_BASE_URL`` if not given, the key from the
    variable named by ``api_key_env``. A key is needed for OpenAI itself only.

    ``context_capacity`` is the memory of its server for all contexts together (the KV cache), in
    tokens, as far as it is known: with it branches keep their contexts over short waits. It may be
    set later. ``prefix_cache``: it is one server with a prefix cache, so that the cached tokens it
    reports show how much memory it has, where nobody has said.
    ``api`` is the protocol: Chat Completions, which every server speaks, or Responses.
    ``samples_per_call`` above 1 asks for that many samples of one question with one call (``n``),
    which reads their prompt once, where they are wanted at the same moment.
    Seconds: ``connect_timeout`` (15) until a connection stands, ``first_token_timeout`` (as
    ``timeout``) until the first token of a streamed reply, ``timeout`` between two tokens of it and
    for all of a reply that is not streamed. ``requests_per_minute`` and ``tokens_per_minute`` are
    kept by all models of this address and key that state the same; what the server says of its
    limits is kept to in any case.
    ``max_retries`` stays 0 below an executor, which retries, and charges, by itself.
    ``capabilities`` replaces single fields of the defaults, for example
    ``{"continues": True}`` for vLLM or ``{"honours_max_tokens": False}``.
    ``max_tokens_field`` is ``max_tokens`` or ``max_completion_tokens``, by default what the model
    is known to want; ``thinking_field`` the parameter by which the server itself ends a thought
    after so many tokens, if it has one. ``running_usage`` asks a stream for its usage with each
    piece (``continuous_usage_stats``), which a stream that is cut settles at. ``send_reasoning``
    sends visible reasoning back in the field it came in.
    ``extra_body`` is added to every request. ``parameters`` say how requests are to be served.
    Neither headers, key nor cache salt ever show in an error.
    """

    def __init__(
        self,
        name: str,
        *,
        served_as: str | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        slots: int = 32,
        samples_per_call: int = 1,
        api: Literal["chat", "responses"] = "chat",
        stream: bool = True,
        capabilities: Mapping[str, Any] | None = None,
        timeout: float = 600.0,
        connect_timeout: float | None = None,
        first_token_timeout: float | None = None,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        max_retries: int = 0,
        max_tokens_field: str | None = None,
        thinking_field: str | None = None,
        include_usage: bool = True,
        running_usage: bool = False,
        send_reasoning: bool = True,
        strict_tools: bool = False,
        extra_headers: Mapping[str, str] | None = None,
        extra_body: Mapping[str, JSON] | None = None,
        parameters: RequestParameters | None = None,
        context_capacity: int | None = None,
        prefix_cache: bool = False,
    ) -> None:
        self.name, self.slots = name, slots
        self.context_capacity = context_capacity
        self.prefix_cache = prefix_cache
        self.takes_scheduling = parameters is not None and parameters.by_call
        self._parameters = parameters
        self._in_background = parameters is not None and parameters.background is not None
        if self._in_background and api != "responses":
            raise ConfigurationError(
                "background", "is a thing of Responses alone", 'Use api="responses"'
            )
        stream = stream and (parameters is None or parameters.streams)
        self._added: JSONObject | None = None
        self.base_url = checked_url(base_url or os.environ.get("OPENAI_BASE_URL") or _OFFICIAL_URL)
        self.capabilities = _capabilities(api, stream, capabilities or {})
        self._key, self._key_env = api_key, api_key_env
        self._max_retries = max_retries
        self._patience = Patience(
            _CONNECT_SECONDS if connect_timeout is None else connect_timeout,
            timeout if first_token_timeout is None else first_token_timeout,
            timeout,
            streams=self.capabilities.streams,
        )
        self._rates = (
            checked_rate("requests_per_minute", requests_per_minute),
            checked_rate("tokens_per_minute", tokens_per_minute),
        )
        self._pacing: Pacing | None = None
        self._headers: Mapping[str, str] = {} if extra_headers is None else extra_headers
        self._served_as = served_as or name
        if max_tokens_field is None:
            modern = self._official or takes_completion_tokens(self._served_as)
            max_tokens_field = "max_completion_tokens" if modern else "max_tokens"
        options = WireOptions(
            self._served_as,
            stream=self.capabilities.streams,
            include_usage=include_usage,
            running_usage=running_usage,
            send_reasoning=send_reasoning,
            strict_tools=strict_tools,
            seeds=self.capabilities.seeds,
            max_tokens_field=max_tokens_field,
            thinking_field=thinking_field,
            extra=dict(extra_body or {}),
        )
        self._dialect = _dialect(api, options)
        self._samples_per_call = _checked_samples(samples_per_call, api)
        self._alternatives = "top_logprobs" in options.extra
        self._clients: dict[asyncio.AbstractEventLoop, Connection] = {}

    def __repr__(self) -> str:
        return f"OpenAIModel({self.name!r}, base_url={public_url(self.base_url)!r})"

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
        window = self.capabilities.context_window
        if window is not None and limit < UNBOUNDED_TOKENS:
            limit = min(limit, window)  # vLLM turns down what is more
        connection = await self._connection()
        connection.pacing.sent()
        try:
            if self._samples_per_call > 1 and _may_share(request):
                if connection.siblings is None:
                    connection.siblings = Siblings(self._ask_all, self._samples_per_call)
                reply = await connection.siblings.reply(request, limit, emit)
            else:
                reply = await self._ask(connection, request, limit, emit)
        except (openai.OpenAIError, httpx2.HTTPError, ServerFault) as error:
            fault = connection.fault(error)
        else:
            connection.pacing.used(reply["usage"])
            return reply
        # Out here it is not chained: what was caught carries the request, the key in its headers.
        raise fault

    async def pick_up(self, request: ModelRequest, handle: str, limit: int) -> ModelReply | None:
        """The reply in the background that an earlier process began; see ``PicksUp``.

        Raises:
            BackendError: the reply failed, or nobody can be asked for it.
            ConfigurationError: there is no API key and the endpoint needs one.
        """
        if not self._in_background:
            return None
        connection = await self._connection()
        try:
            found = await BackgroundReply(connection, self._dialect.path).picked_up(handle)
            return self._whole_reply(request, found, limit)
        except Gone:
            return None
        except ServerFault as error:
            fault = connection.fault(error)
        raise fault

    def try_turn(self, tokens: int, *, tries: int = 0) -> CallTurn | None:
        """A turn at the endpoint if a call may leave at once, else None; see ``Paced``.

        Raises:
            ConfigurationError: there is no API key and the endpoint needs one.
        """
        return self._paced().try_turn(tokens, tries=tries)

    async def turn(self, tokens: int, *, tries: int = 0, within: float = math.inf) -> CallTurn:
        """Wait for a turn at the endpoint; see ``Paced``.

        Raises:
            BackendError: the endpoint allows no call within so many seconds; nothing was sent.
            ConfigurationError: there is no API key and the endpoint needs one.
        """
        return await self._paced().turn(tokens, tries=tries, within=within)

    def count_prompt(self, request: ModelRequest) -> int | None:
        """None: the tokenizer is the server's."""
        return None

    def fingerprint(self) -> JSONObject:
        """Kind, name, endpoint without user, password or query, and what shapes requests."""
        made: JSONObject = {"kind": "openai", "name": self.name}
        made["endpoint"] = public_url(self.base_url)
        if self._served_as != self.name:
            made["served_as"] = self._served_as
        able = [one for one in ("continues", "inline_tools") if getattr(self.capabilities, one)]
        return {**made, "capabilities": able} if able else made

    def check(self) -> None:
        """Find out before the first call whether a key is missing, or what a header needs.

        Raises:
            ConfigurationError: there is no API key and the endpoint needs one.
        """
        self._api_key()
        dict(self._headers)
        self._fixed_parameters()

    async def aclose(self) -> None:
        """Close the connections of this event loop; those of others close with their loops."""
        connection = self._clients.pop(asyncio.get_running_loop(), None)
        if connection is not None:
            await connection.aclose()

    async def _ask_all(
        self, request: ModelRequest, limit: int, emits: Sequence[Emit | None]
    ) -> Sequence[ModelReply | Exception]:
        """One call for several samples of one question; its prompt is counted with the first."""
        connection = await self._connection()
        if len(emits) == 1:
            return [await self._ask(connection, request, limit, emits[0])]
        body = {**self._body(request, limit), "n": len(emits)}
        choices = ChatChoices(emits, turn_of(request))
        if self.capabilities.streams:
            await receive_stream(connection, self._dialect.path, body, choices, limit)
        else:
            choices.take_whole(await receive(connection, self._dialect.path, body))
        answers = shared_usage(request, choices.usage, choices.answers(), limit)
        missing = ServerFault("the call held no reply for this sample")
        return [
            connection.faults.of(missing)
            if answer is None
            else self._reply(request, answer, limit, cut=not choices.has_ended(index))
            for index, answer in enumerate(answers)
        ]

    async def _ask(
        self, connection: Connection, request: ModelRequest, limit: int, emit: Emit | None
    ) -> ModelReply:
        body = self._body(request, limit)
        path, dialect = self._dialect.path, self._dialect
        behind = self._background(connection) if self._in_background else None
        if not self.capabilities.streams:
            whole = receive(connection, path, body) if behind is None else behind.whole(body)
            return self._whole_reply(request, await whole, limit)
        arriving = dialect.arriving(request, emit)
        if behind is not None and isinstance(arriving, ResponsesStream):
            cut = await behind.streamed(body, arriving, limit)
        else:
            cut = await receive_stream(connection, path, body, arriving, limit)
        reply = self._reply(request, arriving.answer(), limit, counted=arriving.tokens, cut=cut)
        if cut and arriving.cut_for == "thought_cut":
            reply["thought_cut"] = True
        elif arriving.cut_for == "thought_short":  # also where all of it came at once
            reply["thought_short"] = True
        return reply

    def _whole_reply(self, request: ModelRequest, response: JSONObject, limit: int) -> ModelReply:
        reply = self._reply(request, self._dialect.whole(request, response), limit)
        if too_short(request, reply):
            reply["thought_short"] = True
        return reply

    def _background(self, connection: Connection) -> BackgroundReply:
        scheduling = scheduling_now()
        keep = scheduling.keep if scheduling is not None else None
        return BackgroundReply(connection, self._dialect.path, keep)

    def _body(self, request: ModelRequest, limit: int) -> JSONObject:
        if limit < 1:
            raise BackendError(f"{self.name}: no tokens are granted", sent=False)
        if request.get("continue_last") and not self.capabilities.continues:
            raise QuestionRefused(
                "continue_last",
                f"{self.name} cannot go on with an unfinished message",
                "Ask again instead, or set the capability `continues` if the server can",
            )
        body = self._dialect.body(request, None if limit >= UNBOUNDED_TOKENS else limit)
        if self._parameters is not None:
            self._add_parameters(body, self._parameters)
        return body

    def _add_parameters(self, body: JSONObject, parameters: RequestParameters) -> None:
        """Say how the request is to be served; what the user put into it stays as it is."""
        added = self._fixed_parameters()
        scheduling = scheduling_now() if self.takes_scheduling else None
        if scheduling is not None:
            added = {**added, **parameters.of_call(scheduling)}
        for name, value in added.items():
            body.setdefault(name, value)

    def _fixed_parameters(self) -> JSONObject:
        if self._added is None:
            self._added = self._parameters.fixed() if self._parameters is not None else {}
        return self._added

    def _reply(
        self,
        request: ModelRequest,
        answer: Answer,
        limit: int,
        *,
        counted: int = 0,
        cut: bool = False,
    ) -> ModelReply:
        usage = answer.usage
        if usage is None:
            usage = estimated_usage(request, answer.message, limit, counted)
        elif cut and not (answer.counts_all and usage.completion_tokens >= counted):
            # A running count that is behind: the stream was closed before the last one.
            tokens = max(usage.completion_tokens, counted)
            usage = replace(usage, completion_tokens=tokens, estimated=True)
        reply: ModelReply = {
            "message": answer.message,
            "finish_reason": "cut" if cut else answer.finish_reason,
            "usage": usage.to_json(),
            "model": answer.model or self.name,
        }
        if not (answer.tells_length or usage.estimated) and usage.completion_tokens >= limit:
            reply["finish_reason"] = "length"
        if answer.fingerprint:
            reply["fingerprint"] = answer.fingerprint
        if answer.logprobs:
            reply["logprobs"] = self._asked_logprobs(request, answer.logprobs)
        asked = request.get("sampling", {}).get("stop")
        if asked and answer.tells_stop and reply["finish_reason"] == "stop":
            # anything else (a word such as "end_turn"): it ended by itself
            reply["stopped_by"] = answer.stopped_by if answer.stopped_by in asked else None
        return reply

    def _asked_logprobs(
        self, request: ModelRequest, logprobs: list[JSONObject]
    ) -> list[JSONObject]:
        """Without the alternatives, which llama.cpp sends twenty of for each token, unasked."""
        if self._alternatives or "top_logprobs" in request.get("provider", {}):
            return logprobs
        return [{**one, "top_logprobs": []} if one.get("top_logprobs") else one for one in logprobs]

    async def _connection(self) -> Connection:
        loop = asyncio.get_running_loop()
        connection = self._clients.get(loop)
        if connection is None:
            salt = str(self._fixed_parameters().get("cache_salt", ""))
            endpoint = Endpoint(self.base_url, self._api_key(), dict(self._headers), salt)
            client = endpoint.client(self._patience, self.slots, self._max_retries)
            advice = self._parameters.advice if self._parameters is not None else None
            faults = Faults(self.name, endpoint.secrets, self._patience, advice)
            connection = Connection(client, faults, self._patience, self._paced())
            # What closes a client holds its loop, so those of ended loops have to go by hand.
            for ended in [one for one in list(self._clients) if one.is_closed()]:
                self._clients.pop(ended, None)
            # Before anything is awaited: another call may ask meanwhile.
            self._clients[loop] = connection
            await connection.close_with_loop()
        return connection

    def _paced(self) -> Pacing:
        if self._pacing is None:
            identity = (self.base_url, self._api_key(), *dict(self._headers).values())
            self._pacing = Pacing(self.name, identity, *self._rates)
        return self._pacing

    def _api_key(self) -> str:
        key = (self._key or os.environ.get(self._key_env, "")).strip()
        if not key and self._official:
            raise ConfigurationError(
                "api_key",
                f"{self.name} at {_OFFICIAL_HOST} needs an API key",
                f"Set {self._key_env}, or OPENAI_BASE_URL for a server of your own",
            )
        return key


def _may_share(request: ModelRequest) -> bool:
    """Whether several samples of a request may come of one call, which is cut for none of them."""
    sampling = request.get("sampling", {})
    thinking = sampling.get("thinking_tokens") or sampling.get("min_thinking_tokens")
    return not (thinking or request.get("continue_last"))


def _dialect(api: str, options: WireOptions) -> Dialect:
    if api == "chat":
        return ChatDialect(options)
    if api == "responses":
        return ResponsesDialect(options)
    raise ConfigurationError("api", f"{api!r} is no protocol", "Use chat or responses")


def _checked_samples(count: int, api: str) -> int:
    if count < 1 or (count > 1 and api != "chat"):
        raise ConfigurationError(
            "samples_per_call",
            f"{count} samples cannot be asked for with one call of {api}",
            "Use 1, or more with Chat Completions",
        )
    return count


def _capabilities(api: str, stream: bool, changes: Mapping[str, Any]) -> Capabilities:
    try:
        usual = Capabilities(streams=stream, seeds=api == "chat", logprobs=True)
        return replace(usual, **changes)
    except TypeError:
        known = sorted(Capabilities.__slots__)
        raise ConfigurationError(
            "capabilities", f"unknown among {sorted(changes)}", f"There are {known}"
        ) from None
