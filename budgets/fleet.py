"""The endpoints of one model: one line for all, and for each its slots, its memory and its leases.

Each endpoint is a :class:`~longthought.budgets.leases.LeaseScheduler`; they share one queue. A
ticket is placed when it is granted, not before: where its branch has its lease, else where most of
its prompt is held, else where there is most room. A backend with one endpoint is a fleet of one.

No clock, no loop, no I/O: times are arguments, as is all that is known of the endpoints.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from longthought.budgets.lease_book import LeaseEvent, Starts, check_tokens
from longthought.budgets.lease_queue import EVERYBODY, Entry, LeaseQueue, Look, Only
from longthought.budgets.leases import LeaseScheduler
from longthought.budgets.members import Member

__all__ = ["SLACK", "Fleet"]

Ticket = TypeVar("Ticket", bound=Hashable)

SLACK = 0.5
"""How much more loaded than the least loaded an endpoint may be that holds more of a prompt."""


@dataclass(slots=True, eq=False)
class _Place(Generic[Ticket]):
    """An endpoint in the fleet. ``reports``: it has ever said that it found a part of a prompt."""

    name: str
    scheduler: LeaseScheduler[Ticket]
    lives: int = 0
    open: bool = True
    gone: bool = False
    back_at: float | None = None
    reports: bool = False

    @property
    def load(self) -> float:
        """The scarcer of slots and memory: what share of it is taken."""
        scheduler = self.scheduler
        return max(scheduler.in_use / scheduler.slots, scheduler.charged / scheduler.budget)


class Fleet(Generic[Ticket]):
    """Tickets in, grants out; each grant is for one endpoint, which :meth:`at` names.

    The order of tickets is that of :class:`LeaseScheduler`, over the whole line. A ticket goes

    1. where its branch has a lease, or was served last and is still held for the most part. If
       there is no free slot it waits for one as long as computing what is held would take; then,
       and at once where that endpoint takes no calls, it goes elsewhere and its lease there ends;
    2. where most of its prompt is held, if that is at most ``SLACK`` more loaded than the least
       loaded (the beginning that siblings share);
    3. where there is most room: the least share taken of slots or memory.

    ``keeps`` is whether it matters what endpoints hold; without, only the third counts.
    ``options`` are those of every :class:`LeaseScheduler`.
    """

    def __init__(
        self,
        members: Sequence[Member] = (),
        *,
        keeps: bool = True,
        max_passes: int = 64,
        max_wait: float = 1800.0,
        urgent: float = 30.0,
        **options: Any,
    ) -> None:
        self._queue = LeaseQueue[Ticket](max_passes, max_wait, urgent)
        self._keeps, self._options = keeps, options
        self._places: dict[str, _Place[Ticket]] = {}
        self._at: dict[Ticket, _Place[Ticket]] = {}
        self._kept: dict[Ticket, _Place[Ticket]] = {}
        """Where a lease is kept for a ticket that waits."""
        self._events: list[tuple[str, LeaseEvent]] = []
        self._look_again = math.inf
        self.update(members, 0.0)

    # -- what there is -----------------------------------------------------------------------------

    def update(self, members: Iterable[Member], now: float) -> None:
        """How the endpoints stand; one that is not among them is gone for good.

        Permits in use run out first where there are fewer slots, or none. A capacity that is not
        said, or was said before, leaves what was learned since.
        """
        named = set()
        for member in members:
            named.add(member.name)
            self._stands(member, now)
        for place in [one for one in self._places.values() if one.name not in named]:
            if not place.gone:
                place.gone, place.open, place.back_at = True, False, None
                place.scheduler.forget(now)
            self._drop(place)

    def _stands(self, member: Member, now: float) -> None:
        place = self._places.get(member.name)
        if place is None:
            options = {**self._options, **member.lease_options()}
            scheduler = LeaseScheduler[Ticket](
                max(1, member.slots), capacity=member.capacity, queue=self._queue, **options
            )
            place = self._places[member.name] = _Place(member.name, scheduler, member.lives)
        scheduler = place.scheduler
        place.gone, place.open = False, member.slots != 0
        place.back_at = None if place.open or member.back_in is None else now + member.back_in
        if place.open and scheduler.slots != member.slots:
            scheduler.slots = member.slots
        if member.capacity not in (None, scheduler.given_capacity):
            scheduler.capacity = member.capacity
        if member.lives != place.lives:
            place.lives = member.lives
            scheduler.forget(now)

    def _drop(self, place: _Place[Ticket]) -> None:
        """Let an endpoint go for good when nobody has a permit for it any more."""
        if place.gone and not place.scheduler.in_use:
            self._events += [(place.name, event) for event in place.scheduler.take_events()]
            del self._places[place.name]

    @property
    def endpoints(self) -> dict[str, LeaseScheduler[Ticket]]:
        """What stands at each endpoint, by its name; to be looked at."""
        return {name: place.scheduler for name, place in self._places.items()}

    @property
    def slots(self) -> int:
        """How many tickets may hold a permit, at all endpoints that take calls."""
        slots = 0
        for place in self._places.values():
            slots += place.scheduler.slots if place.open else 0
        return slots

    @property
    def capacity(self) -> int | None:
        """Tokens of all memories of known size together, None if none is known."""
        known = [one.capacity for one in self.endpoints.values() if one.capacity is not None]
        return sum(known) if known else None

    @property
    def given_capacity(self) -> int | None:
        """The capacities as they were said to be, together; None if nobody has said."""
        known = [one.given_capacity for one in self.endpoints.values()]
        given = [one for one in known if one is not None]
        return sum(given) if given else None

    @property
    def in_use(self) -> int:
        """Number of permits that are held."""
        return sum(place.scheduler.in_use for place in self._places.values())

    @property
    def waiting(self) -> int:
        """Number of tickets in the queue."""
        return len(self._queue)

    @property
    def leases(self) -> int:
        """Number of leases, at all endpoints."""
        return sum(place.scheduler.leases for place in self._places.values())

    @property
    def charged(self) -> float:
        """Tokens charged to all leases."""
        return sum(place.scheduler.charged for place in self._places.values())

    @property
    def full(self) -> bool:
        """Whether no endpoint that takes calls has a free slot."""
        return not any(_has_slot(place) for place in self._places.values())

    def at(self, ticket: Ticket) -> str:
        """The endpoint that a ticket holds a permit for.

        Raises:
            KeyError: it holds none.
        """
        return self._at[ticket].name

    def holds(self, ticket: Ticket) -> bool:
        """Whether a ticket holds a permit."""
        return ticket in self._at

    def leased(self, branch: Hashable) -> bool:
        """Whether a branch has a lease anywhere."""
        return self._home(branch) is not None

    def home(self, branch: Hashable) -> str | None:
        """The name of the endpoint at which a branch has its lease, None without one."""
        home = self._home(branch)
        return None if home is None else home.name

    def fits(
        self,
        branch: Hashable,
        context: int,
        prefix: Hashable = None,
        prefix_tokens: int = 0,
        before: Starts = (),
    ) -> bool:
        """Whether a branch has a lease, needs none, or could take one without taking any away."""
        home = self._home(branch)
        if home is not None:
            return _has_slot(home)
        return any(
            _has_slot(place)
            and place.scheduler.fits(branch, context, prefix, prefix_tokens, before)
            for place in self._places.values()
        )

    def share(self, *, run: Hashable = None, tenant: Hashable = None, weight: float) -> None:
        """Give a run or a tenant a weight other than 1.

        Raises:
            InvalidInput: the weight is not a positive number.
        """
        if run is not None:
            self._queue.runs.weigh(run, weight)
        if tenant is not None:
            self._queue.tenants.weigh(tenant, weight)

    def take_events(self) -> list[tuple[str, LeaseEvent]]:
        """What happened to leases since the last call, each with the name of its endpoint."""
        for place in self._places.values():
            for event in place.scheduler.take_events():
                self._events.append((place.name, event))
        events, self._events = self._events, []
        return events

    # -- permits -----------------------------------------------------------------------------------

    def enqueue(
        self,
        ticket: Ticket,
        *,
        resumed: bool,
        now: float,
        branch: Hashable = None,
        context: int = 0,
        prefix: Hashable = None,
        prefix_tokens: int = 0,
        before: Starts = (),
        run: Hashable = None,
        tenant: Hashable = None,
        deadline: float | None = None,
        only: Iterable[str] | None = None,
    ) -> None:
        """Put a ticket in the queue; see :meth:`LeaseScheduler.enqueue`.

        ``only`` are the endpoints that it may go to, None for all. While all of those are out of
        service it may go anywhere.

        Raises:
            ValueError: it waits or holds a permit already.
            InvalidInput: a number of tokens is none.
        """
        if ticket in self._at or ticket in self._queue:
            raise ValueError(f"{ticket!r} is already queued or holds a permit")
        check_tokens("prefix_tokens", prefix_tokens)
        context = max(check_tokens("context", context), prefix_tokens)
        entry = Entry(
            ticket, now, resumed, branch, context, prefix, prefix_tokens, run, tenant, deadline
        )
        entry.before = before
        entry.only = None if only is None else frozenset(only)
        home = self._home(branch)
        if home is None:
            self._queue.add(entry)
        else:
            home.scheduler.add(entry)
            self._kept[ticket] = home

    def withdraw(self, ticket: Ticket) -> bool:
        """Take a ticket out of the queue; False if it does not wait."""
        kept = self._kept.pop(ticket, None)
        if kept is not None:
            return kept.scheduler.withdraw(ticket)
        entry = self._queue.remove(ticket)
        if entry is None:
            return False
        self._queue.left(entry)
        return True

    def grant(self, now: float) -> Ticket | None:
        """Give a permit for an endpoint, and a lease where one is needed, to the next ticket.

        None if there is no permit, nobody waits, nobody's context fits, or everybody waits for a
        better place. May take leases away.
        """
        self._look_again = math.inf
        if not self._queue:
            return None
        looks = {
            place: Look()
            for place in self._places.values()
            if place.open and place.scheduler.begins(now)
        }
        if not looks:
            return None
        several = len(self._places) > 1

        def later(entry: Entry[Ticket]) -> bool:
            if entry.leased:
                return several and self._home(entry.branch) not in looks
            return all(place.scheduler.is_cold(entry) for place in looks)

        def able(entry: Entry[Ticket]) -> bool:
            return bool(self._choices(entry, looks, now))

        def reach(only: Only) -> bool:
            served = self._served(only)
            return served is None or any(place.name in served for place in looks)

        limits = (able, reach) if several else ()
        for entry, takes_from in self._queue.candidates(now, self.slots, later, *limits):
            for place in self._ranked(entry, looks, now):
                look = looks[place]
                if not look.closed and place.scheduler.admits(entry, takes_from, now, look):
                    return self._take(entry, place, now, takes_from is EVERYBODY)
        return None

    def release(
        self,
        ticket: Ticket,
        *,
        now: float | None = None,
        context: int | None = None,
        cached: int | None = None,
        known: int | None = None,
    ) -> None:
        """Give the permit of a ticket back; see :meth:`LeaseScheduler.release`.

        No hit says nothing of an endpoint that has never reported one: many do not report them.

        Raises:
            KeyError: it holds none.
        """
        place = self._at.pop(ticket)
        place.reports = place.reports or bool(cached)
        cached = cached if place.reports else None
        place.scheduler.release(ticket, now=now, context=context, cached=cached, known=known)
        self._drop(place)

    # -- what branches do --------------------------------------------------------------------------

    def acting(
        self, branch: Hashable, now: float, *, tool: str = "", shape: Hashable = None
    ) -> None:
        """A branch waits for a tool from now on. ``shape``: see :class:`ToolTimes`."""
        for place in self._places.values():
            place.scheduler.acting(branch, now, tool=tool, shape=shape)

    def returned(self, branch: Hashable, now: float, *, completed: bool = True) -> None:
        """The tool of a branch has returned; one that was cut short teaches nothing."""
        # One call of a tool is one observation, however many endpoints there are.
        for number, place in enumerate(self._places.values()):
            place.scheduler.returned(branch, now, completed=completed and number == 0)

    def park(self, branch: Hashable, now: float) -> None:
        """A branch gives its lease up itself because it will wait for long."""
        for place in self._places.values():
            place.scheduler.park(branch, now)

    def end(self, branch: Hashable, now: float) -> None:
        """A branch has ended, in whatever state; nothing of it is left but permits it holds."""
        for place in self._places.values():
            place.scheduler.end(branch, now)

    def first_token(self, ticket: Ticket, tokens: int, seconds: float) -> None:
        """The first token of a ticket's call came after so many seconds; what was not cached."""
        self._at[ticket].scheduler.first_token(tokens, seconds)

    def next_look(self, now: float) -> float | None:
        """When to call :meth:`grant` again though nothing has happened; None: no need to."""
        if not self._queue:
            return None
        times = [self._look_again]
        for place in self._places.values():
            at = place.scheduler.next_look(now) if place.open else place.back_at
            times += [] if at is None else [at]
        soonest = min(times)
        return None if math.isinf(soonest) else max(now, soonest)

    # -- where a ticket goes -----------------------------------------------------------------------

    def _home(self, branch: Hashable) -> _Place[Ticket] | None:
        """The endpoint at which a branch has its lease."""
        if branch is not None:
            for place in self._places.values():
                if place.scheduler.leased(branch):
                    return place
        return None

    def _best_held(self, entry: Entry[Ticket]) -> _Place[Ticket] | None:
        """The endpoint that a ticket goes back to: of the lease, else of most of its context."""
        home = self._home(entry.branch)
        if home is not None or not self._keeps or not entry.resumed or entry.branch is None:
            return home
        warm = [one for one in self._places.values() if not one.scheduler.is_cold(entry)]
        return max(warm, key=lambda place: place.scheduler.found(entry), default=None)

    def _choices(
        self, entry: Entry[Ticket], looks: dict[_Place[Ticket], Look], now: float
    ) -> list[_Place[Ticket]]:
        """The endpoints with a free slot that a ticket may go to now; its home alone if it can."""
        if len(self._places) == 1:
            return list(looks)
        only = self._served(entry.only)
        home = self._best_held(entry)
        if home is not None and home.open and (only is None or home.name in only):
            if home in looks:
                return [home]
            patience = home.scheduler.found(entry) / home.scheduler.prefill_rate
            if now < entry.since + patience:
                self._look_again = min(self._look_again, entry.since + patience)
                return []
        return [place for place in looks if only is None or place.name in only]

    def _served(self, only: Only) -> Only:
        """The endpoints that an entry may go to: all of them while none of its own takes calls."""
        for name in only or ():
            place = self._places.get(name)
            if place is not None and place.open:
                return only
        return None

    def _ranked(
        self, entry: Entry[Ticket], looks: dict[_Place[Ticket], Look], now: float
    ) -> list[_Place[Ticket]]:
        """The endpoints that a ticket may go to, the best first."""
        choices = self._choices(entry, looks, now)
        if len(choices) < 2:
            return choices
        loads = {place: place.load for place in choices}
        choices.sort(key=lambda place: (_too_small(place, entry), loads[place]))
        if not self._keeps:
            return choices
        most = loads[choices[0]] + SLACK
        near = [one for one in choices if loads[one] <= most and not _too_small(one, entry)]
        best = max(near, key=lambda place: place.scheduler.found(entry), default=choices[0])
        return [best, *(place for place in choices if place is not best)]

    def _take(
        self, entry: Entry[Ticket], place: _Place[Ticket], now: float, privileged: bool
    ) -> Ticket:
        kept = self._kept.pop(entry.ticket, None)
        if kept is not None and kept is not place:
            kept.scheduler.leave(entry, now)
        self._at[entry.ticket] = place
        return place.scheduler.take(entry, now, privileged)


def _has_slot(place: _Place[Ticket]) -> bool:
    return place.open and place.scheduler.in_use < place.scheduler.slots


def _too_small(place: _Place[Ticket], entry: Entry[Ticket]) -> bool:
    """Whether a context does not fit even where it is alone."""
    capacity = place.scheduler.capacity
    return capacity is not None and entry.context > capacity
