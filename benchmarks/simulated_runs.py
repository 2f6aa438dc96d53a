"""Runs as simulated agents record them: the events that production writes, without a store.

What a simulation says of itself is read from these by the code that reads stored runs. Times are
seconds of the simulation; its beginning is taken for the epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import TypeAlias
from unittest import mock

from longthought.storage import Event, Recording, Store, journal
from longthought.types import JSON, JSONObject

__all__ = ["BACKEND", "Change", "SimulatedRun", "stored"]

BACKEND = "virtual"
_PLACE = "/1.agent"

Change: TypeAlias = tuple[str, float, int]
"""What happened to a lease, when, and the tokens of the context."""


class SimulatedRun:
    """One agent's run, which can be read like one from a store."""

    __slots__ = ("_number", "began", "events", "payloads")

    def __init__(self, number: int, at: float) -> None:
        self.began = at
        self.events: list[Event] = []
        self.payloads: dict[str, JSONObject] = {"request": {"model": BACKEND}, "none": {}}
        self._number = 0
        self._add(
            "run_started",
            "",
            {
                "at": at,
                "format": 1,
                "run": f"agent-{number}",
                "longthought": "",
                "workflow": "agents",
                "fingerprint": "",
                "manifest": "none",
            },
        )
        self._add("attempt_started", "", {"at": at, "attempt": 1, "owner": "simulation:1:1"})

    def has(self, payload: str) -> bool:
        """Whether the payload is there."""
        return payload in self.payloads

    def get(self, payload: str) -> JSON:
        """The value a payload id names."""
        return self.payloads[payload]

    def generated(
        self,
        clock: tuple[float, float, float],
        permits: Iterable[tuple[float, float, float, int]],
        usage: JSONObject,
        known: int,
        leases: Iterable[Change] = (),
    ) -> None:
        """A model call has ended.

        ``clock`` says when it was queued, sent and over; ``permits``, of each permit that was given
        back with it, when it was asked for, granted and released, and how many slots there were.
        ``known`` tokens of the prompt had been computed before.
        """
        began = self.began
        result = str(len(self.events))
        self.payloads[result] = {"usage": usage}
        body = self._effect(":model", "model", ("request", result), clock, leases)
        body["permits"] = [[a - began, g - began, r - began, slots] for a, g, r, slots in permits]
        body["known"] = known

    def tool_ran(self, begin: float, end: float, leases: Iterable[Change] = ()) -> None:
        """A tool call has ended."""
        body = self._effect(":tool", "tool", ("none", "none"), (begin, begin, end), leases)
        body["ran"] = [begin - self.began, end - self.began]

    def ended(self, at: float, leases: Iterable[Change] = ()) -> None:
        """The agent has done all that it had to."""
        body: JSONObject = {"at": at, "status": "completed", "stop_reason": "done"}
        if left := self._changes(leases):
            body["leases"] = {_PLACE: left}
        self._add("run_ended", "", body)

    def _effect(
        self,
        key: str,
        kind: str,
        payloads: tuple[str, str],
        clock: tuple[float, float, float],
        leases: Iterable[Change],
    ) -> JSONObject:
        self._number += 1
        body: JSONObject = {
            "at": clock[2],
            "kind": kind,
            "request": payloads[0],
            "result": payloads[1],
            "clock": list(clock),
        }
        if told := self._changes(leases):
            body["lease"] = told
        self._add("effect_finished", f"{_PLACE}#{self._number}{key}", body)
        return body

    def _changes(self, leases: Iterable[Change]) -> list[JSON]:
        return [[what, BACKEND, at - self.began, tokens] for what, at, tokens in leases]

    def _add(self, type_: str, key: str, body: JSONObject) -> None:
        self.events.append(Event(len(self.events) + 1, type_, key, body, ""))


async def stored(runs: Sequence[SimulatedRun], store: Store) -> list[Recording]:
    """Write runs to a store, through its journal, and read them back."""
    clock = SimpleNamespace(time=lambda: at)
    found = []
    for run in runs:
        with mock.patch.object(journal, "time", clock):  # the journal's events happened then
            first, at = run.events[0].body, run.began
            writer = await store.create_run(
                first["workflow"], {}, fingerprint="", version="", run_id=first["run"]
            )
            ids = {name: writer.put(value) for name, value in run.payloads.items()}
            for event in run.events[2:]:
                at = event.body["at"]
                body = {name: value for name, value in event.body.items() if name != "at"}
                for name in ("request", "result"):
                    if name in body:
                        body[name] = ids[body[name]]
                writer.stage(event.type, event.key, **body)
            await writer.flush()
        found.append(await store.read(first["run"]))
    return found
