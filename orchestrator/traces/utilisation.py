"""What slots and leases of runs were used for, from their traces alone.

Times of slots, tools and leases are seconds since an attempt began, on one monotonic clock; when
that was by the wall clock says the attempt's first event, and that puts runs side by side. Nothing
is taken from what a process counted while it ran.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from longthought.budgets import union_seconds
from longthought.errors import TraceError
from longthought.orchestrator.recorded import clock_pairs
from longthought.orchestrator.seats import node_place
from longthought.orchestrator.traces.use import BackendUse, Utilisation
from longthought.storage import Event
from longthought.types import JSON, JSONObject, Usage

__all__ = ["Trace", "UtilisationReader", "utilisation"]

Pairs: TypeAlias = list[Sequence[float]]
Place: TypeAlias = tuple[str, str]
"""A backend, and which of its endpoints, empty for all of it."""

_HELD = ("taken", "resumed")
"""What begins a lease; everything else ends one."""
_FINISHED = ("completed", "incomplete")
"""How a run ends that nothing can go on with."""
_ROUNDED = 2e-4
"""Seconds by which two recorded times, of which one cannot be after the other, may seem to be."""


class Trace(Protocol):
    """What is read of a run: its events, and the payloads that they name.

    :class:`~longthought.storage.Recording` is one.
    """

    @property
    def events(self) -> Sequence[Event]:
        """In their order."""
        ...

    def has(self, payload: str) -> bool:
        """Whether the payload is there."""
        ...

    def get(self, payload: str) -> JSON:
        """The value a payload id names."""
        ...


def utilisation(*runs: Trace) -> Utilisation:
    """Every figure of some runs together, whatever state they are in.

    A lease whose end is not on record (the process died) ends with the last thing that is. For
    more runs than there is memory for see :class:`UtilisationReader`.
    """
    reader = UtilisationReader()
    for run in runs:
        reader.read(run)
    return reader.found()


class UtilisationReader:
    """Reads runs one after the other; keeps when slots were used, and no trace."""

    def __init__(self) -> None:
        self.sum = Utilisation()
        self.used: dict[Place, Pairs] = defaultdict(list)
        """When slots were in use, by the wall clock."""
        self.weighted: dict[Place, float] = defaultdict(float)
        """Slot seconds as parts of all the slots there are."""
        self.there: dict[str, dict[str, Pairs]] = defaultdict(lambda: defaultdict(list))
        """For each backend, who had slots of it, and the attempts that used some."""
        self.lost: dict[Place, int] = defaultdict(int)
        """Tokens that were known and not found."""

    def read(self, run: Trace) -> None:
        """Add a run."""
        total, events = self.sum, run.events
        if events:
            reader = _RunReader(run, self)
            for event in events:
                reader.take(event)
            reader.end_attempt()
            begun, ended = events[0].body["at"], reader.ended
            if reader.status in _FINISHED:
                total.latencies.append(ended - begun)
            first, last = total.period if total.runs else (begun, begun)
            total.period = min(first, begun), max(last, ended)
        total.runs += bool(events)

    def found(self) -> Utilisation:
        """All figures of what was read so far."""
        total = self.sum
        total.latencies.sort()
        for name, whole in total.backends.items():
            there = sum(map(union_seconds, self.there[name].values()))
            for endpoint, use in [("", whole), *whole.endpoints.items()]:
                place = name, endpoint
                use.at_once = _most_at_once(self.used[place])
                use.share = self.weighted[place] / there if there else 0.0
                # one that never had a hit may not report what it finds
                use.recomputed_tokens = self.lost[place] if use.cached_tokens else None
        return total


@dataclass(slots=True)
class _Line:
    """What one line of thought did in one attempt."""

    permits: Pairs = field(default_factory=list)
    ran: Pairs = field(default_factory=list)
    generated: Pairs = field(default_factory=list)
    """By the wall clock, as is ``tools``."""
    tools: Pairs = field(default_factory=list)
    leases: dict[Place, Pairs] = field(default_factory=dict)
    held: dict[Place, float] = field(default_factory=dict)
    """Where it has a lease, and since when."""


class _RunReader:
    """Takes in the events of one run in their order."""

    def __init__(self, run: Trace, into: UtilisationReader) -> None:
        self.run, self.into, self.sum = run, into, into.sum
        self.workflow = ""
        self.branches: set[str] = set()
        self.places: dict[str, str] = {}
        """The line of thought of each place; of those that are one for each call, none."""
        self.lines: dict[str, _Line] = defaultdict(_Line)
        self.clocks: dict[str, Pairs] = defaultdict(list)
        self.called: set[str] = set()
        """Backends that this attempt had a slot of."""
        self.owner = ""
        self.begun: float | None = None
        """When the attempt began, by the wall clock; None before the first."""
        self.latest = 0.0
        """The last time on the attempt's own clock."""
        self.ended = 0.0
        """When the last thing happened, by the wall clock."""
        self.status = ""

    def take(self, event: Event) -> None:
        body = event.body
        at: float = body["at"]
        match event.type:
            case "effect_finished":
                self._effect(event)
            case "run_started":
                self.workflow = body.get("workflow", "")
            case "payload_deleted":
                return  # long after it may be
            case "attempt_started":
                self.end_attempt()
                self.status = ""
                self.begun = self.ended = at
                self.owner = body.get("owner", "")
            case "fold" if body["input"] == "ask":
                self.branches.update(f"{event.key}/{ask}" for ask in body["data"]["asks"])
            case "branch_ended":
                self._leases(self.lines[event.key], body.get("lease", ()))
            case "run_ended":
                self.status = body["status"]
                for place, changes in body.get("leases", {}).items():
                    self._leases(self.lines[place], changes)
            case _:
                pass
        self.ended = max(self.ended, at)

    def _effect(self, event: Event) -> None:
        body = event.body
        clock, kind, lease = body.get("clock"), body["kind"], body.get("lease")
        line = self.lines[self._line_of(event.key)]
        if clock:
            for name, pair in clock_pairs(body):
                self.clocks[name].append(pair)
        if kind == "model":
            self._model(body, line)
            if clock:
                line.generated.append(clock[1:])
        elif kind == "tool":
            if ran := body.get("ran"):
                line.ran.append(ran)
                self.latest = max(self.latest, ran[1])
            if early := body.get("early"):
                self.sum.early_starts += 1
                self.sum.early_seconds += early["seconds"]
            elif clock:
                line.tools.append(clock[1:])
        if lease:
            self._leases(line, lease)

    def _model(self, body: JSONObject, line: _Line) -> None:
        name = self._payload(body["request"], "model") or "unknown"
        places = [(name, "")]
        for asked, granted, released, slots, *where in body.get("permits", ()):
            self.called.add(name)
            self._permit((name, ""), asked, granted, released, slots)
            if where:  # the last try brought the reply
                places = [(name, ""), (name, where[0])]
                self._permit(places[1], asked, granted, released, where[1])
            line.permits.append((granted, released))
            self.latest = max(self.latest, released)
        usage = Usage.from_json(self._payload(body["result"], "usage"))
        known = min(body.get("known", 0), usage.prompt_tokens)
        for place in places:
            use = self._use(place)
            use.calls += 1
            use.prompt_tokens += usage.prompt_tokens
            use.cached_tokens += usage.cached_tokens
            use.output_tokens += usage.completion_tokens
            use.known_tokens += known
            self.into.lost[place] += max(0, known - usage.cached_tokens)

    def _permit(
        self, place: Place, asked: float, granted: float, released: float, slots: int
    ) -> None:
        use = self._use(place)
        use.permits += 1
        use.slots = slots
        use.busy_seconds += released - granted
        use.queued_seconds += granted - asked
        self.into.weighted[place] += (released - granted) / slots
        if self.begun is not None:
            self.into.used[place].append((self.begun + granted, self.begun + released))

    def _use(self, place: Place) -> BackendUse:
        backend, endpoint = place
        use = self.sum.backends.get(backend)
        if use is None:
            use = self.sum.backends[backend] = BackendUse()
        return use.at(endpoint) if endpoint else use

    def _leases(self, line: _Line, changes: Iterable[Sequence[JSON]]) -> None:
        for what, backend, at, _, *where in changes:
            for place in [(backend, ""), *((backend, endpoint) for endpoint in where)]:
                self._use(place).leases[what] += 1
                since = line.held.pop(place, None)
                if since is not None:
                    line.leases.setdefault(place, []).append((since, at))
                if what in _HELD:
                    line.held[place] = at
            self.latest = max(self.latest, at)

    def end_attempt(self) -> None:
        """Add up what the lines of one attempt did; its clock ends with it."""
        total = self.sum
        for line in self.lines.values():
            for place, since in line.held.items():
                line.leases.setdefault(place, []).append((since, self.latest))
            total.permit_seconds_during_tools += _both(line.permits, line.ran)
            total.tool_seconds_in_generation += _both(line.generated, line.tools)
            for place, held in line.leases.items():
                use = self._use(place)
                use.lease_seconds += union_seconds(held)
                use.acting_seconds += _both(held, line.ran)
        if self.begun is not None:
            attempt = (self.begun, self.ended)
            self.clocks["wall"] = [attempt]
            for kind, pairs in self.clocks.items():
                total.seconds[kind] = total.seconds.get(kind, 0.0) + union_seconds(pairs)
            for backend in self.called:
                self.into.there[backend][f"{self.owner} {self.workflow}"].append(attempt)
        self.lines.clear()
        self.clocks.clear()
        self.called.clear()
        self.latest = 0.0

    def _line_of(self, key: str) -> str:
        """The line of thought of an effect; what a verifier or a tool asks is one of its own."""
        whole = key.rpartition("#")[0]
        line = self.places.get(whole)
        if line is None:
            place = whole
            while place and place not in self.branches:
                place = place.rpartition("/")[0]
            own = ":" in whole[len(place) :]
            line = self.places[whole] = "" if own else place or node_place(whole)
        return line or key

    def _payload(self, payload: str, part: str) -> JSON:
        """A part of a payload, None if it was deleted or is not there."""
        if not self.run.has(payload):
            return None
        try:
            value = self.run.get(payload)
        except TraceError:
            return None
        return value.get(part) if isinstance(value, dict) else None


def _both(one: Pairs, other: Pairs) -> float:
    """Seconds covered by both; each may overlap itself in any way."""
    if not one or not other:
        return 0.0
    apart = union_seconds(one) + union_seconds(other)
    return max(0.0, round(apart - union_seconds([*one, *other]), 6))


def _most_at_once(pairs: Pairs) -> int:
    """Most of them that there were at one time; what only touches does not overlap."""
    changes = sorted(
        change for begin, end in pairs for change in ((begin, 1), (max(begin, end - _ROUNDED), -1))
    )
    most = now = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most
