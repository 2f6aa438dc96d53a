from __future__ import annotations

import asyncio
import json

import pytest

from longthought.budgets import Amount, Budget, Pool, Scope
from longthought.errors import BudgetExhausted, InvalidInput
from tests.budgets.ledgers import take, tokens, tree, turns

# -- reserving now ---------------------------------------------------------------------------------


def test_a_reservation_counts_in_every_scope_above() -> None:
    run, a, b = tree()
    take(a, 60)
    assert (run.reserved, a.reserved, b.reserved) == (tokens(60), tokens(60), Amount())
    assert (run.remaining("tokens"), b.remaining("tokens")) == (40, 40)
    assert run.remaining("tool_calls") is None


def test_what_does_not_fit_now_is_none_and_what_never_fits_raises() -> None:
    _run, a, b = tree()
    take(a, 60).settle(tokens(10))
    take(a, 60)
    assert b.try_reserve(tokens(31)) is None
    with pytest.raises(BudgetExhausted) as caught:
        b.try_reserve(tokens(91))
    error = caught.value
    assert (error.kind, error.scope, error.limit, error.needed) == ("tokens", "run", 100, 91)


def test_money_is_reported_in_dollars() -> None:
    run = Scope("run", Budget(usd="0.05", final_answer=0))
    with pytest.raises(BudgetExhausted) as caught:
        run.try_reserve(Amount(nanodollars=60_000_000))
    assert (caught.value.kind, caught.value.limit, caught.value.needed) == ("usd", 0.05, 0.06)


def test_a_child_may_have_less_but_never_more() -> None:
    _run, a, _ = tree()
    small = a.child("small", Budget(tokens=20, final_answer=0))
    large = a.child("large", Budget(tokens=500, final_answer=0))
    assert (small.remaining("tokens"), large.remaining("tokens")) == (20, 100)
    with pytest.raises(BudgetExhausted, match="limit of small"):
        small.try_reserve(tokens(21))
    with pytest.raises(BudgetExhausted, match="limit of run"):
        large.try_reserve(tokens(101))


def test_the_final_answer_has_what_was_kept_back() -> None:
    run = Scope("run", Budget(tokens=1000))
    take(run, 950).settle(tokens(950))
    assert run.exhausted == "tokens"
    assert (run.remaining("tokens"), run.remaining("tokens", allowance=True)) == (0, 50)
    with pytest.raises(BudgetExhausted):
        run.try_reserve(tokens(1))
    last = run.try_reserve(tokens(50), allowance=True)
    assert last is not None
    last.settle(tokens(50))
    assert run.spent == tokens(1000)


def test_a_last_answer_has_what_its_own_scope_keeps_and_no_more() -> None:
    run = Scope("run", Budget(tokens=1000, final_answer=300))
    search = run.child("search", level="search")
    branch = search.child("b", Budget(tokens=800, final_answer=200), level="branch")
    take(branch, 600).settle(tokens(600))
    assert (branch.remaining("tokens"), branch.remaining("tokens", allowance=True)) == (0, 100)
    last = branch.try_reserve(tokens(60), allowance=True)  # 200 are its own, 100 the run can spare
    assert last is not None
    assert last.top_up(tokens(140)) == tokens(40)
    last.forfeit()
    with pytest.raises(BudgetExhausted, match="limit of run"):
        branch.try_reserve(tokens(1), allowance=True)
    assert run.try_reserve(tokens(300), allowance=True) is not None


def test_a_kind_that_is_used_up_does_not_block_others() -> None:
    run = Scope("run", Budget(tool_calls=0, tokens=10, final_answer=0))
    take(run, 5)
    with pytest.raises(BudgetExhausted, match="tool_calls"):
        run.try_reserve(Amount(tool_calls=1))
    assert run.exhausted == "tool_calls"
    run.charge(tokens(50))
    assert run.try_reserve(Amount(model_calls=1)) is not None


# -- how a reservation ends ------------------------------------------------------------------------


def test_settle_release_forfeit() -> None:
    run, a, _ = tree()
    assert take(a, 60).settle(tokens(10)) == Amount()
    take(a, 60).release()
    assert take(a, 30).forfeit() == tokens(30)
    assert (run.spent, run.reserved) == (tokens(40), Amount())


def test_leaving_the_context_forfeits() -> None:
    run, a, _ = tree()
    with take(a, 10):
        pass
    with take(a, 10) as held:
        held.settle(tokens(3))
    assert run.spent == tokens(13)


@pytest.mark.parametrize("again", ["release", "forfeit", "settle", "top_up"])
def test_ending_twice_is_a_bug(again: str) -> None:
    run, a, _ = tree()
    reservation = take(a, 10)
    reservation.release()
    arguments = (tokens(1),) if again in ("settle", "top_up") else ()
    with pytest.raises(RuntimeError, match="already ended"):
        getattr(reservation, again)(*arguments)
    assert reservation.closed
    assert run.spent == run.reserved == Amount()


def test_more_than_reserved_is_charged_and_reported_where_it_passes_a_limit() -> None:
    run, a, b = tree()
    assert take(a, 10).settle(tokens(15)) == Amount()
    other = take(b, 80)
    assert take(a, 5).settle(tokens(12)) == tokens(7)
    assert run.overrun == tokens(7)
    other.settle(tokens(10))
    assert (run.spent, run.overrun) == (tokens(37), Amount())


def test_an_overrun_is_laid_to_the_call_that_made_it() -> None:
    run, a, _ = tree()
    held = take(a, 10)
    run.charge(tokens(150))
    assert held.settle(tokens(13)) == tokens(3)
    assert run.overrun == tokens(63)


def test_charging_never_refuses() -> None:
    run, a, _ = tree()
    assert a.charge(tokens(70)) == Amount()
    assert a.charge(tokens(70)) == tokens(40)
    assert (run.overrun, run.remaining("tokens")) == (tokens(40), 0)


def test_negative_figures_are_refused() -> None:
    run, a, _ = tree()
    held = take(a, 5)
    for wrong in (lambda: a.charge(tokens(-1)), lambda: held.settle(tokens(-1))):
        with pytest.raises(ValueError, match="negative"):
            wrong()
    with pytest.raises(ValueError, match="minimum"):
        a.try_reserve(tokens(-1))
    assert run.reserved == tokens(5)


# -- waiting ---------------------------------------------------------------------------------------


async def test_waiters_are_served_in_order() -> None:
    run, a, b = tree()
    held, order = take(a, 100), []

    async def want(name: str, scope: Scope, count: int) -> None:
        with await scope.reserve(tokens(count)) as reservation:
            order.append(name)
            await turns()
            reservation.settle(tokens(1))

    tasks = [asyncio.create_task(want(*w)) for w in (("1", a, 90), ("2", b, 20), ("3", a, 5))]
    await turns()
    assert run.waiting == 3
    assert b.try_reserve(tokens(1)) is None  # nobody overtakes
    held.settle(tokens(0))
    await asyncio.gather(*tasks)
    assert order == ["1", "2", "3"]


async def test_a_branch_stuck_at_its_own_limit_stops_no_other() -> None:
    _run, a, b = tree()
    small = a.child("small", Budget(tokens=10, final_answer=0))
    held = take(small, 10)
    stuck = asyncio.create_task(small.reserve(tokens(5)))
    await turns()
    with await b.reserve(tokens(50)):
        assert not stuck.done()
        assert b.try_reserve(tokens(1)) is not None
    held.release()
    assert (await stuck).amount == tokens(5)


async def test_two_scarce_kinds_do_not_starve_a_waiter_in_turn() -> None:
    """The old waiter needs both kinds; newcomers that need one each must not pass it for ever."""
    run = Scope("run", Budget(tokens=10, tool_calls=1, final_answer=0))
    both, calls = Amount(tokens=10, tool_calls=1), Amount(tool_calls=1)
    first = run.try_reserve(tokens(10))
    assert first is not None
    old = asyncio.create_task(run.reserve(both))
    await turns()
    assert run.try_reserve(calls) is None
    first.release()
    assert (await old).amount == both


async def test_scarce_kinds_of_two_scopes_do_not_starve_a_waiter_in_turn() -> None:
    run = Scope("run", Budget(tokens=10, final_answer=0))
    branch = run.child("branch", Budget(tool_calls=1))
    first = run.try_reserve(tokens(10))
    assert first is not None
    old = asyncio.create_task(branch.reserve(Amount(tokens=10, tool_calls=1)))
    await turns()
    assert branch.try_reserve(Amount(tool_calls=1)) is None
    first.release()
    assert (await old).amount.tool_calls == 1


async def test_a_waiter_that_can_never_fit_any_more_is_told() -> None:
    run, a, b = tree()
    held = take(a, 60)
    task = asyncio.create_task(b.reserve(tokens(50)))
    await turns()
    assert not task.done()
    held.settle(tokens(51))
    with pytest.raises(BudgetExhausted):
        await task
    assert run.waiting == 0


async def test_recorded_spending_fails_waiters_too() -> None:
    _run, a, b = tree()
    take(a, 60)
    task = asyncio.create_task(b.reserve(tokens(50)))
    await turns()
    b.charge(tokens(60))
    with pytest.raises(BudgetExhausted):
        await task


async def test_raising_a_limit_serves_waiters() -> None:
    run, a, b = tree()
    take(a, 60)
    task = asyncio.create_task(b.reserve(tokens(50)))
    await turns()
    run.raise_limit(Budget(tokens=110, final_answer=0))
    assert (await task).amount == tokens(50)
    with pytest.raises(InvalidInput, match=r"budget.tokens: 109 is lower"):
        run.raise_limit(Budget(tokens=109))


def test_raising_one_limit_leaves_the_others() -> None:
    scope = Scope("batch", Budget(tokens=100, usd=1, tool_calls=3, final_answer=7))
    scope.raise_limit(Budget(tokens=200))
    assert scope.budget == Budget(tokens=200, usd=1, tool_calls=3, final_answer=7)
    scope.raise_limit(Budget())
    assert scope.budget == Budget(tokens=200, usd=1, tool_calls=3, final_answer=7)
    with pytest.raises(InvalidInput, match=r"budget.branches: is not limited"):
        scope.raise_limit(Budget(branches=5))


def test_a_pool_that_is_raised_keeps_its_other_limits() -> None:
    pool = Pool("batch", Budget(tokens=100, usd=1))
    pool.raise_limit(Budget(tokens=200))
    assert pool.view()["limits"] == {"tokens": 200, "usd": "1"}
    with pytest.raises(InvalidInput, match=r"budget.wall: is not limited"):
        pool.raise_limit(Budget(wall=60))


async def test_cancelling_a_waiter_lets_the_next_one_pass() -> None:
    run, a, b = tree()
    take(a, 60)
    big = asyncio.create_task(a.reserve(tokens(90)))
    small = asyncio.create_task(b.reserve(tokens(40)))
    await turns()
    assert not small.done()
    big.cancel()
    await turns()
    assert small.done()
    assert run.reserved == tokens(100)


async def test_cancelled_in_the_moment_of_the_grant() -> None:
    run, a, b = tree()
    held = take(a, 100)
    task = asyncio.create_task(b.reserve(tokens(40)))
    await turns()
    held.release()
    assert run.reserved == tokens(40)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert run.reserved == Amount()


async def test_cancelled_in_the_moment_of_the_refusal() -> None:
    run, a, b = tree()
    held = take(a, 100)
    task = asyncio.create_task(b.reserve(tokens(40)))
    await turns()
    held.forfeit()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (run.waiting, run.reserved) == (0, Amount())


def test_a_ledger_outlives_its_loops() -> None:
    run, a, b = tree()
    held = take(a, 100)
    loop = asyncio.new_event_loop()
    task = loop.create_task(b.reserve(tokens(40)))
    loop.run_until_complete(turns())
    loop.close()  # with a waiter that will never run again

    async def again() -> Amount:
        waiter = asyncio.create_task(b.reserve(tokens(30)))
        await turns()
        held.release()
        with await waiter as reservation:
            return reservation.amount

    assert asyncio.run(again()) == tokens(30)
    assert (run.waiting, run.reserved) == (0, Amount())
    task._log_destroy_pending = False  # type: ignore[attr-defined]


# -- the tree --------------------------------------------------------------------------------------


def test_the_view_is_json_of_the_whole_tree() -> None:
    run, a, b = tree()
    take(a, 10).settle(tokens(4))
    take(b, 10)
    view = json.loads(json.dumps(run.view()))
    assert view == {
        "name": "run",
        "limits": {"tokens": 100, "final_answer": 0},
        "spent": {"tokens": 4},
        "reserved": {"tokens": 10},
        "left": {"tokens": 86},
        "children": [
            {"name": "a", "spent": {"tokens": 4}},
            {"name": "b", "reserved": {"tokens": 10}},
        ],
    }


def test_a_closed_scope_leaves_the_tree_and_its_spending() -> None:
    run, a, _b = tree()
    held = take(a, 10)
    with pytest.raises(RuntimeError, match="still has"):
        a.close()
    with pytest.raises(RuntimeError, match="still has"):
        run.close()
    held.settle(tokens(4))
    a.close()
    assert run.view()["children"] == [{"name": "b"}]
    assert run.spent == tokens(4)
    with pytest.raises(RuntimeError, match="closed"):
        a.try_reserve(tokens(1))
    with pytest.raises(RuntimeError, match="closed"):
        a.child("late")


def test_changes_are_announced_here_and_above() -> None:
    seen: list[str] = []
    run = Scope("run", on_change=lambda: seen.append("run"))
    branch = run.child("branch", on_change=lambda: seen.append("branch"))
    reservation = branch.try_reserve(tokens(1))
    assert reservation is not None
    assert seen == ["branch", "run"]
    reservation.settle(tokens(1))
    run.charge(tokens(1))
    assert seen == ["branch", "run", "branch", "run", "run"]


def test_which_limits_apply() -> None:
    run = Scope("run", Budget(usd=1))
    branch = run.child("branch", Budget(branches=3))
    assert branch.hard
    assert not Scope("x", Budget(branches=3)).hard
    assert branch.limited("nanodollars")
    assert branch.limited("branches")
    assert not run.limited("branches")
