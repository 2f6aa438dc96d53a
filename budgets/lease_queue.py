"""Who waits for a permit of one backend, and in which order they are looked at."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from heapq import merge
from itertools import count, islice
from operator import itemgetter
from typing import Generic, TypeAlias, TypeVar

from longthought.budgets.fairness import FairShares
from longthought.budgets.lease_book import Lease, Starts, added
from longthought.errors import InvalidInput

__all__ = ["EVERYBODY", "Entry", "LeaseQueue", "Look", "Only"]

Ticket = TypeVar("Ticket", bound=Hashable)

EVERYBODY: frozenset[Hashable] = frozenset({"everybody"})
"""Stands for all runs: leases may be taken from any of them."""

_LEASED, _PARKED, _NEW = 0, 1, 2
_BYPASS = 8
"""Tickets of one queue that are looked at when the first ones do not fit."""
_SORTED = 64
"""Of so many at the front of a queue, those go first whose context the cache still has: what a
grant costs must not depend on how many wait."""
_LOOKED_AT = 2 * _SORTED
"""Of so many it is found out whether they can go now: for the same reason. What keeps more than
that from going is over soon: it is what computing their contexts elsewhere would take."""
_QUANTUM = 32.0
"""Permits that a run or a tenant may be ahead of the one furthest behind."""


Only: TypeAlias = frozenset[str] | None
"""The endpoints that an entry may go to, None for all."""


@dataclass(slots=True, eq=False)
class Entry(Generic[Ticket]):
    """A ticket that waits for a permit or holds one.

    Attributes:
        since: when it was queued; ``granted`` when it got its permit.
        branch: whose context it needs, None if it asks for a permit alone.
        context, prefix, prefix_tokens: tokens of the prompt, and the start it shares with others.
        before: the shorter starts that this one begins with.
        leased: whether the branch had a lease when it came, and has it still.
        expected: tokens that the cache should have had when it was granted.
        only: the endpoints that it may go to, None for all.
        turn: its place in its queue: greater than that of those before it.
        lease: the one that it generates with, None without.
    """

    ticket: Ticket
    since: float
    resumed: bool
    branch: Hashable
    context: int
    prefix: Hashable
    prefix_tokens: int
    run: Hashable
    tenant: Hashable
    deadline: float | None
    granted: float = 0.0
    expected: int = 0
    leased: bool = False
    before: Starts = ()
    only: Only = None
    turn: int = 0
    lease: Lease | None = None

    @property
    def shared(self) -> tuple[Hashable, int, Starts]:
        """The start it shares, its tokens, and the shorter ones."""
        return self.prefix, self.prefix_tokens, self.before

    @property
    def starts(self) -> list[tuple[Hashable, int]]:
        """What a cache holds of them, each with the tokens it adds to the one before it."""
        pieces = added(self.before, self.prefix, self.prefix_tokens)
        return [(("shared start", start), tokens) for start, tokens in pieces]

    @property
    def pieces(self) -> list[tuple[Hashable, int]]:
        """What a cache may have of the prompt: what it shares, and what is its branch's own."""
        if self.branch is None:
            return self.starts
        return [*self.starts, (self.branch, self.context - self.prefix_tokens)]


@dataclass(slots=True)
class Look:
    """What one pass over the queue has found out about one endpoint.

    Attributes:
        refused: tokens that there was no room for: nobody else who needs as many is looked at.
        reserved: what room there is belongs to somebody who is owed it.
        closed: nobody goes there in this pass, so that room comes about.
    """

    refused: float = float("inf")
    reserved: bool = False
    closed: bool = False


class Waiting(Generic[Ticket]):
    """One of the three queues: entries in order, and apart by the endpoints that they may go to."""

    __slots__ = ("_by_only", "_entries", "_turns")

    def __init__(self) -> None:
        self._entries: dict[Ticket, Entry[Ticket]] = {}
        self._by_only: dict[Only, dict[Ticket, Entry[Ticket]]] = {}
        self._turns = count()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, ticket: Ticket) -> bool:
        return ticket in self._entries

    def __iter__(self) -> Iterator[Entry[Ticket]]:
        return iter(self._entries.values())

    def put(self, entry: Entry[Ticket]) -> None:
        """An entry comes last."""
        entry.turn = next(self._turns)
        self._entries[entry.ticket] = entry
        self._by_only.setdefault(entry.only, {})[entry.ticket] = entry

    def take(self, ticket: Ticket) -> Entry[Ticket] | None:
        """Take an entry out; None if it is not here."""
        entry = self._entries.pop(ticket, None)
        if entry is not None:
            alike = self._by_only[entry.only]
            del alike[ticket]
            if not alike:
                del self._by_only[entry.only]
        return entry

    def within(self, reach: Callable[[Only], bool] | None) -> Iterator[Entry[Ticket]]:
        """Those whose endpoints are within reach, in order; all if nobody says what that is."""
        if reach is None:
            return iter(self)
        alike = [entries.values() for only, entries in self._by_only.items() if reach(only)]
        return merge(*alike, key=_turn)


class _Due(Generic[Ticket]):
    """Entries with a deadline, the soonest first; of equal ones by kind, then as they came."""

    __slots__ = ("_keys", "_numbers", "_order")

    def __init__(self) -> None:
        self._order: list[tuple[float, int, int, Entry[Ticket]]] = []
        self._keys: dict[Ticket, tuple[float, int, int]] = {}
        self._numbers = count()

    def put(self, entry: Entry[Ticket]) -> None:
        """An entry comes; one without a deadline has no place here."""
        if entry.deadline is not None:
            self._enter(entry, next(self._numbers))

    def take(self, ticket: Ticket) -> Entry[Ticket] | None:
        """Take an entry out; None if it is not here."""
        key = self._keys.pop(ticket, None)
        return None if key is None else self._order.pop(bisect_left(self._order, key))[-1]

    def changed(self, entry: Entry[Ticket]) -> None:
        """An entry is of another kind now; its number stays."""
        key = self._keys.get(entry.ticket)
        if key is not None:
            self.take(entry.ticket)
            self._enter(entry, key[2])

    def within(self, now: float, seconds: float) -> Iterator[Entry[Ticket]]:
        """Those that are here now and whose deadline comes within so many seconds."""
        begin = bisect_left(self._order, (now,))
        end = bisect_left(self._order, (now + seconds, math.inf))
        return map(itemgetter(-1), self._order[begin:end])

    def _enter(self, entry: Entry[Ticket], number: int) -> None:
        if entry.deadline is not None:
            key = self._keys[entry.ticket] = (entry.deadline, _kind(entry), number)
            insort(self._order, (*key, entry))


class LeaseQueue(Generic[Ticket]):
    """Three queues: resumed with a lease, resumed without, new; first come first served in each.

    Before that order come who has waited longer than ``max_wait`` and who has a deadline within
    ``urgent``, those with the same deadline (of one run) in that order again; runs and tenants that
    are ahead of their fair share stand back; after ``max_passes`` grants in a row to resumed
    tickets the oldest new one is next.

    ``lost`` are the branches that have had a lease, lost it and not ended.
    """

    def __init__(self, max_passes: int, max_wait: float, urgent: float) -> None:
        if max_passes < 1:
            raise InvalidInput("max_passes", f"{max_passes} is below 1", "use 64")
        if not max_wait > 0:
            raise InvalidInput("max_wait", f"{max_wait} is not positive", "use seconds: 1800")
        if not urgent >= 0:
            raise InvalidInput("urgent", f"{urgent} is negative", "use seconds: 30")
        self.max_passes, self.max_wait, self.urgent = max_passes, max_wait, urgent
        self.runs, self.tenants = FairShares(_QUANTUM), FairShares(_QUANTUM)
        self._queues = tuple(Waiting[Ticket]() for _ in (_LEASED, _PARKED, _NEW))
        self._due = _Due[Ticket]()
        self.lost: dict[Hashable, None] = {}
        self._passes = 0
        self._ordinary: float = float("inf")

    def __len__(self) -> int:
        leased, parked, new = self._queues
        return len(leased) + len(parked) + len(new)

    def __bool__(self) -> bool:
        leased, parked, new = self._queues
        return bool(leased or parked or new)

    def __contains__(self, ticket: Ticket) -> bool:
        return any(ticket in queue for queue in self._queues)

    def add(self, entry: Entry[Ticket]) -> None:
        """Put an entry at the end of its queue."""
        self._queues[_kind(entry)].put(entry)
        self._due.put(entry)
        self.runs.join(entry.run)
        self.tenants.join(entry.tenant)

    def remove(self, ticket: Ticket) -> Entry[Ticket] | None:
        """Take an entry out; None if it does not wait. It still counts among its run's."""
        for queue in self._queues:
            entry = queue.take(ticket)
            if entry is not None:
                self._due.take(ticket)
                return entry
        return None

    def left(self, entry: Entry[Ticket]) -> None:
        """An entry neither waits nor holds a permit any more."""
        self.runs.leave(entry.run)
        self.tenants.leave(entry.tenant)

    def granted(self, entry: Entry[Ticket], privileged: bool) -> None:
        """An entry that was taken out got a permit; ``privileged``: others' leases were its."""
        resumed = entry.resumed or entry.leased
        self._passes = self._passes + 1 if resumed and self._queues[_NEW] else 0
        self._ordinary = 0 if privileged else self._ordinary + 1
        self.runs.charge(entry.run, 1.0)
        self.tenants.charge(entry.tenant, 1.0)

    def demote(self, branch: Hashable) -> None:
        """A branch lost its lease while it waited."""
        leased = self._queues[_LEASED]
        for entry in [one for one in leased if one.branch == branch]:
            leased.take(entry.ticket)
            entry.leased = False
            self._queues[_PARKED].put(entry)
            self._due.changed(entry)

    def forget(self, branch: Hashable) -> None:
        """A branch has ended; what still waits for it asks for a permit alone."""
        self.lost.pop(branch, None)
        for queue in self._queues:
            for entry in queue:
                if entry.branch == branch:
                    entry.branch, entry.leased = None, False
                    self._due.changed(entry)

    def candidates(
        self,
        now: float,
        slots: int,
        later: Callable[[Entry[Ticket]], bool],
        able: Callable[[Entry[Ticket]], bool] | None = None,
        reach: Callable[[Only], bool] | None = None,
    ) -> Iterator[tuple[Entry[Ticket], frozenset[Hashable] | None]]:
        """Entries in order, each with the runs whose leases it may take: None for nobody's.

        Of resumed ones near the front those go last that ``later`` says so of: what the cache still
        has is worth more. Who is not ``able`` to go now keeps nobody from the front; it is asked of
        the first _LOOKED_AT of those alone whose endpoints are within ``reach``. The same entry may
        come twice.
        """
        waiting = [queue for queue in self._queues if queue]
        heads = [next(iter(queue)) for queue in waiting]
        # Not all the time: where everybody waits too long, all would take from all.
        owed = EVERYBODY if self._ordinary >= slots else None
        for entry in sorted(heads, key=_since):
            if now - entry.since > self.max_wait:
                yield entry, owed
        for entry in self._urgent(now, reach):
            yield entry, None
        if self._passes >= self.max_passes and self._queues[_NEW]:
            yield next(iter(self._queues[_NEW])), None
        runs, tenants = self.runs.ahead(), self.tenants.ahead()
        if runs or tenants:
            for queue in waiting:
                behind = (
                    one
                    for one in queue.within(reach)
                    if one.run not in runs and one.tenant not in tenants
                )
                yield from [(entry, frozenset(runs)) for entry in _first(_able(behind, able))]
        for queue in waiting:
            entries = _able(queue.within(reach), able)
            if queue is not self._queues[_NEW]:
                entries = sorted(islice(entries, _SORTED), key=later)
            yield from [(entry, None) for entry in _first(entries)]

    def _urgent(self, now: float, reach: Callable[[Only], bool] | None) -> Iterator[Entry[Ticket]]:
        due = self._due.within(now, self.urgent)
        return islice((one for one in due if reach is None or reach(one.only)), _LOOKED_AT)


def _able(
    entries: Iterable[Entry[Ticket]], able: Callable[[Entry[Ticket]], bool] | None
) -> Iterable[Entry[Ticket]]:
    return entries if able is None else filter(able, islice(entries, _LOOKED_AT))


def _turn(entry: Entry[Ticket]) -> int:
    return entry.turn


def _since(entry: Entry[Ticket]) -> float:
    return entry.since


def _kind(entry: Entry[Ticket]) -> int:
    return _LEASED if entry.leased else _PARKED if entry.resumed else _NEW


def _first(entries: Iterable[Entry[Ticket]]) -> list[Entry[Ticket]]:
    return list(islice(entries, _BYPASS))
