"""How long tools take, learned while they run, and how long a context is worth keeping for one.

Times of tools spread over orders of magnitude, so each tool (and each shape of its arguments) has
a histogram over the logarithm of seconds, old observations fading. What is rarely seen leans on
what is known of the tool, then of all tools.

The question that matters is not the mean, which a heavy tail makes useless, but: for each second
of keeping, how likely is the tool to come back? :meth:`ToolTimes.price` is the least number of
seconds of keeping that one return costs, over all times at which keeping could be given up.
"""

from __future__ import annotations

import math
from collections.abc import Hashable

__all__ = ["ToolTimes"]

_LOWEST, _STEPS, _BUCKETS = 2.0**-10, 2, 64
_EDGES = tuple(_LOWEST * 2 ** (index / _STEPS) for index in range(_BUCKETS + 1))
_MIDS = tuple(_LOWEST * 2 ** ((index + 0.5) / _STEPS) for index in range(_BUCKETS))
_FADE = 0.99
_LEAN = 3.0
"""Observations that what is known in general counts for."""
_STALE = 0.1
"""Share of new observations after which what was worked out is worked out again."""


def _bucket(seconds: float) -> int:
    if seconds <= _LOWEST:
        return 0
    return min(_BUCKETS - 1, int(math.log2(seconds / _LOWEST) * _STEPS))


class _Histogram:
    __slots__ = ("counts", "fresh", "prices", "total")

    def __init__(self) -> None:
        self.counts = [0.0] * _BUCKETS
        self.total = 0.0
        self.fresh = 0
        self.prices: list[float] = []

    def add(self, bucket: int) -> None:
        self.counts = [count * _FADE for count in self.counts]
        self.counts[bucket] += 1
        self.total = self.total * _FADE + 1
        self.fresh += 1


class ToolTimes:
    """Times by tool name, and by a shape of the arguments if the caller gives one.

    A shape is anything hashable that may tell fast calls from slow ones: the name of a command,
    the order of magnitude of an input, or somebody's prediction in a rough unit. A prediction given
    this way is learned about and not believed: one that says nothing changes nothing.
    """

    __slots__ = ("_known", "_most")

    def __init__(self, *, most: int = 1000) -> None:
        self._known: dict[tuple[Hashable, ...], _Histogram] = {(): _Histogram()}
        self._most = most

    def observe(self, tool: str, seconds: float, shape: Hashable = None) -> None:
        """One call of a tool took so many seconds; what is no time is ignored."""
        if not 0 <= seconds < math.inf:
            return
        bucket = _bucket(seconds)
        for key in _keys(tool, shape):
            known = self._known.pop(key, None) or _Histogram()
            known.add(bucket)
            self._known[key] = known  # last in the order: used last
        while len(self._known) > self._most:
            self._known.pop(next(key for key in self._known if key))

    def seen(self, tool: str, shape: Hashable = None) -> float:
        """Observations of a tool, old ones counted for less."""
        known = self._known.get(_keys(tool, shape)[-1])
        return known.total if known else 0.0

    def quantile(self, tool: str, share: float, shape: Hashable = None) -> float | None:
        """Seconds within which a share of the calls ends, to a factor of 1.4; None if unknown."""
        counts = self._blended(tool, shape)
        target = share * sum(counts)
        if not target:
            return None
        reached = 0.0
        for index, count in enumerate(counts):
            reached += count
            if reached >= target:
                return _MIDS[index]
        return _MIDS[-1]

    def price(self, tool: str, elapsed: float, shape: Hashable = None) -> float | None:
        """Seconds of further keeping per return, for a call that has run so long.

        None if nothing was ever observed; infinite if no call was seen to last longer.
        """
        key = next((key for key in reversed(_keys(tool, shape)) if key in self._known), ())
        known = self._known[key]
        if not self._known[()].total:
            return None
        if not known.prices or known.fresh > _STALE * known.total:
            known.prices = _prices(self._blended(tool, shape))
            known.fresh = 0
        return known.prices[_bucket(elapsed) + 1 if elapsed > _LOWEST else 0]

    def _blended(self, tool: str, shape: Hashable) -> list[float]:
        blend = [0.0] * _BUCKETS
        for key in _keys(tool, shape):
            known = self._known.get(key)
            if known is None:
                continue
            total = sum(blend)
            lean = _LEAN / total if total else 0.0
            blend = [
                count + before * lean for count, before in zip(known.counts, blend, strict=True)
            ]
        return blend


def _keys(tool: str, shape: Hashable) -> tuple[tuple[Hashable, ...], ...]:
    """From the general to the particular."""
    return ((), (tool,)) if shape is None else ((), (tool,), (tool, shape))


def _prices(counts: list[float]) -> list[float]:
    """For each age, an edge of a bucket: the least expected keeping per return.

    Keeping from age ``b`` until ``u`` costs ``E[min(T, u) - b]`` and brings a return with
    ``P(T <= u)``, both given ``T > b``. The least quotient over ``u`` is the price.
    """
    last = max((index for index, count in enumerate(counts) if count), default=-1)
    prices = [math.inf] * (_BUCKETS + 1)
    for start in range(last + 1):
        begin = 0.0 if start == 0 else _EDGES[start]
        left = sum(counts[start : last + 1])
        came = waited = 0.0
        best = math.inf
        for index in range(start, last + 1):
            count = counts[index]
            came += count
            waited += count * (_MIDS[index] - begin)
            left -= count
            if came:
                best = min(best, (waited + max(0.0, left) * (_EDGES[index + 1] - begin)) / came)
        prices[start] = best
    return prices
