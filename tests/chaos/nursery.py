"""The parent's hand on its workers: start one, kill or stop its whole process group, see it end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from tests.chaos.worker import Job

__all__ = ["Nursery"]

ROOT = Path(__file__).resolve().parents[2]


class Nursery:
    """One worker at a time, forked by a process that has everything imported."""

    def __init__(self) -> None:
        self.pid: int | None = None
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-W", "error"),
            *("-m", "tests.chaos.worker"),
            cwd=ROOT,
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        await self._hear()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        if self.pid is not None:
            self.kill()
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._process.wait()

    async def start(self, job: Job) -> int:
        """Start a worker; returns its pid, which is also its process group."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(job)).encode() + b"\n")
        await self._process.stdin.drain()
        self.pid = int((await self._hear())["pid"])
        return self.pid

    async def ended(self) -> int:
        """Wait for the worker's end; its exit code, or minus the signal that killed it."""
        code = int((await self._hear())["ended"])
        self.pid = None
        return code

    def kill(self) -> None:
        """kill -9, the whole group."""
        self.send(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the worker's group; nothing happens if it has ended."""
        if self.pid is None:
            return
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            try:  # so young that it leads no group yet
                os.kill(self.pid, number)
            except ProcessLookupError:
                return

    async def _hear(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the nursery has ended; see its messages above")
        heard: dict[str, Any] = json.loads(line)
        return heard
