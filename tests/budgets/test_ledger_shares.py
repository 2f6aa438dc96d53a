"""How calls share a limit: in parts, with top-ups, and so that what is there is used."""

from __future__ import annotations

import asyncio
import random

import pytest

from longthought.budgets import Amount, Budget, Scope
from longthought.errors import BudgetExhausted
from tests.budgets.ledgers import take, tokens, tree, turns

# -- shares and top-ups ----------------------------------------------------------------------------


async def test_alone_a_call_gets_all_it_wants() -> None:
    _run, a, _ = tree()
    held = await a.reserve(tokens(100, 90), minimum=tokens(20, 10))
    assert held.amount == tokens(100, 90)


async def test_at_once_many_calls_share() -> None:
    run = Scope("run", Budget(tokens=6400, final_answer=0))
    branches = [run.child(str(i)) for i in range(64)]
    wishes = (b.reserve(tokens(4096, 4046), minimum=tokens(60, 10)) for b in branches)
    held = await asyncio.gather(*wishes)
    assert {h.amount for h in held} == {tokens(100, 50)}


async def test_where_nobody_could_mind_nobody_waits() -> None:
    async def turns_of(scope: Scope, amount: Amount, minimum: Amount | None) -> int:
        """How many turns of the loop a reservation takes."""
        taken = asyncio.create_task(scope.reserve(amount, minimum=minimum))
        passed = 0
        while not taken.done():
            await asyncio.sleep(0)
            passed += 1
        taken.result().release()
        return passed

    calls, little = Amount(tool_calls=1), tokens(1, 1)
    assert await turns_of(Scope("run", Budget(tool_calls=1, final_answer=0)), calls, None) == 1
    plenty = Scope("run", Budget(tokens=256 * 50, final_answer=0))
    assert await turns_of(plenty, tokens(50, 50), little) == 1
    plenty.charge(tokens(1))  # 256 callers would not get all they want any more
    assert await turns_of(plenty, tokens(50, 50), little) > 1


async def test_who_waits_is_not_overtaken_by_who_wants_little() -> None:
    run = Scope("run", Budget(tool_calls=2, final_answer=0))
    held = run.try_reserve(Amount(tool_calls=1))
    assert held is not None
    both = asyncio.create_task(run.reserve(Amount(tool_calls=2)))
    await turns()
    one = asyncio.create_task(run.reserve(Amount(tool_calls=1)))
    await turns()
    assert (both.done(), one.done()) == (False, False)
    held.release()
    await turns()
    assert (both.done(), one.done()) == (True, False)
    both.result().release()
    (await one).release()


async def test_a_share_is_never_below_the_minimum() -> None:
    _run, a, b = tree()
    first, second = (
        asyncio.create_task(s.reserve(tokens(100, 90), minimum=tokens(70, 60))) for s in (a, b)
    )
    await turns()
    assert (await first).amount == tokens(70, 60)
    assert not second.done()
    (await first).settle(tokens(30, 20))
    assert (await second).amount == tokens(70, 60)


def test_topping_up() -> None:
    run, a, b = tree()
    held, other = take(a, 40), take(b, 40)
    assert held.top_up(tokens(15, 15)) == tokens(15, 15)
    assert held.amount == tokens(55, 15)
    assert held.top_up(tokens(15, 15), minimum=tokens(10, 10)) == Amount()
    assert held.top_up(tokens(15, 15)) == tokens(5, 5)
    assert held.top_up(tokens(15, 15)) == Amount()
    other.settle(tokens(1))
    assert held.settle(tokens(60, 20)) == Amount()
    assert run.spent == tokens(61, 20)


async def test_a_top_up_shares_with_those_who_wait() -> None:
    _run, a, b = tree()
    held = take(a, 40)
    task = asyncio.create_task(b.reserve(tokens(70)))
    await turns()
    assert held.top_up(tokens(60)) == tokens(30)
    held.settle(tokens(30))
    assert (await task).amount == tokens(70)


# -- hard does not mean idle -----------------------------------------------------------------------


@pytest.mark.parametrize("top_ups", [True, False])
@pytest.mark.parametrize("tree_limit", [20_000, 40_000, 200_000])
async def test_64_branches_use_the_budget(top_ups: bool, tree_limit: int) -> None:
    """A large max_tokens neither strangles parallel branches nor leaves the budget unused."""
    rng = random.Random(tree_limit + top_ups)
    run = Scope("run", Budget(tokens=tree_limit))
    cut, calls, busiest = 0, 0, 0

    async def branch(scope: Scope) -> None:
        nonlocal cut, calls, busiest
        while True:
            prompt, answer = rng.randint(50, 150), int(rng.lognormvariate(5, 0.7))
            wanted = 256 if top_ups else 4096
            with await scope.reserve(
                tokens(prompt + wanted, wanted), minimum=tokens(prompt + 64, 64)
            ) as held:
                calls += 1
                busiest = max(busiest, run.accounts[0].open)
                await turns(rng.randint(1, 5))
                while top_ups and held.amount.output_tokens < answer:
                    if not held.top_up(tokens(256, 256), minimum=tokens(16, 16)):
                        break
                    await turns(1)
                made = min(answer, held.amount.output_tokens)
                cut += made < answer
                assert held.settle(tokens(prompt + made, made)) == Amount()

    results = await asyncio.gather(
        *(branch(run.child(str(i))) for i in range(64)), return_exceptions=True
    )
    assert all(isinstance(result, BudgetExhausted) for result in results)
    assert run.spent.tokens <= tree_limit
    assert run.spent.tokens >= 0.9 * tree_limit
    assert busiest >= 48
    print(f"{tree_limit} {top_ups}: {run.spent.tokens / tree_limit:.3f} {calls=} {cut=} {busiest=}")
