"""A provider that works on replies by itself: they are begun, looked at, followed and called off.

The replies are those of :mod:`benchmarks.responses_protocol`. A reply ends when it has been looked
at so often as ``looks`` says, or when it has been streamed to its end.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from benchmarks import responses_protocol
from benchmarks.protocol_job import Job

__all__ = ["BackgroundServer", "background_server"]


class BackgroundServer(ThreadingHTTPServer):
    """The server; ``asked`` is every request as (method, path below /v1, query, body).

    ``modes`` are those of the protocol server. ``breaks`` are after how many events each stream
    breaks off, in order; ``old`` refuses to go on with one. ``gone`` keeps no reply. ``trouble`` is
    how many looks fail before one succeeds. ``looked`` is set by the first look. ``fails`` makes
    replies fail at their end.
    """

    daemon_threads = True

    def __init__(self, modes: str = "t0", looks: int = 2) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.modes, self.looks = modes, looks
        self.breaks: list[int] = []
        self.old = self.gone = self.fails = False
        self.trouble = 0
        self.looked = threading.Event()
        self.asked: list[tuple[str, str, dict[str, str], dict[str, Any]]] = []
        self.kept: dict[str, dict[str, Any]] = {}
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left is no error."""

    def requests(self, method: str, end: str = "") -> list[Any]:
        """What was asked by this method at paths that end so."""
        return [one for one in self.asked if one[0] == method and one[1].endswith(end)]

    @property
    def begun(self) -> list[dict[str, Any]]:
        """The bodies of all replies that were begun."""
        return [body for _, path, _, body in self.requests("POST") if path == "/responses"]

    @property
    def called_off(self) -> list[str]:
        """The paths of all replies that were called off."""
        return [path for _, path, _, _ in self.requests("POST", "/cancel")]

    def begin(self, body: dict[str, Any]) -> str:
        job = Job(self.modes, json.dumps(body).encode(), responses=True)
        name = f"resp_{len(self.kept) + 1}"
        ended = responses_protocol.whole(job)
        if self.fails:
            failed = {"code": "server_error", "message": "it broke"}
            ended = {**ended, "status": "failed", "error": failed, "output": []}
        ended = {**ended, "id": name, "background": True}
        events = [event.replace(b"resp_1", name.encode()) for event in _single(job)]
        self.kept[name] = {"looks": 0, "ended": ended, "events": events, "off": False}
        return name

    def state(self, name: str) -> dict[str, Any]:
        """The reply as it is now."""
        kept = self.kept[name]
        ended: dict[str, Any] = kept["ended"]
        if kept["off"]:
            usage = {**ended["usage"], "output_tokens": 7}
            return {**ended, "status": "cancelled", "output": [], "usage": usage}
        if kept["looks"] < self.looks:
            status = "in_progress" if kept["looks"] else "queued"
            return {**ended, "status": status, "error": None, "output": [], "usage": None}
        return ended


def _single(job: Any) -> Iterator[bytes]:
    """The events one by one: those of the protocol server come with what frames them."""
    for piece in responses_protocol.events(job):
        for event in piece.replace(b": a comment\r\n\r\n", b"").split(b"\n\n"):
            if event:
                yield event + b"\n\n"


class _Handler(BaseHTTPRequestHandler):
    server: BackgroundServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        path, _ = self._note(body)
        if path == "/responses":
            with self.server.lock:
                name = self.server.begin(body)
            if body.get("stream"):
                self._stream(self.server.kept[name]["events"])
            else:
                self._send(200, self.server.state(name))
            return
        name = path.split("/")[2]
        self.server.kept[name]["off"] = True
        self._send(200, self.server.state(name))

    def do_GET(self) -> None:
        path, query = self._note({})
        name = path.split("/")[2]
        if self.server.gone or name not in self.server.kept:
            self._send(404, {"error": {"message": f"there is no {name}"}})
        elif query.get("stream") == "true":
            after = int(query["starting_after"])
            if self.server.old:
                message = "This response can no longer be streamed because it is too old"
                self._send(400, {"error": {"message": message}})
            else:
                self._stream(self.server.kept[name]["events"][after + 1 :])
        elif self.server.trouble:
            self.server.trouble -= 1
            self._send(503, {"error": {"message": "overloaded"}})
        else:
            self.server.kept[name]["looks"] += 1
            self._send(200, self.server.state(name))
            self.server.looked.set()

    def _stream(self, events: list[bytes]) -> None:
        most = self.server.breaks.pop(0) if self.server.breaks else len(events)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            for event in events[:most]:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(event), event))
            if most >= len(events):
                self.wfile.write(b"0\r\n\r\n")
        self.close_connection = most < len(events)

    def _send(self, status: int, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)

    def _note(self, body: dict[str, Any]) -> tuple[str, dict[str, str]]:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        path = parts.path.removeprefix("/v1")
        with self.server.lock:
            self.server.asked.append((self.command, path, query, body))
        return path, query

    def log_message(self, *args: object) -> None:
        """Quietly."""


@contextlib.contextmanager
def background_server(modes: str = "t0", **options: Any) -> Iterator[BackgroundServer]:
    """The server, for as long as the block runs."""
    server = BackgroundServer(modes, **options)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
