"""What slots and leases of a run were used for, from its trace alone.

Times of slots, tools and leases are seconds since an attempt began, on one monotonic clock; those
on the run's clocks are wall time. Nothing is taken from what the process counted while it ran.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from longthought.budgets import union_seconds
from longthought.errors import TraceError
from longthought.orchestrator.recorded import Recorded
from longthought.orchestrator.seats import node_place
from longthought.storage import Event, Recording
from longthought.types import JSON, JSONObject, Usage

__all__ = ["BackendUse", "Utilisation", "utilisation"]

Pairs: TypeAlias = list[Sequence[float]]
Place: TypeAlias = tuple[str, str]
"""A backend, and which of its endpoints, empty where there is but one."""

_HELD = ("taken", "resumed")
"""What begins a lease; everything else ends one."""


@dataclass(slots=True)
class BackendUse:
    """What one backend was used for.

    Attributes:
        permits: calls and tries that had a slot; ``slots`` is how many there were at last.
        busy_seconds: of all slots together; ``share`` is that of the slots over the wall time.
        queued_seconds: waited for a slot, all calls together.
        leases: how often each thing happened to a lease.
        lease_seconds: leases held, all branches together; ``acting_seconds`` while a tool ran.
        prompt_tokens, cached_tokens: as the backend reported them.
        known_tokens: had been computed before, so that a cache could have had them.
        recomputed_tokens: of those, not found; None where no call ever reported a hit.
        endpoints: the same of each of several, by its name; ``share`` is of its own slots.
    """

    permits: int = 0
    slots: int = 0
    busy_seconds: float = 0.0
    share: float = 0.0
    queued_seconds: float = 0.0
    leases: Counter[str] = field(default_factory=Counter)
    lease_seconds: float = 0.0
    acting_seconds: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    known_tokens: int = 0
    recomputed_tokens: int | None = None
    endpoints: dict[str, BackendUse] = field(default_factory=dict)

    def at(self, endpoint: str) -> BackendUse:
        """What an endpoint of it was used for."""
        return self.endpoints.setdefault(endpoint, BackendUse())

    def to_json(self) -> JSONObject:
        """All figures."""
        several = {name: use.to_json() for name, use in self.endpoints.items()}
        return {
            "permits": self.permits,
            "slots": self.slots,
            "busy_seconds": round(self.busy_seconds, 4),
            "share": round(self.share, 4),
            "queued_seconds": round(self.queued_seconds, 4),
            "leases": dict(sorted(self.leases.items())),
            "lease_seconds": round(self.lease_seconds, 4),
            "lease_seconds_acting": round(self.acting_seconds, 4),
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "known_tokens": self.known_tokens,
            "recomputed_tokens": self.recomputed_tokens,
            **({"endpoints": several} if several else {}),
        }


@dataclass(slots=True)
class Utilisation:
    """A whole run, all attempts together.

    Attributes:
        seconds: on each clock: model, tool, verify, queue, wall.
        backends: by the name of the model.
        permit_seconds_during_tools: a slot was held by a branch whose tool ran.
        tool_seconds_in_generation: a branch's tool ran while its own generation was timed; those
            aside that were meant to, because they began while the reply still streamed.
        early_starts: tools that did so; ``early_seconds`` before the ends of their replies.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    backends: dict[str, BackendUse] = field(default_factory=dict)
    permit_seconds_during_tools: float = 0.0
    tool_seconds_in_generation: float = 0.0
    early_starts: int = 0
    early_seconds: float = 0.0

    def to_json(self) -> JSONObject:
        """All figures."""
        return {
            "seconds": {name: round(value, 4) for name, value in self.seconds.items()},
            "backends": {name: use.to_json() for name, use in self.backends.items()},
            "permit_seconds_during_tools": round(self.permit_seconds_during_tools, 4),
            "tool_seconds_in_generation": round(self.tool_seconds_in_generation, 4),
            "early_starts": self.early_starts,
            "early_seconds": round(self.early_seconds, 4),
        }


@dataclass(slots=True)
class _Line:
    """What one line of thought did in one attempt."""

    permits: Pairs = field(default_factory=list)
    ran: Pairs = field(default_factory=list)
    generated: Pairs = field(default_factory=list)
    """By the wall clock, as is ``tools``."""
    tools: Pairs = field(default_factory=list)
    leases: dict[Place, Pairs] = field(default_factory=lambda: defaultdict(list))
    held: dict[Place, float] = field(default_factory=dict)
    """Backends, and endpoints of them, that it has a lease of, and since when."""


def utilisation(recording: Recording) -> Utilisation:
    """Every figure of a recording, whatever state it is in.

    A lease whose end is not on record (the process died) ends with the last thing that is.
    """
    reader = _Reader(recording)
    for event in recording.events:
        reader.take(event)
    reader.end_attempt()
    return reader.finished()


class _Reader:
    """Takes in events in their order."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.found = Utilisation()
        self.branches: set[str] = set()
        self.lines: dict[str, _Line] = defaultdict(_Line)
        self.latest = 0.0
        self.begun = self.ended = 0.0
        self.weighted: dict[Place, float] = defaultdict(float)
        """Slot seconds of each backend, and of each endpoint, as parts of all its slots."""
        self.wall = 0.0

    def take(self, event: Event) -> None:
        body = event.body
        match event.type:
            case "attempt_started":
                self.end_attempt()
                self.begun = body["at"]
            case "fold" if body["input"] == "ask":
                self.branches.update(f"{event.key}/{ask}" for ask in body["data"]["asks"])
            case "effect_finished":
                self._effect(event)
            case "branch_ended":
                self._leases(self.lines[event.key], body.get("lease", ()))
            case "run_ended":
                for place, changes in body.get("leases", {}).items():
                    self._leases(self.lines[place], changes)
            case _:
                pass
        self.ended = body["at"]

    def _effect(self, event: Event) -> None:
        body, clock = event.body, event.body.get("clock")
        line = self.lines[self._line_of(event.key)]
        if body["kind"] == "model":
            self._model(event, line)
            if clock:
                line.generated.append(clock[1:])
        elif body["kind"] == "tool":
            if body.get("ran"):
                line.ran.append(body["ran"])
                self._seen(body["ran"][1])
            if early := body.get("early"):
                self.found.early_starts += 1
                self.found.early_seconds += early["seconds"]
            elif clock:
                line.tools.append(clock[1:])
        self._leases(line, body.get("lease", ()))

    def _model(self, event: Event, line: _Line) -> None:
        body = event.body
        name = self._payload(body["request"], "model") or "unknown"
        use = self.found.backends.setdefault(name, BackendUse())
        endpoint = ""
        for asked, granted, released, slots, *where in body.get("permits", ()):
            self._permit((name, ""), use, asked, granted, released, slots)
            if where:
                endpoint = where[0]
                place = name, endpoint
                self._permit(place, use.at(endpoint), asked, granted, released, where[1])
            line.permits.append((granted, released))
            self._seen(released)
        usage = Usage.from_json(self._payload(body["result"], "usage"))
        known = min(body.get("known", 0), usage.prompt_tokens)
        lost = max(0, known - usage.cached_tokens)
        for one in (use, use.at(endpoint)) if endpoint else (use,):  # the last try brought it
            one.prompt_tokens += usage.prompt_tokens
            one.cached_tokens += usage.cached_tokens
            one.known_tokens += known
            one.recomputed_tokens = (one.recomputed_tokens or 0) + lost

    def _permit(
        self,
        place: Place,
        use: BackendUse,
        asked: float,
        granted: float,
        released: float,
        slots: int,
    ) -> None:
        use.permits += 1
        use.slots = slots
        use.busy_seconds += released - granted
        use.queued_seconds += granted - asked
        self.weighted[place] += (released - granted) / slots

    def _leases(self, line: _Line, changes: Iterable[Sequence[JSON]]) -> None:
        for what, backend, at, _, *where in changes:
            place = backend, where[0] if where else ""
            for use in self._uses(place):
                use.leases[what] += 1
            self._seen(at)
            since = line.held.pop(place, None)
            if since is not None:
                line.leases[place].append((since, at))
            if what in _HELD:
                line.held[place] = at

    def _uses(self, place: Place) -> list[BackendUse]:
        """What a figure of an endpoint counts for: its backend and itself."""
        backend, endpoint = place
        use = self.found.backends.setdefault(backend, BackendUse())
        return [use, use.at(endpoint)] if endpoint else [use]

    def end_attempt(self) -> None:
        """Add up what the lines of one attempt did; its clock ends with it."""
        for line in self.lines.values():
            for place, since in line.held.items():
                line.leases[place].append((since, self.latest))
            self.found.permit_seconds_during_tools += _both(line.permits, line.ran)
            self.found.tool_seconds_in_generation += _both(line.generated, line.tools)
            for place, held in line.leases.items():
                for use in self._uses(place):
                    use.lease_seconds += union_seconds(held)
                    use.acting_seconds += _both(held, line.ran)
        self.lines.clear()
        self.wall += max(0.0, self.ended - self.begun) if self.begun else 0.0
        self.latest = self.begun = 0.0

    def finished(self) -> Utilisation:
        found = self.found
        for attempt in Recorded.of(self.recording).intervals:
            for kind, pairs in attempt.items():
                found.seconds[kind] = found.seconds.get(kind, 0.0) + union_seconds(pairs)
        for name, whole in found.backends.items():
            for endpoint, use in [("", whole), *whole.endpoints.items()]:
                use.share = self.weighted[name, endpoint] / self.wall if self.wall else 0.0
                if not use.cached_tokens:
                    use.recomputed_tokens = None  # it may not report what it finds
        return found

    def _seen(self, at: float) -> None:
        self.latest = max(self.latest, at)

    def _line_of(self, key: str) -> str:
        """The line of thought of an effect; what a verifier or a tool asks is one of its own."""
        place = whole = key.rpartition("#")[0]
        while place and place not in self.branches:
            place = place.rpartition("/")[0]
        if ":" in whole[len(place) :]:
            return key
        return place or node_place(whole)

    def _payload(self, payload: str, part: str) -> JSON:
        """A part of a payload, None if it was deleted or is not there."""
        if not self.recording.has(payload):
            return None
        try:
            value = self.recording.get(payload)
        except TraceError:
            return None
        return value.get(part) if isinstance(value, dict) else None


def _both(one: Iterable[Sequence[float]], other: Iterable[Sequence[float]]) -> float:
    """Seconds covered by both; each may overlap itself in any way."""
    one, other = list(one), list(other)
    if not one or not other:
        return 0.0
    apart = union_seconds(one) + union_seconds(other)
    return max(0.0, round(apart - union_seconds([*one, *other]), 6))
