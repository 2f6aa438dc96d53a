"""Checks the payloads of a run: each proves its name, belongs here, and none named is missing.

Which payloads exist follows from the events: an event names payloads, and some payloads name
others (a request and a result their conversation, a conversation the one before it).
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from pydantic import ValidationError

from longthought.storage.chain import Finding
from longthought.storage.deletion import NAMES_IN
from longthought.storage.digests import payload_id, salt_of
from longthought.storage.events import (
    EffectFinished,
    EffectStarted,
    Fold,
    PayloadDeleted,
    RunEnded,
    RunStarted,
    SignalReceived,
    TraceEvent,
    describe_invalid,
)
from longthought.storage.messages import check_message
from longthought.types import JSON

__all__ = ["ContentCheck"]

_LINK = {"p", "m"}


@dataclass(frozen=True, slots=True)
class _Named:
    """By which event, and as what, a payload is named."""

    event: TraceEvent
    role: str


class ContentCheck:
    """Takes all events of a run, then its payload rows."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.findings: list[Finding] = []
        self.present: set[str] = set()
        self._named: dict[str, _Named] = {}
        self._refers: dict[str, list[str]] = {}  # payload -> those that must be there with it
        self._mentioned: set[str] = set()
        self._foreign: list[str] = []
        self._problems: list[tuple[str, str]] = []  # payload and what is wrong with it

    def name(self, event: TraceEvent) -> None:
        """Note the payloads that an event names."""
        if isinstance(event, EffectStarted):
            self._note(event, event.request, f"{event.kind} request")
        elif isinstance(event, EffectFinished):
            self._note(event, event.request, f"{event.kind} request")
            self._note(event, event.result, f"{event.kind} result")
        elif isinstance(event, RunStarted):
            self._note(event, event.manifest, "manifest")
        elif isinstance(event, SignalReceived):
            self._note(event, event.value, "signal value")
        elif isinstance(event, Fold):
            self._note(event, event.data.get("outcome"), "outcome")
        elif isinstance(event, RunEnded):
            self._note(event, event.outcome, "outcome")
        elif isinstance(event, PayloadDeleted):
            for name, links in event.links.items():
                self._mentioned.update(links)
                self._refers.setdefault(name, []).extend(links)

    def take(self, name: JSON, salt: JSON, body: JSON, run_key: bytes | None) -> None:
        """Check one payload row."""
        if not (isinstance(name, str) and isinstance(salt, bytes) and isinstance(body, str)):
            self._report(str(name), "the payload's row is damaged")
            return
        self.present.add(name)
        try:
            raw = body.encode()
            fits = payload_id(salt, raw) == name
        except UnicodeEncodeError:  # damaged bytes
            raw, fits = b"", False
        if not fits:
            self._report(name, "the payload is not what its name says: it was changed")
            return
        if run_key is not None and salt_of(run_key, raw) != salt:
            self._foreign.append(name)
        self._mentioned.update(NAMES_IN.findall(body))
        self._look_into(name, body)

    def finish(self, deleted: set[str], sealed: bool) -> int:
        """Report what is missing or foreign; returns how many payloads nothing names.

        Payloads that a crash left behind before an event named them are no fault while the run can
        go on. Sealing removes them, so in a sealed run there are none.
        """
        for name in sorted(deleted & self.present):
            self._report(name, "the payload was deleted, but is still there")
        origins = self._origins()
        for name in sorted(origins.keys() - self.present - deleted):
            self._report(name, "the payload is missing")
        if self._foreign and len(self._foreign) == len(self.present):
            self.findings.append(
                Finding(self.run_id, None, "run", "", "the run key is not that of its payloads")
            )
        else:
            for name in self._foreign:
                self._report(name, "the payload was brought from elsewhere")
        loose = sorted(self.present - self._named.keys() - self._mentioned)
        if sealed:
            for name in loose:
                self._report(name, "nothing in the run names the payload")
        for name, problem in self._problems:
            self.findings.append(self._finding(name, problem, origins.get(name)))
        return len(loose)

    def _note(self, event: TraceEvent, name: JSON, role: str) -> None:
        if isinstance(name, str) and name:
            self._named.setdefault(name, _Named(event, role))

    def _look_into(self, name: str, body: str) -> None:
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            self._report(name, "the payload is no JSON")
            return
        if not isinstance(value, dict):
            return
        named = self._named.get(name)
        if named is None and value.keys() == _LINK:
            self._refer(name, value["p"])
            try:
                check_message(value["m"])
            except ValidationError as error:
                self._report(name, f"no message of the format: {describe_invalid(error)}")
        elif named is not None and named.role in ("model request", "model result", "outcome"):
            self._refer(name, value.get("conversation"))
            if named.role == "model request":
                self._refer(name, value.get("tools"))

    def _refer(self, name: str, other: JSON) -> None:
        if isinstance(other, str) and other:
            self._refers.setdefault(name, []).append(other)

    def _report(self, name: str, problem: str) -> None:
        self._problems.append((name, problem))

    def _origins(self) -> dict[str, _Named]:
        """For each payload the first event that leads to it, be it through other payloads."""
        origins: dict[str, _Named] = {}
        ahead = list(self._named.items())[::-1]  # events in order, each to its end
        while ahead:
            name, named = ahead.pop()
            if name in origins:
                continue
            origins[name] = named
            ahead += [(other, named) for other in self._refers.get(name, ())]
        return origins

    def _finding(self, name: str, problem: str, named: _Named | None) -> Finding:
        what = f"{problem} (payload {name}"
        if named is None:
            return Finding(self.run_id, None, "payload", "", f"{what})")
        how = named.role if name in self._named else f"named by the {named.role}"
        event = named.event
        return Finding(self.run_id, event.seq, event.type, event.key, f"{what}, {how})")
