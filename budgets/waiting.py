"""The waiting line of a ledger: who gets what next. Order, shares and cancellation live here.

Rules, in this order:

1. Who can never be served any more is told so at once; nobody hangs.
2. First come, first served; where runs share a pool, the run goes first that has used least of it.
   A waiter that does not fit holds back those behind it, but only where both need the same kind
   from the same scope: a branch stuck at its own limit stops no other.
3. A wish that accepts less is served its share: what is free divided by all who wait for it, in a
   pool by runs first, never below its minimum. Alone, it gets all it wants.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from longthought.budgets.accounts import Account, impossible
from longthought.budgets.amounts import KINDS, Vector
from longthought.budgets.shares import order_of

if TYPE_CHECKING:
    from longthought.budgets.ledger import Reservation

__all__ = ["Claims", "Line", "Waiter", "Wish"]

Claims = set[tuple[Account, int]]
"""(account, kind) that a waiter further ahead has a right to."""

_OUTPUT = KINDS.index("output_tokens")
_THINKING = KINDS.index("thinking_tokens")  # the last one
_MANY = 256
"""More callers than this do not come in one turn of the loop, or take no harm from the order."""


class Wish:
    """Anything between ``low`` and ``high``, in equal steps of all kinds at once.

    A call that gets fewer output tokens also needs fewer tokens and less money, so one number of
    steps scales all kinds together. One step is one output token where output is what varies.
    Tokens of thought stand apart: who may think less can say as much, and who may say less may
    think as long as before.
    """

    __slots__ = ("high", "low", "span", "steps")

    def __init__(self, low: Vector, high: Vector) -> None:
        self.low, self.high = low, high
        self.span = tuple(b - a for a, b in zip(low, high, strict=True))
        if min(low) < 0 or min(self.span) < 0:
            raise ValueError(f"need 0 <= minimum <= amount in every kind, got {low} and {high}")
        self.steps = self.span[_OUTPUT] or max(self.span)

    def thinking(self, vector: Vector, tokens: int) -> Vector:
        """The figures with so many tokens of thought."""
        return vector if vector[_THINKING] == tokens else (*vector[:_THINKING], tokens)

    def at(self, step: int) -> Vector:
        """The figures at one step, rounded up."""
        if step >= self.steps:
            return self.high
        if step <= 0:
            return self.low
        # Both ends cover what they stand for, so the line between them covers all in between.
        return tuple(
            low - (-step * span // self.steps)
            for low, span in zip(self.low, self.span, strict=True)
        )

    def most(self, kind: int, room: int) -> int:
        """The largest step that needs at most ``room`` above the lowest figure of a kind."""
        span = self.span[kind]
        if room >= span:
            return self.steps
        return max(0, room) * self.steps // span

    def is_plain(self, accounts: Sequence[Account], allowance: bool) -> bool:
        """Whether all of it may be granted at once, because nobody who comes now would mind.

        That is so where as many as could come in this turn of the loop would get all they want, or
        where there is nothing to share. Nobody may be waiting.
        """
        callers = _MANY if self.steps else 1
        high = self.high
        run = member = accounts[0]
        for account in accounts:
            shares = account.shares
            allowance = allowance and account.opens_to(accounts[0])
            for cap in account.caps:
                kind = cap.kind
                if shares is None:
                    free = cap.open_to(allowance) - account.spent[kind] - account.reserved[kind]
                else:
                    free = shares.free(cap, run, member, allowance)
                if high[kind] and free < callers * high[kind]:
                    return False
            member = account
            if shares is None:
                run = account
        return True

    def served(
        self,
        accounts: Sequence[Account],
        allowance: bool,
        claims: Claims,
        me: int,
    ) -> tuple[Vector | None, int]:
        """What the wish gets now, or None and how far up the accounts it is blocked.

        ``me`` is 1 if the wish itself is counted among the waiting, else 0.
        """
        step, blocked = self.steps, -1
        low, high = self.low, self.high
        run = member = accounts[0]
        crowd = 1
        thought = high[_THINKING]
        for place, account in enumerate(accounts):
            shares = account.shares
            allowance = allowance and account.opens_to(accounts[0])
            if shares is None:
                crowd = account.waiting - me + 1
            elif account.caps:
                crowd *= shares.contenders(member)
            for cap in account.caps:
                kind = cap.kind
                if not high[kind]:
                    continue
                if claims and (account, kind) in claims:
                    blocked = place
                    continue
                if shares is None:
                    free = cap.open_to(allowance) - account.spent[kind] - account.reserved[kind]
                else:
                    free = shares.free(cap, run, member, allowance)
                room = free - low[kind]
                if low[kind] and room < 0:
                    blocked = place
                elif self.span[kind]:
                    if crowd > 1:
                        room = min(room, free // crowd - low[kind])
                    if kind == _THINKING:
                        thought = min(thought, low[kind] + max(0, room))
                    else:
                        step = min(step, self.most(kind, room))
            member = account
            if shares is None:
                run = account
        if blocked >= 0:
            return None, blocked
        return self.thinking(self.at(step), thought), -1


class Waiter:
    """One caller in the line, with the future that wakes it."""

    __slots__ = ("accounts", "allowance", "future", "reserve", "wish")

    def __init__(
        self,
        accounts: Sequence[Account],
        wish: Wish,
        allowance: bool,
        reserve: Callable[[Vector, bool], Reservation],
        future: asyncio.Future[Reservation],
    ) -> None:
        self.accounts, self.wish, self.allowance = accounts, wish, allowance
        self.reserve, self.future = reserve, future


class Line:
    """All waiters of one tree of scopes, in order of arrival.

    Futures belong to the loop that was running when their caller arrived. Waiters of a loop that
    has been closed are dropped, so a ledger outlives the loops it was used in.
    """

    __slots__ = ("_armed_on", "_pooled", "_waiters")

    def __init__(self, pooled: bool = False) -> None:
        self._pooled = pooled
        self._waiters: dict[Waiter, None] = {}
        self._armed_on: asyncio.AbstractEventLoop | None = None

    def __len__(self) -> int:
        return len(self._waiters)

    def join(self, waiter: Waiter) -> None:
        """Add a waiter. It is looked at in the next turn of the loop, not at once.

        Callers that arrive in the same turn are thus seen together and share; otherwise the first
        of many branches would take all that is free.
        """
        self._waiters[waiter] = None
        for account in waiter.accounts:
            account.waiting += 1
        loop = waiter.future.get_loop()
        if self._armed_on is not loop:
            self._armed_on = loop
            loop.call_soon(self._wake)

    def withdraw(self, waiter: Waiter) -> None:
        """Take out a caller that gave up, giving back what it may have been granted meanwhile."""
        future = waiter.future
        if waiter in self._waiters:
            self._drop(waiter)
            self.pump()
        elif future.done() and not future.cancelled() and future.exception() is None:
            future.result().release()

    def pump(self) -> Claims:
        """Serve whoever can be served; returns what those still waiting have a right to."""
        claims: Claims = set()
        for waiter in list(self._waiters):
            self._fail_or_keep(waiter)
        for waiter in self._in_order():
            if waiter not in self._waiters:  # served by a callback that used the ledger
                continue
            wish, accounts = waiter.wish, waiter.accounts
            granted, blocked = wish.served(accounts, waiter.allowance, claims, 1)
            if granted is not None:
                self._drop(waiter)
                waiter.future.set_result(waiter.reserve(granted, waiter.allowance))
                continue
            # What it needs from the scopes below the one that blocks it stays claimed too, or
            # two scarce kinds could keep it waiting in turn for ever.
            for account in accounts[: blocked + 1]:
                claims.update((account, cap.kind) for cap in account.caps if wish.low[cap.kind])
        return claims

    def _in_order(self) -> Iterator[Waiter]:
        """Those who wait, in the order in which they are looked at."""
        if not self._pooled:
            yield from list(self._waiters)
            return
        runs: dict[Account, deque[Waiter]] = {}
        for waiter in self._waiters:
            run = next(a for a in reversed(waiter.accounts) if a.shares is None)
            runs.setdefault(run, deque()).append(waiter)
        orders = _orders(runs)
        while runs:
            run = min(orders, key=orders.__getitem__)
            queue = runs[run]
            waiter = queue.popleft()
            yield waiter
            if not queue:
                del runs[run], orders[run]
            if waiter not in self._waiters:  # what one is granted moves its run back at once
                orders = _orders(runs)

    def _wake(self) -> None:
        self._armed_on = None
        self.pump()

    def _fail_or_keep(self, waiter: Waiter) -> None:
        if waiter not in self._waiters:
            return
        if waiter.future.done() or waiter.future.get_loop().is_closed():
            self._drop(waiter)
            return
        error = impossible(waiter.accounts, waiter.wish.low, waiter.allowance)
        if error is not None:
            self._drop(waiter)
            waiter.future.set_exception(error)

    def _drop(self, waiter: Waiter) -> None:
        del self._waiters[waiter]
        for account in waiter.accounts:
            account.waiting -= 1


def _orders(runs: dict[Account, deque[Waiter]]) -> dict[Account, tuple[float, ...]]:
    """Where each run stands, by the waiter that is its first."""
    return {run: order_of(queue[0].accounts) for run, queue in runs.items()}
