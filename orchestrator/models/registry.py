"""From a model's name, as written in workflows and on the command line, to the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from types import MappingProxyType
from typing import Any, Literal, cast

from longthought.errors import InvalidInput
from longthought.types import Model

__all__ = ["BackendSettings", "resolve_model"]

_KNOWN = (
    "There are embedded, embedded/NAME, openai/NAME (any server that speaks Chat Completions) "
    "and recorded:PATH"
)


@dataclass(frozen=True, slots=True)
class BackendSettings:
    """Settings of a backend, as they stand in a configuration file.

    ``slots`` is calls in flight at once, None for the backend's default; ``timeout`` is in
    seconds. ``capabilities`` replaces single capabilities. The rest is the argument of the same
    name of ``OpenAIModel`` (``base_url`` to ``headers``) and ``RecordedModel`` (``order`` to
    ``source``). The key itself never stands here, only the variable that holds it.
    """

    slots: int | None = None
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    stream: bool = True
    timeout: float = 600.0
    max_tokens_field: str | None = None
    include_usage: bool = True
    send_reasoning: bool = True
    strict_tools: bool = False
    capabilities: MappingProxyType[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    headers: MappingProxyType[str, str] = field(default_factory=lambda: MappingProxyType({}))
    extra_body: MappingProxyType[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    order: Literal["recorded", "seeded"] = "recorded"
    seed: int = 0
    wrap: bool = False
    source: str | None = None


def resolve_model(spec: str | Model, settings: BackendSettings | None = None) -> Model:
    """The model that a name stands for; a model stands for itself.

    ``embedded`` or ``embedded/NAME``, ``openai/NAME``, ``recorded:PATH``. Nothing is connected
    and no key is looked for before the first call.

    Raises:
        InvalidInput: there is no such model; the message lists what there is.
    """
    if not isinstance(spec, str):
        return spec
    settings = settings or BackendSettings()
    kind, _, rest = spec.partition("/")
    if spec.startswith("recorded:"):
        return _recorded(spec.removeprefix("recorded:"), settings)
    if kind == "embedded":
        return _embedded(spec, settings)
    if kind == "openai" and rest:
        return _openai(rest, settings)
    raise InvalidInput("model", f"there is no model {spec!r}", _KNOWN)


def _embedded(name: str, settings: BackendSettings) -> Model:
    make = import_module("longthought.orchestrator.models.embedded").EmbeddedModel
    options: dict[str, Any] = {} if settings.slots is None else {"slots": settings.slots}
    return cast("Model", make(name, **options))


def _openai(name: str, settings: BackendSettings) -> Model:
    from longthought.orchestrator.models.openai_chat import OpenAIModel

    return OpenAIModel(
        name,
        base_url=settings.base_url,
        api_key_env=settings.api_key_env,
        slots=settings.slots or 32,
        stream=settings.stream,
        capabilities=settings.capabilities,
        timeout=settings.timeout,
        max_tokens_field=settings.max_tokens_field,
        include_usage=settings.include_usage,
        send_reasoning=settings.send_reasoning,
        strict_tools=settings.strict_tools,
        extra_headers=settings.headers,
        extra_body=settings.extra_body,
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
