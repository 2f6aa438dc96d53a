"""What the faults of a server mean: one ``BackendError`` for each."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

import httpx2
import openai

from longthought.errors import BackendError
from longthought.orchestrator.models.openai.dialect import ServerFault
from longthought.orchestrator.models.openai.patience import Patience
from longthought.orchestrator.models.openai.rate_headers import seconds_of
from longthought.orchestrator.models.openai.secrets import Secrets
from longthought.types import JSON

__all__ = ["Faults"]

_RETRYABLE = frozenset((408, 409, 425, 429))
_TOO_LONG = re.compile(
    r"context.{0,10}(length|window|size)|maximum (context|model) "
    r"|prompt is too long|too many tokens",
    re.IGNORECASE,
)
_PASSING = re.compile(r"server|overload|rate.?limit|unavailable|timeout|internal", re.IGNORECASE)
_EXPLAINED = {
    401: "the server refused the API key",
    403: "the server denies access with this API key",
    404: "the server has no such address or model; check base_url and the model's name",
}
_NOT_CONNECTED = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
)
_LONGEST = 1000
_OUR_MISTAKE = (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError)


class Faults:
    """Turns what went wrong into a ``BackendError`` that names the model and holds no secret.

    ``advice`` says what to do about a refusal in these words, empty if nobody knows.
    """

    def __init__(
        self,
        model: str,
        secrets: Secrets | None = None,
        patience: Patience | None = None,
        advice: Callable[[str], str] | None = None,
    ) -> None:
        self._model, self._patience = model, patience
        self._advice = advice
        self._secrets = secrets or Secrets(())

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
        if isinstance(cause, httpx2.ConnectTimeout) and self._patience is not None:
            what = f"no connection within {self._patience.connecting:g} s (connect_timeout)"
            return self._error(what, retryable=True, sent=False)
        if isinstance(cause, _NOT_CONNECTED):
            what = f"no connection ({cause or type(cause).__name__})"
            return self._error(what, retryable=True, sent=False)
        if isinstance(cause, _OUR_MISTAKE):
            unsent = isinstance(cause, httpx2.UnsupportedProtocol)
            return self._error(f"cannot be sent: {cause}", sent=not unsent)
        if isinstance(cause, httpx2.TransportError):
            # Nobody can tell how far the request came: it is charged as if it had been answered.
            what = f"the connection was lost before a reply ({cause or type(cause).__name__})"
            return self._error(what, retryable=True)
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
        about = str(body.get("param") or "") if isinstance(body, Mapping) else ""
        wish = headers.get("x-should-retry")
        retryable = wish == "true" if wish in ("true", "false") else _may_pass(status)
        if 300 <= status < 400:
            place = headers.get("location", "").partition("?")[0]
            message = f"the server sends its callers to {place!r}; set base_url"
        return self._error(
            self._explained(str(message or error.response.reason_phrase), status, about),
            status=status,
            retryable=retryable and error.code != "insufficient_quota",
            retry_after=_retry_after(headers),
        )

    def _explained(self, message: str, status: int | None, about: str = "") -> str:
        """The message, with what is known of it; ``about`` is the parameter that it is about."""
        message = self._secrets.hidden_in(message)  # before a cut could leave a part of one
        message = message if len(message) <= _LONGEST else message[:_LONGEST] + "..."
        if self._advice is not None and status in (None, 400, 422):
            advice = self._advice(f"{about} {message}")
            message = f"{message} [{advice}]" if advice else message
        if status in (None, 400, 413, 422) and _TOO_LONG.search(message):
            return f"the conversation does not fit the model's context window: {message}"
        if status in _EXPLAINED:
            return f"{_EXPLAINED[status]} ({status}): {message}"
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
        return BackendError(
            f"{self._model}: {self._secrets.hidden_in(message)}",
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
        text = headers.get(name, "").strip()
        negative = text.startswith("-")
        seconds = seconds_of(text.removeprefix("-"))
        if seconds is not None:
            return 0.0 if negative else seconds * unit
    try:
        moment = parsedate_to_datetime(headers["retry-after"])
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = moment.timestamp() - time.time()
    except (KeyError, ValueError, OverflowError):
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
