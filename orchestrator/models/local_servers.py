"""Model servers on this machine: whoever answers ``GET /v1/models`` on one of the usual ports.

Nobody knows what listens on a port: it may be a web site, a program that never answers, or one
that never stops. All are asked at once and within bounds, and whatever comes back that is no list
of models counts as nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import httpx

from longthought.errors import ConfigurationError
from longthought.orchestrator.models.backends.fetch import fetch_json
from longthought.orchestrator.models.backends.kinds import KINDS, OWN
from longthought.orchestrator.models.backends.server import is_model_id, kind_of_owner
from longthought.types import JSONObject

__all__ = [
    "OWN",
    "PORTS_VARIABLE",
    "USUAL_PORTS",
    "LocalServer",
    "find_local_servers",
    "ports_here",
]

USUAL_PORTS: Mapping[int, str] = MappingProxyType(
    {
        kind.port: kind.title
        for name in ("ollama", "lmstudio", "vllm", "llama.cpp", "sglang", OWN)
        if (kind := KINDS[name]).port is not None
    }
)
"""Port -> who usually listens there."""

PORTS_VARIABLE = "LONGTHOUGHT_LOCAL_PORTS"
"""The variable that names other ports to look at."""

_HOSTS = ("127.0.0.1", "[::1]")  # not looked up: a resolver may take its time
_CONNECT_SECONDS = 0.3
_ANSWER_SECONDS = 2.0
_MAX_MODELS = 500
_NO_CHAT = ("embed", "rerank", "whisper")


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A server on this machine that speaks OpenAI's protocol, and its models by their ids.

    ``kind`` is what it says it is, else who usually listens on its port, else "server".
    """

    kind: str
    base_url: str
    models: tuple[str, ...]

    @property
    def chat_model(self) -> str | None:
        """The first model that is not, by its name, for something else than chatting."""
        able = (one for one in self.models if not any(part in one.lower() for part in _NO_CHAT))
        return next(able, None)

    def to_json(self) -> JSONObject:
        """All fields."""
        return {"kind": self.kind, "base_url": self.base_url, "models": list(self.models)}


def ports_here() -> Mapping[int, str]:
    """The ports to look at: those of ``LONGTHOUGHT_LOCAL_PORTS`` (none if empty), else the usual.

    Raises:
        ConfigurationError: the variable holds something that is no port.
    """
    named = os.environ.get(PORTS_VARIABLE)
    if named is None:
        return USUAL_PORTS
    ports = [part.strip() for part in named.split(",") if part.strip()]
    for port in ports:
        if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 2**16):
            fix = "Write ports with commas between them, such as 11434,8000"
            raise ConfigurationError(PORTS_VARIABLE, f"{port!r} is no port", fix)
    return {int(port): USUAL_PORTS.get(int(port), "server") for port in ports}


async def find_local_servers(ports: Mapping[int, str] | None = None) -> list[LocalServer]:
    """The servers that answer on these ports of this machine, in their order; all asked at once.

    ``ports`` are those of :func:`ports_here` unless given. Takes two seconds at the most, and as a
    rule a few milliseconds. Proxies of the environment are not used and no key is sent.

    Raises:
        ConfigurationError: ``LONGTHOUGHT_LOCAL_PORTS`` cannot be used.
    """
    ports = ports_here() if ports is None else ports
    if not ports:
        return []
    limits = httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS)
    # Nothing of the environment: a proxy would look for the port on its own machine.
    async with httpx.AsyncClient(timeout=limits, trust_env=False) as client:
        asked = [_ask(client, host, port, ports[port]) for port in ports for host in _HOSTS]
        found = await asyncio.gather(*asked)
    by_port: dict[int, LocalServer] = {}
    for port, server in zip((port for port in ports for _ in _HOSTS), found, strict=True):
        if server is not None:
            by_port.setdefault(port, server)
    return list(by_port.values())


async def _ask(client: httpx.AsyncClient, host: str, port: int, usual: str) -> LocalServer | None:
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            listed = await _listed(client, f"http://{host}:{port}/v1/models")
    except Exception:  # a stranger's program may fail in any way; it is just no model server then
        return None
    entries = listed.get("data") if isinstance(listed, dict) else None
    if not isinstance(entries, list):
        return None
    known = [entry for entry in entries[:_MAX_MODELS] if isinstance(entry, dict)]
    if entries and not known:
        return None
    owner = kind_of_owner(known[0].get("owned_by")) if known else None
    name = "localhost" if host == _HOSTS[0] else host
    models = tuple(dict.fromkeys(entry["id"] for entry in known if is_model_id(entry.get("id"))))
    return LocalServer(KINDS[owner].title if owner else usual, f"http://{name}:{port}/v1", models)


async def _listed(client: httpx.AsyncClient, url: str) -> Any:
    """What the server answers, read as JSON; None if it is something else or too much."""
    fetched = await fetch_json(client, url)
    return fetched.value if fetched.status == 200 else None
