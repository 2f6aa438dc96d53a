"""A server on loopback that speaks Chat Completions and Responses, with a fixed job and faults.

The address says what it does: ``/t5/v1`` answers five times with a tool call and then with a
text, ``/t0,slow/v1`` answers at once, word by word with a pause before each. See :data:`MODES`.
A mode with a share holds for some calls only: ``/t1,drop@30/v1`` drops 30 % of them, the same ones
each time.
It has no latency of its own and needs nothing but the standard library.

    with protocol_server() as server:
        model = OpenAIModel("toy", base_url=server.address("t5"), api_key="any")

``python -m benchmarks.protocol_server`` runs it alone and prints its address; :func:`in_process`
does so for a benchmark, so that the server's work is not measured with the client's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import struct
import subprocess
import sys
import threading
import urllib.request
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any

from benchmarks import responses_protocol
from benchmarks.protocol_job import FINAL, Job, compact
from benchmarks.protocol_modes import MODES, RateLimit, Shares

__all__ = ["FINAL", "MODES", "ProtocolServer", "in_process", "protocol_server"]

_PAUSE = 0.02
_ALIVE_PAUSE = 0.005
_CLOSE_AT_ONCE = struct.pack("ii", 1, 0)


class ProtocolServer:
    """The running server. ``url`` is its root; counts are kept over all calls.

    ``received`` are the bodies of the last calls, the newest last, ``heard`` their headers.
    """

    def __init__(self) -> None:
        self.url = ""
        self.counts: Counter[str] = Counter()
        self.flaky: Counter[str] = Counter()
        self.received: deque[dict[str, Any]] = deque(maxlen=64)
        self.heard: deque[dict[str, str]] = deque(maxlen=64)
        self.open: set[Any] = set()
        self.shares = Shares()
        self.limits: dict[str, RateLimit] = {}
        self.released = asyncio.Event()

    def address(self, modes: str = "t0") -> str:
        """The base URL under which the server behaves as ``modes`` say, separated by commas."""
        return f"{self.url}/{modes}/v1"

    def release(self) -> None:
        """Let the streams go on that the mode ``hold`` stopped, and all that come later."""
        with urllib.request.urlopen(f"{self.url}/release", timeout=10) as answer:
            answer.read()

    def stats(self) -> dict[str, int]:
        """What was received and sent: calls, prompt_tokens, completion_tokens, lost, in_flight."""
        with urllib.request.urlopen(f"{self.url}/stats", timeout=10) as answer:
            return dict(json.load(answer))


class _Connection(asyncio.Protocol):
    """One connection: requests with a Content-Length, one after the other."""

    def __init__(self, server: ProtocolServer) -> None:
        self.server = server
        self.buffer = b""
        self.task: asyncio.Task[None] | None = None
        self.transport: Any = None
        self.answered = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.server.open.add(transport)
        self.server.counts["connections"] += 1
        self.server.counts["open"] += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.counts["open"] -= 1
        self.server.open.discard(self.transport)
        if self.task is not None and not self.task.done():
            self.server.counts["lost"] += 1
            self.task.cancel()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, end, rest = self.buffer.partition(b"\r\n\r\n")
        if not end:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return
        self.buffer = rest[length:]
        self.take(first.split(" ")[1], headers, rest[:length])

    def take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        if path in ("/stats", "/release"):
            if path == "/release":
                self.server.released.set()
            self.reply(200, dict(self.server.counts))
            return
        modes, _, endpoint = path.lstrip("/").partition("/")
        if endpoint not in ("v1/chat/completions", "v1/responses"):
            self.refuse(404, f"there is no {path}")
            return
        drawn = self.server.shares.modes(modes)
        job = Job(drawn, body, responses=endpoint == "v1/responses")
        self.server.received.append(job.sent)
        self.server.heard.append(headers)
        self.server.counts["calls"] += 1
        if job.has("echo"):
            job.headers = {f"x-echo-{name}": value for name, value in headers.items()}
        self.answered += 1
        if self.over_limit(job, modes) or self.refused(job, headers):
            return
        if job.silent or any(map(job.has, ("slow", "hang", "bytes", "alive", "hold"))):
            self.task = asyncio.get_running_loop().create_task(self.in_time(job))
        else:
            self.transport.write(b"".join(self.parts(job)))
            self.sent(job, job.completion_tokens)

    def over_limit(self, job: Job, address: str) -> bool:
        limit = job.number("limit")
        if not limit:
            return False
        rate = self.server.limits.get(address)
        if rate is None:
            rate = self.server.limits[address] = RateLimit(limit, job.number("period", 100))
        wait = rate.wait(asyncio.get_running_loop().time())
        if job.has("told"):
            job.headers |= rate.headers()
        if wait:
            self.server.counts["limited"] += 1
            headers = {**job.headers, "retry-after-ms": f"{wait:.0f}"}
            self.refuse(429, "Too many calls", headers)
        return wait > 0

    def refused(self, job: Job, headers: dict[str, str]) -> bool:
        status = job.number("status")
        after = job.number("after", -1)
        more = {**job.headers, **({"retry-after": str(after)} if after >= 0 else {})}
        if 300 <= status < 400:
            more["location"] = f"{self.server.url}/t0/v1/chat/completions?sid=1"
        if 300 <= status < 400:
            more["location"] = f"{self.server.url}/t0/v1/chat/completions?sid=1"
        echoed = f" {headers}" if job.has("echo") else ""
        if self.server.flaky[job.address] < job.number("flaky"):
            self.server.flaky[job.address] += 1
            self.refuse(503, "overloaded", {"retry-after": "0"})
        elif job.has("drop") or (job.has("stale") and self.answered > 1):
            self.transport.abort()
        elif status:
            self.refuse(status, f"refused with {status}{echoed}", more)
        elif job.has("context"):
            self.refuse(400, "This model's maximum context length is 16 tokens.")
        elif job.has("echo-key"):
            self.refuse(401, f"Incorrect API key provided: {headers.get('authorization')}")
        elif job.has("malformed") and not job.stream:
            self.transport.write(_head(200, "application/json", 9) + b'{"choices')
        elif job.has("empty") and not job.stream:
            self.reply(200, {**_envelope(), "choices": []})
        elif job.has("odd") and not job.stream:
            self.reply(200, {**_envelope(), "choices": [{"message": [7]}], "output": [7]})
        elif job.has("error") and not job.stream:
            message = f"the engine died{echoed}"
            self.reply(200, {"error": {"message": message, "code": 500}}, job.headers)
        else:
            return False
        return True

    def sent(self, job: Job, tokens: int) -> None:
        self.server.counts["streams"] += job.stream
        self.server.counts["prompt_tokens"] += job.prompt_tokens
        self.server.counts["completion_tokens"] += tokens
        if job.has("reset"):
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _CLOSE_AT_ONCE)
            self.transport.abort()
        elif not job.silent and (job.has("truncated") or job.has("lost-end")):
            self.transport.close()

    async def in_time(self, job: Job) -> None:
        """Answer a piece at a time, counting what left before the client went."""
        counts = self.server.counts
        counts["in_flight"] += 1
        done = 0
        try:
            if job.has("hang"):
                await asyncio.Event().wait()
            data = self.parts(job)
            if job.has("alive"):
                self.transport.write(data[0])
            while job.has("alive"):
                await asyncio.sleep(_ALIVE_PAUSE)
                self.transport.write(_chunk(b": not yet\n\n") if job.stream else b" ")
            if job.has("bytes"):
                whole = b"".join(data)
                data = [whole[i : i + 7] for i in range(0, len(whole), 7)]
            behind = job.behind_first_call() if job.has("hold") else -1
            for number, part in enumerate(data):
                if number == behind:
                    await self.server.released.wait()
                await asyncio.sleep(_PAUSE if job.has("slow") else 0)
                self.transport.write(part)
                done += job.has("slow") and part is not data[0]
            if job.silent:
                await asyncio.Event().wait()
        finally:
            counts["in_flight"] -= 1
            whole = job.silent or job.has("bytes") or job.has("hold")
            self.sent(job, job.completion_tokens if whole else done)

    def parts(self, job: Job) -> list[bytes]:
        """The bytes of the answer; streamed, one item for the head and one for each event."""
        if job.stream:
            parts = _responses_events(job) if job.responses else _events(job)
            return [_head(200, "text/event-stream", None, job.headers), *parts]
        choice = {"index": 0, "message": job.message(), "finish_reason": job.finish}
        body: dict[str, Any] = {**_envelope(), "choices": [choice], "usage": job.usage()}
        if job.has("no-usage"):
            del body["usage"]
        if job.responses:
            body = responses_protocol.whole(job)
        text = compact(body)
        head = _head(200, "application/json", len(text), job.headers)
        if job.has("truncated"):
            return [head, text[: len(text) // 2]]
        return [head, text]

    def reply(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        text = compact(body)
        self.transport.write(_head(status, "application/json", len(text), headers) + text)

    def refuse(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        self.server.counts["refused"] += 1
        error = {"message": message, "type": "invalid_request_error", "code": None}
        self.reply(status, {"error": error}, headers)


def _events(job: Job) -> Iterator[bytes]:
    def event(value: dict[str, Any]) -> bytes:
        return _chunk(b"data: " + compact(value) + b"\n\n")

    options = job.request.get("stream_options") or {}

    def choice(delta: dict[str, Any], finish: str | None = None, tokens: int = 0) -> bytes:
        one = {"index": 0, "delta": delta, "finish_reason": finish}
        value = {**_envelope("chat.completion.chunk"), "choices": [one]}
        if options.get("continuous_usage_stats"):  # as vLLM
            value["usage"] = {"prompt_tokens": job.prompt_tokens, "completion_tokens": tokens}
        return event(value)

    if job.has("odd"):
        yield event({"choices": [{"delta": [7]}]})
    if job.has("malformed"):
        yield _chunk(b'data: {"choices\n\n')
    if not job.has("empty"):
        yield choice({"role": "assistant", "content": ""})
        yield _chunk(b": a comment\r\n\r\n")
        half = len(job.pieces) // 2
        for number, piece in enumerate(job.pieces):
            if number == half and (job.has("truncated") or job.has("broken-off")):
                if job.has("broken-off"):
                    yield b"0\r\n\r\n"
                return
            if number == half and job.has("error"):
                echoed = f" {job.headers}" if job.has("echo") else ""
                yield event({"error": {"message": f"the engine died{echoed}", "code": 500}})
            yield choice(piece, tokens=job.hidden + number + 1)
            if job.has("running"):
                yield event({"choices": [], "usage": {**job.usage(), "completion_tokens": number}})
        yield choice({}, job.finish, tokens=job.completion_tokens)
    if job.has("lost-end"):
        return
    if options.get("include_usage") and not job.has("no-usage"):
        envelope = _envelope("chat.completion.chunk")
        yield event({**envelope, "choices": [], "usage": job.usage()})
    if not job.has("no-done"):
        yield _chunk(b"data: [DONE]\n\n")
    yield b"0\r\n\r\n"


def _responses_events(job: Job) -> Iterator[bytes]:
    yield from map(_chunk, responses_protocol.events(job))
    if not (job.has("truncated") or job.has("lost-end")):
        yield b"0\r\n\r\n"


def _envelope(kind: str = "chat.completion") -> dict[str, Any]:
    own = {"id": "chatcmpl-1", "object": kind, "created": 1_700_000_000}
    return {**own, "model": "toy-2026", "system_fingerprint": "fp_1"}


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _head(
    status: int, kind: str, length: int | None, headers: dict[str, str] | None = None
) -> bytes:
    size = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    extra = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    return f"HTTP/1.1 {status} -\r\ncontent-type: {kind}\r\n{size}\r\n{extra}\r\n".encode()


async def _serve(server: ProtocolServer, ready: Any, stop: asyncio.Event, port: int = 0) -> None:
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(
        lambda: _Connection(server), "127.0.0.1", port, backlog=2048, reuse_port=bool(port) or None
    )
    async with listener:
        server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        ready()
        await stop.wait()
        for transport in server.open:
            transport.abort()
        await asyncio.sleep(0)  # until they are closed


@contextlib.contextmanager
def protocol_server(port: int = 0) -> Iterator[ProtocolServer]:
    """The server in a thread of its own, for as long as the block runs.

    ``port`` is one that the caller keeps for it, by a socket that is bound with SO_REUSEPORT.
    """
    server, ready = ProtocolServer(), threading.Event()
    ends: list[Any] = []

    async def main() -> None:
        stop = asyncio.Event()
        ends.extend((asyncio.get_running_loop(), stop))
        await _serve(server, ready.set, stop, port)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    thread = threading.Thread(target=asyncio.run, args=(main(),), daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield server
    finally:
        loop, stop = ends
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)


@contextlib.contextmanager
def in_process() -> Iterator[ProtocolServer]:
    """The server in a process of its own, for as long as the block runs."""
    command = [sys.executable, "-m", "benchmarks.protocol_server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        server = ProtocolServer()
        try:
            server.url = process.stdout.readline().strip() if process.stdout else ""
            yield server
        finally:
            process.terminate()


def main() -> None:
    """Run the server until it is interrupted and print its address."""
    modes = "\n".join(f"  {mode:12} {text}" for mode, text in MODES.items())
    parser = argparse.ArgumentParser(
        description=(__doc__ or "") + "\nModes:\n" + modes,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args()
    server = ProtocolServer()

    async def run() -> None:
        await _serve(server, lambda: print(server.url, flush=True), asyncio.Event())

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run())


if __name__ == "__main__":
    main()
