"""The profile of a backend: where its models are served, how they are asked, what they can."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal
from urllib.parse import urlsplit

from longthought.errors import ConfigurationError
from longthought.orchestrator.models.backends.addresses import checked_url, is_loopback, public_url
from longthought.orchestrator.models.backends.facts import ServerFacts
from longthought.orchestrator.models.backends.headers import EnvironmentHeaders, variables_of
from longthought.orchestrator.models.backends.kinds import (
    GENERIC,
    KINDS,
    OPENAI,
    OPENAI_URL,
    OWN,
    Kind,
    Window,
    kind_named,
)
from longthought.orchestrator.models.backends.parameters import (
    RequestParameters,
    check_parameters,
    parameters_of,
)
from longthought.types import Capabilities

__all__ = ["BackendSettings", "Placement"]

Placement = Literal["prefix", "load"]

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_KEY_VARIABLE = "OPENAI_API_KEY"
_PRICE_PARTS = ("input", "output", "cached")
_MAX_TOKENS_FIELDS = ("max_tokens", "max_completion_tokens")
_COUNTS = ("slots", "samples_per_call", "context_window", "context_capacity")
_SECONDS = ("timeout", "connect_timeout", "first_token_timeout", "cooldown")
_RATES = ("requests_per_minute", "tokens_per_minute")


@dataclass(frozen=True, slots=True)
class BackendSettings:
    """How models of one backend are reached; as it stands in a configuration file.

    ``kind`` is one of :data:`~longthought.orchestrator.models.backends.kinds.KINDS` and says what
    is assumed of the server; without it nothing is but what every server can. ``base_url`` is its
    address, ``base_urls`` those of several servers of the same models: calls go to the one with
    the most room, and past one that fails. ``api`` is ``chat`` (Chat Completions) or ``responses``.

    The key is in the variable ``api_key_env``; it never stands here. Values of ``headers`` may name
    variables, as in ``{"authorization": "Bearer $TOKEN"}``.

    ``slots`` is calls in flight at once, at each address, as the rates are of each, and as
    ``context_capacity`` is: the memory of a server for the contexts of all calls together (its KV
    cache), in tokens. ``context_window`` is in tokens, ``timeout``, ``connect_timeout`` and
    ``first_token_timeout`` are in seconds. ``price`` is in dollars per million tokens:
    ``{"input": 0.2, "output": 0.8, "cached": 0.05}``.
    ``capabilities`` replaces single capabilities. An address that failed is left out for
    ``cooldown`` seconds at first; ``placement`` is how one of several is chosen, as in
    :class:`~longthought.orchestrator.models.failover.Failover`. ``priority`` (true, or which
    numbers go first: ``lower`` or ``higher``), ``cache_salt``, ``prompt_cache_key`` and
    ``service_tier`` are those of ``RequestParameters``, as is ``background`` (``soonest``, ``2h``
    or ``8h``; with ``api`` ``responses`` alone). The rest is the argument of the same name
    of ``OpenAIModel`` (up to ``extra_body``) and ``RecordedModel`` (``order`` to ``source``). None
    is the default.

    Raises:
        ConfigurationError: a field cannot be used; names it.
    """

    kind: str | None = None
    base_url: str | None = field(default=None, repr=False)
    base_urls: Sequence[str] = field(default=(), repr=False)
    api: Literal["chat", "responses"] = "chat"
    api_key_env: str | None = None
    slots: int | None = None
    samples_per_call: int = 1
    context_window: int | None = None
    context_capacity: int | None = None
    timeout: float = 600.0
    connect_timeout: float | None = None
    first_token_timeout: float | None = None
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    price: Mapping[str, Any] | None = None
    stream: bool = True
    max_tokens_field: str | None = None
    include_usage: bool = True
    send_reasoning: bool = True
    strict_tools: bool = False
    capabilities: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    headers: Mapping[str, str] = field(default_factory=lambda: _NOTHING, repr=False)
    extra_body: Mapping[str, Any] = field(default_factory=lambda: _NOTHING, repr=False)
    cooldown: float = 1.0
    placement: Placement = "prefix"
    priority: bool | Literal["lower", "higher"] | None = None
    cache_salt: str | None = field(default=None, repr=False)
    prompt_cache_key: bool | str | None = None
    service_tier: str | None = None
    background: Window | None = None
    order: Literal["recorded", "seeded"] = "recorded"
    seed: int = 0
    wrap: bool = False
    source: str | None = None

    def __post_init__(self) -> None:
        if self.kind is not None:
            kind_named(self.kind)
        self._check_numbers()
        self._check_words()
        self._check_addresses()
        for name in ("capabilities", "headers", "extra_body", "price"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, Mapping):
                raise ConfigurationError(name, "is no table", "Write names and values")
            if value is not None and not isinstance(value, MappingProxyType):
                object.__setattr__(self, name, MappingProxyType(dict(value)))
        _check_capabilities(self.capabilities)
        EnvironmentHeaders(self.headers)
        if self.price is not None:
            _check_price(self.price)
        check_parameters(self)

    @property
    def urls(self) -> tuple[str, ...]:
        """Every address, checked; empty where none is given."""
        if self.base_url is not None:
            return (self.base_url,)
        return tuple(self.base_urls)

    @property
    def known_kind(self) -> Kind:
        """The kind, ``generic`` where none is given."""
        return KINDS[self.kind or GENERIC]

    def addressed(self, *, named: bool) -> BackendSettings:
        """The same with an address and a key in any case.

        A backend with a name of its own (``named``) is at the address of its kind if it has none,
        and is sent no key but its own. Any other is at ``OPENAI_BASE_URL``, or is OpenAI's own,
        and is sent ``OPENAI_API_KEY``.

        Raises:
            ConfigurationError: there is no address, and none follows from the kind.
        """
        urls = self.urls
        if not urls:
            usual = os.environ.get("OPENAI_BASE_URL") or OPENAI_URL
            url = (self.known_kind.url if self.kind else None) if named else usual
            if url is None:
                fix = f"Write base_url, or a kind that has one: {_placed_kinds()}"
                raise ConfigurationError("base_url", "is missing", fix)
            urls = (url,)
        variable = self.api_key_env
        if variable is None:
            variable = _KEY_VARIABLE if not named or self.kind == OPENAI else ""
        single = urls[0] if len(urls) == 1 else None
        several = () if single else urls
        return replace(self, base_url=single, base_urls=several, api_key_env=variable)

    def informed(self, facts: ServerFacts | None) -> BackendSettings:
        """The same, completed by what a server said; what was written here goes before it."""
        if facts is None:
            return self
        return replace(
            self,
            kind=self.kind or facts.kind,
            slots=self.slots or facts.slots,
            context_window=self.context_window or facts.context_window,
            context_capacity=self.context_capacity or facts.context_capacity,
            priority=self._priority_by(facts),
            capabilities={**facts.capabilities, **self.capabilities},
        )

    @property
    def asks_by_itself(self) -> bool:
        """Whether the server is asked what it is: it is on this machine, and nobody has said.

        One of ours is asked in any case: it says of each model what that can; and one that knows
        how much memory it has, unless that is written here. A server elsewhere is asked for nothing
        that the user did not ask for.
        """
        unsaid = self.kind in (None, OWN)
        unsaid = unsaid or (self.known_kind.tells_capacity and self.context_capacity is None)
        return unsaid and len(self.urls) == 1 and is_loopback(self.urls[0])

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment variables that hold its key and parts of its headers."""
        key = (self.api_key_env,) if self.api_key_env else ()
        salt = variables_of(self.cache_salt or "")
        return (*key, *EnvironmentHeaders(self.headers).variables, *salt)

    def request_headers(self) -> dict[str, str]:
        """The headers that go with every request, the key among them.

        Raises:
            ConfigurationError: a variable that a header names is not set.
        """
        headers = dict(EnvironmentHeaders(self.headers))
        key = os.environ.get(self.api_key_env or "", "")
        if key and "authorization" not in (name.lower() for name in headers):
            headers["authorization"] = f"Bearer {key}"
        return headers

    def wanted_capabilities(self) -> dict[str, Any]:
        """The capabilities, by the kind and as they were replaced."""
        wanted = self.known_kind.capabilities(self.api, stream=self.stream)
        if self.context_window is not None:
            wanted["context_window"] = self.context_window
        return {**wanted, **self.capabilities}

    def parameters(self, url: str) -> RequestParameters | None:
        """What is added to every request to the server at one of the addresses.

        Raises:
            ConfigurationError: one of the parameters is nothing that it is known to take.
        """
        official = self.kind is None and urlsplit(url).hostname == urlsplit(OPENAI_URL).hostname
        return parameters_of(self, KINDS[OPENAI] if official else self.known_kind)

    def _priority_by(self, facts: ServerFacts) -> bool | Literal["lower", "higher"] | None:
        """As it is written here; else as a server says that it goes by."""
        if self.priority is not None or self.kind not in (None, facts.kind):
            return self.priority
        if facts.priority == "lower":
            return "lower"
        return "higher" if facts.priority == "higher" else None

    # -- checks ---------------------------------------------------------------------------------

    def _check_numbers(self) -> None:
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None and (not _is_number(value, int) or value < 1):
                raise ConfigurationError(name, f"{value!r} cannot be used", "Use 1 or more")
        for name in _SECONDS:
            value = getattr(self, name)
            if value is not None and (not _is_number(value, int, float) or not value > 0):
                raise ConfigurationError(name, f"{value!r} is no time", "Use seconds above 0")
        for name in _RATES:
            value = getattr(self, name)
            if value is not None and (not _is_number(value, int, float) or not 1 <= value < 2**63):
                raise ConfigurationError(name, f"{value!r} is no rate", "Use a number from 1")

    def _check_words(self) -> None:
        choices: tuple[tuple[str, Sequence[str]], ...] = (
            ("api", ("chat", "responses")),
            ("max_tokens_field", _MAX_TOKENS_FIELDS),
            ("order", ("recorded", "seeded")),
            ("placement", ("prefix", "load")),
        )
        for name, known in choices:
            value = getattr(self, name)
            if value is not None and value not in known:
                raise ConfigurationError(
                    name, f"there is no {value!r}", f"Use {' or '.join(known)}"
                )

    def _check_addresses(self) -> None:
        if isinstance(self.base_urls, str):
            raise ConfigurationError("base_urls", "is one address", "Write a list, or base_url")
        if self.base_url is not None and self.base_urls:
            raise ConfigurationError("base_urls", "stands beside base_url", "Keep one of the two")
        if self.base_url is not None:
            object.__setattr__(self, "base_url", checked_url(self.base_url))
        urls = tuple(checked_url(url, "base_urls") for url in self.base_urls)
        twice = next((url for url in urls if urls.count(url) > 1), None)
        if twice is not None:
            shown = public_url(twice)
            raise ConfigurationError("base_urls", f"{shown} stands there twice", "Keep one")
        object.__setattr__(self, "base_urls", urls)


def _is_number(value: object, *kinds: type) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def _check_capabilities(given: Mapping[str, Any]) -> None:
    known = Capabilities.__dataclass_fields__
    for name, value in given.items():
        where = f"capabilities.{name}"
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            fix = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(known)}"
            raise ConfigurationError(where, "is no capability", fix)
        if name == "context_window":
            if value is not None and (not _is_number(value, int) or value < 1):
                raise ConfigurationError(where, f"{value!r} cannot be used", "Use 1 or more")
        elif not isinstance(value, bool):
            raise ConfigurationError(where, f"{value!r} cannot be used", "Write true or false")


def _check_price(price: Mapping[str, Any]) -> None:
    from longthought.budgets import PriceBook

    try:
        PriceBook.load().extended({"price": price})
    except ConfigurationError as error:
        part = error.field.rpartition(".")[2] if error.field.endswith(_PRICE_PARTS) else ""
        part = part or next((name for name in price if name not in _PRICE_PARTS), "")
        where = f"price.{part}" if part else "price"
        raise ConfigurationError(where, error.problem, error.fix) from None


def _placed_kinds() -> str:
    return ", ".join(name for name, kind in KINDS.items() if kind.url)
