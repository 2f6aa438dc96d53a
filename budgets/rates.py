"""Rate limits: when the next call to an endpoint may leave. No clock, no loop, no I/O.

Two kinds of limit meet here. A :class:`Window` is what the user was promised by contract: so much
in any minute. A :class:`Left` is what the server says itself, with each reply: so much is left, and
so much comes back. What is known only from refusals is the matter of
:class:`~longthought.budgets.caution.Caution`; a refusal halts all calls, not just the one that was
told.

:class:`~longthought.budgets.pace.Pace` drives it in production; a simulation may drive the very
same code with virtual time. Moments and periods are in seconds of the caller's clock.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from longthought.budgets.caution import Caution
from longthought.errors import ConfigurationError

__all__ = ["PERIOD", "Left", "Rates", "Said", "Ticket", "Window", "checked_rate"]

PERIOD = 60.0
"""The minute that ``requests_per_minute`` and ``tokens_per_minute`` speak of, in seconds."""

_ROUNDING = 1e-9


@dataclass(eq=False, slots=True)
class Ticket:
    """One call from the moment it wants to leave: waiting, granted, sent, heard of, over.

    ``tokens`` is an upper bound of what it will take. ``tries`` is how many tries of it have
    failed. ``deadline`` is the moment past which it has no use for a turn.
    """

    tokens: int = 0
    tries: int = 0
    deadline: float = math.inf
    granted_at: float = math.inf
    sent: bool = False
    heard: bool = False
    over: bool = False
    places: list[tuple[Window, Place]] = field(default_factory=list)
    heard_before: tuple[int, int] = (0, 0)
    """Calls, and tokens of calls, that had been heard of when it left."""


@dataclass(eq=False, slots=True)
class Place:
    """What one call takes of a window; ``back_at`` is when it comes back, None before it left."""

    units: int
    back_at: float | None = None
    back: bool = False


class Window:
    """At most ``limit`` units in any ``period`` seconds, counted from the moment they are sent.

    What was granted and not yet sent counts as well, so a call may be held up in between as long
    as it likes. A call of more than the limit counts as the limit: it goes alone.
    """

    __slots__ = ("_held", "_places", "_sent", "limit", "period")

    def __init__(self, limit: int, period: float = PERIOD) -> None:
        self.limit, self.period = limit, period
        self._held = self._sent = 0
        self._places: deque[Place] = deque()

    @property
    def held(self) -> int:
        """Units that are granted and not sent."""
        return self._held

    def when(self, units: int, now: float) -> float:
        """The moment at which so many units fit: now, later, or infinity if that is open."""
        self._expire(now)
        over = self._held + self._sent + min(units, self.limit) - self.limit
        if over <= 0:
            return now
        for place in self._places:
            over -= place.units
            if over <= 0 and place.back_at is not None:
                return place.back_at
        return math.inf

    def take(self, units: int) -> Place:
        """Hold units that fit."""
        place = Place(min(units, self.limit))
        self._held += place.units
        return place

    def send(self, place: Place, now: float) -> None:
        """The call has left: its units come back a period from now."""
        self._held -= place.units
        self._sent += place.units
        place.back_at = now + self.period
        self._places.append(place)

    def correct(self, place: Place, units: int) -> None:
        """The call took another number of units than was held for it; 0 if it never left."""
        if place.back_at is None:
            self._held += units - place.units
        elif not place.back:
            self._sent += units - place.units
        place.units = units

    def _expire(self, now: float) -> None:
        while self._places:
            place = self._places[0]
            if place.back_at is None or place.back_at > now:
                return
            self._places.popleft()
            self._sent -= place.units
            place.back = True


@dataclass(frozen=True, slots=True)
class Said:
    """What a reply says of one limit: ``left`` of ``limit`` units, all there in ``reset`` seconds.

    With ``refills`` they come back bit by bit, else all at once, and until then none.
    """

    left: float
    limit: float | None = None
    reset: float | None = None
    refills: bool = True


class Left:
    """What is left at a server by its own word, in requests or tokens, and what we took since."""

    __slots__ = ("_at", "_level", "_rate", "_until", "limit")

    def __init__(self) -> None:
        self.limit = math.inf
        self._level, self._at, self._rate, self._until = math.inf, 0.0, 0.0, 0.0

    @property
    def known(self) -> bool:
        """Whether the server ever said anything."""
        return self._level < math.inf

    def tell(self, said: Said, now: float, under_way: float = 0, unseen: float = math.inf) -> None:
        """Take in what a reply says; ``under_way`` is what the server may not have seen yet.

        ``unseen`` is what it may not have seen when it wrote this: replies arrive in any order, and
        one that was overtaken would bring back what calls that are over have taken since. So what
        was known before holds, as far as it lies between the two.
        """
        level = said.left - under_way
        if self.known:
            level = min(level, max(said.left - unseen, self._now(now)))
        limit = said.left if said.limit is None else said.limit
        self.limit = max(limit, said.left, 1.0)
        missing = self.limit - said.left
        self._level, self._at, self._until = level, now, math.inf
        if not said.refills:
            self._rate, self._until = 0.0, now + (PERIOD if said.reset is None else said.reset)
        elif said.reset and missing > 0:
            self._rate = missing / said.reset
        else:
            self._rate = self.limit / PERIOD

    def when(self, units: float, now: float) -> float:
        """The moment at which so many units are there, as far as that can be known."""
        if not self.known:
            return now
        if now >= self._until:
            self._level = math.inf  # a new period has begun, and nobody has told what it holds
            return now
        missing = min(units, self.limit) - self._now(now)
        if missing <= _ROUNDING * self.limit:
            return now
        return min(self._until, now + missing / self._rate) if self._rate else self._until

    def take(self, units: float, now: float) -> None:
        """Count a call that is about to leave."""
        self._change(-min(units, self.limit), now)

    def give(self, units: float, now: float) -> None:
        """Count a call back that was taken and did not leave."""
        self._change(min(units, self.limit), now)

    def _change(self, units: float, now: float) -> None:
        if self.known:
            self._level, self._at = self._now(now) + units, max(now, self._at)

    def _now(self, now: float) -> float:
        return min(self.limit, self._level + self._rate * max(0.0, now - self._at))


class _Sum:
    """How many calls, and how many tokens of them."""

    __slots__ = ("units",)

    def __init__(self) -> None:
        self.units = (0, 0)

    def add(self, ticket: Ticket, sign: int = 1) -> None:
        calls, tokens = self.units
        self.units = (calls + sign, tokens + sign * ticket.tokens)


class Rates:
    """The line of calls to one endpoint, and what it knows of the endpoint's limits.

    Who has failed most often goes first, and those alike in the order they came. The first in line
    leaves at the moment it fits, and nobody passes it, so large calls do not starve.
    """

    def __init__(
        self, requests: int | None = None, tokens: int | None = None, *, period: float = PERIOD
    ) -> None:
        self.requests = Window(requests, period) if requests is not None else None
        self.tokens = Window(tokens, period) if tokens is not None else None
        self.requests_left, self.tokens_left = Left(), Left()
        self._lines: dict[int, dict[Ticket, None]] = {0: {}}
        self._unheard: dict[Ticket, None] = {}
        self._granted, self._heard = _Sum(), _Sum()
        self._caution = Caution()
        self._quiet_from: float | None = None
        """Since when nobody is in line and the server owes no answer."""

    # -- the line -------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether there is nothing to keep to and nobody to keep in order."""
        return (
            self.requests is None
            and self.tokens is None
            and self._caution.none
            and not (self.waiting or self._unheard)
            and not (self.requests_left.known or self.tokens_left.known)
        )

    @property
    def waiting(self) -> int:
        """Calls in line."""
        return sum(map(len, self._lines.values()))

    @property
    def under_way(self) -> int:
        """Calls that were granted and of which nothing was heard yet."""
        return len(self._unheard)

    def ask(self, ticket: Ticket) -> None:
        """Put a call in line."""
        self._lines.setdefault(ticket.tries, {})[ticket] = None

    def withdraw(self, ticket: Ticket) -> bool:
        """Take a call out of the line; False if it does not stand in it."""
        return self._lines.get(ticket.tries, {}).pop(ticket, ticket) is None

    def serve(self, now: float) -> list[Ticket]:
        """Grant all that may leave now, in their order."""
        if self._quiet_from is not None and self.waiting:
            self._caution.rested(max(0.0, now - self._quiet_from))
            self._quiet_from = None
        granted = []
        while (head := self._head()) is not None and self._when(head, now) <= now:
            self.withdraw(head)
            self._grant(head, now)
            granted.append(head)
        self._note_quiet(now)
        return granted

    def hopeless(self, now: float) -> list[tuple[Ticket, float]]:
        """Take those out of the line that cannot leave before their deadline, each with its wait.

        What is not known in advance counts as no wait. Call it after :meth:`serve`.
        """
        late = []
        while (head := self._head()) is not None:
            at = self._when(head, now)
            if math.isinf(at) or at <= head.deadline:
                break
            self.withdraw(head)
            late.append((head, at - now))
        for ticket in [ticket for line in self._lines.values() for ticket in line]:
            if ticket.deadline < self._caution.pause_until:
                self.withdraw(ticket)
                late.append((ticket, self._caution.pause_until - now))
        return late

    def next_at(self, now: float) -> float:
        """When to serve again; infinity if only the end of a call under way can change anything."""
        head = self._head()
        return math.inf if head is None else self._when(head, now)

    # -- the life of a call that was granted ----------------------------------------------------

    def sent(self, ticket: Ticket, now: float) -> None:
        """The call leaves."""
        ticket.sent = True
        ticket.heard_before = self._heard.units
        for window, place in ticket.places:
            window.send(place, now)

    def told(
        self, ticket: Ticket | None, requests: Said | None, tokens: Said | None, now: float
    ) -> None:
        """Take in what the reply to a call says of the limits."""
        others = [other for other in self._unheard if other is not ticket]
        calls, size = self._unseen(ticket)
        if requests is not None:
            self.requests_left.tell(requests, now, len(others), calls)
        if tokens is not None:
            under_way = sum(other.tokens for other in others)
            self.tokens_left.tell(tokens, now, under_way, size)

    def heard(self, ticket: Ticket | None, now: float, *, well: bool = True) -> None:
        """The server has answered a call; ``well`` if it took it on.

        ``ticket`` is None for a call that left when there was nothing to keep to.
        """
        if ticket is not None:
            ticket.heard = True
            if ticket in self._unheard:
                self._heard.add(ticket)
                del self._unheard[ticket]
        if well and ticket is not None:
            self._caution.well(ticket.granted_at, now)
        self._note_quiet(now)

    def refused(
        self, ticket: Ticket | None, now: float, wish: float | None = None, *, jitter: float = 1.0
    ) -> None:
        """The server has turned a call down because there were too many.

        ``wish`` is how long it wants to be left alone, in seconds. Without it the pause doubles
        with every round of refusals in a row; ``jitter`` in (0, 1] is the part of it that is kept.
        """
        granted_at = None if ticket is None else ticket.granted_at
        self._quiet_from = None  # the time of a round counts from here
        self._caution.refused(granted_at, now, wish, jitter, len(self._unheard))
        self.heard(ticket, now, well=False)

    def over(self, ticket: Ticket, now: float, tokens: int | None = None) -> None:
        """The call is over. What was held for it stays counted unless ``tokens`` says better.

        A call that was never sent gives back all it held.
        """
        if ticket.over or ticket.granted_at == math.inf:
            return
        ticket.over = True
        if not ticket.sent:
            self._give_back(ticket, now)
            self._unheard.pop(ticket, None)
        elif tokens is not None:
            for window, place in ticket.places:
                if window is self.tokens:
                    window.correct(place, tokens)
        self.heard(ticket, now, well=False)

    # -- details --------------------------------------------------------------------------------

    def _head(self) -> Ticket | None:
        # A call that is likely to be turned down should not be one that has few tries left.
        order = sorted(self._lines, reverse=not self._caution.in_vain)
        return next((ticket for tries in order for ticket in self._lines[tries]), None)

    def _when(self, ticket: Ticket, now: float) -> float:
        at = max(
            self._caution.when(now, len(self._unheard)),
            self.requests_left.when(1, now),
            self.tokens_left.when(ticket.tokens, now),
        )
        if self.requests is not None:
            at = max(at, self.requests.when(1, now))
        if self.tokens is not None:
            at = max(at, self.tokens.when(ticket.tokens, now))
        return at

    def _grant(self, ticket: Ticket, now: float) -> None:
        ticket.granted_at = now
        ticket.heard_before = self._heard.units
        self._caution.granted(now)
        self._unheard[ticket] = None
        self._granted.add(ticket)
        for window, units in ((self.requests, 1), (self.tokens, ticket.tokens)):
            if window is not None:
                ticket.places.append((window, window.take(units)))
        self.requests_left.take(1, now)
        self.tokens_left.take(ticket.tokens, now)

    def _unseen(self, ticket: Ticket | None) -> tuple[float, float]:
        """Calls and their tokens that the server may not have seen when it answered a call.

        That is all but what had been heard of when the call left, and itself.
        """
        if ticket is None:
            return math.inf, math.inf
        calls, tokens = self._granted.units
        heard, heard_tokens = ticket.heard_before
        return calls - heard - 1, tokens - heard_tokens - ticket.tokens

    def _note_quiet(self, now: float) -> None:
        if self._quiet_from is None and not self._unheard and not self.waiting:
            self._quiet_from = now

    def _give_back(self, ticket: Ticket, now: float) -> None:
        for window, place in ticket.places:
            window.correct(place, 0)
        self._granted.add(ticket, -1)
        self.requests_left.give(1, now)
        self.tokens_left.give(ticket.tokens, now)


def checked_rate(field: str, value: float | None) -> int | None:
    """A limit per minute as a whole number.

    Raises:
        ConfigurationError: it is below 1, not finite or no number.
    """
    if value is None:
        return None
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 1:
        raise ConfigurationError(field, f"{value!r} is no rate", "Use a number from 1, or None")
    return int(value)
