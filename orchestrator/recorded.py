"""What is recorded of a run, by key: the answers a new attempt or a replay is given."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from longthought.budgets import Amount, Clocks
from longthought.storage import Event, Recording
from longthought.types import JSONObject

__all__ = ["Recorded", "age_of", "clock_pairs"]

_ATTEMPT = "attempt_started"
_TIMED = ("model", "tool", "verify")
"""Kinds of effects that have a clock."""


@dataclass(slots=True)
class Recorded:
    """An index over the events of a run."""

    finished: dict[str, Event] = field(default_factory=dict)
    open: dict[str, dict[int, Amount]] = field(default_factory=dict)
    """Effects that were started and have no known end: for each attempt at the run that started
    one, what was reserved for it last."""
    tries: dict[str, int] = field(default_factory=dict)
    """The number of the last try of each effect."""
    started: dict[str, int] = field(default_factory=dict)
    """The number of the event that last started each effect in ``open``."""
    handles: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Of model calls in ``open``: the id under which a provider works on the reply of the last try
    by itself, and the tokens that it was granted."""
    ends: dict[str, Event] = field(default_factory=dict)
    """How each branch ended, by its place; the last end counts."""
    folds: dict[str, list[Event]] = field(default_factory=dict)
    """The inputs of each search, by its place, in order."""
    signals: list[Event] = field(default_factory=list)
    raised: JSONObject | None = None
    """The limits that were last put in force instead of the manifest's."""
    raised_at: int = 0
    """The number of the event that put them in force."""
    charged: Amount = field(default_factory=Amount)
    """Everything spent so far; open effects at their reservation."""
    branches: dict[str, str] = field(default_factory=dict)
    """The place of each branch, and that of its search."""
    spent: dict[str, Amount] = field(default_factory=dict)
    """The same as ``charged`` by place: what each search and each branch has spent, inner ones
    included."""
    intervals: list[dict[str, list[list[float]]]] = field(default_factory=list)
    """Per attempt: clock name to [start, end] pairs, seconds since the epoch."""
    places: dict[str, int] = field(default_factory=dict)
    """How many numbered effects each place holds."""
    _attempt: int = 0

    @classmethod
    def of(cls, recording: Recording, *, length: int | None = None) -> Recorded:
        """Index the first ``length`` events (all of them unless given)."""
        return cls._over(recording.events[:length])

    @classmethod
    def by_model(cls, recording: Recording, *, length: int | None = None) -> dict[str, Amount]:
        """What the calls of each model have cost, by its name; open ones at their reservation."""
        models: dict[str, str] = {}
        events = recording.events[:length]
        for event in events:
            if event.body.get("kind") == "model" and event.key not in models:
                models[event.key] = recording.get(event.body["request"])["model"]
        found = {}
        for name in dict.fromkeys(models.values()):
            own = (e for e in events if e.type == _ATTEMPT or models.get(e.key) == name)
            found[name] = cls._over(own).charged
        return found

    @classmethod
    def _over(cls, events: Iterable[Event]) -> Recorded:
        index = cls()
        for event in events:
            index._take(event)
        for key, tries in index.open.items():
            # every try without an end stays charged at what was reserved for it
            index._charge(key, sum(tries.values(), Amount()))
        return index

    def _take(self, event: Event) -> None:
        body = event.body
        match event.type:
            case "attempt_started":
                self._attempt += 1
                self.intervals.append({"wall": [[body["at"], body["at"]]]})
            case "effect_started" | "effect_topped_up":
                # includes what the tries before it in the same attempt have lost
                reserved = Amount.from_json(body.get("reserved"))
                self.open.setdefault(event.key, {})[self._attempt] = reserved
                self.started[event.key] = event.seq
                self.tries[event.key] = body.get("attempt", self.tries.get(event.key, 1))
                self.handles.pop(event.key, None)  # another try, or one that was given back
                if body.get("handle"):
                    self.handles[event.key] = (body["handle"], body["grant"])
            case "effect_finished":
                self._finish(event)
            case "branch_ended":
                self.ends[event.key] = event
            case "fold":
                self.folds.setdefault(event.key, []).append(event)
                if body["input"] == "ask":
                    self._asked(event.key, body["data"]["asks"])
                if body["input"] == "limit_raised":
                    self.raised, self.raised_at = body["data"]["budget"], event.seq
            case "signal":
                self.signals.append(event)
            case "payload_deleted" | "run_started" | "run_ended" | _:
                pass
        if self.intervals:
            wall = self.intervals[-1]["wall"][0]
            wall[1] = max(wall[1], body["at"])

    def _finish(self, event: Event) -> None:
        body = event.body
        self.finished[event.key] = event
        self.tries[event.key] = max(self.tries.get(event.key, 1), body.get("attempt", 1))
        tries = self.open.pop(event.key, {})
        self.started.pop(event.key, None)
        self.handles.pop(event.key, None)
        # this attempt's try is settled; tries of earlier attempts had no end and stay charged
        tries.pop(self._attempt, None)
        self._charge(event.key, sum(tries.values(), Amount.from_json(body.get("charged"))))
        place, number, _ = _parts(event.key)
        if number is not None:
            self.places[place] = max(self.places.get(place, 0), number + 1)
        if self.intervals:
            for kind, pair in clock_pairs(body):
                self.intervals[-1].setdefault(kind, []).append(pair)

    def _asked(self, search: str, asks: Iterable[str]) -> None:
        places = [f"{search}/{ask}" for ask in asks]
        self.branches.update(dict.fromkeys(places, search))
        begun = Amount(branches=len(places))
        self.spent[search] = self.spent.get(search, Amount()) + begun
        self._charge(search, begun)

    def _charge(self, key: str, amount: Amount) -> None:
        if not amount:
            return
        self.charged += amount
        for place in self.around(key):
            self.spent[place] = self.spent.get(place, Amount()) + amount

    def around(self, key: str) -> Iterator[str]:
        """The branches and searches that an effect stands in, from the innermost on."""
        place = key.partition("#")[0]
        while place:
            search = self.branches.get(place)
            if search is None:
                place = place.rpartition("/")[0]
                continue
            yield place
            yield search
            place = search

    def clocks(self) -> Clocks:
        """The clocks of all attempts so far."""
        clocks = Clocks(time.monotonic)
        for attempt in self.intervals:
            for kind, pairs in attempt.items():
                clocks.restore(kind, pairs)  # type: ignore[arg-type]
        return clocks

    def holds_beyond(self, place: str, number: int) -> bool:
        """Whether effects from ``number`` on are recorded at a place or anywhere inside it."""
        if self.places.get(place, 0) > number:
            return True
        return any(other.startswith(f"{place}/") for other in self.places)


def age_of(recording: Recording) -> float:
    """Seconds since the last attempt at a run was recorded as begun."""
    events = reversed(recording.events)
    begun: float = next(e.body["at"] for e in events if e.type == "attempt_started")
    return max(0.0, time.time() - begun)


def clock_pairs(body: JSONObject) -> Iterator[tuple[str, list[float]]]:
    """What a finished effect adds to the clocks: name, [start, end] in seconds since the epoch."""
    clock: list[float] = body.get("clock") or []
    if clock and body["kind"] in _TIMED:
        yield body["kind"], clock[1:]
    if clock and clock[1] > clock[0]:
        yield "queue", clock[:2]


def _parts(key: str) -> tuple[str, int | None, str]:
    place, mark, rest = key.rpartition("#")
    if not mark:
        return key, None, ""
    number, _, kind = rest.partition(":")
    return place, int(number), kind
