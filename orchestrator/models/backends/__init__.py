"""Backends: what kinds of servers there are, how one is reached, and what it says it can.

``profile`` is what a user writes; ``server`` asks a server for what it says for nothing; ``probe``
finds out the rest by a few small calls.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longthought.orchestrator.models.backends.facts import ServerFacts
    from longthought.orchestrator.models.backends.kinds import KINDS, Kind
    from longthought.orchestrator.models.backends.parameters import RequestParameters
    from longthought.orchestrator.models.backends.probing import Finding, Probe, probe
    from longthought.orchestrator.models.backends.profile import BackendSettings
    from longthought.orchestrator.models.backends.server import ask_server

__all__ = [
    "KINDS",
    "BackendSettings",
    "Finding",
    "Kind",
    "Probe",
    "RequestParameters",
    "ServerFacts",
    "ask_server",
    "probe",
]

_HOMES = {
    "KINDS": "kinds",
    "BackendSettings": "profile",
    "Finding": "probing",
    "Kind": "kinds",
    "Probe": "probing",
    "RequestParameters": "parameters",
    "ServerFacts": "facts",
    "ask_server": "server",
    "probe": "probing",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
