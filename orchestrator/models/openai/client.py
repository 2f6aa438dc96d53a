"""The client, with a short way for the one thing that is asked of it: JSON up, a response down."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import httpx2
import openai

from longthought.errors import QuestionRefused
from longthought.types import JSON, JSONObject

__all__ = ["Client"]

_encoded = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


class Client(openai.AsyncOpenAI):
    """OpenAI's client whose later posts repeat its first.

    For every post the client puts the same address together, merges the same headers, and copies
    its own options twice, at half the cost of a call. All that changes is the body: so the first
    post to a path goes through the client, and those after it send that request again with
    another body. With retries of the client's own, all go through it.
    """

    def __init__(self, http_client: httpx2.AsyncClient, **settings: Any) -> None:
        super().__init__(http_client=http_client, **settings)
        self._http = http_client
        self._first: dict[str, httpx2.Request] = {}

    async def ask(self, path: str, body: JSONObject, *, stream: bool = False) -> httpx2.Response:
        """Post a body; streamed, the response comes unread and is the caller's to close.

        Raises:
            openai.OpenAIError: the server refused, or the connection failed.
            QuestionRefused: the body holds half a character, which cannot be sent.
        """
        first = self._first.get(path)
        content = _written(body) if first is not None and not self._http.cookies else None
        if first is not None and content is not None:
            return await self._again(first, content, stream)
        try:
            response = await self._post(path, body, stream)
        except UnicodeEncodeError:
            raise QuestionRefused(
                "messages", "hold half a character (a lone surrogate)", "Take it out"
            ) from None
        if not self.max_retries:
            self._first[path] = _without_body(response.request)
        return response

    async def look(self, path: str, *, stream: bool = False, **query: int) -> httpx2.Response:
        """Get what stands at a path; streamed, the response comes unread and is the caller's.

        Raises:
            openai.OpenAIError: the server refused, or the connection failed.
        """
        if not stream:
            return await self.get(path, cast_to=httpx2.Response, options={"params": query})
        answer: Any = await self.get(
            path,
            cast_to=httpx2.Response,
            options={"params": {"stream": True, **query}},
            stream=True,
            stream_cls=openai.AsyncStream[object],
        )
        response: httpx2.Response = answer
        return response

    async def _post(self, path: str, body: JSONObject, stream: bool) -> httpx2.Response:
        if not stream:
            return await self.post(path, cast_to=httpx2.Response, body=body)
        # Asked for the response, the client hands it over unread, whatever `stream_cls` says.
        answer: Any = await self.post(
            path,
            cast_to=httpx2.Response,
            body=body,
            stream=True,
            stream_cls=openai.AsyncStream[object],
        )
        response: httpx2.Response = answer
        return response

    async def _again(self, first: httpx2.Request, content: bytes, stream: bool) -> httpx2.Response:
        length = (b"Content-Length", b"%d" % len(content))
        request = httpx2.Request(
            first.method,
            first.url,
            headers=[*first.headers.raw, length],
            stream=httpx2.ByteStream(content),
            extensions=first.extensions,
        )
        try:
            response = await self._http.send(request, stream=stream)
        except httpx2.TimeoutException as error:
            raise openai.APITimeoutError(request=request) from error
        except httpx2.TransportError as error:
            raise openai.APIConnectionError(request=request) from error
        if response.is_success:
            return response
        await response.aread()
        raise _refusal(response)


def _written(body: JSONObject) -> bytes | None:
    """The body as the client writes it, None if it holds what only the client can write."""
    try:
        return _encoded(body).encode()
    except (TypeError, ValueError):
        return None


def _without_body(request: httpx2.Request) -> httpx2.Request:
    headers = httpx2.Headers(request.headers)
    for name in ("content-length", "cookie"):  # a cookie is sent only while it lasts
        headers.pop(name, None)
    plain = httpx2.Request(request.method, request.url, extensions=request.extensions)
    plain.headers = headers
    return plain


def _refusal(response: httpx2.Response) -> openai.APIStatusError:
    """What the client raises for a status; its body is the error object where there is one."""
    body: JSON = response.text.strip()
    with suppress(ValueError):
        body = json.loads(body)
    if isinstance(body, dict):
        body = body.get("error", body)
    return openai.APIStatusError(
        f"Error code: {response.status_code}", response=response, body=body
    )
