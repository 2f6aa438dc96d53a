"""Several models in one workflow: each sample is bound to one of them by the policy."""

from __future__ import annotations

from collections import Counter
from typing import Any, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from longthought import Budget, Context, Store, Workflow, answers, strategies, verifiers
from longthought.budgets import PriceBook
from longthought.errors import InvalidInput, PolicyError, UnpricedModel
from longthought.orchestrator.models.scripted import ScriptedModel, call, says
from longthought.orchestrator.strategies import Models, Policy, Spread, models_used
from longthought.orchestrator.strategies.spread import spread
from longthought.orchestrator.traces import run_tree
from longthought.tools import tool
from longthought.types import Candidate, JSONObject, ModelRequest
from tests.executor.copies import copy_prefix
from tests.executor.workflows import turns_of

NAMES = [("large", "openai/large"), ("small", "small"), ("odd", "odd")]


@tool(effect="read")
async def lookup(name: str) -> int:
    """Look a number up."""
    return len(name)


def with_a_tool(request: ModelRequest) -> Any:
    """One lookup, then an answer that says which model gave it."""
    if turns_of(request) == 0:
        return says("looking", call("lookup", name=request["model"]))
    return f"The answer is {len(request['model'])}"


def many(store: Any, *names: str, script: Any = with_a_tool, **changes: Any) -> Workflow:
    options: dict[str, Any] = {
        "model": [ScriptedModel(script, name=name) for name in names],
        "tools": [lookup],
        "answer": answers.number(),
        "strategy": strategies.sample(7, models="all"),
    }
    return Workflow("many", store=store, **{**options, **changes})


async def models_of(store: Store, run: str) -> dict[str, str]:
    """The model of each branch of a run; a branch that changed models has none."""
    found = {}
    for branch in run_tree(await store.read(run)).searches[0].walk():
        names = {step.name for step in branch.steps if step.kind == "model"}
        found[branch.id] = branch.model if names == {branch.model} else "?"
    return found


@pytest.mark.parametrize(
    ("models", "order"),
    [
        (None, [0]),
        (1, [1]),
        ("small", [1]),
        ("openai/large", [0]),
        ("all", [0, 1, 2]),
        ((0, 2), [0, 2]),
        (["odd", 0, "odd"], [2, 0, 2]),
        ({"small": 3, "large": 1}, [1, 1, 0, 1]),
        ({0: 2, 2: 2}, [0, 2, 0, 2]),
    ],
)
def test_who_takes_turns(models: Models | None, order: list[int]) -> None:
    bound = spread(models).bound_to(NAMES)
    assert [bound.at(number) for number in range(2 * len(order))] == order * 2
    assert bound.bound_to(NAMES) == bound
    assert Spread().bound_to(NAMES) == Spread()


@given(st.dictionaries(st.integers(0, 9), st.integers(1, 20), min_size=1, max_size=6))
def test_weights_are_kept_and_evenly_spread(weights: dict[int, int]) -> None:
    order = spread(weights).order
    assert Counter(order) == weights
    for length in range(1, len(order)):
        counts = Counter(order[:length])
        for model, weight in weights.items():
            assert abs(counts[model] - length * weight / len(order)) < len(weights)


@pytest.mark.parametrize(
    ("models", "problem"),
    [
        ("medium", "models: no 'medium'. The workflow has: large, small, odd"),
        (3, "models: there is no model 3 among 3. The workflow has: large"),
        ((0, -1), "models: there is no model -1 among 3"),
    ],
)
def test_models_that_are_not_there_are_told_when_the_workflow_is_built(
    models: Models, problem: str
) -> None:
    policies: list[Policy] = [
        strategies.single(models=models),
        strategies.sample(3, models=models),
        strategies.best_of(3, models=models),
        strategies.backtrack(models=models),
    ]
    for policy in policies:
        with pytest.raises(InvalidInput) as refused:
            many(None, "large", "small", "odd", strategy=policy)
        assert str(refused.value).startswith(problem)


def test_one_name_for_two_models_is_no_name() -> None:
    with pytest.raises(InvalidInput, match="'twin' is the name of 2 models"):
        many(None, "twin", "twin", strategy=strategies.sample(3, models="twin"))
    many(None, "twin", "twin", strategy=strategies.sample(3, models=(0, 1)))


@pytest.mark.parametrize(
    ("models", "problem"),
    [
        ((), "models: a list of 0 cannot be used"),
        ((None,), "models: None cannot be used"),
        ((True,), "models: True cannot be used"),
        ({}, "models: weights add up to 0"),
        ({"a": 0}, "models: 0 is no weight of 'a'"),
        ({"a": 1.5}, "models: 1.5 is no weight of 'a'"),
        ({"a": 2000}, "models: weights add up to 2000"),
    ],
)
def test_what_says_no_models_is_refused(models: Any, problem: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        strategies.sample(2, models=models)
    assert str(refused.value).startswith(problem)


def test_a_spec_names_models_only_where_there_are_others() -> None:
    for policy in (strategies.sample(2), strategies.backtrack(), strategies.sample(2, models=0)):
        assert "models" not in policy.spec()
    workflow = many(None, "large", "small")
    assert workflow.definition.strategy.spec()["models"] == [0, 1]
    assert strategies.backtrack(models=(1, 0)).spec()["models"] == [1, 0]
    assert models_used(workflow.definition.strategy) == [0, 1]
    assert models_used(object()) == [0]


async def test_names_without_a_workflow_are_a_mistake_of_the_policy(sqlite_store: Store) -> None:
    policy = strategies.sample(2, models="small")
    with pytest.raises(InvalidInput, match="'small' is a name, and no workflow has said whose"):
        policy.ask(policy.start("q", 0), 2)


async def test_samples_go_round_and_stay_with_their_model(store: Store) -> None:
    workflow = many(store, "large", "tiny", "odd")
    run = await workflow.run("Who?")
    assert (run.answer, run.support["votes"]) == ("5", {"5": 3, "4": 2, "3": 2})
    turns = ["large", "tiny", "odd"] * 3
    assert await models_of(store, run.id) == {f"s{i}": turns[i] for i in range(7)}
    again = await workflow.replay(run.id)
    assert (again.answer, again.model_calls, again.spent["by_model"]) == (
        "5",
        0,
        run.spent["by_model"],
    )


async def test_a_run_that_is_gone_on_with_has_the_same_models(sqlite_store: Store) -> None:
    workflow = many(
        sqlite_store, "large", "small", strategy=strategies.sample(4, models={"small": 2, 0: 1})
    )
    whole = await workflow.run("Who?")
    models = await models_of(sqlite_store, whole.id)
    assert models == {"s0": "small", "s1": "large", "s2": "small", "s3": "small"}
    recording = await sqlite_store.read(whole.id)
    for length in range(2, recording.length, 2):
        copied = await copy_prefix(sqlite_store, recording, length)
        run = await workflow.resume(copied)
        assert run.support == whole.support, length
        assert await models_of(sqlite_store, copied) == models
        replayed = await workflow.replay(copied)
        assert replayed.spent["by_model"] == run.spent["by_model"]
        for kind in ("tokens", "output_tokens", "model_calls"):
            parts = [part[kind] for part in run.spent["by_model"].values()]
            assert sum(parts) == run.spent[kind], (length, kind)


async def test_each_attempt_of_a_search_in_steps_has_one_model(sqlite_store: Store) -> None:
    def script(request: ModelRequest) -> str:
        return "3 * 4 = 12\n1 + 1 = 2\n" + ("The answer is 2" if request["model"] == "c" else "no")

    def right(candidate: Candidate) -> bool:
        return not candidate.text.endswith("no")

    workflow = many(
        sqlite_store,
        "a",
        "b",
        "c",
        script=script,
        tools=[],
        verifier=verifiers.callable(right, partial=True),
        strategy=strategies.backtrack(width=1, restarts=5, models="all"),
    )
    run = await workflow.run("How many?")
    assert (run.answer, run.support["restarts"]) == ("2", 2)
    models = await models_of(sqlite_store, run.id)
    assert {branch.partition(".")[0]: model for branch, model in models.items()} == {
        "r0": "a",
        "r1": "b",
        "r2": "c",
    }
    assert "?" not in models.values()
    assert (await workflow.replay(run.id)).answer == "2"


class Remote(ScriptedModel):
    """One that does not say of itself that it is free."""

    def fingerprint(self) -> JSONObject:
        return {**super().fingerprint(), "kind": "remote"}


def remote(*names: str) -> list[Remote]:
    return [Remote(with_a_tool, name=name) for name in names]


def priced() -> PriceBook:
    table = {"dear": {"input": 100, "output": 1000}, "cheap": {"input": 1, "output": 10}}
    return PriceBook.load().extended(table)


async def test_every_model_costs_its_own_price(sqlite_store: Store) -> None:
    workflow = many(
        sqlite_store,
        model=remote("dear", "cheap"),
        prices=priced(),
        strategy=strategies.sample(6, models="all"),
    )
    run = await workflow.run("Who?", budget=Budget(usd=1))
    parts = run.spent["by_model"]
    assert list(parts) == ["cheap", "dear"]
    for name, dollars in (("dear", 100), ("cheap", 1)):
        part = parts[name]
        prompt = part["tokens"] - part["output_tokens"]
        assert part["usd"] == pytest.approx(
            dollars * (prompt + 10 * part["output_tokens"]) / 1_000_000
        )
        assert part["model_calls"] == 6
    assert run.spent["usd"] == pytest.approx(parts["dear"]["usd"] + parts["cheap"]["usd"])
    for dollars in (0.02, 0.1):
        limited = await workflow.run("Who?", budget=Budget(usd=dollars))
        assert limited.spent["usd"] <= dollars
        assert (await workflow.replay(limited.id)).spent["by_model"] == limited.spent["by_model"]


async def test_an_unpriced_model_is_refused_under_a_limit_of_dollars(sqlite_store: Store) -> None:
    workflow = many(sqlite_store, model=remote("dear", "unknown"), prices=priced())
    with pytest.raises(UnpricedModel, match="unknown"):
        await workflow.run("Who?", budget=Budget(usd=1))
    assert (await workflow.run("Who?", budget=Budget(tokens=100_000))).status == "completed"


async def test_slots_of_all_that_are_asked_are_used_and_no_more(sqlite_store: Store) -> None:
    models = [
        ScriptedModel(with_a_tool, name=name, slots=slots)
        for name, slots in (("wide", 5), ("narrow", 2), ("unused", 50))
    ]
    for models_asked, parallel, most in (((0, 1), None, 7), ((1,), None, 2), ((0, 1), 3, 3)):
        seen: list[int] = []
        running: set[str] = set()

        def watch(event: JSONObject, seen: Any = seen, running: Any = running) -> None:
            if event["event"] == "branch":
                running.add(event["branch"])
                seen.append(len(running))
            elif event["event"] == "branch_ended":
                running.discard(event["branch"])

        workflow = many(
            sqlite_store,
            model=models,
            strategy=strategies.sample(20, models=models_asked),
            parallel=parallel,
        )
        await workflow.run("Who?", watch=watch)
        assert max(seen) == most
    assert 2 < models[0].peak <= 5
    assert (models[1].peak, models[2].calls) == (2, 0)


async def test_a_watcher_is_told_the_model_where_there_are_several(sqlite_store: Store) -> None:
    events: list[JSONObject] = []
    await many(sqlite_store, "large", "small").run("Who?", watch=events.append)
    begun = [event["model"] for event in events if event["event"] == "branch"]
    assert begun == ["large", "small", "large", "small", "large", "small", "large"]
    events.clear()
    await many(sqlite_store, "large").run("Who?", watch=events.append)
    assert not any("model" in event for event in events if event["event"] == "branch")


class Asked(TypedDict, total=False):
    question: str
    answer: str | None


async def test_a_graph_of_ones_own_names_models_too(sqlite_store: Store) -> None:
    async def think(state: Any, runtime: Runtime[Context]) -> JSONObject:
        found = await runtime.context.explore(strategies.sample(2, models=state["question"]))
        return {"answer": found.answer}

    graph: Any = StateGraph(Asked, context_schema=Context)
    graph.add_node("think", think)
    graph.add_edge(START, "think")
    graph.add_edge("think", END)
    workflow = many(sqlite_store, "large", "tiny", graph=graph)
    run = await workflow.run("tiny")
    assert run.answer == "4"
    assert (await workflow.replay(run.id)).answer == "4"
    with pytest.raises(InvalidInput, match="models: no 'medium'"):
        await workflow.run("medium")


class Wild:
    """A policy of one's own that names a model there is not."""

    name = "wild"

    def spec(self) -> JSONObject:
        return {"name": self.name}

    def start(self, question: str, seed: int) -> JSONObject:
        return {}

    def ask(self, state: JSONObject, room: int) -> list[strategies.Ask]:
        return [strategies.Ask("a", model=2)]

    def tell(self, state: JSONObject, outcome: JSONObject) -> None:
        """Nothing is told."""

    def done(self, state: JSONObject) -> None:
        """It never ends."""


async def test_a_policy_of_ones_own_is_held_to_the_models_there_are(sqlite_store: Store) -> None:
    run = await many(sqlite_store, "large", "small", strategy=Wild()).run("Who?")
    assert run.status == "failed"
    assert run.stop_reason == PolicyError.__name__
    assert "names model 2" in (run.error or "")


def test_the_embedded_models_share_the_samples(tmp_path: Any) -> None:
    workflow = Workflow(
        "puzzles",
        model=["embedded/puzzle-large", "embedded/puzzle-small"],
        answer=answers.puzzle(),
        verifier=verifiers.puzzle(integers=True),
        strategy=strategies.sample(4, models=["embedded/puzzle-small", "embedded/puzzle-large"]),
        store=f"sqlite:///{tmp_path / 'a.db'}",
    )
    run = workflow.run_sync("4 7 8 8 -> 24")
    parts = run.spent["by_model"]
    assert set(parts) == {"embedded/puzzle-large", "embedded/puzzle-small"}
    assert [part["model_calls"] for part in parts.values()] == [2, 2]
