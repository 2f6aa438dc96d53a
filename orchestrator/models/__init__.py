"""Models: anything that answers a request, behind the one ``Model`` protocol.

The backends are loaded on first use: the client library of ``OpenAIModel`` alone takes as much
memory as all the rest together.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longthought.orchestrator.models.backends import Probe, ServerFacts, ask_server, probe
    from longthought.orchestrator.models.failover import Failover
    from longthought.orchestrator.models.local_servers import LocalServer, find_local_servers
    from longthought.orchestrator.models.openai import OpenAIModel
    from longthought.orchestrator.models.recorded import RecordedModel
    from longthought.orchestrator.models.registry import BackendSettings, resolve_model
    from longthought.orchestrator.models.scripted import ScriptedModel, call, rng, says

__all__ = [
    "BackendSettings",
    "Failover",
    "LocalServer",
    "OpenAIModel",
    "Probe",
    "RecordedModel",
    "ScriptedModel",
    "ServerFacts",
    "ask_server",
    "call",
    "find_local_servers",
    "probe",
    "resolve_model",
    "rng",
    "says",
]

_HOMES = {
    "BackendSettings": "backends.profile",
    "Failover": "failover",
    "LocalServer": "local_servers",
    "OpenAIModel": "openai",
    "Probe": "backends.probing",
    "RecordedModel": "recorded",
    "ScriptedModel": "scripted",
    "ServerFacts": "backends.facts",
    "ask_server": "backends.server",
    "call": "scripted",
    "find_local_servers": "local_servers",
    "probe": "backends.probing",
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
