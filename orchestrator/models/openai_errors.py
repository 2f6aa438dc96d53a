"""What the faults of a Chat Completions server mean: one ``BackendError`` for each."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime

import httpx2
import openai

from longthought.errors import BackendError
from longthought.orchestrator.models.openai_stream import ServerFault
from longthought.types import JSON

__all__ = ["Faults"]

_RETRYABLE = frozenset((408, 409, 425, 429))
_TOO_LONG = re.compile(
    r"context.{0,10}(length|window)|maximum (context|model) |prompt is too long|too many tokens",
    re.IGNORECASE,
)
_PASSING = re.compile(r"server|overload|rate.?limit|unavailable|timeout|internal", re.IGNORECASE)
_SHORTEST_SECRET = 6
_NOT_CONNECTED = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)


class Faults:
    """Turns what went wrong into a ``BackendError`` that names the model and holds no secret."""

    def __init__(self, model: str, secrets: Iterable[str] = ()) -> None:
        self._model = model
        # Short values are no secrets, and taking them out would garble every message.
        self._secrets = [secret for secret in secrets if len(secret) >= _SHORTEST_SECRET]

    def of(self, error: openai.OpenAIError | httpx2.HTTPError | ServerFault) -> BackendError:
        """The error for an exception of the client, of its transport, or for a bad reply."""
        if isinstance(error, ServerFault):
            # A reply that cannot be used: another try may bring a better one.
            if error.error is None:
                return self._error(error.problem, retryable=True)
            return self.told(error.error, begun=error.begun)
        if isinstance(error, openai.APIStatusError):
            return self._status(error)
        cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else error
        if isinstance(cause, _NOT_CONNECTED):
            what = f"no connection ({cause or type(cause).__name__})"
            return self._error(what, retryable=True, sent=False)
        if isinstance(cause, httpx2.TimeoutException):
            return self._error("no answer in time", retryable=True)
        if isinstance(cause, httpx2.TransportError):
            what = f"the connection was lost ({cause or type(cause).__name__})"
            return self._error(what, retryable=not isinstance(cause, httpx2.UnsupportedProtocol))
        return self._error(str(error) or type(error).__name__)

    def told(self, error: JSON, *, begun: bool = False) -> BackendError:
        """The error for an error object that came with status 200 or inside a stream.

        Once a reply has begun it has no status: that would say that the request was turned down
        and costs nothing.
        """
        fields = error if isinstance(error, dict) else {"message": error}
        code = str(fields.get("code") or fields.get("status") or "")
        status = int(code) if code.isdecimal() and 400 <= int(code) < 600 else None
        message = str(fields.get("message") or "an error without a message")
        if status is None:
            # Nobody is to blame by number; a fault in mid-reply is the server's unless it says so.
            kind = f"{fields.get('type') or ''} {code}".strip()
            retryable = not kind or _PASSING.search(kind) is not None
            return self._error(self._explained(message, None), retryable=retryable)
        return self._error(
            self._explained(message, status),
            status=None if begun else status,
            retryable=_may_pass(status),
        )

    def _status(self, error: openai.APIStatusError) -> BackendError:
        headers, status = error.response.headers, error.status_code
        body = error.body
        message = body.get("message") if isinstance(body, Mapping) else body
        wish = headers.get("x-should-retry")
        retryable = wish == "true" if wish in ("true", "false") else _may_pass(status)
        return self._error(
            self._explained(str(message or error.response.reason_phrase), status),
            status=status,
            retryable=retryable and error.code != "insufficient_quota",
            retry_after=_retry_after(headers),
        )

    def _explained(self, message: str, status: int | None) -> str:
        message = message if len(message) <= 1000 else message[:1000] + "..."
        if status in (None, 400, 413, 422) and _TOO_LONG.search(message):
            return f"the conversation does not fit the model's context window: {message}"
        if status == 401:
            return f"the server refused the API key (401): {message}"
        return f"{message} (status {status})" if status else message

    def _error(
        self,
        message: str,
        *,
        status: int | None = None,
        retryable: bool = False,
        retry_after: float | None = None,
        sent: bool = True,
    ) -> BackendError:
        for secret in self._secrets:
            message = message.replace(secret, "***")
        return BackendError(
            f"{self._model}: {message}",
            status=status,
            retryable=retryable,
            retry_after=retry_after,
            sent=sent,
        )


def _may_pass(status: int) -> bool:
    return status in _RETRYABLE or status >= 500


def _retry_after(headers: httpx2.Headers) -> float | None:
    """The server's wish in seconds; it may be written as milliseconds, seconds or a date."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * unit)
        except (KeyError, ValueError):
            continue
    try:
        moment = parsedate_to_datetime(headers["retry-after"])
    except (KeyError, ValueError):
        return None
    return max(0.0, moment.timestamp() - time.time())
