"""The slot scheduler: who generates next on one backend. No clock, no loop, no I/O.

Resumed work goes before new work, first come first served within each. The asyncio controller
drives it in production and a simulation may drive the very same code with virtual time.

A lease on context memory will decide here as well: resumed with a lease, resumed without, new.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from longthought.errors import InvalidInput

__all__ = ["SlotScheduler"]

Ticket = TypeVar("Ticket", bound=Hashable)


class SlotScheduler(Generic[Ticket]):
    """Tickets in, grants out, for a number of slots that may change.

    Nothing starves: after ``max_passes`` grants in a row to resumed tickets while a new one waits,
    the oldest new one is next; and who has waited longer than ``max_wait`` (in the unit of the
    caller's clock) goes first, whatever its class, oldest first.
    """

    __slots__ = ("_held", "_new", "_passes", "_resumed", "_slots", "max_passes", "max_wait")

    def __init__(self, slots: int, *, max_passes: int = 64, max_wait: float = 1800.0) -> None:
        if max_passes < 1:
            raise InvalidInput("max_passes", f"{max_passes} is below 1", "use 64")
        if not max_wait > 0:
            raise InvalidInput("max_wait", f"{max_wait} is not positive", "use seconds: 1800")
        self.slots = slots
        self.max_passes, self.max_wait = max_passes, max_wait
        self._resumed: dict[Ticket, float] = {}
        self._new: dict[Ticket, float] = {}
        self._held: set[Ticket] = set()
        self._passes = 0

    @property
    def slots(self) -> int:
        """How many tickets may hold a slot. When lowered, slots in use run out first."""
        return self._slots

    @slots.setter
    def slots(self, slots: int) -> None:
        if isinstance(slots, bool) or not isinstance(slots, int) or slots < 1:
            raise InvalidInput("slots", f"{slots!r} is no number of slots", "use an int from 1")
        self._slots = slots

    @property
    def in_use(self) -> int:
        """Number of slots that are held."""
        return len(self._held)

    @property
    def waiting(self) -> int:
        """Number of tickets in the queue."""
        return len(self._resumed) + len(self._new)

    def holds(self, ticket: Ticket) -> bool:
        """Whether a ticket holds a slot."""
        return ticket in self._held

    def enqueue(self, ticket: Ticket, *, resumed: bool, now: float) -> None:
        """Put a ticket in the queue.

        Raises:
            ValueError: it waits or holds a slot already.
        """
        if ticket in self._held or ticket in self._resumed or ticket in self._new:
            raise ValueError(f"{ticket!r} is already queued or holds a slot")
        (self._resumed if resumed else self._new)[ticket] = now

    def withdraw(self, ticket: Ticket) -> bool:
        """Take a ticket out of the queue; False if it does not wait."""
        for queue in (self._resumed, self._new):
            if ticket in queue:
                del queue[ticket]
                return True
        return False

    def grant(self, now: float) -> Ticket | None:
        """Give a free slot to the next ticket; None if there is no slot or nobody waits."""
        if len(self._held) >= self._slots:
            return None
        queue = self._next_queue(now)
        if queue is None:
            return None
        ticket = next(iter(queue))
        del queue[ticket]
        self._passes = self._passes + 1 if queue is self._resumed and self._new else 0
        self._held.add(ticket)
        return ticket

    def release(self, ticket: Ticket) -> None:
        """Give the slot of a ticket back.

        Raises:
            KeyError: it holds none.
        """
        self._held.remove(ticket)

    def _next_queue(self, now: float) -> dict[Ticket, float] | None:
        if not self._resumed or not self._new:
            return self._resumed or self._new or None
        resumed, new = next(iter(self._resumed.values())), next(iter(self._new.values()))
        if now - min(resumed, new) > self.max_wait:
            return self._resumed if resumed <= new else self._new
        return self._new if self._passes >= self.max_passes else self._resumed
