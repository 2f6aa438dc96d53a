"""A server of an engine as a process of its own on loopback, and what it tells about itself."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx

__all__ = ["Server", "free_port"]

_START_SECONDS = 900.0
_STOP_SECONDS = 20.0
_LOG_LINES = 40


def free_port() -> int:
    """A port of loopback that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Server:
    """One running server. ``slots`` requests run at once, each with ``slot_context`` tokens."""

    engine: str
    port: int
    slots: int
    slot_context: int
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str]
    model: str = "tiny"
    _process: subprocess.Popen[bytes] | None = None

    @property
    def root(self) -> str:
        """Its address, without a path."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The base URL for clients."""
        return f"{self.root}/v1"

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                list(self.command),
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
                start_new_session=True,  # some engines are several processes
            )
        try:
            self._until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server and all its processes."""
        process = self._process
        if process is None:
            return
        self._process = None
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                break
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                continue
        process.wait()

    def get(self, path: str) -> httpx.Response:
        """What the server answers at a path of its root."""
        return httpx.get(self.root + path, timeout=60, trust_env=False)

    def post(self, path: str, body: Mapping[str, Any]) -> httpx.Response:
        """What the server answers to a body, past the adapter."""
        return httpx.post(self.root + path, json=dict(body), timeout=120, trust_env=False)

    def metric(self, name: str) -> float:
        """The sum of a metric of Prometheus over its labels.

        Raises:
            LookupError: the server has none of this name.
        """
        pattern = rf"^{re.escape(name)}(?:\{{[^}}]*\}})? (\S+)$"
        found = re.findall(pattern, self.get("/metrics").text, re.MULTILINE)
        if not found:
            raise LookupError(f"{self.engine} has no metric {name}")
        return sum(map(float, found))

    @property
    def busy(self) -> int:
        """Requests that it is working on at this moment."""
        if self._vllm:
            return int(self.metric("vllm:num_requests_running"))
        return sum(slot["is_processing"] for slot in self.get("/slots").json())

    @property
    def generated(self) -> int:
        """Tokens that it has written since it was started, as it counts them itself."""
        name = "vllm:generation_tokens_total" if self._vllm else "llamacpp:tokens_predicted_total"
        return int(self.metric(name))

    @property
    def read(self) -> int:
        """Prompt tokens that it was sent since it was started, those of its cache too."""
        if self._vllm:
            return int(self.metric("vllm:prompt_tokens_total"))
        parts = ("llamacpp:prompt_tokens_total", "llamacpp:prompt_tokens_cached_total")
        return sum(int(self.metric(name)) for name in parts)

    @property
    def _vllm(self) -> bool:
        return self.engine == "vllm"

    def _until_ready(self) -> None:
        begin = time.monotonic()
        while time.monotonic() - begin < _START_SECONDS:
            assert self._process is not None
            if self._process.poll() is not None:
                raise RuntimeError(
                    f"{self.engine} ended with {self._process.returncode}:{self._end()}"
                )
            try:
                if self.get("/health").status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.2)
        raise RuntimeError(f"{self.engine} was not ready in {_START_SECONDS:.0f} s:{self._end()}")

    def _end(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(["", *lines[-_LOG_LINES:]])
