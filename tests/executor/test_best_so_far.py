"""The best answer so far is at hand at any moment, live and from the trace alone."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from longthought import Store, Workflow, answers, strategies
from longthought.orchestrator.context import Context
from longthought.orchestrator.models.scripted import ScriptedModel
from longthought.orchestrator.strategies.policy import Ask, Outcome, Pick, State
from longthought.orchestrator.strategies.so_far import SO_FAR, best_pick
from longthought.orchestrator.strategies.specs import policy_of
from longthought.orchestrator.traces import best_in_trace, run_tree

ANSWERS = {0: "5", 1: "7", 2: "7"}


def told(ask: str, answer: str) -> Outcome:
    """What a policy is told of a branch that has an answer and goes on."""
    outcome: Outcome = {"type": "told", "ask": ask, "status": "finished", "answer": answer}
    return {**outcome, "final": False, "score": 0.5, "passed": None, "tokens": 1}


async def some_answer(request: Any) -> str:
    """The first three samples answer, the others never do."""
    seed = request["sampling"]["seed"]
    if seed not in ANSWERS:
        await asyncio.Event().wait()
    return f"The answer is {ANSWERS[seed]}"


def workflow_of(store: Store, **options: Any) -> Workflow:
    return Workflow(
        "best",
        model=ScriptedModel(some_answer),
        answer=answers.number(),
        store=store,
        **{"strategy": strategies.sample(6), **options},
    )


async def stopped_after(workflow: Workflow, ended: int, run_id: str) -> list[Any]:
    """Run until so many branches have ended, look at the trace, and cancel; what was shown."""
    shown: list[Any] = []
    enough = asyncio.Event()

    def watch(event: Any) -> None:
        shown.append(event)
        if sum(one["event"] == "branch_ended" for one in shown) == ended:
            enough.set()

    task = asyncio.create_task(workflow.run("q", run_id=run_id, watch=watch))
    async with asyncio.timeout(60):
        await enough.wait()
        for _ in range(20):  # the search takes in what has ended
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    return shown


async def test_a_cancelled_run_has_its_best_answer(sqlite_store: Store) -> None:
    workflow = workflow_of(sqlite_store)
    shown = await stopped_after(workflow, 3, "run")
    bests = [event for event in shown if event["event"] == "best"]
    assert [best["answer"] for best in bests] == ["5", "7"]
    assert bests[-1]["support"]["votes"] in ({"7": 2, "5": 1}, {"5": 1, "7": 2})
    recording = await sqlite_store.read("run")
    ended = recording.ended()
    assert ended is not None
    assert ended.body["status"] == "cancelled"
    outcome = recording.get(ended.body["outcome"])
    assert (outcome["answer"], outcome["ask"], outcome["status"]) == ("7", "s1", "cancelled")
    tree = run_tree(recording)
    assert (tree.answer, tree.best["answer"], tree.best["ask"]) == (None, "7", "s1")
    assert "picked" not in [branch.verdict for branch in tree.searches[0].walk()]
    replayed = await workflow.replay("run")
    assert (replayed.status, replayed.answer, replayed.model_calls) == ("cancelled", "7", 0)


async def test_the_trace_alone_has_it_too(sqlite_store: Store) -> None:
    """Also of a run that nobody ended: what the record says of its end is left out."""
    await stopped_after(workflow_of(sqlite_store), 3, "run")
    recording = await sqlite_store.read("run")
    while recording.events[-1].type != "fold":
        recording.events.pop()
    tree = run_tree(recording)
    assert tree.status == "running"
    assert (tree.best["answer"], tree.best["ask"]) == ("7", "s1")
    assert tree.best["support"]["samples"] == 3


async def test_without_any_answer_there_is_none(sqlite_store: Store) -> None:
    workflow = workflow_of(sqlite_store, strategy=strategies.single())
    silent = ScriptedModel(["I cannot say"])
    await workflow_of(sqlite_store, strategy=strategies.single()).aclose()
    workflow.definition.models[0]._script = silent._script  # type: ignore[attr-defined]
    result = await workflow.run("q", run_id="run")
    assert result.answer is None
    assert best_in_trace(await sqlite_store.read("run")) is None


class First:
    """A policy of somebody's own: three samples, the first one is the best."""

    name = "first"

    def spec(self) -> dict[str, Any]:
        return {"name": self.name}

    def start(self, question: str, seed: int) -> State:
        return {"asked": 0, "told": [], "over": False}

    def ask(self, state: State, room: int) -> list[Ask]:
        new = [Ask(f"a{i}", sampling={"seed": i}) for i in range(state["asked"], 4)][:room]
        state["asked"] += len(new)
        return new

    def tell(self, state: State, outcome: Outcome) -> None:
        if outcome["type"] == "told":
            state["told"].append(outcome["ask"])
        state["over"] = state["over"] or outcome["type"] == "exhausted"

    def done(self, state: State) -> Pick | None:
        if len(state["told"]) < 4 and not state["over"]:
            return None
        return Pick(min(state["told"], default=None), "all")


async def test_a_policy_of_ones_own_needs_no_word_for_it(sqlite_store: Store) -> None:
    workflow = workflow_of(sqlite_store, strategy=First())
    shown = await stopped_after(workflow, 3, "run")
    bests = [event["answer"] for event in shown if event["event"] == "best"]
    assert bests == ["5"]
    assert (await workflow.replay("run")).answer == "5"
    tree = run_tree(await sqlite_store.read("run"))
    assert tree.best["ask"] == "a0"


def test_a_policy_that_fails_at_it_has_none(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(First):
        def done(self, state: State) -> Pick | None:
            raise RuntimeError("no")

    assert best_pick(Failing(), First().start("q", 0)) is None
    assert "does not know" in caplog.text


@pytest.mark.parametrize(
    "policy",
    [
        strategies.single(),
        strategies.best_of(4),
        strategies.sample(8, wave=2, stop=strategies.beta(0.9), select=strategies.weighted()),
        strategies.sample(4, select=strategies.majority(fallback=True), models=(1, 0)),
        strategies.backtrack(restarts=2, stop=("\n", ";"), temperature=0.5),
    ],
    ids=lambda policy: policy.name,
)
def test_our_policies_say_what_the_end_would_say(policy: Any) -> None:
    """And can be made again from what is recorded of them."""
    assert policy_of(policy.spec()) == policy
    state = policy.start("q", 0)
    assert best_pick(policy, state) is None
    for number in range(3):
        asks = policy.ask(state, 1)
        for ask in asks:
            policy.tell(state, told(ask.id, str(number % 2)))
        so_far = best_pick(policy, state)
        ended = {**state, "told": list(state["told"])}
        policy.tell(ended, {"type": "exhausted", "scope": "run", "kind": "wall"})
        end = policy.done(ended)
        assert so_far is not None
        assert (so_far.ask, so_far.support) == (end.ask, end.support)
        assert so_far.stop_reason in (SO_FAR, end.stop_reason)


class Found(TypedDict, total=False):
    """The state of the graph below."""

    answer: str | None


async def test_a_graph_that_fails_has_what_it_found_before(sqlite_store: Store) -> None:
    async def think(state: Found, runtime: Runtime[Context]) -> Found:
        await runtime.context.explore(strategies.sample(3))
        raise RuntimeError("no more")

    graph = StateGraph(Found, context_schema=Context)
    graph.add_node("think", think)
    graph.add_edge(START, "think")
    graph.add_edge("think", END)
    result = await workflow_of(sqlite_store, graph=graph).run("q")
    assert (result.status, result.answer) == ("failed", "7")
    assert result.error == "RuntimeError: no more"
    assert run_tree(await sqlite_store.read(result.id)).best["answer"] == "7"
