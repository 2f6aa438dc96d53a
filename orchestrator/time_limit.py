"""A block that ends when the time of its run is up, however much of it is left."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from longthought.errors import BudgetExhausted
from longthought.orchestrator.session import Session

__all__ = ["TimeLimit"]

_LEAST_S = 0.001
"""Seconds between two looks at the clock, at least."""


class TimeLimit:
    """An asynchronous context manager, used once; whatever waits inside is cancelled in time.

    Raises:
        BudgetExhausted: on leaving the block, if that has ended it.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._timeout = asyncio.timeout(None)
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self._look()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop_looking()
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            budget = self._session.budget
            passed = self._session.clocks.passed(budget) or "wall"
            limit = budget.wall if passed == "wall" else budget.thinking
            raise BudgetExhausted(passed, "run", limit or 0.0, 0.0) from None

    def raised(self) -> bool:
        """Keep to the limits that are in force now; false if the block is being ended already."""
        self._stop_looking()
        try:
            self._timeout.reschedule(None)  # it may be due in this very turn of the loop
        except RuntimeError:
            return False
        self._look()
        return True

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        seconds = self._session.clocks.look_in(self._session.budget)
        if self._session.time_is_up() is not None:
            self._timeout.reschedule(loop.time())
        elif seconds is not None:
            self._timer = loop.call_later(max(seconds, _LEAST_S), self._look)

    def _stop_looking(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
