"""Who waits for a permit of one backend, and in which order they are looked at."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from longthought.budgets.fairness import FairShares
from longthought.errors import InvalidInput

__all__ = ["EVERYBODY", "Entry", "LeaseQueue"]

Ticket = TypeVar("Ticket", bound=Hashable)

EVERYBODY: frozenset[Hashable] = frozenset({"everybody"})
"""Stands for all runs: leases may be taken from any of them."""

_LEASED, _PARKED, _NEW = 0, 1, 2
_BYPASS = 8
"""Tickets of one queue that are looked at when the first ones do not fit."""
_QUANTUM = 32.0
"""Permits that a run or a tenant may be ahead of the one furthest behind."""


@dataclass(slots=True, eq=False)
class Entry(Generic[Ticket]):
    """A ticket that waits for a permit or holds one.

    Attributes:
        since: when it was queued; ``granted`` when it got its permit.
        branch: whose context it needs, None if it asks for a permit alone.
        context, prefix, prefix_tokens: tokens of the prompt, and the start it shares with others.
        leased: whether the branch had a lease when it came, and has it still.
        expected: tokens that the cache should have had when it was granted.
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


class LeaseQueue(Generic[Ticket]):
    """Three queues: resumed with a lease, resumed without, new; first come first served in each.

    Before that order come who has waited longer than ``max_wait`` and who has a deadline within
    ``urgent``, those with the same deadline (of one run) in that order again; runs and tenants that
    are ahead of their fair share stand back; after ``max_passes`` grants in a row to resumed
    tickets the oldest new one is next.
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
        self._queues: tuple[dict[Ticket, Entry[Ticket]], ...] = ({}, {}, {})
        self._due: dict[Ticket, Entry[Ticket]] = {}
        self._passes = 0
        self._ordinary: float = float("inf")

    def __len__(self) -> int:
        return sum(map(len, self._queues))

    def __contains__(self, ticket: Ticket) -> bool:
        return any(ticket in queue for queue in self._queues)

    def add(self, entry: Entry[Ticket]) -> None:
        """Put an entry at the end of its queue."""
        self._queues[_kind(entry)][entry.ticket] = entry
        if entry.deadline is not None:
            self._due[entry.ticket] = entry
        self.runs.join(entry.run)
        self.tenants.join(entry.tenant)

    def remove(self, ticket: Ticket) -> Entry[Ticket] | None:
        """Take an entry out; None if it does not wait. It still counts among its run's."""
        for queue in self._queues:
            entry = queue.pop(ticket, None)
            if entry is not None:
                self._due.pop(ticket, None)
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
        for ticket in [one for one, entry in leased.items() if entry.branch == branch]:
            entry = self._queues[_PARKED][ticket] = leased.pop(ticket)
            entry.leased = False

    def forget(self, branch: Hashable) -> None:
        """A branch has ended; what still waits for it asks for a permit alone."""
        for queue in self._queues:
            for entry in queue.values():
                if entry.branch == branch:
                    entry.branch, entry.leased = None, False

    def candidates(
        self, now: float, slots: int, is_cold: Callable[[Entry[Ticket]], bool]
    ) -> Iterator[tuple[Entry[Ticket], frozenset[Hashable] | None]]:
        """Entries in order, each with the runs whose leases it may take: None for nobody's.

        Of parked ones those go first whose context the cache still has.
        The same entry may come twice.
        """
        waiting = [queue for queue in self._queues if queue]
        heads = [next(iter(queue.values())) for queue in waiting]
        # Not all the time: where everybody waits too long, all would take from all.
        owed = EVERYBODY if self._ordinary >= slots else None
        for entry in sorted(heads, key=_since):
            if now - entry.since > self.max_wait:
                yield entry, owed
        for entry in self._urgent(now):
            yield entry, None
        if self._passes >= self.max_passes and self._queues[_NEW]:
            yield next(iter(self._queues[_NEW].values())), None
        runs, tenants = self.runs.ahead(), self.tenants.ahead()
        if runs or tenants:
            for queue in waiting:
                behind = (
                    one
                    for one in queue.values()
                    if one.run not in runs and one.tenant not in tenants
                )
                yield from [(entry, frozenset(runs)) for entry in _first(behind)]
        for queue in waiting:
            entries = list(queue.values())
            if queue is self._queues[_PARKED]:
                entries.sort(key=is_cold)
            yield from [(entry, None) for entry in entries[:_BYPASS]]

    def _urgent(self, now: float) -> list[Entry[Ticket]]:
        due = [
            (entry.deadline, _kind(entry), place, entry)
            for place, entry in enumerate(self._due.values())
            if entry.deadline is not None and 0 <= entry.deadline - now <= self.urgent
        ]
        return [entry for _, _, _, entry in sorted(due, key=_deadline)]


def _since(entry: Entry[Ticket]) -> float:
    return entry.since


def _deadline(due: tuple[float, int, int, Entry[Ticket]]) -> tuple[float, int, int]:
    return due[:3]


def _kind(entry: Entry[Ticket]) -> int:
    return _LEASED if entry.leased else _PARKED if entry.resumed else _NEW


def _first(entries: Iterable[Entry[Ticket]]) -> list[Entry[Ticket]]:
    return list(islice(entries, _BYPASS))
