"""Ten thousand random lives of a ledger: reserve, top up, settle, fail, be cancelled, crash.

Time is virtual: a call in flight is a number of turns of the loop, nothing sleeps.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from longthought.budgets import Amount, Budget, Price, Reservation, Scope, call_bound, usage_amount
from longthought.budgets.amounts import dollars
from longthought.errors import BudgetExhausted
from longthought.types import Usage

SCHEDULES = 10_000
CHUNKS = 10


class Sim:
    """One schedule: a tree, its journal, and what has really left the process."""

    def __init__(self, seed: int) -> None:
        self.random = rng = random.Random(seed)
        self.count = rng.choice((1, 2, 3, 4, 6, 8)) if rng.random() < 0.97 else rng.randint(9, 64)
        self.price = Price(*(rng.choice((0, 50, 12_500, 250_000, 1_234_567)) for _ in range(3)))
        self.run_budget = self.budget(3000 + 900 * self.count)
        self.search_budget = self.budget(6000 + 900 * self.count) if rng.random() < 0.3 else None
        self.branch_budgets = [
            self.budget(3000) if rng.random() < 0.2 else None for _ in range(self.count)
        ]
        self.journal: dict[int, tuple[int, Amount, Amount | None]] = {}
        self.left = Amount()
        self.flying: dict[int, Amount] = {}
        self.finished: set[int] = set()
        self.refused: list[BudgetExhausted] = []
        self.scopes: list[Scope] = []
        self.build()

    def budget(self, tokens: int) -> Budget:
        """Limits of which any may bind first."""
        rng = self.random
        dearest = max(self.price.input, self.price.cached, self.price.output, 1000)
        nanodollars = tokens * rng.randint(7, 9) // 10 * dearest // 1000
        keep = rng.choice((None, None, 0))
        return Budget(
            tokens=tokens if rng.random() < 0.8 else None,
            output_tokens=rng.randint(tokens // 3, tokens) if rng.random() < 0.4 else None,
            usd=dollars(nanodollars) if rng.random() < 0.4 else None,
            model_calls=rng.randint(20, 40 + 2 * self.count) if rng.random() < 0.9 else 500,
            final_answer=keep,
        )

    def watched(self, make: Callable[..., Scope], *args: object) -> Scope:
        """A scope that checks its own limits after every change of a figure."""

        def check() -> None:
            account = scope.accounts[0]
            for kind, limit, _, _ in account.caps:
                assert account.spent[kind] + account.reserved[kind] <= limit
                assert account.reserved[kind] >= 0

        scope = make(*args, on_change=check)
        self.scopes.append(scope)
        return scope

    def build(self) -> None:
        self.scopes.clear()
        self.run = self.watched(Scope, "run", self.run_budget)
        search = self.watched(self.run.child, "search", self.search_budget)
        self.branches = [
            self.watched(search.child, f"branch {i}", self.branch_budgets[i])
            for i in range(self.count)
        ]

    async def turns(self) -> None:
        for _ in range(self.random.randrange(3)):
            await asyncio.sleep(0)

    async def branch(self, index: int) -> None:
        try:
            while True:
                await self.call(index)
        except BudgetExhausted as error:
            self.finished.add(index)
            self.refused.append(error)

    async def call(self, index: int) -> None:
        rng, scope = self.random, self.branches[index]
        prompt = rng.randint(5, 60)
        least = call_bound(self.price, prompt, rng.choice((1, 16)))
        most = call_bound(self.price, prompt, rng.choice((40, 400, 4000)))
        reservation = await scope.reserve(most, minimum=least)
        assert least.fits(reservation.amount)
        assert reservation.amount.fits(most)
        with reservation:
            if rng.random() < 0.05:
                reservation.release()  # lost before dispatch
                return
            key = len(self.journal)
            self.journal[key] = (index, reservation.amount, None)
            try:
                actual = await self.stream(reservation, prompt, key)
                if rng.random() < 0.1:
                    raise asyncio.CancelledError if rng.random() < 0.3 else ConnectionError
                assert not reservation.settle(actual)
                self.journal[key] = (index, reservation.amount, actual)
            finally:
                self.left += self.flying.pop(key, Amount())

    async def stream(self, reservation: Reservation, prompt: int, key: int) -> Amount:
        """Tokens flow; top-ups are on record before they are used."""
        rng, wanted = self.random, self.random.choice((30, 300, 3000))
        while True:
            produced = min(wanted, reservation.amount.output_tokens)
            self.flying[key] = usage_amount(self.price, Usage(prompt, produced))
            assert self.flying[key].fits(reservation.amount)
            await self.turns()
            if produced == wanted or rng.random() < 0.3:
                break
            more = rng.choice((16, 64, 256))
            bound = call_bound(self.price, 0, more) - Amount(model_calls=1)
            smallest = call_bound(self.price, 0, 4) - Amount(model_calls=1)
            if not reservation.top_up(bound, minimum=smallest):
                break
            self.journal[key] = (self.journal[key][0], reservation.amount, None)
        return self.flying[key]

    async def live(self, index: int) -> None:
        """A branch whose failed calls do not end it."""
        while True:
            try:
                return await self.branch(index)
            except ConnectionError:
                continue

    async def attempt(self, crash_after: int | None, cancel: float) -> None:
        tasks = [
            asyncio.create_task(self.live(i)) for i in range(self.count) if i not in self.finished
        ]
        turn = 0
        while any(not task.done() for task in tasks):
            await asyncio.sleep(0)
            turn += 1
            assert turn < 50_000, "a waiter hangs"
            if crash_after is not None and turn >= crash_after:
                self.crash()
                break
            if self.random.random() < cancel:
                self.random.choice(tasks).cancel()
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    def crash(self) -> None:
        """Forget the ledger and build it again from what was recorded.

        Tasks of the old process are cancelled next; what they give back reaches the old tree only.
        """
        outstanding = self.run.spent + self.run.reserved
        for sent in self.flying.values():
            self.left += sent
        self.flying.clear()
        self.build()
        for key, (index, reserved, actual) in self.journal.items():
            charged = actual if actual is not None else reserved
            self.branches[index].charge(charged)
            self.journal[key] = (index, reserved, charged)
        assert self.left.fits(self.run.spent)
        assert self.run.spent.fits(outstanding)

    def check_end(self) -> list[float]:
        """Nothing outstanding; returns the share of each limit that stopped somebody."""
        used = []
        by_name = {scope.name: scope for scope in self.scopes}
        for scope in reversed(self.scopes):
            assert not scope.reserved
            assert not scope.waiting
            scope.close()
        assert self.left.fits(self.run.spent)
        for error in self.refused:
            scope = by_name[error.scope]
            kind = "nanodollars" if error.kind == "usd" else error.kind
            limit = getattr(scope.budget, kind)
            used.append(getattr(scope.spent, kind) / limit)
        return used


async def one_schedule(seed: int) -> list[float]:
    sim = Sim(seed)
    rng = sim.random
    cancel = rng.choice((0.0, 0.0, 0.02))
    while rng.random() < 0.3:
        await sim.attempt(rng.randrange(1, 40), cancel)
    await sim.attempt(None, cancel)
    return sim.check_end()


@pytest.mark.parametrize("chunk", range(CHUNKS))
async def test_no_limit_is_passed_and_nothing_is_left_or_idle(chunk: int) -> None:
    used: list[float] = []
    size = SCHEDULES // CHUNKS
    for seed in range(chunk * size, (chunk + 1) * size):
        used += await one_schedule(seed)
    assert len(used) > size
    assert min(used) >= 0.90
