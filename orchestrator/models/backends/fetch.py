"""Reading what a stranger's server answers: as JSON, and within bounds."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple

import httpx

from longthought.orchestrator.models.backends.addresses import is_loopback

__all__ = ["MOST_BYTES", "Fetched", "client_for", "fetch_json", "fetch_text", "plain"]

MOST_BYTES = 2**20
"""An answer of more bytes is not read."""


class Fetched(NamedTuple):
    """A status and what came with it; ``value`` is None if it was no JSON, or too much."""

    status: int
    value: Any


def client_for(
    url: str, limits: httpx.Timeout, headers: Mapping[str, str] | None = None
) -> httpx.AsyncClient:
    """A client for the server at an address; not for one behind a redirect.

    On this machine nothing of the environment is used: a proxy would look for the port on its own.
    """
    plain = url.startswith("http://")
    return httpx.AsyncClient(
        timeout=limits,
        headers=dict(headers or {}),
        trust_env=not is_loopback(url),
        # Authorities are read from a file of many, and for nothing where nothing is encrypted.
        verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if plain else True,
    )


def plain(text: str) -> str:
    """A text of a stranger on one line, without what a terminal would take for an order."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())


async def fetch_json(
    client: httpx.AsyncClient,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: Any = None,
) -> Fetched:
    """GET an address, or POST a body to it as JSON.

    Raises:
        httpx.HTTPError: no answer, or none that is HTTP.
    """
    accept = {"accept": "application/json", **(headers or {})}
    status, read = await _read(client, url, accept, body)
    if read is None:
        return Fetched(status, None)
    try:
        return Fetched(status, json.loads(read))
    except (ValueError, RecursionError):
        return Fetched(status, None)


async def fetch_text(client: httpx.AsyncClient, url: str) -> str:
    """GET a text, empty if there is none or too much of it.

    Raises:
        httpx.HTTPError: no answer, or none that is HTTP.
    """
    status, read = await _read(client, url, {"accept": "text/plain"})
    return (read or b"").decode(errors="replace") if status == 200 else ""


async def _read(
    client: httpx.AsyncClient, url: str, headers: Mapping[str, str], body: Any = None
) -> tuple[int, bytes | None]:
    """Status and body; None if it came encoded, which nobody asked for, or was too much."""
    method = "GET" if body is None else "POST"
    asked = {"accept-encoding": "identity", **headers}
    async with client.stream(method, url, headers=asked, json=body) as response:
        if "content-encoding" in response.headers:
            return response.status_code, None
        read = bytearray()
        async for chunk in response.aiter_raw():
            read += chunk
            if len(read) > MOST_BYTES:
                return response.status_code, None
    return response.status_code, bytes(read)
