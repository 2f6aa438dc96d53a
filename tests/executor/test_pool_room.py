"""A run that a pool's limit ended goes on when the pool that is given has room again."""

from __future__ import annotations

from typing import Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from longthought import Budget, Context, Pool, Result, Store, Workflow, strategies
from longthought.errors import InvalidInput
from longthought.orchestrator.strategies import Policy
from longthought.storage.audit import audit
from tests.executor.workflows import looking


def plain(request: Any) -> str:
    return "thinking " * 20 + "The answer is 7"


def pooled(store: Store, strategy: Policy | None = None) -> Workflow:
    policy = strategy or strategies.sample(6)
    return looking(store, script=plain, tools=[], strategy=policy, budget=Budget())


async def rooms(store: Store, run_id: str) -> list[Any]:
    """What each raise on record says of the pool that had room again."""
    events = (await store.read(run_id)).events
    own = [e.body["data"] for e in events if e.body.get("input") == "limit_raised" and not e.key]
    return [data.get("room") for data in own]


async def is_whole(store: Store, workflow: Workflow, result: Result) -> None:
    assert (await audit(store, result.id)).ok
    again = await workflow.replay(result.id)
    assert (again.status, again.stop_reason) == (result.status, result.stop_reason)
    assert (again.answer, again.model_calls) == (result.answer, 0)


@pytest.mark.parametrize(
    "strategy",
    [
        strategies.single(),
        strategies.sample(6),
        strategies.sample(6, wave=2, stop=strategies.beta(0.999)),
        strategies.backtrack(width=2, depth=2),
    ],
    ids=["single", "majority", "waves", "backtrack"],
)
@pytest.mark.parametrize("tokens", [60, 150])
async def test_it_goes_on_after_the_pool_was_raised(
    store: Store, strategy: Policy, tokens: int
) -> None:
    workflow = pooled(store, strategy)
    whole = await workflow.run("q")
    with Pool("pp", Budget(tokens=tokens, final_answer=0)) as pool:
        first = await workflow.run("q", pool=pool)
        if first.status == "completed":
            assert whole.spent["tokens"] <= tokens
            return
        assert (first.status, first.stop_reason) == ("incomplete", "pp.tokens")
        length = len((await store.read(first.id)).events)
        same = await workflow.resume(first.id, pool=pool)
        assert (same.stop_reason, same.model_calls) == ("pp.tokens", 0)
        assert len((await store.read(first.id)).events) == length  # it was replayed
        pool.raise_limit(Budget(tokens=10_000))
        more = await workflow.resume(first.id, pool=pool)
        assert (more.status, more.answer) == ("completed", whole.answer)
        assert pool.spent.tokens == more.spent["tokens"] >= first.spent["tokens"]
    assert await rooms(store, first.id) == ["pp.tokens"]
    await is_whole(store, workflow, more)


async def test_room_is_counted_with_what_the_run_has_used(sqlite_store: Store) -> None:
    """A new pool of the same size has none: what earlier attempts have used counts there, too."""
    workflow = pooled(sqlite_store)
    first = await workflow.run("q", pool=Pool("pp", Budget(tokens=60)))
    assert first.stop_reason == "pp.tokens"
    small = Pool("other", Budget(tokens=60))
    assert (await workflow.resume(first.id, pool=small)).stop_reason == "pp.tokens"
    assert await rooms(sqlite_store, first.id) == []
    assert not small.spent
    large = Pool("large", Budget(tokens=10_000))
    inner = large.child("small", Budget(tokens=100))
    again = await workflow.resume(first.id, pool=inner)
    assert again.stop_reason == "small.tokens"  # it went on, and came to another end
    inner.raise_limit(Budget(tokens=9_000))
    more = await workflow.resume(first.id, pool=inner)
    assert more.status == "completed"
    assert large.spent.tokens == inner.spent.tokens == more.spent["tokens"]
    assert await rooms(sqlite_store, first.id) == ["pp.tokens", "small.tokens"]
    await is_whole(sqlite_store, workflow, more)


async def test_another_kind_is_no_room(sqlite_store: Store) -> None:
    workflow = pooled(sqlite_store)
    with Pool("pp", Budget(tokens=9_000, model_calls=2)) as pool:
        first = await workflow.run("q", pool=pool)
        assert first.stop_reason == "pp.model_calls"
        pool.raise_limit(Budget(tokens=90_000))
        assert (await workflow.resume(first.id, pool=pool)).stop_reason == "pp.model_calls"
        assert await rooms(sqlite_store, first.id) == []
        pool.raise_limit(Budget(model_calls=20))
        assert (await workflow.resume(first.id, pool=pool)).status == "completed"


async def test_a_run_that_its_own_limit_ended_needs_more_than_a_pool(sqlite_store: Store) -> None:
    workflow = looking(sqlite_store, script=plain, tools=[], budget=Budget(tokens=60))
    first = await workflow.run("q")
    assert first.stop_reason == "tokens"
    pool = Pool("pp", Budget(tokens=10_000))
    assert (await workflow.resume(first.id, pool=pool)).stop_reason == "tokens"
    assert await rooms(sqlite_store, first.id) == []


class State(TypedDict, total=False):
    answer: Any


async def test_a_graph_of_ones_own_goes_on(sqlite_store: Store) -> None:
    async def work(state: State, runtime: Runtime[Context]) -> State:
        for number in range(3):
            await runtime.context.model(f"{number}")
        return {"answer": 7}

    graph: Any = StateGraph(State, context_schema=Context)
    graph.add_node("work", work)
    graph.add_edge(START, "work")
    graph.add_edge("work", END)
    workflow = looking(sqlite_store, script=plain, tools=[], graph=graph, budget=Budget())
    with Pool("pp", Budget(usd="1", tokens=45)) as pool:
        first = await workflow.run("q", pool=pool)
        assert (first.status, first.stop_reason) == ("incomplete", "pp.tokens")
        spent = first.spent["tokens"]
        pool.raise_limit(Budget(tokens=46))  # more, and less than what it found no room for
        assert (await workflow.resume(first.id, pool=pool)).stop_reason == "pp.tokens"
        assert await rooms(sqlite_store, first.id) == []
        pool.raise_limit(Budget(tokens=10_000))
        more = await workflow.resume(first.id, pool=pool)
        assert (more.status, more.answer) == ("completed", 7)
        assert more.spent["tokens"] > spent
    await is_whole(sqlite_store, workflow, more)


async def test_what_to_do_is_said(sqlite_store: Store) -> None:
    workflow = pooled(sqlite_store)
    first = await workflow.run("q", pool=Pool("pp", Budget(tokens=60)))
    with pytest.raises(InvalidInput, match=r"pp\.tokens ended it: raise .* resume with pool="):
        await workflow.resume(first.id, budget=Budget(tokens=10_000))
    not_one: Any = "pp"
    with pytest.raises(InvalidInput, match="is no pool"):
        await workflow.resume(first.id, pool=not_one)
