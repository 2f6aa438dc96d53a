"""Models: anything that answers a request, behind the one ``Model`` protocol.

The backends are loaded on first use: the client library of ``OpenAIModel`` alone takes as much
memory as all the rest together.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longthought.orchestrator.models.openai_chat import OpenAIModel
    from longthought.orchestrator.models.recorded import RecordedModel
    from longthought.orchestrator.models.registry import BackendSettings, resolve_model
    from longthought.orchestrator.models.scripted import ScriptedModel, call, rng, says

__all__ = [
    "BackendSettings",
    "OpenAIModel",
    "RecordedModel",
    "ScriptedModel",
    "call",
    "resolve_model",
    "rng",
    "says",
]

_HOMES = {
    "BackendSettings": "registry",
    "OpenAIModel": "openai_chat",
    "RecordedModel": "recorded",
    "ScriptedModel": "scripted",
    "call": "scripted",
    "resolve_model": "registry",
    "rng": "scripted",
    "says": "scripted",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
