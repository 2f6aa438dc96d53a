"""Recorded and live runs that part ways. Every test states what should hold."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from longthought import (
    Budget,
    Context,
    Store,
    ToolContext,
    Verdict,
    Workflow,
    strategies,
    verifiers,
)
from longthought.errors import Diverged
from longthought.orchestrator.models.scripted import ScriptedModel, call, rng, says
from longthought.tools import tool
from longthought.types import Candidate, JSONObject, JudgeContext
from tests.executor.copies import copy_prefix
from tests.executor.workflows import looking, turns_of


class State(TypedDict, total=False):
    question: str
    pick: str
    answer: str


def one_node(node: Any, *more: Any) -> Any:
    graph: Any = StateGraph(State, context_schema=Context)
    names = []
    for one in (node, *more):
        graph.add_node(one.__name__, one)
        names.append(one.__name__)
    graph.add_edge(START, names[0])
    for before, after in itertools.pairwise(names):
        graph.add_edge(before, after)
    graph.add_edge(names[-1], END)
    return graph


def echo(request: Any) -> str:
    return f"re: {request['messages'][-1]['content']}"


@tool(effect="write", approval="always")
async def pay(amount: int, context: ToolContext) -> str:
    """Pay somebody.

    Args:
        amount: dollars.
    """
    context.deps.append(amount)  # type: ignore[union-attr,attr-defined]
    return f"paid {amount}"


# -- 1: an approval takes an effect number that a replay does not take


async def test_an_approved_call_in_a_node_replays(sqlite_store: Store) -> None:
    async def work(state: State, runtime: Runtime[Context]) -> State:
        paid = await runtime.context.tool("pay", {"amount": 5})
        said = await runtime.context.model("thank")
        return {"answer": f"{paid.content} {said['message']['content']}"}

    deps: list[int] = []
    workflow = Workflow(
        "w", model=ScriptedModel(echo), tools=[pay], graph=one_node(work), store=sqlite_store
    )
    parked = await workflow.run("go", deps=deps)
    await workflow.signal(parked.id, "approve:pay", True)
    done = await workflow.resume(parked.id, deps=deps)
    assert done.status == "completed"
    assert (await workflow.replay(parked.id)).answer == done.answer


async def test_two_approved_writes_of_one_message_are_made_once(sqlite_store: Store) -> None:
    hold = asyncio.Event()
    reached = asyncio.Event()

    async def script(request: Any) -> Any:
        if turns_of(request) == 0:
            return says("paying", call("pay", amount=5), call("pay", amount=7))
        reached.set()
        await hold.wait()
        return "done"

    deps: list[int] = []
    workflow = Workflow("w", model=ScriptedModel(script), tools=[pay], store=sqlite_store)
    parked = await workflow.run("go", deps=deps)
    await workflow.signal(parked.id, "approve:pay", True)
    await workflow.signal(parked.id, "approve:pay", True)
    task = asyncio.create_task(workflow.resume(parked.id, deps=deps))
    await asyncio.wait_for(reached.wait(), 60)
    assert deps == [5, 7]
    task.cancel()  # both payments are on record; the process dies in the next model call
    with pytest.raises(asyncio.CancelledError):
        await task
    hold.set()
    # the user approves whatever is asked again
    for _ in range(3):
        done = await workflow.resume(parked.id, deps=deps)
        if done.status != "parked":
            break
        await workflow.signal(parked.id, "approve:pay", True)
    assert deps == [5, 7], "a payment was made twice"
    assert done.status == "completed"


# -- 2: a judge that runs out of budget


class AskingVerifier:
    name = "asking"

    def spec(self) -> JSONObject:
        return {"kind": self.name}

    async def judge(self, candidate: Candidate, context: JudgeContext) -> Verdict:
        await context.model([{"role": "user", "content": "judge " * 100}])
        return Verdict(1.0, True)


async def test_a_judge_out_of_budget_replays(sqlite_store: Store) -> None:
    workflow = looking(
        sqlite_store,
        script=lambda request: "The answer is 7",
        tools=[],
        verifier=AskingVerifier(),
        strategy=strategies.sample(2),
        budget=Budget(tokens=150),
    )
    first = await workflow.run("q")
    assert first.status == "incomplete"
    assert (await workflow.replay(first.id)).status == "incomplete"


async def test_a_judge_out_of_budget_loses_no_answer(sqlite_store: Store) -> None:
    workflow = looking(
        sqlite_store,
        script=lambda request: "The answer is 7",
        tools=[],
        verifier=AskingVerifier(),
        strategy=strategies.sample(2),
        budget=Budget(tokens=150, final_answer=0),
    )
    first = await workflow.run("q")
    assert first.status == "incomplete"
    assert first.answer == "7"


# -- 3: a tool that cancelled itself


@tool(effect="read")
async def quits(name: str) -> int:
    """Quits.

    Args:
        name: any.
    """
    raise asyncio.CancelledError


async def test_a_tool_that_cancelled_itself_replays(sqlite_store: Store) -> None:
    def script(request: Any) -> Any:
        return says("x", call("quits", name="a")) if turns_of(request) == 0 else "The answer is 1"

    workflow = looking(sqlite_store, script=script, tools=[quits], strategy=strategies.single())
    first = await workflow.run("q")
    assert first.status == "completed"
    again = await workflow.replay(first.id)
    assert again.answer == first.answer


# -- 4: unlabelled searches side by side


async def test_unlabelled_searches_side_by_side_are_refused(sqlite_store: Store) -> None:
    async def part(ctx: Context, name: str) -> str:
        await asyncio.sleep(random.SystemRandom().uniform(0, 0.01))
        return f"{name}={(await ctx.explore(strategies.sample(1))).text}"

    async def work(state: State, runtime: Runtime[Context]) -> State:
        ctx = runtime.context
        return {"answer": " ".join(await asyncio.gather(*(part(ctx, n) for n in "abcd")))}

    count = 0

    def script(request: Any) -> str:
        nonlocal count
        count += 1
        return f"reply {count}"

    workflow = Workflow("w", model=ScriptedModel(script), graph=one_node(work), store=sqlite_store)
    first = await workflow.run("q")
    if first.status == "failed":
        assert "label" in str(first.error)
        return
    for _ in range(5):
        assert (await workflow.replay(first.id)).answer == first.answer, "silently swapped"


# -- 5: effects that are recorded and not asked for any more


async def test_an_effect_that_is_not_asked_for_any_more_is_noticed(sqlite_store: Store) -> None:
    async def work(state: State, runtime: Runtime[Context]) -> State:
        said = await runtime.context.model("one")
        return {"answer": str(said["message"]["content"])}

    async def more(state: State, runtime: Runtime[Context]) -> State:
        await runtime.context.tool("pay", {"amount": 1})
        return {}

    async def changed(state: State, runtime: Runtime[Context]) -> State:
        return {}

    changed.__name__ = "more"
    deps: list[int] = []
    options: dict[str, Any] = {"model": ScriptedModel(echo), "tools": [pay], "store": sqlite_store}
    first = await Workflow("w", graph=one_node(work, more), **options).run("q", deps=deps)
    other = Workflow("w", graph=one_node(work, more), **options)
    await other.signal(first.id, "approve:pay", True)
    assert (await other.resume(first.id, deps=deps)).status == "completed"
    with pytest.raises(Diverged):
        await Workflow("w", graph=one_node(work, changed), **options).replay(first.id)


# -- 6: any prefix can be replayed and resumed


class _AnyAnswer:
    def spec(self) -> JSONObject:
        return {"name": "any"}

    def stop(self, outcomes: Any) -> str | None:
        return "any" if outcomes else None


class Picky:
    name = "picky"

    def spec(self) -> JSONObject:
        return {"kind": self.name}

    async def judge(self, candidate: Candidate, context: JudgeContext) -> Verdict:
        return Verdict(1.0, int(candidate.answer or 0) >= 3)


def guess(request: Any) -> str:
    return f"The answer is {rng(request).randint(1, 6)}"


def is_six(question: str, answer: str | None) -> bool:
    return answer == "6"


async def two_searches(state: State, runtime: Runtime[Context]) -> State:
    ctx = runtime.context
    one = await ctx.explore(strategies.sample(2))
    both = await ctx.gather(
        a=ctx.explore(strategies.sample(2)), b=ctx.explore(strategies.best_of(2))
    )
    two = await ctx.explore(strategies.sample(2))
    return {"answer": f"{one.answer} {both['a'].answer} {both['b'].answer} {two.answer}"}


def more_workflows(store: Store) -> dict[str, Workflow]:
    return {
        "refilled": looking(
            store,
            script=guess,
            tools=[],
            verifier=verifiers.callable(is_six),
            strategy=strategies.best_of(8, wave=8),
            parallel=2,
        ),
        "rejected": looking(
            store,
            script=lambda request: f"The answer is {request['sampling']['seed']}",
            tools=[],
            verifier=Picky(),
            strategy=strategies.sample(6, wave=3, stop=_AnyAnswer(), select=strategies.best()),
        ),
        "searches": looking(store, script=guess, tools=[], graph=one_node(two_searches)),
        "judged": looking(
            store,
            script=guess,
            tools=[],
            verifier=AskingVerifier(),
            strategy=strategies.sample(3),
            budget=Budget(tokens=600),
        ),
    }


NAMES = ["refilled", "rejected", "searches", "judged"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(3))
async def test_any_prefix_can_be_replayed(sqlite_store: Store, name: str, seed: int) -> None:
    whole = await more_workflows(sqlite_store)[name].run("q", seed=seed, run_key=b"k" * 16)
    recording = await sqlite_store.read(whole.id)
    for length in range(2, recording.length):
        copied = await copy_prefix(sqlite_store, recording, length)
        workflow = more_workflows(sqlite_store)[name]
        where = f"cut after {length}: {recording.events[length - 1]}"
        try:
            async with asyncio.timeout(60):
                await workflow.replay(copied)
        except (Diverged, TimeoutError) as error:
            raise AssertionError(f"{where}: {error!r}") from error


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(3))
async def test_any_prefix_can_be_resumed(sqlite_store: Store, name: str, seed: int) -> None:
    whole = await more_workflows(sqlite_store)[name].run("q", seed=seed, run_key=b"k" * 16)
    recording = await sqlite_store.read(whole.id)
    for length in range(2, recording.length):
        copied = await copy_prefix(sqlite_store, recording, length)
        workflow = more_workflows(sqlite_store)[name]
        where = f"cut after {length}: {recording.events[length - 1]}"
        try:
            async with asyncio.timeout(60):
                result = await workflow.resume(copied, force=True)
                assert result.status in ("completed", "incomplete"), f"{where}: {result}"
                again = await workflow.replay(copied)
                assert again.answer == result.answer, where
        except (Diverged, TimeoutError) as error:
            raise AssertionError(f"{where}: {error!r}") from error


# -- 7: a parked branch whose search has picked


class Parks:
    """Watches a run until its branch s1 has parked."""

    def __init__(self) -> None:
        self.parked = asyncio.Event()

    def __call__(self, event: Any) -> None:
        if event["event"] == "branch_ended" and event["branch"] == "s1":
            self.parked.set()


async def test_a_cancelled_parked_branch_does_nothing_more(sqlite_store: Store) -> None:
    """s1 waits for leave to pay; s0 answers and the search is over. Then somebody gives leave."""

    s1 = Parks()

    async def search(state: State, runtime: Runtime[Context]) -> State:
        policy = strategies.sample(2, stop=_AnyAnswer(), wave=2, select=strategies.best())
        found = await runtime.context.explore(policy)
        return {"answer": str(found.answer)}

    async def wait(state: State, runtime: Runtime[Context]) -> State:
        await runtime.context.suspend("other")
        return {}

    async def script(request: Any) -> Any:
        if request["sampling"]["seed"] == 1:
            if turns_of(request) == 0:
                return says("x", call("pay", amount=5))
            return "The answer is 1"
        await s1.parked.wait()
        return "The answer is 0"

    deps: list[int] = []
    workflow = looking(sqlite_store, script=script, tools=[pay], graph=one_node(search, wait))
    parked = await workflow.run("go", deps=deps, watch=s1)
    assert parked.status == "parked"
    waits = sorted(wait["name"] for wait in parked.waiting)
    await workflow.signal(parked.id, "approve:pay", True)
    await workflow.signal(parked.id, "other", True)
    async with asyncio.timeout(60):
        done = await workflow.resume(parked.id, deps=deps)
    assert deps == [], "paid although the search was over and the branch told as cancelled"
    assert done.status == "completed"
    assert waits == ["other"], "still asks a person to approve what nobody waits for"


async def test_a_rejected_pick_with_a_parked_branch(sqlite_store: Store) -> None:
    """s1 parks, s0 is picked and rejected; the policy was told that s1 is cancelled."""
    s1 = Parks()

    async def script(request: Any) -> Any:
        seed = request["sampling"]["seed"]
        if seed == 1:
            if turns_of(request) == 0:
                return says("x", call("pay", amount=5))
            return "The answer is 1"
        await s1.parked.wait()
        return f"The answer is {seed}"

    deps: list[int] = []
    strategy = strategies.sample(4, wave=2, stop=_AnyAnswer(), select=strategies.best())
    workflow = looking(
        sqlite_store,
        script=script,
        tools=[pay],
        verifier=Picky(),
        strategy=strategy,
        parallel=2,
    )
    async with asyncio.timeout(60):
        first = await workflow.run("go", deps=deps, watch=s1)
    assert first.status == "completed", first
    assert int(first.answer or 0) >= 3


async def test_the_live_gate_with_a_parked_branch_and_a_rejection(sqlite_store: Store) -> None:
    s1 = Parks()

    async def script(request: Any) -> Any:
        seed = request["sampling"]["seed"]
        if seed == 1:
            if turns_of(request) == 0:
                return says("x", call("pay", amount=5))
            return "The answer is 1"
        await s1.parked.wait()
        return f"The answer is {seed}"

    async def wait(state: State, runtime: Runtime[Context]) -> State:
        await runtime.context.suspend("other")
        return {}

    deps: list[int] = []
    strategy = strategies.sample(4, wave=2, stop=_AnyAnswer(), select=strategies.best())

    def workflow() -> Workflow:
        return looking(
            sqlite_store,
            script=script,
            tools=[pay],
            verifier=Picky(),
            strategy=strategy,
            parallel=3,
        )

    first = await workflow().run("go", deps=deps, run_key=b"k" * 16, watch=s1)
    recording = await sqlite_store.read(first.id)
    cuts = [e.seq for e in recording.events if e.body.get("input") == "rejected"]
    assert cuts
    copied = await copy_prefix(sqlite_store, recording, cuts[0])
    await workflow().signal(copied, "approve:pay", True)
    async with asyncio.timeout(60):
        done = await workflow().resume(copied, force=True, deps=deps)
    assert deps == []
    assert int(done.answer or 0) >= 3


async def test_a_woken_branch_is_cancelled_by_a_pick(sqlite_store: Store) -> None:
    """Both parked, both are woken; s0 is picked while s1 is still at work: s1 has to stop."""

    async def script(request: Any) -> Any:
        seed = request["sampling"]["seed"]
        if turns_of(request) == 0:
            return says("x", call("pay", amount=seed))
        if seed == 1:
            calls.append(1)
            await asyncio.Event().wait()
        return f"The answer is {seed}"

    calls: list[int] = []
    deps: list[int] = []
    strategy = strategies.sample(2, wave=2, stop=_AnyAnswer(), select=strategies.best())
    from tests.executor.workflows import lookup

    workflow = looking(sqlite_store, script=script, tools=[pay, lookup], strategy=strategy)
    parked = await workflow.run("go", deps=deps)
    assert (parked.status, len(parked.waiting)) == ("parked", 2)
    for wait in parked.waiting:
        await workflow.signal(parked.id, "approve:pay", True, key=wait["key"])
    async with asyncio.timeout(60):
        done = await workflow.resume(parked.id, deps=deps)
    assert (done.status, done.answer) == ("completed", "0")
    assert len(calls) <= 1, "a branch told as cancelled went on to call the model"
