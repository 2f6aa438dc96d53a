"""Waking parked runs: those with a signal, those whose timer is over, those a waker died on.

A run that wakers die on is tried less and less often, then it needs attention (``deaths.py``).

Many wakers may work on one store. Each sees a run at rest after some attempt, and of all who saw
the same attempt one alone begins the next (``Store.claim(after=...)``).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from functools import partial

from longthought.errors import Fenced, LongthoughtError, RunBusy, RunEnded, RunMoved, RunNotFound
from longthought.orchestrator.results import Result
from longthought.storage import RunRow, Store
from longthought.storage.due import DueRow
from longthought.storage.recording import due_of

__all__ = ["NOT_WOKEN", "Waker", "due_again"]

NOT_WOKEN = "not_woken"
"""The ``stop_reason`` of a run that could not be gone on with; ``error`` says why."""

_BACKLOG = 500
"""Runs looked up at a time; what is stale when its turn comes is refused by the store."""

_BUSY_PAUSE = 1.0
"""Seconds after which a run that another process holds is looked at again."""

_SUSPECT = 2
"""Attempts that died in vain, from which on a run is woken with no other such beside it."""

_QUICKER = (Fenced, RunBusy, RunEnded, RunMoved, RunNotFound)
"""Somebody else has the run, or it is gone: nothing of it is lost."""

GoOn = Callable[[RunRow], Awaitable[Result]]


class Waker:
    """Goes on with the runs of a store that are due, ``at_once`` of them at a time.

    ``go_on`` claims a run and drives it until it rests; ``told`` hears of each that was woken, or
    could not be. ``workflow`` is the name of the only workflow whose runs are woken.
    """

    def __init__(
        self,
        store: Store,
        go_on: GoOn,
        told: Callable[[Result], None],
        *,
        workflow: str | None = None,
        at_once: int = 16,
        limit: int | None = None,
    ) -> None:
        self.store, self.workflow, self.at_once = store, workflow, at_once
        self._go_on, self._told = go_on, told
        self._left = limit
        self._backlog: deque[DueRow] = deque()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._refused: set[tuple[str, int]] = set()
        """Runs that could not be gone on with, and after which attempt: they are left alone."""
        self._suspect = ""
        """The run in hand that may have ended a process before: one at a time, so that those which
        died beside it get through without it."""
        self._looked_at = 0.0
        """When it looked last for what is due, seconds since the epoch."""
        self._stopped = asyncio.Event()
        self._heard = asyncio.Event()
        self._failure: BaseException | None = None

    def stop(self) -> None:
        """Wake no more; :meth:`run` returns when those under way have come to rest."""
        self._stopped.set()

    async def run(self, every: float | None = None) -> None:
        """Wake all that is due; with ``every`` (seconds) look again that often until stopped.

        Signals that the store hears of are looked after at once, timers when they are over. A waker
        that is cancelled gives the runs it has in hand back: they stay due.

        Raises:
            StorageError: the store cannot be read.
        """
        listening = self.store.listening(self._heard.set) if every is not None else nullcontext()
        async with listening:
            await self._until_over(every)

    async def _until_over(self, every: float | None) -> None:
        stopped = asyncio.create_task(self._stopped.wait(), name="longthought-waker-stop")
        heard = asyncio.create_task(self._heard.wait(), name="longthought-waker-heard")
        try:
            while not self._over() and self._failure is None:
                if heard.done():  # before looking: what comes meanwhile is looked after again
                    self._heard.clear()
                    heard = asyncio.create_task(self._heard.wait(), name="longthought-waker-heard")
                due = await self._start_due()
                if not self._running and not due and every is None:
                    return
                full = len(self._running) >= self.at_once
                pause = None if full or every is None else await self._pause(every)
                if self._running or pause is not None:
                    waited = {*self._running.values(), stopped, *([] if full else [heard])}
                    await asyncio.wait(waited, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            while self._running and self._failure is None:
                await asyncio.wait(self._running.values(), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            heard.cancel()
            await self._give_back()
        if self._failure is not None:
            raise self._failure

    async def _pause(self, every: float) -> float:
        """Seconds until the next look: until the next timer is over, if that is sooner."""
        timer = await self.store.next_timer(after=self._looked_at, workflow=self.workflow)
        return every if timer is None else min(every, max(0.0, timer - time.time()))

    def _over(self) -> bool:
        return self._stopped.is_set() or self._left == 0

    async def _start_due(self) -> bool:
        """Begin with as many as there is room for; False if nothing more is due now."""
        while len(self._running) < self.at_once and not self._over():
            if not self._backlog:
                self._backlog.extend(await self._due())
            if not self._backlog:
                return False
            self._start(self._backlog.popleft())
        return True

    async def _due(self) -> list[DueRow]:
        # those in hand and those refused may stand in the way of others
        most = _BACKLOG + len(self._running) + len(self._refused)
        self._looked_at = time.time()
        rows = await self.store.due(workflow=self.workflow, limit=most, now=self._looked_at)
        return [
            row
            for row in rows
            if (row.id, row.attempt) not in self._refused and self._may_start(row)
        ]

    def _may_start(self, row: DueRow) -> bool:
        alone = row.deaths >= _SUSPECT
        return row.id not in self._running and not (alone and self._suspect)

    def _start(self, row: DueRow) -> None:
        if not self._may_start(row):
            return
        if row.deaths >= _SUSPECT:
            self._suspect = row.id
        if self._left is not None:
            self._left -= 1
        task = asyncio.create_task(self._wake(row), name=f"wake {row.id}")
        self._running[row.id] = task
        task.add_done_callback(partial(self._ended, row.id))

    def _ended(self, name: str, task: asyncio.Task[None]) -> None:
        self._running.pop(name, None)
        if self._suspect == name:
            self._suspect = ""
        if not task.cancelled() and task.exception() is not None:
            self._failure = self._failure or task.exception()

    async def _wake(self, row: DueRow) -> None:
        try:
            result = await self._go_on(row)
        except _QUICKER as error:
            if self._left is not None:
                self._left += 1
            if isinstance(error, RunBusy):  # not to ask again and again for what is not free
                await asyncio.sleep(min(error.seconds_left, _BUSY_PAUSE))
            return
        except Exception as error:  # one run that cannot be woken leaves the others alone
            self._refused.add((row.id, row.attempt))
            named = isinstance(error, LongthoughtError)
            said = str(error) if named else f"{type(error).__name__}: {error}"
            now = await self.store.row(row.id)
            self._refused.add((row.id, now.attempt))  # where it failed after it was claimed
            result = Result(row.id, now.status, NOT_WOKEN, error=said)
        self._told(result)

    async def _give_back(self) -> None:
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def due_again(store: Store, result: Result) -> bool:
    """Whether a signal has come or a timer has passed while the run was parking."""
    due = due_of(result.waiting)
    return (due is not None and due <= time.time()) or await store.waiting_signals(result.id) > 0
