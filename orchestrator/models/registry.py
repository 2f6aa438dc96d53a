"""From a model's name, as written in workflows and on the command line, to the model."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from longthought.errors import ConfigurationError, InvalidInput
from longthought.orchestrator.models.backends.headers import EnvironmentHeaders
from longthought.orchestrator.models.backends.kinds import OPENAI
from longthought.orchestrator.models.backends.profile import BackendSettings
from longthought.types import JSONObject, Model

if TYPE_CHECKING:
    from longthought.budgets import PriceBook

__all__ = [
    "BUILT_IN",
    "BackendSettings",
    "check_backend_name",
    "priced",
    "resolve_model",
    "settings_of",
]

BUILT_IN = ("embedded", "openai", "recorded")
"""Backends that need no profile."""

_KNOWN = (
    "There are embedded, embedded/NAME, openai/NAME (any server that speaks Chat Completions) "
    "and recorded:PATH"
)


def resolve_model(
    spec: str | Model,
    settings: BackendSettings | None = None,
    backends: Mapping[str, BackendSettings] | None = None,
) -> Model:
    """The model that a name stands for; a model stands for itself.

    ``embedded`` or ``embedded/NAME``, ``openai/NAME``, ``recorded:PATH``, or ``BACKEND/NAME`` with
    a backend from ``backends``. Those are settings by the name of a backend, or of one model,
    which goes first; ``settings`` are for models of the built-in backends that have none there.
    Nothing is connected and no key is looked for before the first call.

    Raises:
        InvalidInput: there is no such model; the message lists what there is.
        ConfigurationError: the backend has no address.
    """
    if not isinstance(spec, str):
        return spec
    prefix, rest = _parts(spec)
    own = settings_of(spec, settings, backends)
    if spec.startswith("recorded:"):
        return _recorded(rest, own or BackendSettings())
    if prefix == "embedded":
        return _embedded(spec, own or BackendSettings())
    if prefix == OPENAI and rest:
        return _remote(rest, rest, (own or BackendSettings()).addressed(named=False))
    if own is not None and rest and prefix not in BUILT_IN:
        check_backend_name(prefix)
        return _remote(spec, rest, _addressed(prefix, own))
    raise InvalidInput("model", f"there is no model {spec!r}", _known(prefix, backends or {}))


def priced(
    book: PriceBook,
    specs: Sequence[str | Model],
    settings: BackendSettings | None = None,
    backends: Mapping[str, BackendSettings] | None = None,
) -> PriceBook:
    """The book with the prices that these models' settings hold, which go before its own.

    Where a backend of another name is OpenAI's, its models cost what OpenAI's do.
    """
    table: JSONObject = {}
    for spec in specs:
        if not isinstance(spec, str):
            continue
        prefix, rest = _parts(spec)
        own = settings_of(spec, settings, backends)
        if own is None or not rest or prefix in ("embedded", "recorded"):
            continue
        name = rest if prefix == OPENAI else spec
        if own.price is not None:
            table[name] = dict(own.price)
        elif prefix != OPENAI and own.kind == OPENAI and not own.urls and not book.price(name):
            known = book.price(rest)
            table |= {name: known.to_json()} if known is not None else {}
    return book.extended(table) if table else book


def settings_of(
    spec: str,
    settings: BackendSettings | None = None,
    backends: Mapping[str, BackendSettings] | None = None,
) -> BackendSettings | None:
    """The settings of a model: of its own name, of its backend, else ``settings`` if built in."""
    backends = backends or {}
    prefix, _ = _parts(spec)
    own = backends.get(spec, backends.get(prefix))
    return own if own is not None or prefix not in BUILT_IN else settings


def check_backend_name(name: str) -> None:
    """Check the name of a backend: it stands before the slash of ``NAME/MODEL``.

    Raises:
        InvalidInput: it cannot be used.
    """
    usable = name.isprintable() and not any(mark in name for mark in " :/\"'\\")
    if not name or not usable or name != name.strip():
        raise InvalidInput("backends", f"{name!r} is no name", "Use letters, digits, - and _")


def _parts(spec: str) -> tuple[str, str]:
    """Backend and model of ``BACKEND/MODEL``, or of ``recorded:PATH``."""
    if spec.startswith("recorded:"):
        return "recorded", spec.removeprefix("recorded:")
    prefix, _, rest = spec.partition("/")
    return prefix, rest


def _known(prefix: str, backends: Mapping[str, BackendSettings]) -> str:
    own = sorted({name.partition("/")[0] for name in backends} - {*BUILT_IN})
    near = difflib.get_close_matches(prefix, own, n=1)
    hint = f"Did you mean {near[0]}/...? " if near else ""
    listed = ", ".join(f"{name}/NAME" for name in own)
    return f"{hint}{_KNOWN}{f'; and configured: {listed}' if own else ''}"


def _addressed(name: str, settings: BackendSettings) -> BackendSettings:
    try:
        return settings.addressed(named=True)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"backends.{name}.{error.field}", error.problem, error.fix
        ) from None


def _embedded(name: str, settings: BackendSettings) -> Model:
    make = import_module("longthought.orchestrator.models.embedded").EmbeddedModel
    options: dict[str, Any] = {} if settings.slots is None else {"slots": settings.slots}
    options["context_capacity"] = settings.context_capacity
    return cast("Model", make(name, **options))


def _remote(name: str, served_as: str, settings: BackendSettings) -> Model:
    """The model at its address, or at several."""
    endpoints = [_endpoint(name, served_as, url, settings) for url in settings.urls]
    if len(endpoints) == 1:
        return endpoints[0]
    from longthought.orchestrator.models.failover import Failover

    return Failover(endpoints, cooldown=settings.cooldown, placement=settings.placement)


def _endpoint(name: str, served_as: str, url: str, settings: BackendSettings) -> Model:
    from longthought.orchestrator.models.openai import OpenAIModel

    kind = settings.known_kind
    return OpenAIModel(
        name,
        served_as=served_as,
        base_url=url,
        api_key_env=settings.api_key_env or "",
        slots=settings.slots or kind.slots,
        samples_per_call=settings.samples_per_call,
        api=settings.api,
        stream=settings.stream,
        capabilities=settings.wanted_capabilities(),
        timeout=settings.timeout,
        connect_timeout=settings.connect_timeout,
        first_token_timeout=settings.first_token_timeout,
        requests_per_minute=settings.requests_per_minute,
        tokens_per_minute=settings.tokens_per_minute,
        max_tokens_field=settings.max_tokens_field or kind.max_tokens_field,
        thinking_field=kind.thinking_field,
        include_usage=settings.include_usage,
        running_usage=kind.running_usage,
        send_reasoning=settings.send_reasoning,
        strict_tools=settings.strict_tools,
        extra_headers=EnvironmentHeaders(settings.headers),
        extra_body=settings.extra_body,
        parameters=settings.parameters(url),
        context_capacity=settings.context_capacity,
        prefix_cache=kind.prefix_cache,
    )


def _recorded(path: str, settings: BackendSettings) -> Model:
    from longthought.orchestrator.models.recorded import RecordedModel

    return RecordedModel(
        path,
        order=settings.order,
        seed=settings.seed,
        wrap=settings.wrap,
        source=settings.source,
        slots=settings.slots or 16,
    )
