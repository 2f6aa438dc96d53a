"""What is answered instead of a reply: errors in the form that OpenAI's clients read."""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from longthought.errors import BackendError, InvalidInput, QuestionRefused
from longthought.types import JSON, JSONObject

__all__ = ["KeyGuard", "answered", "encoded", "error_of", "failed", "refused", "turned_down"]


def encoded(value: JSON) -> bytes:
    """Compact JSON; half a character, which no client could read, becomes a question mark."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


def answered(value: JSON, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A response with this JSON in it."""
    return Response(encoded(value), status, headers, media_type="application/json")


def _error(
    status: int, message: str, *, param: str | None = None, code: str | None = None
) -> JSONObject:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def refused(status: int, message: str, *, param: str | None = None, code: str) -> Response:
    """A refusal that names the parameter and has a code that programs may read."""
    return answered(_error(status, message, param=param, code=code), status)


def error_of(error: Exception) -> JSONObject:
    """The error object for what went wrong. What is nobody's input is not told in detail."""
    if isinstance(error, InvalidInput):
        code = "question_refused" if isinstance(error, QuestionRefused) else None
        return _error(400, str(error), param=error.field, code=code)
    if isinstance(error, HTTPException):
        return _error(error.status_code, error.detail)
    return _error(500, "the model failed; the server's log says why")


async def turned_down(request: Request, error: Exception) -> Response:
    """The response to an ``InvalidInput`` or an ``HTTPException``."""
    if not isinstance(error, HTTPException):
        return answered(error_of(error), 400)
    if error.status_code == 404 and error.detail == "Not Found":
        error.detail = f"there is no {request.url.path}"
    elif error.status_code == 405:
        error.detail = f"{request.url.path} does not take {request.method}"
    return answered(error_of(error), error.status_code, error.headers)


async def failed(request: Request, error: Exception) -> Response:
    """The response to everything else; says whether another try may help where that is known."""
    headers = {}
    if isinstance(error, BackendError):
        headers["x-should-retry"] = str(error.retryable).lower()
    return answered(error_of(error), 500, headers)


class KeyGuard:
    """Lets nobody pass without the key, but to ``/health``."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._wanted = f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer that a key is needed."""
        if scope["type"] != "http" or scope["path"] == "/health" or self._knows(scope):
            await self._app(scope, receive, send)
            return
        message = "a key is needed: send it as Authorization: Bearer KEY"
        response = answered(
            _error(401, message, code="invalid_api_key"), 401, {"www-authenticate": "Bearer"}
        )
        await response(scope, receive, send)

    def _knows(self, scope: Scope) -> bool:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        # In constant time: how long it takes must not tell how much of the key was right.
        return hmac.compare_digest(given, self._wanted)
