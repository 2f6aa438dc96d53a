"""Searches and branches have scopes of their own: limits, spending, replay and resume."""

from __future__ import annotations

import asyncio
from typing import Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from longthought import Budget, Context, Store, answers, strategies
from longthought.budgets import Amount, Pool
from longthought.errors import InvalidInput
from longthought.orchestrator import search
from longthought.orchestrator.models.scripted import call, rng, says
from longthought.orchestrator.recorded import Recorded
from longthought.types import JSONObject
from tests.executor.copies import copy_prefix
from tests.executor.workflows import looking, turns_of


def seven(request: Any) -> str:
    return "The answer is 7"


def uneven(request: Any) -> Any:
    """One sample in three looks things up for ever; the others answer at once."""
    asked_last = str(request["messages"][-1]["content"]).startswith("Give your final")
    if rng(request).random() < 0.4 and not asked_last:
        return says("looking " * 20, call("lookup", name=f"n{turns_of(request)}"))
    return "The answer is 7"


def endless(request: Any) -> Any:
    """Looks things up for ever, and answers when it is told to."""
    if str(request["messages"][-1]["content"]).startswith("Give your final"):
        return "The answer is 7"
    return says("looking " * 20, call("lookup", name=f"n{turns_of(request)}"))


def found(view: JSONObject, level: str) -> list[JSONObject]:
    """All scopes of a level in a view."""
    mine = [view] if view.get("level") == level else []
    return mine + [one for child in view.get("children", []) for one in found(child, level)]


async def test_a_branch_that_runs_out_leaves_its_siblings_alone(store: Store) -> None:
    workflow = looking(
        store,
        script=uneven,
        strategy=strategies.sample(12),
        branch_budget=Budget(tokens=300, final_answer=0),
    )
    run = await workflow.run("q")
    assert (run.status, run.answer, run.stop_reason) == ("completed", "7", "all_samples")
    recording = await store.read(run.id)
    ends = [event.body for event in recording.events if event.type == "branch_ended"]
    cut = [body for body in ends if body.get("reason") == "branch.tokens"]
    assert 0 < len(cut) < 12
    assert {body["how"] for body in cut} == {"failed"}
    index = Recorded.of(recording)
    for place in index.branches:
        assert index.spent[place].tokens <= 300
    again = await workflow.replay(run.id)
    assert (again.answer, again.spent["tokens"]) == ("7", run.spent["tokens"])


async def test_what_a_branch_keeps_back_pays_for_its_answer(store: Store) -> None:
    """Every sample looks things up for ever, and answers when it is told to."""
    workflow = looking(
        store,
        script=endless,
        branch_budget=Budget(tokens=800, final_answer=300),
    )
    run = await workflow.run("q")
    assert (run.stop_reason, run.answer, run.support["samples"]) == ("branch.tokens", "7", 4)
    index = Recorded.of(await store.read(run.id))
    assert all(index.spent[place].tokens <= 800 for place in index.branches)
    assert (await workflow.replay(run.id)).answer == "7"


async def test_a_branch_that_closes_leaves_what_the_run_keeps_back(store: Store) -> None:
    """The run has too few tokens left for the branch's answer, except for its own last one."""
    workflow = looking(
        store,
        script=endless,
        strategy=strategies.single(),
        budget=Budget(tokens=580, final_answer=300),
        branch_budget=Budget(output_tokens=150, final_answer=60),
    )
    run = await workflow.run("q")
    index = Recorded.of(await store.read(run.id))
    (place,) = index.branches
    assert index.spent[place].tokens <= 580 - 300
    assert run.answer == "7"
    assert run.spent["tokens"] > 580 - 300  # so the run asked, out of what it kept
    assert (await workflow.replay(run.id)).answer == "7"


async def test_no_branch_has_an_answer_so_the_run_asks(sqlite_store: Store) -> None:
    workflow = looking(
        sqlite_store,
        script=endless,
        branch_budget=Budget(model_calls=2),
    )
    run = await workflow.run("q")
    assert (run.answer, run.spent["model_calls"]) == ("7", 4 * 2 + 1)
    assert (await workflow.replay(run.id)).answer == "7"


@pytest.mark.parametrize("strategy", [strategies.single(), strategies.sample(3)], ids=["1", "3"])
@pytest.mark.parametrize("kept", [0, 300])
async def test_a_limit_that_cut_every_branch_short_is_named(
    sqlite_store: Store, strategy: Any, kept: int
) -> None:
    """With or without an answer that a branch gave only because its limit was reached."""
    limits = Budget(tokens=800, final_answer=kept)
    workflow = looking(sqlite_store, script=endless, strategy=strategy, branch_budget=limits)
    run = await workflow.run("q")
    assert (run.status, run.answer, run.stop_reason) == ("incomplete", "7", "branch.tokens")
    again = await workflow.replay(run.id)
    assert (again.status, again.stop_reason) == ("incomplete", "branch.tokens")
    more = await workflow.resume(run.id, budget=Budget(tokens=200_000))  # not what ended it
    assert (more.stop_reason, more.spent["tokens"]) == ("branch.tokens", run.spent["tokens"])


async def test_branches_that_failed_otherwise_were_cut_by_no_limit(sqlite_store: Store) -> None:
    def script(request: Any) -> Any:
        if request["sampling"].get("seed", 0) % 2:
            raise ValueError("broken")
        return endless(request)

    workflow = looking(sqlite_store, script=script, branch_budget=Budget(tokens=800))
    run = await workflow.run("q")
    assert run.stop_reason == "all_samples"


async def test_a_run_recorded_before_limits_of_branches_were_named_replays(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Budget(tokens=800, final_answer=300)
    workflow = looking(sqlite_store, script=endless, branch_budget=limits)
    with monkeypatch.context() as before:
        before.setattr(search, "named_by_limit", lambda pick, branches: pick)
        run = await workflow.run("q")
    assert (run.status, run.stop_reason) == ("completed", "all_samples")
    assert (await workflow.replay(run.id)).answer == "7"


def tokens_of(scope: JSONObject) -> int:
    return int(scope.get("spent", {}).get("tokens", 0))


class State(TypedDict, total=False):
    answer: Any


def two_searches(seen: dict[str, Any], **budgets: Any) -> Any:
    async def work(state: State, runtime: Runtime[Context]) -> State:
        ctx = runtime.context
        first = await ctx.explore(strategies.sample(8, wave=2), budget=budgets.get("first"))
        second = await ctx.explore(strategies.sample(3), budget=budgets.get("second"))
        seen["view"] = ctx.session.scope.view()
        seen["first"], seen["second"] = first, second
        return {"answer": second.answer}

    graph: Any = StateGraph(State, context_schema=Context)
    graph.add_node("work", work)
    graph.add_edge(START, "work")
    graph.add_edge("work", END)
    return graph


async def test_a_search_has_a_budget_of_its_own(store: Store) -> None:
    seen: dict[str, Any] = {}
    workflow = looking(
        store,
        script=seven,
        tools=[],
        graph=two_searches(seen, first=Budget(model_calls=3)),
    )
    run = await workflow.run("q")
    assert seen["first"].pick.stop_reason == "search.model_calls"
    assert seen["first"].answer == seen["second"].answer == "7"
    assert run.spent["model_calls"] == 6
    first, second = found(seen["view"], "search")
    assert (first["limits"], first["left"]) == (
        {"model_calls": 3, "final_answer": 0},
        {"model_calls": 0},
    )
    assert first["spent"]["model_calls"] == second["spent"]["model_calls"] == 3
    assert sum(tokens_of(b) for b in found(seen["view"], "branch")) == run.spent["tokens"]
    folds = [e.body for e in (await store.read(run.id)).events if e.type == "fold"]
    exhausted = [body["data"] for body in folds if body["input"] == "exhausted"]
    assert exhausted == [{"scope": "search", "kind": "model_calls"}]
    assert folds[0]["data"]["limits"] == {"search": {"model_calls": 3, "final_answer": 0}}
    before = seen["view"]
    assert (await workflow.replay(run.id)).answer == "7"
    assert seen["view"] == before  # recomputed from the record alone, scope by scope


async def test_limits_on_time_are_the_runs(sqlite_store: Store) -> None:
    with pytest.raises(InvalidInput, match=r"branch_budget\.wall"):
        looking(sqlite_store, branch_budget=Budget(wall=3))
    seen: dict[str, Any] = {}
    graph = two_searches(seen, first=Budget(thinking=3))
    with pytest.raises(InvalidInput, match="thinking"):
        await looking(sqlite_store, graph=graph).run("q")


@pytest.mark.parametrize("cut", range(4, 32, 4))
async def test_cut_anywhere_each_scope_has_spent_what_is_recorded(
    sqlite_store: Store, cut: int
) -> None:
    """The process dies at some event; the next attempt finds every scope as the journal has it."""
    seen: dict[str, Any] = {}
    workflow = looking(
        sqlite_store,
        script=seven,
        tools=[],
        graph=two_searches(seen, first=Budget(model_calls=3)),
        branch_budget=Budget(tokens=500),
    )
    whole = await workflow.run("q")
    copy = await copy_prefix(sqlite_store, await sqlite_store.read(whole.id), cut)
    pool = Pool("batch", Budget(tokens=100_000))
    more = await workflow.resume(copy, pool=pool)
    assert more.answer == whole.answer
    index = Recorded.of(await sqlite_store.read(copy))
    assert index.charged.tokens == more.spent["tokens"] == pool.spent.tokens
    assert index.charged.branches == more.spent["branches"] == pool.spent.branches
    for scope in found(seen["view"], "search"):
        assert index.spent[scope["name"]] == Amount.from_json(scope["spent"])


async def test_a_used_up_pool_ends_its_runs_with_what_they_have(store: Store) -> None:
    pool = Pool("batch", Budget(tokens=300))
    inner = pool.child("inner", Budget(tokens=140))
    workflow = looking(store, script=seven, tools=[], strategy=strategies.sample(8))
    runs = await asyncio.gather(
        *(workflow.run(f"q{n}", pool=inner if n % 2 else pool) for n in range(6))
    )
    assert pool.spent.tokens == sum(run.spent["tokens"] for run in runs) <= 300
    short = [run for run in runs if run.status == "incomplete"]
    assert short
    assert {run.stop_reason for run in short} <= {"batch.tokens", "inner.tokens"}
    assert inner.spent.tokens <= 140
    assert all(run.answer == "7" for run in runs)  # each had a part of it
    for run in short:
        again = await workflow.replay(run.id)
        assert (again.status, again.stop_reason) == ("incomplete", run.stop_reason)
    assert (pool.runs, pool.view()["left"]) == (0, {"tokens": pool.remaining("tokens")})


async def test_a_parked_run_counts_once_in_its_pool(store: Store) -> None:
    async def work(state: State, runtime: Runtime[Context]) -> State:
        await runtime.context.model("one")
        await runtime.context.suspend("go")
        await runtime.context.model("two")
        return {"answer": 1}

    graph: Any = StateGraph(State, context_schema=Context)
    graph.add_node("work", work)
    graph.add_edge(START, "work")
    graph.add_edge("work", END)
    workflow = looking(store, script=seven, tools=[], graph=graph, answer=answers.number())
    with Pool("batch", Budget(tokens=10_000)) as pool:
        run = await workflow.run("q", pool=pool)
        assert (run.status, pool.runs) == ("parked", 0)
        await workflow.signal(run.id, "go")
        (woken,) = await workflow.wake(pool=pool)
        assert woken.status == "completed"
        assert pool.spent.tokens == woken.spent["tokens"]
        assert pool.spent.model_calls == 2
