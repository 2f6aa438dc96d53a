"""Pools: many runs on one budget, none of which can starve the others."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longthought.budgets import Amount, Budget, Pool, Scope, waiting
from longthought.budgets.shares import order_of
from longthought.errors import BudgetExhausted, InvalidInput

NOTHING = Amount()


def tokens(count: int) -> Amount:
    return Amount(tokens=count, output_tokens=count)


def begun(pool: Pool, name: str, budget: Budget | None = None) -> Scope:
    return pool.begin_run(name, budget or Budget(), NOTHING)


async def called(scope: Scope, want: int, least: int, used: float = 1.0) -> int:
    """One call: reserves, lets others have their turn, and settles at a part of it."""
    held = await scope.reserve(tokens(want), minimum=tokens(least))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    taken = int(held.amount.tokens * used)
    held.settle(tokens(taken))
    return taken


async def ended(scope: Scope, work: Callable[[], Awaitable[None]]) -> bool:
    """A run that works until it is through, or the pool is used up; whether it was through."""
    try:
        await work()
    except BudgetExhausted:
        return False
    finally:
        scope.close()
    return True


@settings(deadline=None, max_examples=60)
@given(
    limit=st.integers(200, 3_000),
    inner=st.integers(100, 3_000),
    sizes=st.lists(st.integers(1, 6), min_size=2, max_size=12),
    seed=st.integers(0, 1_000),
    kept=st.sampled_from([None, 0, 10]),
)
def test_nothing_is_ever_overshot_and_everybody_ends(
    limit: int, inner: int, sizes: list[int], seed: int, kept: int | None
) -> None:
    """Many runs in nested pools, each with branches; whatever happens the limits hold."""
    worst: list[Amount] = []
    pool = Pool(
        "batch",
        Budget(tokens=limit, final_answer=kept),
        on_change=lambda: worst.append(pool.overrun) if pool.overrun else None,
    )
    small = pool.child("experiment", Budget(tokens=inner, model_calls=9))

    async def branch(scope: Scope, order: random.Random) -> None:
        for _ in range(order.randint(1, 4)):
            await called(scope, order.randint(5, 90), 5, order.random())

    async def one(number: int, branches: int) -> bool:
        order = random.Random(seed * 100 + number)
        scope = begun(small if number % 2 else pool, f"run {number}")
        parts = [scope.child(f"branch {n}") for n in range(branches)]

        async def work() -> None:
            done = await asyncio.gather(*(branch(p, order) for p in parts), return_exceptions=True)
            if errors := [e for e in done if isinstance(e, BaseException)]:
                raise errors[0]

        return await ended(scope, work)

    async def batch() -> None:
        async with asyncio.timeout(20):
            await asyncio.gather(*(one(n, size) for n, size in enumerate(sizes)))

    asyncio.run(batch())
    assert not worst
    assert pool.spent.tokens <= limit
    assert small.spent.tokens <= min(limit, inner)
    assert small.spent.model_calls <= 9
    assert not pool.reserved
    assert (pool.runs, small.runs, pool.waiting) == (0, 0, 0)


@pytest.mark.parametrize("patient", [True, False])
async def test_a_greedy_run_starves_nobody(patient: bool) -> None:
    """64 branches that never have enough, beside runs of many small steps that think in between."""
    pool = Pool("batch", Budget(tokens=10_000, final_answer=0))
    greedy = begun(pool, "greedy")
    spent = dict.fromkeys(range(4), 0)

    async def modest(number: int) -> bool:
        scope = begun(pool, f"modest {number}")

        async def work() -> None:
            for _ in range(10):
                spent[number] += await called(scope, 100, 100)
                if patient:  # a tool at work: it asks for nothing meanwhile
                    for _ in range(20):
                        await asyncio.sleep(0)

        return await ended(scope, work)

    async def insatiable() -> None:
        while True:
            await called(greedy, 1_000, 50)

    runs = [asyncio.create_task(modest(number)) for number in range(4)]
    branches = [asyncio.create_task(insatiable()) for _ in range(64)]
    async with asyncio.timeout(20):
        assert await asyncio.gather(*runs) == [True] * 4
        await asyncio.wait(branches)
    assert set(spent.values()) == {1_000}
    # what they left is the greedy one's in the end: nothing lies idle
    assert 10_000 - 64 < pool.spent.tokens + 50 <= 10_000 + 50
    assert all(isinstance(branch.exception(), BudgetExhausted) for branch in branches)


async def test_what_a_run_did_not_use_is_free_when_it_ends() -> None:
    pool = Pool("batch", Budget(tokens=1_000, final_answer=0))
    one, two = begun(pool, "one"), begun(pool, "two")
    held = one.try_reserve(tokens(500))
    assert held is not None
    assert one.try_reserve(tokens(1)) is None  # the other half is two's, who asks for nothing yet
    waiting = asyncio.create_task(one.reserve(tokens(300)))
    await asyncio.sleep(0.0)
    assert not waiting.done()
    two.close()
    (await waiting).release()
    held.release()


async def test_free_room_is_divided_by_runs_first() -> None:
    pool = Pool("batch", Budget(tokens=900, final_answer=0))
    many, few = begun(pool, "many"), begun(pool, "few")
    calls = [many.child(f"b{n}").reserve(tokens(900), minimum=tokens(1)) for n in range(9)]
    held = await asyncio.gather(*calls, few.reserve(tokens(900), minimum=tokens(1)))
    of_many = sum(one.amount.tokens for one in held[:9])
    assert abs(of_many - held[9].amount.tokens) <= 100
    for one in held:
        one.release()


async def test_each_run_has_its_own_part_for_a_last_answer() -> None:
    pool = Pool("batch", Budget(tokens=1_000, final_answer=50))
    runs = [begun(pool, f"run {n}") for n in range(4)]
    for run in runs:
        run.charge(tokens(200))
    for run in runs:
        with pytest.raises(BudgetExhausted) as caught:
            run.try_reserve(tokens(1))
        assert (caught.value.scope, caught.value.kind) == ("batch", "tokens")
    answers = [run.try_reserve(tokens(50), allowance=True) for run in runs]
    assert all(answers)  # at once, in any order: none took another's
    for one in answers:
        assert one is not None
        one.forfeit()
    with pytest.raises(BudgetExhausted):
        runs[0].try_reserve(tokens(1), allowance=True)
    assert pool.spent.tokens == 1_000
    assert not pool.overrun


def test_a_branch_has_no_part_in_what_a_pool_keeps_for_its_run() -> None:
    pool = Pool("batch", Budget(tokens=1_000, final_answer=50))
    run = begun(pool.child("small"), "run")
    branch = run.child("b", Budget(tokens=980, final_answer=60), level="branch")
    branch.charge(tokens(940))
    with pytest.raises(BudgetExhausted, match="limit of batch"):
        branch.try_reserve(tokens(20), allowance=True)
    held = branch.try_reserve(tokens(10), allowance=True)
    assert held is not None
    assert run.try_reserve(tokens(50), allowance=True) is not None


def test_a_tenth_is_kept_for_all_unless_it_is_stated() -> None:
    pool = Pool("batch", Budget(tokens=1_000))
    runs = [begun(pool, f"run {n}") for n in range(16)]
    assert pool.remaining("tokens") == 1_000 - 16 * (100 // 16)
    for run in runs:
        run.close()
    assert pool.remaining("tokens") == 950


def test_earlier_spending_counts_once() -> None:
    pool = Pool("batch", Budget(tokens=1_000))
    small = pool.child("small", Budget(tokens=500))
    first = begun(small, "r")
    first.charge(Amount(tokens=70))
    first.close()
    assert (small.spent.tokens, pool.spent.tokens) == (70, 70)
    again = small.begin_run("r", Budget(), Amount(tokens=90))  # a crash left 20 more charged
    assert (again.spent.tokens, small.spent.tokens, pool.spent.tokens) == (90, 90, 90)
    again.close()
    elsewhere = pool.child("other").begin_run("r", Budget(), Amount(tokens=90))
    assert (elsewhere.parent.spent.tokens, pool.spent.tokens) == (90, 90)  # type: ignore[union-attr]


def test_the_view_names_the_runs() -> None:
    pool = Pool("batch", Budget(tokens=1_000))
    begun(pool.child("small"), "r1").charge(Amount(tokens=5))
    begun(pool, "r2")
    view = pool.view()
    assert (view["runs"], view["left"]) == (2, {"tokens": 900 - 5})
    small, second = view["children"]
    assert (small["runs"], small["children"][0]["name"], second["name"]) == (1, "r1", "r2")


async def test_a_run_inside_another_does_not_wait_for_it() -> None:
    """A tool that answers a question of its own, in the same pool: the run around it waits."""
    pool = Pool("batch", Budget(tokens=1_000, final_answer=0))
    begun(pool, "outer")
    inner = pool.begin_run("inner", Budget(), NOTHING, nested=True)
    assert inner.try_reserve(tokens(900)) is not None


def test_it_takes_no_more_runs_when_it_is_over() -> None:
    with Pool("batch", Budget(tokens=100)) as pool:
        with pool.child("inner") as inner:
            assert inner.view()["runs"] == 0
        assert "children" not in pool.view()
    with pytest.raises(InvalidInput, match="'batch' is closed"):
        begun(pool, "late")


@pytest.mark.parametrize("name", ["run", "search", "branch", "a.b", " ", "a\nb"])
def test_names_that_stand_for_something_else_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="called"):
        Pool(name)


def test_a_pool_has_no_clock() -> None:
    with pytest.raises(InvalidInput, match="time"):
        Pool("batch", Budget(wall=3))


async def test_a_smaller_pool_without_runs_holds_nothing() -> None:
    """It had a run that is over, and may get another one: until then its part is there for all."""
    pool = Pool("batch", Budget(tokens=1_000, final_answer=0))
    small = pool.child("small")
    begun(small, "first").close()
    alone = begun(pool, "alone")
    assert alone.try_reserve(tokens(600)) is not None
    begun(small, "second")
    assert alone.try_reserve(tokens(1)) is None
    assert pool.child("empty").runs == 0


async def test_a_last_answer_that_is_tried_again_has_its_part_still() -> None:
    """What a try gave back is kept for the run again, and what it was topped up with is drawn."""
    pool = Pool("batch", Budget(tokens=10_000, final_answer=500))
    first, second = begun(pool, "first"), begun(pool, "second")
    for scope in (first, second):
        scope.charge(tokens(4_500))
    held = first.try_reserve(tokens(500), allowance=True)
    assert held is not None
    held.release()
    assert pool.remaining("tokens") == 0
    held = first.try_reserve(tokens(200), allowance=True)
    assert held is not None
    assert held.top_up(tokens(300)) == tokens(300)
    assert pool.remaining("tokens") == 0
    held.settle(tokens(100))
    assert pool.remaining("tokens") == 0
    for scope in (first, second):
        again = scope.try_reserve(tokens(400), allowance=True)
        assert again is not None
        again.release()


async def test_who_only_waits_changes_no_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each run stands is looked up once for all that cannot be served, not for each."""
    pool = Pool("batch", Budget(tokens=1_000, final_answer=0))
    holder = begun(pool, "holder")
    held = holder.try_reserve(tokens(1_000))
    assert held is not None
    runs = [begun(pool, f"run {number}") for number in range(40)]
    tasks = [asyncio.create_task(called(run, 10, 10)) for run in runs]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert pool.waiting == 40
    looked: list[object] = []

    def counted(accounts: Any) -> tuple[float, ...]:
        looked.append(accounts)
        return order_of(accounts)

    monkeypatch.setattr(waiting, "order_of", counted)
    assert runs[0].try_reserve(tokens(1)) is None
    assert len(looked) == 40
    held.release()
    assert await asyncio.gather(*tasks) == [10] * 40
