"""The outside world: a server that counts what leaves a worker, whatever its journal says.

It plays the model provider's meter, a service that reads, an idempotent service that writes, and
one that does not know idempotency keys. What it has been told, it knows even if the teller was
killed before it heard the answer.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

__all__ = ["World", "tell"]

Report = dict[str, Any]


@dataclass
class Tally:
    """What has left the workers of one run so far."""

    starts: Counter[str] = field(default_factory=Counter)
    ends: set[str] = field(default_factory=set)
    prompt_tokens: int = 0
    said: dict[str, int] = field(default_factory=dict)
    """Output tokens per dispatched call, as far as they are known to have left."""
    model_calls: int = 0
    write_calls: int = 0
    performed: Counter[str] = field(default_factory=Counter)
    """Writes done, by content."""
    answers: dict[str, str] = field(default_factory=dict)
    """The idempotent service's memory, by idempotency key."""
    forbidden: set[str] = field(default_factory=set)
    """Effects whose finish is journaled: none of them may start again."""
    violations: list[str] = field(default_factory=list)
    results: list[Report] = field(default_factory=list)

    @property
    def progress(self) -> int:
        """How many different steps of the run have been seen."""
        return len(self.starts) + len(self.ends)

    @property
    def tokens(self) -> int:
        """Tokens that are known to have left, prompts and output."""
        return self.prompt_tokens + sum(self.said.values())


class World:
    """The server, in the loop of the parent process; one run at a time."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "world.sock")
        self.tally = Tally()
        self.on_report: Callable[[Report], None] | None = None
        self.gates: dict[tuple[str, str], asyncio.Event] = {}
        """A report of this phase and content is answered when its gate is opened."""
        self.reached: dict[tuple[str, str], asyncio.Event] = {}
        self._server: asyncio.Server | None = None
        self._held: list[asyncio.Event] = []
        self._open = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._serve, self.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        for gate in self._held:
            gate.set()
        self._server.close()
        await self.quiet()

    async def quiet(self) -> None:
        """Wait until everything that was sent has been taken in: all connections have ended."""
        await self._quiet.wait()

    def gate(self, phase: str, what: str) -> asyncio.Event:
        """Hold the answer to a report back; returns what is set when the report is there."""
        self.gates[phase, what] = gate = asyncio.Event()
        self._held.append(gate)
        return self.reached.setdefault((phase, what), asyncio.Event())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        self._quiet.clear()
        try:
            line = await reader.readline()
            if line.endswith(b"\n"):
                report: Report = json.loads(line)
                answer = self._take(report)
                name = (report["phase"], report["what"])
                if name in self.gates:
                    self.reached[name].set()
                    await self.gates[name].wait()
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
                await reader.read()
        except ConnectionError:
            pass
        finally:
            writer.close()
            self._open -= 1
            if not self._open:
                self._quiet.set()

    def _take(self, report: Report) -> Any:
        tally, phase, what = self.tally, report["phase"], report["what"]
        answer: Any = None
        if phase == "start":
            if what in tally.forbidden:
                tally.violations.append(f"{what} was performed again after its end was journaled")
            tally.starts[what] += 1
            if report["kind"] == "model":
                tally.model_calls += 1
                tally.prompt_tokens += report["prompt_tokens"]
        elif phase == "said":
            tally.said[report["call"]] = max(tally.said.get(report["call"], 0), report["tokens"])
        elif phase == "end":
            tally.ends.add(what)
            if report["kind"] == "model":
                tally.said[report["call"]] = report["tokens"]
        elif phase == "write":
            answer = self._write(report)
        elif phase == "result":
            tally.results.append(report)
        if self.on_report is not None:
            self.on_report(report)
        return answer

    def _write(self, report: Report) -> str:
        tally, what, key = self.tally, report["what"], report["idempotency_key"]
        tally.write_calls += 1
        if report["idempotent"]:
            if key in tally.answers:
                return tally.answers[key]
            tally.answers[key] = f"posted {what}"
        tally.performed[what] += 1
        return f"posted {what}"


async def tell(path: str, phase: str, what: str, **more: Any) -> Any:
    """Tell the world something and return its answer; for the worker."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(json.dumps({"phase": phase, "what": what, **more}).encode() + b"\n")
        await writer.drain()
        return json.loads(await reader.readline())
    finally:
        writer.close()
