"""Clocks: how long a run spent in what. Unions of intervals, never sums."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Literal, TypeAlias, get_args

from longthought.budgets.limits import Budget
from longthought.errors import InvalidInput
from longthought.types import JSONObject

__all__ = ["CLOCKS", "ClockKind", "Clocks", "union_seconds"]

ClockKind: TypeAlias = Literal["model", "tool", "verify", "queue", "approval", "wall"]
CLOCKS: tuple[ClockKind, ...] = get_args(ClockKind)

ENDING_S = 0.04
"""Seconds that the end of a run takes with nothing to stop, on a machine that did other things
meanwhile: an answer is picked, all of it put on record in one commit, the graph left."""
STOPPING_S = 0.0005
"""Seconds that it takes to stop one piece of work more: its stream is closed, what it has come to
charged and put on record, and all that waits for it told."""
MOST_EARLY_S, MOST_EARLY = 0.2, 0.1
"""The longest head start, in seconds and as a share of the limit."""


def union_seconds(intervals: Iterable[Sequence[float]]) -> float:
    """Seconds covered by at least one of the ``[start, end]`` pairs, in any order.

    A pair that ends before it starts (a clock was set back) covers nothing.
    """
    total, reach = 0.0, float("-inf")
    for start, end in sorted((pair[0], pair[1]) for pair in intervals):
        if end > reach:
            total += max(0.0, end - max(start, reach))
            reach = max(reach, end) if end > start else reach
    return total


class Clocks:
    """One clock for each kind of work; a clock runs while at least one piece of work is under way.

    Two model calls side by side for 10 s are 10 s on the model clock. ``now`` gives seconds from
    any fixed point; a monotonic clock in production, a virtual one in tests.
    """

    __slots__ = ("_banked", "_now", "_running", "_since")

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._banked = dict.fromkeys(CLOCKS, 0.0)
        self._running = dict.fromkeys(CLOCKS, 0)
        self._since = dict.fromkeys(CLOCKS, 0.0)

    def running(self, kind: ClockKind) -> Running:
        """A context in which a clock runs; contexts of one kind may overlap in any way.

        Raises:
            InvalidInput: there is no such clock.
        """
        self._check(kind)
        return Running(self, kind)

    def seconds(self, kind: ClockKind) -> float:
        """Seconds on a clock up to now, earlier attempts included."""
        self._check(kind)
        live = self._now() - self._since[kind] if self._running[kind] else 0.0
        return self._banked[kind] + max(0.0, live)

    def restore(self, kind: ClockKind, intervals: Iterable[Sequence[float]]) -> None:
        """Add the recorded ``[start, end]`` pairs of one earlier attempt.

        Pairs of one call are merged with each other. Attempts follow one another and may count
        from different points, so each is restored by a call of its own.
        """
        self._check(kind)
        self._banked[kind] += union_seconds(intervals)

    def view(self) -> JSONObject:
        """Seconds on every clock that ever ran."""
        seconds = {kind: self.seconds(kind) for kind in CLOCKS}
        return {kind: value for kind, value in seconds.items() if value > 0}

    def left(self, budget: Budget) -> float | None:
        """Seconds until the first limit on time could be hit, None without such a limit.

        For ``thinking`` this assumes that a model call is under way all the time; ask again then.
        """
        limits = ((budget.wall, "wall"), (budget.thinking, "model"))
        left = [limit - self.seconds(kind) for limit, kind in limits if limit is not None]  # type: ignore[arg-type]
        return max(0.0, min(left)) if left else None

    def look_in(self, budget: Budget) -> float | None:
        """Seconds until :meth:`passed` may have another answer, None without a limit on time.

        Until the longest head start begins, as many pieces of work as can be may come to be under
        way; from then on those that are count.
        """
        left = self.left(budget)
        if left is None or budget.wall is None:
            return left
        to_wall, longest = budget.wall - self.seconds("wall"), _longest_head_start(budget.wall)
        early = longest if to_wall > longest else self.head_start(budget.wall)
        return max(0.0, min(left, to_wall - early))

    def head_start(self, wall: float) -> float:
        """Seconds before the limit at which to stop, so that what is under way is over by then."""
        under_way = sum(self._running[kind] for kind in ("model", "tool", "verify"))
        return min(ENDING_S + STOPPING_S * under_way, _longest_head_start(wall))

    def passed(self, budget: Budget) -> Literal["wall", "thinking"] | None:
        """The limit on time for which everything is to stop, None if there is none.

        It is used up, or, of ``wall``, would be before all is over: see :meth:`head_start`.
        ``thinking`` is model time.
        """
        wall = budget.wall
        if wall is not None and self.seconds("wall") >= wall - self.head_start(wall):
            return "wall"
        if budget.thinking is not None and self.seconds("model") >= budget.thinking:
            return "thinking"
        return None

    def begin(self, kind: ClockKind) -> None:
        """One more piece of work of a kind is under way; see :meth:`running`."""
        if not self._running[kind]:
            self._since[kind] = self._now()
        self._running[kind] += 1

    def finish(self, kind: ClockKind) -> None:
        """One piece of work of a kind is over; see :meth:`running`."""
        self._running[kind] -= 1
        if not self._running[kind]:
            self._banked[kind] += max(0.0, self._now() - self._since[kind])

    def _check(self, kind: str) -> None:
        if kind not in self._banked:
            raise InvalidInput("clock", f"no clock called {kind!r}", f"use one of {CLOCKS}")


def _longest_head_start(wall: float) -> float:
    return min(MOST_EARLY_S, MOST_EARLY * wall)


class Running:
    """What :meth:`Clocks.running` returns. It holds no state, so it may be entered again."""

    __slots__ = ("_clocks", "_kind")

    def __init__(self, clocks: Clocks, kind: ClockKind) -> None:
        self._clocks = clocks
        self._kind: ClockKind = kind

    def __enter__(self) -> None:
        self._clocks.begin(self._kind)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._clocks.finish(self._kind)
