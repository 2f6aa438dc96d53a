"""Calls of a stranger's server, whole or streamed; whatever happens is in what they return."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from longthought.orchestrator.models.backends.addresses import below
from longthought.orchestrator.models.backends.fetch import MOST_BYTES, fetch_json, plain
from longthought.types import JSONObject

__all__ = ["REASONING_FIELDS", "Caller", "Heard", "read_json", "shown"]

REASONING_FIELDS = ("reasoning_content", "reasoning")
"""Where servers put visible reasoning."""

_SHOWN = 80
_MOST_PROBLEM = 200
_LEAST_SECRET = 6


@dataclass(slots=True)
class Heard:
    """What came back for one call: ``status`` None if nothing did, ``problem`` in words."""

    status: int | None = None
    body: JSONObject = field(default_factory=dict)
    problem: str = ""
    pieces: int = 0
    timed_out: bool = False

    @property
    def well(self) -> bool:
        """Whether a reply came."""
        return self.status == 200 and not self.problem

    @property
    def choices(self) -> list[JSONObject]:
        """The choices of the reply, those that are none left out."""
        found = self.body.get("choices")
        return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []

    @property
    def message(self) -> JSONObject:
        """The message of the first choice."""
        found = self.choices[0].get("message") if self.choices else None
        return found if isinstance(found, dict) else {}

    @property
    def text(self) -> str:
        """What the message says; empty if it says nothing, or thinks only."""
        found = self.message.get("content")
        return found if isinstance(found, str) else ""

    @property
    def finish(self) -> str:
        """How the first choice ended, in the server's words."""
        return str(self.choices[0].get("finish_reason")) if self.choices else ""

    @property
    def usage(self) -> JSONObject:
        """The usage that was sent with it."""
        found = self.body.get("usage")
        return found if isinstance(found, dict) else {}

    @property
    def refused(self) -> bool:
        """Whether the server would not do it."""
        return self.status is not None and 400 <= self.status < 500 and self.status != 429

    def said(self) -> str:
        """What came, in a few words."""
        return self.problem or f"answered {shown(self.text)}"


def shown(text: str) -> str:
    """A text of a stranger in quotes, on one line, short enough for a table."""
    line = plain(text)
    return f'"{line}"' if len(line) <= _SHOWN else f'"{line[:_SHOWN]}..."'


class Caller:
    """Calls one model at one address, counts what that took, and shows no secret."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        base_url: str,
        model: str,
        *,
        seconds: float,
        secrets: Sequence[str] = (),
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self._client, self._base, self.model = client, base_url, model
        self._seconds, self._extra = seconds, dict(extra or {})
        self._secrets = [secret for secret in secrets if len(secret) >= _LEAST_SECRET]
        self.max_tokens_field = "max_tokens"
        self.calls = self.prompt_tokens = self.completion_tokens = 0
        self.seen: list[Heard] = []

    async def chat(self, messages: str | list[JSONObject], most: int = 16, **fields: Any) -> Heard:
        """One call of Chat Completions for at most ``most`` tokens; ``stream=True`` streams it."""
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        body = {**self._extra, "model": self.model, "messages": messages, **fields}
        body[self.max_tokens_field] = most
        return await self.post("/chat/completions", body)

    async def post(self, path: str, body: JSONObject) -> Heard:
        """One call of any kind; whatever happens is in what it returns."""
        self.calls += 1
        ask = self._streamed if body.get("stream") else self._whole
        try:
            async with asyncio.timeout(self._seconds):
                heard = await ask(below(self._base, path), body)
        except (TimeoutError, httpx.TimeoutException):
            heard = Heard(problem=f"no answer within {self._seconds:g} s", timed_out=True)
        except httpx.HTTPError as error:
            heard = Heard(problem=str(error) or type(error).__name__)
        except Exception as error:  # a stranger may answer anything
            heard = Heard(problem=f"what came makes no sense ({type(error).__name__})")
        heard.problem = plain(self.hidden(heard.problem))[:_MOST_PROBLEM]
        self._count(heard)
        return heard

    async def _whole(self, url: str, body: JSONObject) -> Heard:
        fetched = await fetch_json(self._client, url, body=body)
        return _heard(fetched.status, fetched.value)

    async def _streamed(self, url: str, body: JSONObject) -> Heard:
        from longthought.orchestrator.models.openai.sse import ServerEvents

        events, gathered, size = ServerEvents(), _Gathered(), 0
        asked = {"accept": "text/event-stream", "accept-encoding": "identity"}
        async with self._client.stream("POST", url, headers=asked, json=body) as response:
            if response.status_code != 200 or "event-stream" not in response.headers.get(
                "content-type", ""
            ):
                return _heard(response.status_code, read_json(await _bounded(response)))
            async for chunk in response.aiter_raw():
                size += len(chunk)
                for _, data in events.feed(chunk):
                    gathered.take(data)
                if size > MOST_BYTES:
                    break
        for _, data in events.finish():
            gathered.take(data)
        return gathered.heard()

    def _count(self, heard: Heard) -> None:
        self.seen.append(heard)
        for name in ("prompt_tokens", "completion_tokens"):
            tokens = heard.usage.get(name)
            if isinstance(tokens, int) and not isinstance(tokens, bool) and 0 < tokens < 2**31:
                setattr(self, name, getattr(self, name) + tokens)

    def hidden(self, text: str) -> str:
        """The text without key and header values."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _heard(status: int, value: Any) -> Heard:
    body = value if isinstance(value, dict) else {}
    error = body.get("error")
    message = error.get("message") if isinstance(error, dict) else error
    told = str(message or body.get("message") or body.get("detail") or "")
    if status != 200:
        return Heard(status, body, f"status {status}{f': {told}' if told else ''}")
    if error:
        return Heard(status, body, told or "an error instead of a reply")
    return Heard(status, body, "" if body else "what came is no JSON object")


async def _bounded(response: httpx.Response) -> bytes:
    read = bytearray()
    async for chunk in response.aiter_raw():
        read += chunk
        if len(read) > MOST_BYTES:
            return b""
    return bytes(read)


def read_json(body: bytes) -> Any:
    """The value in these bytes, None if they are no JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


class _Gathered:
    """A streamed reply put together as far as the trials look at it."""

    def __init__(self) -> None:
        self.message: JSONObject = {"content": ""}
        self.usage: JSONObject | None = None
        self.finish: Any = None
        self.pieces = 0
        self.problem = ""

    def take(self, data: str) -> None:
        chunk = read_json(data.encode()) if data != "[DONE]" else {}
        if not isinstance(chunk, dict):
            self.problem = self.problem or "a piece of the stream is no JSON object"
            return
        if chunk.get("error"):
            self.problem = self.problem or _heard(200, chunk).problem
        if isinstance(chunk.get("usage"), dict):
            self.usage = chunk["usage"]
        choices = chunk.get("choices")
        first = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(first, dict):
            return
        self.finish = first.get("finish_reason") or self.finish
        delta = first.get("delta")
        for name in ("content", *REASONING_FIELDS):
            piece = delta.get(name) if isinstance(delta, dict) else None
            if isinstance(piece, str) and piece:
                self.message[name] = self.message.get(name, "") + piece
                self.pieces += 1

    def heard(self) -> Heard:
        choice = {"message": self.message, "finish_reason": self.finish}
        body: JSONObject = {"choices": [choice], "usage": self.usage}
        problem = self.problem
        if not problem and self.finish is None and not self.pieces:
            problem = "the stream was empty"
        return Heard(200, body, problem, self.pieces)
