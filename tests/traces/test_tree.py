"""A recording as a tree: nesting, dead ends, cancelled branches, what is deleted or under way."""

from __future__ import annotations

import pytest

from longthought import Budget, Store, Workflow, answers, strategies, tools, verifiers
from longthought.errors import TraceError
from longthought.orchestrator.models import ScriptedModel, call
from longthought.orchestrator.traces import RunTree, run_tree
from longthought.storage import Recording
from longthought.types import ModelRequest

PUZZLE = "4 7 8 8 -> 24"
GOOD = "8 / 8 = 1 [1 4 7 left]; 7 - 1 = 6 [4 6 left]; 6 * 4 = 24. DONE"


def by_seed(*texts: str) -> ScriptedModel:
    """Sample n says text n."""

    def answer(request: ModelRequest) -> str:
        return texts[request.get("sampling", {}).get("seed", 0) % len(texts)]

    return ScriptedModel(answer)


async def tree_of(store: Store, workflow: Workflow, question: str = PUZZLE) -> RunTree:
    run = await workflow.run(question)
    return run_tree(await store.read(run.id))


async def test_tool_calls_and_thoughts_stand_in_order(sqlite_store: Store) -> None:
    model = ScriptedModel([call("calculator", expression="6 * 7"), "The answer is 42."])
    workflow = Workflow(
        "t", model=model, tools=[tools.calculator()], answer=answers.number(), store=sqlite_store
    )
    tree = await tree_of(sqlite_store, workflow, "6 * 7?")
    [branch] = tree.searches[0].branches
    assert [step.kind for step in branch.steps] == ["model", "tool", "model"]
    assert branch.steps[1].text == "42"
    assert branch.steps[0].calls[0]["name"] == "calculator"
    assert (branch.verdict, tree.answer) == ("picked", "42")
    assert branch.tokens == tree.spent["tokens"]


async def test_dead_ends_stay_beside_the_pick(sqlite_store: Store) -> None:
    workflow = Workflow(
        "t",
        model=by_seed("7 + 8 = 16. DONE", GOOD),
        answer=answers.puzzle(),
        verifier=verifiers.puzzle(),
        strategy=strategies.best_of(4, wave=1),
        store=sqlite_store,
    )
    tree = await tree_of(sqlite_store, workflow)
    assert [(b.id, b.verdict) for b in tree.searches[0].walk()] == [
        ("s0", "dead end"),
        ("s1", "picked"),
    ]


async def test_steps_hang_below_the_step_they_go_on_from(sqlite_store: Store) -> None:
    workflow = Workflow(
        "t",
        model=ScriptedModel(lambda request: GOOD),
        answer=answers.puzzle(),
        verifier=verifiers.puzzle(),
        strategy=strategies.backtrack(stop=";"),
        store=sqlite_store,
    )
    tree = await tree_of(sqlite_store, workflow)
    names = [branch.id for branch in tree.searches[0].walk()]
    assert names == ["r0.0", "r0.0.0", "r0.0.0.0"]
    assert [b.verdict for b in tree.searches[0].walk()] == ["chain", "chain", "picked"]
    assert len(tree.searches[0].branches) == 1


async def test_a_run_under_way_is_shown_as_far_as_it_is(sqlite_store: Store) -> None:
    workflow = Workflow(
        "t", model=by_seed("The answer is 1."), answer=answers.number(), store=sqlite_store
    )
    run = await workflow.run("1?")
    whole = await sqlite_store.read(run.id)
    for length in range(1, whole.length):
        part = Recording(run.id, whole.run_key)
        part.events, part._bodies = whole.events[:length], whole._bodies
        tree = run_tree(part)
        assert tree.status == "running"
        tree.to_json()


async def test_deleted_payloads_leave_a_gap(sqlite_store: Store) -> None:
    workflow = Workflow(
        "t", model=by_seed("The answer is 1."), answer=answers.number(), store=sqlite_store
    )
    run = await workflow.run("1?")
    recording = await sqlite_store.read(run.id)
    ids = [event.body["result"] for event in recording.events if event.type == "effect_finished"]
    await sqlite_store.delete_payloads(run.id, ids, "asked for")
    tree = run_tree(await sqlite_store.read(run.id))
    assert tree.deleted == len(ids)
    assert tree.searches[0].branches[0].steps[0].text == "[deleted]"


def test_a_run_without_a_manifest() -> None:
    with pytest.raises(TraceError):
        run_tree(Recording("empty", None))


async def test_limits_raised_for_the_run_are_no_search(sqlite_store: Store) -> None:
    workflow = Workflow(
        "t",
        model=ScriptedModel(lambda request: "thinking " * 20 + "The answer is 7"),
        answer=answers.number(),
        strategy=strategies.sample(2),
        budget=Budget(tokens=60, final_answer=0),
        store=sqlite_store,
    )
    run = await workflow.run("q")
    assert run.stop_reason == "tokens"
    await workflow.resume(run.id, budget=Budget(tokens=1_000, final_answer=0))
    tree = run_tree(await sqlite_store.read(run.id))
    assert [bool(search.place) for search in tree.searches] == [True], "one search, at its place"
    assert tree.searches[0].branches
