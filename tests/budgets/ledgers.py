"""A small tree of scopes, and what tests of the ledger do with it."""

from __future__ import annotations

import asyncio

from longthought.budgets import Amount, Budget, Reservation, Scope


def tokens(count: int, output: int = 0) -> Amount:
    return Amount(tokens=count, output_tokens=output)


def tree(limit: int = 100) -> tuple[Scope, Scope, Scope]:
    run = Scope("run", Budget(tokens=limit, final_answer=0))
    return run, run.child("a"), run.child("b")


def take(scope: Scope, count: int) -> Reservation:
    reservation = scope.try_reserve(tokens(count))
    assert reservation is not None
    return reservation


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)
