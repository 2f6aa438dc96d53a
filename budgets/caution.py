"""What refusals have taught about an endpoint: a pause, a pace, and how many calls at once.

Three things follow a refusal. Nothing leaves for as long as the server wishes. Then one call goes
ahead, and with each that is taken on more may be on their way at once (slow start, then one by one,
as TCP does; RFC 5681). And calls leave with a pause in between that is learned: the time from one
round of refusals to the next in which anybody wanted to leave, over the calls that were taken on in
it. The pause shrinks with every call that comes through, the faster the fewer calls it was learned
from.
"""

from __future__ import annotations

import math

__all__ = ["Caution"]

_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 30.0
_FIRST_SHARE = 8
"""The first calls after a first refusal are so large a share of its pause apart."""
_TRUST = 0.5
"""A call that comes through shortens the pause by this over the calls it was learned from."""
_ENOUGH = 250
"""As if it had been learned from no more, so that it is forgotten after some thousand calls."""
_SHORTEST_INTERVAL = 1e-3
_FORGET_ABOVE = 2.0
"""A bound on calls on their way is dropped at so many times the number that was refused."""
_IN_VAIN = 3
"""So many refusals in a row."""


class Caution:
    """How careful calls to one endpoint have to be. Moments and periods are in seconds.

    A round begins with a refusal that nobody expected, and ends with the next one. Refusals of
    calls that left before the round began say nothing new.
    """

    __slots__ = (
        "_forget_at",
        "_granted",
        "_growth",
        "_interval",
        "_most",
        "_next_at",
        "_pause_until",
        "_refusals",
        "_refused_at",
        "_round_at",
        "_slow_from",
    )

    def __init__(self) -> None:
        self._pause_until = self._refused_at = -math.inf
        self._refusals = 0
        self._most = self._slow_from = self._forget_at = math.inf
        self._interval, self._growth = 0.0, 2.0
        self._next_at = self._round_at = -math.inf
        self._granted = 0

    @property
    def none(self) -> bool:
        """Whether there is nothing to be careful about."""
        return self._most == math.inf and self._pause_until == -math.inf

    @property
    def pause_until(self) -> float:
        """Nothing leaves before this moment."""
        return self._pause_until

    @property
    def in_vain(self) -> bool:
        """Whether so many calls in a row were refused that the next is likely to be, too."""
        return self._refusals >= _IN_VAIN

    def when(self, now: float, under_way: int) -> float:
        """When the next call may leave; infinity while too many are under way."""
        if under_way + 1 > self._most:
            return math.inf
        return max(now, self._pause_until, self._next_at if self._interval else now)

    def granted(self, now: float) -> None:
        """A call leaves."""
        self._next_at = now + self._interval
        self._granted += 1

    def rested(self, seconds: float) -> None:
        """Nobody wanted to leave for so long: that says nothing of what the server takes on."""
        self._round_at += seconds

    def well(self, granted_at: float, now: float) -> None:
        """The server took on a call that was granted at that moment."""
        if granted_at < self._refused_at:
            return
        self._refusals = 0
        if self._pause_until <= now:
            self._pause_until = -math.inf
        self._interval /= self._growth
        if self._interval < _SHORTEST_INTERVAL:
            self._interval = 0.0
        if self._most < math.inf:
            slow = self._most >= self._slow_from
            self._most += 1 / self._most if slow else 1
            if self._most >= self._forget_at and not self._interval:
                self._most = math.inf

    def refused(
        self, granted_at: float | None, now: float, wish: float | None, jitter: float, together: int
    ) -> None:
        """The server has turned a call down because there were too many.

        ``granted_at`` is None for a call that left when there was nothing to keep to; ``together``
        is how many were under way. Without a ``wish`` the pause doubles with every round.
        """
        careful = self._most < math.inf
        expected = careful if granted_at is None else granted_at < self._refused_at
        if not expected:
            self._begin_round(now, max(2, together), careful)
            if wish is None:
                wish = _FIRST_PAUSE * 2 ** min(self._refusals - 1, 10)
                wish = min(_LONGEST_PAUSE, wish) * jitter
            self._learn(granted_at, now, wish)
        elif granted_at is None:  # the only trace of how many were on their way together
            self._slow_from += 0.5
            self._forget_at += _FORGET_ABOVE
        if wish is not None:
            self._pause_until = max(self._pause_until, now + wish)

    def _begin_round(self, now: float, together: int, careful: bool) -> None:
        self._refusals += 1
        self._refused_at = now
        self._slow_from = max(1.0, min(self._most, together) / 2)
        self._forget_at = max(self._forget_at if careful else 0, _FORGET_ABOVE * together)
        self._most = 1.0

    def _learn(self, granted_at: float | None, now: float, wish: float) -> None:
        taken = self._granted - 1  # all but the one that was refused
        self._granted = 0
        if granted_at is None or self._round_at == -math.inf:
            self._interval, self._growth = wish / _FIRST_SHARE, 2.0
        elif taken > 0:
            learned = (granted_at - self._round_at) / taken
            self._interval, self._growth = (
                max(self._interval, learned),
                1 + _TRUST / min(taken, _ENOUGH),
            )
        else:  # not one came through: the round goes on
            return
        self._round_at = now
