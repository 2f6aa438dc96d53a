"""Servers as strangers run them, on loopback: what each says of itself, and how it answers calls.

A :class:`Stranger` speaks Chat Completions as documented; ``cannot`` and ``refuses`` name what it
silently leaves undone and what it turns down. ``pages`` are what it answers to GETs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Stranger", "listening", "pages_of", "stranger"]

WORDS = ("one ", "two ", "three ", "four ", "five ", "six ", "seven ", "eight ")


def pages_of(kind: str, model: str = "qwen3") -> dict[str, Any]:
    """What a server of a kind is documented to answer to GETs."""

    def listed(**more: Any) -> dict[str, Any]:
        return {"object": "list", "data": [{"id": model, "object": "model", **more}]}

    return {
        "vllm": {
            "/v1/models": listed(owned_by="vllm", max_model_len=8192),
            "/version": {"version": "0.32.0"},
        },
        "sglang": {
            "/v1/models": listed(owned_by="sglang", max_model_len=4096),
            "/get_server_info": {"version": "0.5.23", "max_running_requests": 24},
        },
        "llama.cpp": {
            "/v1/models": listed(owned_by="llamacpp", meta={"n_ctx": 4096, "n_ctx_train": 32768}),
            "/props": {
                "default_generation_settings": {"n_ctx": 2048},
                "total_slots": 2,
                "build_info": "b1-0c1e570",
            },
        },
        "ollama": {
            "/v1/models": listed(owned_by="a user"),
            "/api/version": {"version": "0.40.12"},
            "/api/ps": {"models": [{"name": f"{model}:latest", "context_length": 4096}]},
        },
        "lmstudio": {
            "/v1/models": listed(owned_by="organization_owner"),
            "/api/v0/models": {
                "data": [
                    {"id": "other", "loaded_context_length": 9},
                    {"id": model, "loaded_context_length": 6000, "max_context_length": 32768},
                ]
            },
        },
        "generic": {"/v1/models": listed(owned_by="somebody")},
        "silent": {},
    }[kind]


class Stranger(ThreadingHTTPServer):
    """The server; ``url`` is its base URL, ``asked`` every request as (method, path, body)."""

    daemon_threads = True

    def __init__(self, pages: dict[str, Any] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages = pages or {}
        self.cannot: set[str] = set()
        self.refuses: set[str] = set()
        self.reasoning = ""
        self.structured = '{"rain": true}'
        self.finish = "stop"
        self.cached = 0
        self.refusal: tuple[int, dict[str, str]] | None = None
        self.refuse_every = 0
        self.raw: Any = None
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.headers: list[dict[str, str]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    @property
    def calls(self) -> int:
        """How many calls of a model came."""
        return sum(method == "POST" for method, _, _ in self.asked)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left is no error."""

    def reply(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and reply for a call."""
        for field in self.refuses:
            if field in body:
                return 400, {"error": {"message": f"unknown field {field}"}}
        most = body.get("max_completion_tokens", body.get("max_tokens", 99))
        words = list(WORDS)
        if "seed" in body and "seeds" not in self.cannot:
            words = words[int(body["seed"]) % 3 :]
        elif "seed" in body:
            words = words[len(self.asked) % 5 :]
        if body.get("continue_final_message"):
            words = ["is ", "indeed "] if "continues" not in self.cannot else ["The ", "capital "]
        words = words if "honours max_tokens" in self.cannot else words[:most]
        message: dict[str, Any] = {"role": "assistant", "content": "".join(words)}
        if "response_format" in body and "structured output" not in self.cannot:
            message["content"] = self.structured
        if "tools" in body and "tools" not in self.cannot:
            function = {"name": "multiply", "arguments": '{"a": 1, "b": 2}'}
            call = {"id": "c1", "type": "function", "function": function}
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
        if self.reasoning:
            message[self.reasoning] = "Let me think."
        choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": self.finish}
        if body.get("logprobs") and "logprobs" not in self.cannot:
            choice["logprobs"] = {"content": [{"token": "one", "logprob": -0.1}]}
        count = body.get("n", 1) if "n" not in self.cannot else 1
        usage = {"prompt_tokens": 7, "completion_tokens": len(words)}
        if self.cached:
            usage["prompt_tokens_details"] = {"cached_tokens": self.cached}
        return 200, {"model": body.get("model"), "choices": [choice] * count, "usage": usage}


class _Handler(BaseHTTPRequestHandler):
    server: Stranger
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._note({})
        page = self.server.pages.get(self.path)
        if self.server.raw is not None:
            page = self.server.raw
        if page is None:
            self._send(404, {"error": {"message": f"there is no {self.path}"}})
        elif isinstance(page, tuple):
            self._send(*page)
        else:
            self._send(200, page)

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", 0))
        body = json.loads(self.rfile.read(length))
        count = self._note(body)
        stranger = self.server
        if stranger.raw is not None:
            self._send(200, stranger.raw)
        elif stranger.refusal is not None and (
            not stranger.refuse_every or count % stranger.refuse_every == 0
        ):
            status, headers = stranger.refusal
            self._send(status, {"error": {"message": f"refused with {status}"}}, headers)
        elif self.path == "/v1/responses":
            there = "responses" not in stranger.cannot
            self._send(200 if there else 404, {"output": []} if there else {"detail": "no"})
        else:
            status, reply = stranger.reply(body)
            if status == 200 and body.get("stream") and "streams" not in stranger.cannot:
                self._stream(reply, body)
            else:
                self._send(status, reply)

    def _stream(self, reply: dict[str, Any], body: dict[str, Any]) -> None:
        message = reply["choices"][0]["message"]
        deltas = [{self.server.reasoning: "Let me think."}] if self.server.reasoning else []
        deltas += [{"content": f"{word} "} for word in (message["content"] or "").split()]
        chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        wanted = body.get("stream_options", {}).get("include_usage")
        if wanted and "usage in streams" not in self.server.cannot:
            chunks.append({"choices": [], "usage": reply["usage"]})
        data = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
        self._write(200, data.encode(), {"content-type": "text/event-stream"})

    def _send(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self._write(status, body, {"content-type": "application/json", **(headers or {})})

    def _write(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)

    def _note(self, body: dict[str, Any]) -> int:
        with self.server.lock:
            self.server.asked.append((self.command, self.path, body))
            self.server.headers.append({k.lower(): v for k, v in self.headers.items()})
            return self.server.calls  # whoever asks how it stands is not counted among them

    def log_message(self, *args: object) -> None:
        """Quietly."""


@contextlib.contextmanager
def stranger(kind: str = "generic", **pages: Any) -> Iterator[Stranger]:
    """A server of this kind, for as long as the block runs."""
    server = Stranger({**pages_of(kind), **pages})
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.asynccontextmanager
async def listening(
    handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """The base URL of a server with this handler; every connection has ended at the end."""
    open_ones: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_ones.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await handler(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()
        for _ in range(5):  # a connection that was taken just now has yet to begin
            await asyncio.sleep(0)
        if open_ones:
            await asyncio.wait(open_ones)
