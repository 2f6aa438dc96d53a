"""The client of one event loop, closed with the loop if nobody closes it before."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

import httpx2
import openai

from longthought.errors import BackendError, ConfigurationError
from longthought.orchestrator.models.openai.client import Client
from longthought.orchestrator.models.openai.dialect import ServerFault
from longthought.orchestrator.models.openai.faults import Faults
from longthought.orchestrator.models.openai.network import quick_transport
from longthought.orchestrator.models.openai.pacing import Pacing
from longthought.orchestrator.models.openai.patience import Patience
from longthought.orchestrator.models.openai.secrets import Secrets
from longthought.orchestrator.models.openai.siblings import Siblings

__all__ = ["Connection", "Endpoint"]

_LEAST_KEPT = 100
"""Connections kept open at least, however few slots there are."""
_UNSAID: dict[str, Any] = {
    f"X-Stainless-{name}": openai.Omit()
    for name in ("Arch", "Async", "Lang", "OS", "Package-Version", "Runtime", "Runtime-Version")
}
"""Headers that the client sends of itself: they tell about this machine and cost time per call."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where calls go and what they carry: all that is secret is here, and shown nowhere.

    User and password of ``base_url`` become a header: the address stands in logs and errors of the
    client, and so do neither.

    Raises:
        ConfigurationError: the key or a header cannot be sent; no message shows a value.
    """

    base_url: str
    key: str
    headers: Mapping[str, str]
    salt: str = ""

    def __post_init__(self) -> None:
        _check_sendable("api_key", self.key)
        for name, value in self.headers.items():
            _check_sendable(f"headers.{name}", value)

    def __repr__(self) -> str:
        return "Endpoint(...)"

    @property
    def secrets(self) -> Secrets:
        """Everything that must not be seen."""
        parts = urlsplit(self.base_url)
        values = [value for _, value in parse_qsl(parts.query)]
        basic = self._basic_login()
        own = [self.key, parts.password or "", basic, self.salt]
        return Secrets([*own, *values, *self.headers.values()])

    def client(self, patience: Patience, slots: int, max_retries: int) -> Client:
        """A client for the running event loop.

        It follows no redirect: headers would go along, to whomever the server names. A query of
        ``base_url``, such as ``?api-version=1``, goes behind the path of every call.
        """
        parts = urlsplit(self.base_url)
        host = parts.netloc.rpartition("@")[2]
        login = self._basic_login()
        headers = {"Authorization": f"Basic {login}"} if login else {}
        timeout = httpx2.Timeout(None, connect=patience.connecting)
        most = max(_LEAST_KEPT, slots)
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=most)
        return Client(
            api_key=self.key or "none",
            base_url=urlunsplit(parts._replace(netloc=host, query="", fragment="")),
            default_query=dict(parse_qsl(parts.query, keep_blank_values=True)),
            timeout=timeout,
            max_retries=max_retries,
            default_headers={**_UNSAID, **headers, **self.headers},
            http_client=openai.DefaultAsyncHttpxClient(
                timeout=timeout,
                limits=limits,
                follow_redirects=False,
                transport=quick_transport(limits),
            ),
        )

    def _basic_login(self) -> str:
        parts = urlsplit(self.base_url)
        if not parts.username and not parts.password:
            return ""
        login = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        return base64.b64encode(login.encode()).decode()


class Connection:
    """One client in one event loop, what its faults are called, and what its calls keep to."""

    def __init__(self, client: Client, faults: Faults, patience: Patience, pacing: Pacing) -> None:
        self.client, self.faults = client, faults
        self.patience, self.pacing = patience, pacing
        self.siblings: Siblings | None = None
        self._life = self._live()

    def fault(self, error: openai.OpenAIError | httpx2.HTTPError | ServerFault) -> BackendError:
        """The error for what went wrong with the call of this task, which all others learn from."""
        fault = self.faults.of(error)
        response = error.response if isinstance(error, openai.APIStatusError) else None
        headers = response.headers if response is not None else httpx2.Headers()
        asked_to_wait = fault.status == 503 and fault.retry_after is not None
        if fault.retryable and (fault.status == 429 or asked_to_wait):
            self.pacing.refused(fault.retry_after, headers)
        elif response is not None:
            self.pacing.heard(headers, well=False)
        return fault

    async def close_with_loop(self) -> None:
        """Have the client closed when the loop ends.

        A loop closes the async generators that were started in it, before it ends: the only
        notice of its end that is to be had.
        """
        await anext(self._life)

    async def aclose(self) -> None:
        """Close the client; doing it twice is harmless."""
        await self._life.aclose()

    async def _live(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await self.client.close()


def _check_sendable(field: str, value: str) -> None:
    """Check what goes into a header; a library's own complaint about it would show the value.

    Raises:
        ConfigurationError: it holds line breaks or what is not ASCII.
    """
    if not (value.isascii() and value.isprintable()):
        raise ConfigurationError(
            field, "holds what cannot stand in a header", "Use visible ASCII on one line"
        )
