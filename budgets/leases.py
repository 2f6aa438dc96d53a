"""The lease scheduler: who generates next on one backend, and whose context stays in memory.

Two objects. A *permit* is held from dispatch to last byte. A *lease* is a branch's right to context
memory: taken with its first permit, kept over short tool waits, taken away over long ones when
somebody needs the room. Releasing permits alone makes a backend slower than holding them as soon as
contexts do not fit: every return then computes its context anew.

No clock, no loop, no I/O: times are arguments, so a simulation drives the code that runs. Without
a capacity there are permits only, until replies show that the cache forgets.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Generic, TypeVar

from longthought.budgets.capacity import MemoryEstimate
from longthought.budgets.contexts import ContextCache
from longthought.budgets.lease_book import (
    Lease,
    LeaseBook,
    LeaseEvent,
    Starts,
    check_slots,
    check_tokens,
)
from longthought.budgets.lease_queue import EVERYBODY, Entry, LeaseQueue, Look
from longthought.budgets.lease_victims import least_worth_keeping, too_many
from longthought.budgets.tool_times import ToolTimes
from longthought.budgets.tool_waits import ToolWaits
from longthought.errors import InvalidInput
from longthought.types import LeaseChange

__all__ = ["LeaseScheduler"]

Ticket = TypeVar("Ticket", bound=Hashable)

_FULL = 0.97
"""Share of the capacity above which contexts that wait are shed."""
_UNKNOWN = 1 << 62


class LeaseScheduler(Generic[Ticket]):
    """Tickets in, grants out, for slots and a memory that may both change.

    The order: who has waited longer than ``max_wait``; who has a deadline within ``urgent``; then,
    parties ahead of their fair share last, resumed with a lease, resumed without, new; first come
    first served within each. After ``max_passes`` grants in a row to resumed tickets while a new
    one waits, the oldest new one is next. Whoever waits too long and needs memory gets the next
    that becomes free.

    Args:
        slots: tickets that may hold a permit.
        capacity: tokens of context memory, None if unknown.
        prefill_rate: tokens per second, until :meth:`first_token` has taught better.
        tool_times: what is known of tools; shared between backends. None: no prediction.
        fill: share of the capacity that leases may be charged; all of it may be where one is taken
            for a context that the cache still has.
        apart: contexts that generate lie in memory of their own. The capacity is for those that
            wait, and room is made when one begins to: whoever is expected back last has none.
        queue: who waits, where several schedulers serve one line; None: its own.
    """

    def __init__(
        self,
        slots: int,
        *,
        capacity: int | None = None,
        prefill_rate: float = 8000.0,
        tool_times: ToolTimes | None = None,
        fill: float = 0.83,
        apart: bool = False,
        max_passes: int = 64,
        max_wait: float = 1800.0,
        urgent: float = 30.0,
        queue: LeaseQueue[Ticket] | None = None,
    ) -> None:
        if not 0 < fill <= 1:
            raise InvalidInput("fill", f"{fill} is no share", "use 0.83")
        own = LeaseQueue[Ticket](max_passes, max_wait, urgent)
        self._queue = own if queue is None else queue
        self.fill, self.slots = fill, slots
        self._held: dict[Ticket, Entry[Ticket]] = {}
        self._leases = LeaseBook(apart=apart)
        self._cache = ContextCache(_UNKNOWN)
        self._waits = ToolWaits(tool_times)
        self._memory = MemoryEstimate(capacity, prefill_rate)
        self._resize()
        self._events: list[LeaseEvent] = []

    # -- what there is -----------------------------------------------------------------------------

    @property
    def slots(self) -> int:
        """How many tickets may hold a permit. When lowered, permits in use run out first."""
        return self._slots

    @slots.setter
    def slots(self, slots: int) -> None:
        self._slots = check_slots(slots)

    @property
    def capacity(self) -> int | None:
        """Tokens of context memory as they are believed to be, None if there is no telling."""
        return self._memory.capacity

    @capacity.setter
    def capacity(self, capacity: int | None) -> None:
        self._memory.give(capacity)
        self._resize()

    @property
    def given_capacity(self) -> int | None:
        """The capacity as it was said to be, None if nobody has said."""
        return self._memory.given

    @property
    def prefill_rate(self) -> float:
        """Tokens per second that the backend computes of a prompt, given or learned."""
        return self._memory.prefill_rate

    @property
    def in_use(self) -> int:
        """Number of permits that are held."""
        return len(self._held)

    @property
    def waiting(self) -> int:
        """Number of tickets in the queue."""
        return len(self._queue)

    @property
    def leases(self) -> int:
        """Number of branches with a lease."""
        return len(self._leases)

    @property
    def charged(self) -> float:
        """Tokens charged to all leases."""
        return self._leases.charged

    @property
    def budget(self) -> float:
        """Tokens that leases may be charged when one more is taken; infinite without capacity."""
        return math.inf if self.capacity is None else self.fill * self.capacity

    @property
    def tau(self) -> float:
        """Seconds to compute the whole memory anew: keeping a context idle longer does not pay.

        Idle for ``T`` it keeps ``context x T`` token-seconds from others. Computing it anew takes
        ``context / rate`` seconds, in which all of the memory does nothing else.
        """
        return self._memory.tau

    def holds(self, ticket: Ticket) -> bool:
        """Whether a ticket holds a permit."""
        return ticket in self._held

    def leased(self, branch: Hashable) -> bool:
        """Whether a branch has a lease."""
        return self._leases.get(branch) is not None

    def fits(
        self,
        branch: Hashable,
        context: int,
        prefix: Hashable = None,
        prefix_tokens: int = 0,
        before: Starts = (),
    ) -> bool:
        """Whether a branch has a lease, needs none, or could take one without taking any away."""
        if not self._must_fit or self.leased(branch) or not self.leases:
            return True
        need = self._leases.need(max(context, prefix_tokens), prefix, prefix_tokens, before)
        return self._leases.charged + need <= self.budget

    def share(self, *, run: Hashable = None, tenant: Hashable = None, weight: float) -> None:
        """Give a run or a tenant a weight other than 1.

        Raises:
            InvalidInput: the weight is not a positive number.
        """
        if run is not None:
            self._queue.runs.weigh(run, weight)
        if tenant is not None:
            self._queue.tenants.weigh(tenant, weight)

    def take_events(self) -> list[LeaseEvent]:
        """What happened to leases since the last call."""
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
    ) -> None:
        """Put a ticket in the queue.

        Without ``branch`` it asks for a permit alone. ``context`` is the length of its prompt, of
        which the first ``prefix_tokens`` are shared by all branches with that ``prefix``; it begins
        with the starts ``before``, which others may share without it.

        Raises:
            ValueError: it waits or holds a permit already.
            InvalidInput: a number of tokens is none.
        """
        if ticket in self._held or ticket in self._queue:
            raise ValueError(f"{ticket!r} is already queued or holds a permit")
        check_tokens("prefix_tokens", prefix_tokens)
        context = max(check_tokens("context", context), prefix_tokens)
        entry = Entry(
            ticket, now, resumed, branch, context, prefix, prefix_tokens, run, tenant, deadline
        )
        entry.before = before
        self.add(entry)

    def add(self, entry: Entry[Ticket]) -> None:
        """Put an entry in the queue; a lease that its branch has here is kept meanwhile."""
        lease = self._leases.get(entry.branch)
        if lease is not None:
            lease.queued += 1
            lease.acting = False
            entry.leased = True
        self._queue.add(entry)

    def withdraw(self, ticket: Ticket) -> bool:
        """Take a ticket out of the queue; False if it does not wait."""
        entry = self._unqueue(ticket)
        if entry is None:
            return False
        self._queue.left(entry)
        return True

    def grant(self, now: float) -> Ticket | None:
        """Give a permit, and a lease where one is needed, to the next ticket.

        None if there is no permit, nobody waits, or nobody's context fits. May take leases away.
        """
        if not self.begins(now):
            return None
        look = Look()
        for entry, takes_from in self._queue.candidates(now, self._slots, self.is_cold):
            if self.admits(entry, takes_from, now, look):
                return self.take(entry, now, takes_from is EVERYBODY)
            if look.closed:
                return None
        return None

    def begins(self, now: float) -> bool:
        """Whether there is a permit to give and somebody who waits."""
        if self.in_use >= self._slots or not self.waiting:
            return False
        if not self._leases.apart:  # there it takes no room to generate
            self._shed(now)
        return True

    def admits(
        self, entry: Entry[Ticket], takes_from: frozenset[Hashable] | None, now: float, look: Look
    ) -> bool:
        """Whether there is room for an entry's context now; may take leases away."""
        if not self._needs_lease(entry):
            return True
        need = self._leases.need(entry.context, *entry.shared)
        if takes_from is None and (look.reserved or need >= look.refused):
            return False
        if self._make_room(entry, need, now, takes_from):
            return True
        if takes_from is EVERYBODY:
            look.closed = True  # what generates now runs out, then there is room
        elif takes_from is None:
            look.refused = need
        else:
            look.reserved = True
        return False

    def found(self, entry: Entry[Ticket]) -> int:
        """Tokens at the start of an entry's prompt that the cache is thought to have."""
        return self._cache.found(entry.pieces)

    def release(
        self,
        ticket: Ticket,
        *,
        now: float | None = None,
        context: int | None = None,
        cached: int | None = None,
        known: int | None = None,
    ) -> None:
        """Give the permit of a ticket back.

        ``context`` is what the branch's context has grown to, ``cached`` how many tokens of the
        prompt the backend reports to have found, ``known`` how many it was sent before: where a
        conversation was begun anew, or a thought is not sent again, more cannot be found.

        Raises:
            KeyError: it holds none.
        """
        entry = self._held.pop(ticket)
        self._queue.left(entry)
        if entry.branch is None:
            return
        now = entry.granted if now is None else now
        context = max(entry.context if context is None else context, entry.prefix_tokens)
        self._cache.leave(entry.branch, context - entry.prefix_tokens)
        for start, tokens in reversed(entry.starts):  # what more of them begin with stays longest
            self._cache.leave(start, tokens)
        if cached is not None:
            self._memory.found(
                cached,
                entry.expected if known is None else min(known, entry.expected),
                granted=entry.granted,
                now=now,
                used=self._cache.used,
                least=int(2 * self._leases.mean),
            )
            self._resize()
        lease = entry.lease  # the branch may have another one, where the memory was lost meanwhile
        if lease is not None and lease is self._leases.get(entry.branch):
            lease.generating -= 1
            lease.since = now
            self._leases.learn(context)
            self._leases.grow(lease, context)

    # -- what branches do --------------------------------------------------------------------------

    def acting(
        self, branch: Hashable, now: float, *, tool: str = "", shape: Hashable = None
    ) -> None:
        """A branch waits for a tool from now on. ``shape``: see :class:`ToolTimes`."""
        self._waits.begin(branch, tool, shape, now)
        lease = self._leases.get(branch)
        if lease is not None:
            lease.acting, lease.tool, lease.shape, lease.since = True, tool, shape, now
            if self._leases.apart:
                self._shed(now)

    def returned(self, branch: Hashable, now: float, *, completed: bool = True) -> None:
        """The tool of a branch has returned; one that was cut short teaches nothing."""
        self._waits.end(branch, now, completed=completed)
        lease = self._leases.get(branch)
        if lease is not None and lease.acting:
            lease.acting, lease.tool, lease.shape, lease.since = False, "", None, now

    def park(self, branch: Hashable, now: float) -> None:
        """A branch gives its lease up itself because it will wait for long."""
        lease = self._leases.get(branch)
        if lease is not None and lease.idle:
            self._close(lease, "parked", now)

    def leave(self, entry: Entry[Ticket], now: float) -> None:
        """An entry for which a lease was kept here goes elsewhere: it is of no more use."""
        lease = self._leases.get(entry.branch)
        if lease is None or not entry.leased:
            return
        lease.queued -= 1
        entry.leased = False
        if not lease.generating:
            self._close(lease, "parked", now)

    def forget(self, now: float) -> None:
        """The memory holds nothing any more: all leases on it are over."""
        for lease in list(self._leases):
            self._close(lease, "parked", now)
        self._cache.clear()

    def end(self, branch: Hashable, now: float) -> None:
        """A branch has ended, in whatever state; nothing of it is left but permits it holds."""
        lease = self._leases.get(branch)
        if lease is not None:
            self._leases.close(lease)
            self._events.append(LeaseEvent("ended", branch, now, lease.context))
            self._leases.ended()
        self._waits.forget(branch)
        self._queue.forget(branch)
        if self._memory.given is None:
            self._cache.take(branch)

    def first_token(self, tokens: int, seconds: float) -> None:
        """The first token came after so many seconds, for so many tokens that were not cached."""
        self._memory.first_token(tokens, seconds)

    def next_look(self, now: float) -> float | None:
        """When to call :meth:`grant` again though nothing has happened; None: no need to."""
        if not self._must_fit or self.in_use >= self._slots or not self.waiting:
            return None
        return now + min(5.0, max(0.05, self.tau / 64))

    def is_cold(self, entry: Entry[Ticket]) -> bool:
        """Whether an entry is without a lease, and more than half of its context is lost."""
        if entry.leased:
            return False
        return self._cache.resident(entry.branch) <= (entry.context - entry.prefix_tokens) // 2

    def take(self, entry: Entry[Ticket], now: float, privileged: bool = False) -> Ticket:
        """Give an entry that was admitted its permit; ``privileged``: others' leases were its."""
        lease = self._leases.get(entry.branch)
        self._unqueue(entry.ticket)
        entry.granted = now
        self._held[entry.ticket] = entry
        self._queue.granted(entry, privileged)
        branch = entry.branch
        if branch is None:
            return entry.ticket
        entry.expected = self._cache.use_all(entry.pieces)
        if self.capacity is None:
            return entry.ticket
        if lease is None:
            shared = (None, 0, ()) if self._leases.apart else entry.shared
            lease = Lease(branch, entry.run, entry.context, *shared, generating=1)
            self._leases.open(lease)
            kind: LeaseChange = "resumed" if branch in self._queue.lost else "taken"
            self._queue.lost.pop(branch, None)
            self._events.append(LeaseEvent(kind, branch, now, entry.context))
        else:
            longest = max(entry.context, lease.context if lease.generating else 0)
            lease.generating += 1
            self._leases.grow(lease, longest)
        entry.lease = lease
        return entry.ticket

    def _unqueue(self, ticket: Ticket) -> Entry[Ticket] | None:
        entry = self._queue.remove(ticket)
        if entry is None:
            return None
        if entry.leased:
            lease = self._leases.get(entry.branch)
            if lease is not None and lease.queued:
                lease.queued -= 1
        return entry

    # -- memory ------------------------------------------------------------------------------------

    @property
    def _must_fit(self) -> bool:
        """Whether a context needs room to generate."""
        return self.capacity is not None and not self._leases.apart

    def _needs_lease(self, entry: Entry[Ticket]) -> bool:
        return self._must_fit and entry.branch is not None and not self.leased(entry.branch)

    def _make_room(
        self,
        entry: Entry[Ticket],
        need: float,
        now: float,
        takes_from: frozenset[Hashable] | None,
    ) -> bool:
        """Have room for a new lease, taking idle ones away where that pays."""
        # What the cache still has is there already, if not for long: it may have all of the memory.
        everything = math.inf if self.capacity is None else self.capacity
        budget = self.budget if self.is_cold(entry) else everything
        excess = self._leases.charged + need - budget
        if excess <= 0 or not len(self._leases):
            return True
        chosen = least_worth_keeping(
            self._leases,
            self._waits,
            excess,
            now=now,
            tau=self.tau,
            capacity=everything,
            takes_from=takes_from,
        )
        for lease in chosen or ():
            self._close(lease, "parked", now)
        return chosen is not None

    def _shed(self, now: float) -> None:
        """Take leases away before contexts outgrow the memory."""
        most = self.budget * (1 if self._leases.apart else max(_FULL / self.fill, 1))
        kind: LeaseChange = "parked" if self._leases.apart else "shed"
        for lease in too_many(self._leases, self._waits, most, now):
            self._close(lease, kind, now)

    def _close(self, lease: Lease, kind: LeaseChange, now: float) -> None:
        self._leases.close(lease)
        if self._leases.apart:
            self._cache.take(lease.branch)  # it is told what goes first
        if lease.queued:
            self._queue.demote(lease.branch)
        self._queue.lost[lease.branch] = None
        self._events.append(LeaseEvent(kind, lease.branch, now, lease.context))

    def _resize(self) -> None:
        self._cache.resize(_UNKNOWN if self.capacity is None else self.capacity)
