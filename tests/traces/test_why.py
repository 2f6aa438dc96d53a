"""What an answer rests on: votes left out one by one, verdicts, chains."""

from __future__ import annotations

import pytest

from longthought import Store, Workflow, answers, strategies, verifiers
from longthought.errors import InvalidInput
from longthought.orchestrator.strategies import Policy
from longthought.orchestrator.traces import Explanation, explain
from tests.traces.test_tree import GOOD, PUZZLE, by_seed

BAD = "7 + 8 = 16 [4 8 16 left]; 16 + 8 = 24"


async def voted(store: Store, *said: int) -> Explanation:
    workflow = Workflow(
        "t",
        model=by_seed(*(f"The answer is {number}." for number in said)),
        answer=answers.number(),
        strategy=strategies.sample(len(said)),
        store=store,
        parallel=1,  # one after the other, so that the order of the votes is known
    )
    run = await workflow.run("?")
    return explain(await store.read(run.id))


async def test_a_clear_vote_hangs_on_no_single_sample(sqlite_store: Store) -> None:
    told = await voted(sqlite_store, 1, 2, 1, 1, 1)
    assert (told.basis, told.answer, told.votes, told.margin) == ("vote", "1", {"1": 4, "2": 1}, 3)
    assert (told.decisive, told.fewest) == ([], 4)
    assert {effect["branch"] for effect in told.rests_on} == {"s0", "s2", "s3", "s4"}
    assert not any(effect["alone"] for effect in told.rests_on)
    assert [branch["branch"] for branch in told.indifferent] == ["s1"]


async def test_a_close_vote_hangs_on_each_of_its_samples(sqlite_store: Store) -> None:
    told = await voted(sqlite_store, 2, 1, 1)
    assert (told.answer, told.margin, told.fewest) == ("1", 1, 1)
    assert told.decisive == ["s1", "s2"]
    assert told.otherwise == {"s1": "2", "s2": "2"}
    assert all(effect["alone"] for effect in told.rests_on)


async def test_a_tie_goes_to_the_first(sqlite_store: Store) -> None:
    told = await voted(sqlite_store, 1, 2)
    assert (told.answer, told.decisive, told.otherwise) == ("1", ["s0"], {"s0": "2"})


async def solved(store: Store, strategy: Policy, *said: str) -> Explanation:
    workflow = Workflow(
        "t",
        model=by_seed(*said),
        answer=answers.puzzle(),
        verifier=verifiers.puzzle(),
        strategy=strategy,
        store=store,
    )
    run = await workflow.run(PUZZLE)
    return explain(await store.read(run.id))


async def test_a_verified_pick_rests_on_its_thought_and_its_verdict(sqlite_store: Store) -> None:
    told = await solved(sqlite_store, strategies.best_of(4, wave=1), "7 + 8 = 16. DONE", GOOD)
    assert (told.basis, told.picked, told.decisive) == ("verified", "s1", ["s1"])
    assert [effect["kind"] for effect in told.rests_on] == ["model", "verify"]
    assert told.verdict["passed"] is True
    assert told.indifferent == [{"branch": "s0", "why": "dead end", "answer": "7 + 8"}]
    assert "asked for more samples" in told.notes[0]


async def test_two_that_passed_with_one_answer_carry_each_other(sqlite_store: Store) -> None:
    strategy = strategies.sample(2, select=strategies.best())
    told = await solved(sqlite_store, strategy, GOOD)
    assert (told.basis, told.decisive) == ("verified", [])


async def test_a_chain_names_every_step(sqlite_store: Store) -> None:
    told = await solved(sqlite_store, strategies.backtrack(stop=";"), BAD, GOOD, GOOD, GOOD)
    assert told.basis == "chain"
    assert told.decisive[0] == "r0.1"
    assert len(told.rests_on) == 2 * len(told.decisive)
    assert told.indifferent[0]["branch"] == "r0.0"


async def test_a_run_without_an_answer_has_nothing_to_rest_on(sqlite_store: Store) -> None:
    workflow = Workflow(
        "t", model=by_seed("I do not know"), answer=answers.number(), store=sqlite_store
    )
    run = await workflow.run("?")
    told = explain(await sqlite_store.read(run.id))
    assert told.answer is None


async def test_deleted_payloads_cannot_be_explained(sqlite_store: Store) -> None:
    workflow = Workflow("t", model=by_seed("1"), answer=answers.number(), store=sqlite_store)
    run = await workflow.run("?")
    recording = await sqlite_store.read(run.id)
    results = [e.body["result"] for e in recording.events if e.type == "effect_finished"]
    await sqlite_store.delete_payloads(run.id, results[:1], "asked for")
    with pytest.raises(InvalidInput, match="deleted"):
        explain(await sqlite_store.read(run.id))
