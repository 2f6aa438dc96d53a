"""Turns at one endpoint, for every run, event loop and thread of the process.

The shell around :class:`~longthought.budgets.rates.Rates`: a lock around the state, and for each
event loop that waits a timer of its own.
"""

from __future__ import annotations

import asyncio
import math
import random
import threading
import time
from collections.abc import Callable

from longthought.budgets.rates import Rates, Said, Ticket

__all__ = ["Pace", "TooLong"]


class TooLong(Exception):
    """Raised in a caller that would have to wait longer than it said is worth it."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no turn within {seconds:.0f} s")
        self.seconds = seconds


class Pace:
    """Lets calls to one endpoint leave as fast as its limits allow, one after the other.

    A call has its ticket from :meth:`try_turn` or :meth:`turn` until :meth:`over`, which has to be
    called whatever becomes of it. ``now`` is a clock in seconds, ``jitter`` draws from (0, 1].
    """

    def __init__(
        self,
        rates: Rates,
        *,
        now: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = lambda: random.uniform(0.5, 1.0),
    ) -> None:
        self.idle = rates.idle
        """Whether there is nothing to keep to: a call may leave without a turn."""
        self._rates, self._now, self._jitter = rates, now, jitter
        self._lock = threading.Lock()
        self._waiting: dict[Ticket, asyncio.Future[None]] = {}
        self._timers: dict[asyncio.AbstractEventLoop, asyncio.TimerHandle] = {}

    def try_turn(self, tokens: int, *, tries: int = 0) -> Ticket | None:
        """A ticket if the call may leave at once, else None."""
        now, ticket = self._now(), Ticket(tokens, tries)
        with self._lock:
            if self._rates.waiting:
                return None
            self._rates.ask(ticket)
            if not self._rates.serve(now):
                self._rates.withdraw(ticket)
                return None
            self.idle = False
        return ticket

    async def turn(self, tokens: int, *, tries: int = 0, within: float = math.inf) -> Ticket:
        """Wait for a turn, not longer than ``within`` seconds. Cancelling gives the place back.

        Raises:
            TooLong: it is known that there is none within that time.
        """
        loop = asyncio.get_running_loop()
        ticket = Ticket(tokens, tries, self._now() + within)
        future: asyncio.Future[None] = loop.create_future()
        with self._lock:
            self._rates.ask(ticket)
            self._waiting[ticket] = future
            self._pump()
        try:
            await future
        except BaseException:
            self._give_up(ticket)
            raise
        return ticket

    # -- what becomes of a call; ``ticket`` is None for one that left without a turn --------------

    def sent(self, ticket: Ticket) -> None:
        """The call leaves."""
        with self._lock:
            self._rates.sent(ticket, self._now())

    def heard(
        self, ticket: Ticket | None, said: tuple[Said | None, Said | None] | None, *, well: bool
    ) -> None:
        """The server has answered a call; ``well`` if it took it on.

        ``said`` is what it says of its limits on requests and on tokens.
        """
        now = self._now()
        with self._lock:
            if said is not None:
                self._rates.told(ticket, *said, now)
            self._rates.heard(ticket, now, well=well)
            self._pump()

    def refused(
        self,
        ticket: Ticket | None,
        said: tuple[Said | None, Said | None] | None,
        wish: float | None,
    ) -> None:
        """The server has turned a call down because there were too many; see :class:`Rates`."""
        now = self._now()
        with self._lock:
            if said is not None:
                self._rates.told(ticket, *said, now)
            self._rates.refused(ticket, now, wish, jitter=self._jitter())
            self._pump()

    def over(self, ticket: Ticket, tokens: int | None = None) -> None:
        """The call is over, at ``tokens`` if that is known. Saying it twice is harmless."""
        with self._lock:
            self._rates.over(ticket, self._now(), tokens)
            self._pump()

    # -- details --------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Serve who can be served; the lock is held."""
        if self._waiting or self._timers:
            now = self._now()
            for ticket in self._rates.serve(now):
                self._wake(ticket, None)
            for ticket, seconds in self._rates.hopeless(now):
                self._wake(ticket, TooLong(seconds))
            waiting = {future.get_loop() for future in self._waiting.values()}
            for loop in waiting | set(self._timers):
                self._in_loop(loop, self._arm, loop)
        self.idle = self._rates.idle

    def _wake(self, ticket: Ticket, error: TooLong | None) -> None:
        future = self._waiting.pop(ticket, None)
        if future is None or not self._in_loop(future.get_loop(), _end, future, error):
            self._rates.over(ticket, self._now())  # nobody is there any more to take it

    def _in_loop(
        self, loop: asyncio.AbstractEventLoop, call: Callable[..., object], *arguments: object
    ) -> bool:
        """Call something in the thread of a loop; false if the loop is closed."""
        try:
            loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            self._forget(loop)
            return False
        return True

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        """Set the timer of a loop; called in its own thread."""
        with self._lock:
            timer = self._timers.pop(loop, None)
            if timer is not None:
                timer.cancel()
            if any(future.get_loop() is loop for future in self._waiting.values()):
                now = self._now()
                at = self._rates.next_at(now)
                if at < math.inf:
                    self._timers[loop] = loop.call_later(at - now, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            self._timers.pop(loop, None)
            self._pump()

    def _give_up(self, ticket: Ticket) -> None:
        with self._lock:
            if self._waiting.pop(ticket, None) is None or not self._rates.withdraw(ticket):
                self._rates.over(ticket, self._now())  # granted in the very moment of giving up
            self._pump()

    def _forget(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timers.pop(loop, None)
        gone = [t for t, future in self._waiting.items() if future.get_loop() is loop]
        for ticket in gone:
            del self._waiting[ticket]
            self._rates.withdraw(ticket)


def _end(future: asyncio.Future[None], error: TooLong | None) -> None:
    if future.done():  # its caller was cancelled meanwhile
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
