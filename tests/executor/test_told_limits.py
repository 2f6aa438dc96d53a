"""A branch is told what is left of a limit, once for each share, and the same on every replay."""

from __future__ import annotations

import re
from typing import Any

import pytest

from longthought import Budget, Store, Workflow, answers, strategies, verifiers
from longthought.budgets import Clocks
from longthought.errors import InvalidInput
from longthought.orchestrator import recorded
from longthought.orchestrator.models.scripted import ScriptedModel, call, says
from longthought.storage.events import parse_event
from longthought.tools import tool
from longthought.types import ModelRequest, text_of
from tests.executor.copies import copy_prefix

LINE = re.compile(r"Left of the budget: (.*)\.$", re.MULTILINE)


@tool(effect="read")
async def lookup(name: str) -> str:
    """Look it up."""
    return f"found {name}"


class Agent:
    """Looks things up for some turns; keeps what it was sent."""

    def __init__(self, turns: int = 6) -> None:
        self.turns = turns
        self.requests: list[ModelRequest] = []

    def __call__(self, request: ModelRequest) -> Any:
        self.requests.append(request)
        turn = sum(message["role"] == "assistant" for message in request["messages"])
        if turn < self.turns and "tools" in request:
            return says("looking " * 10, call("lookup", name=f"n{turn}"))
        return "The answer is 7"

    def told(self) -> list[list[str]]:
        """The lines in each prompt."""
        return [
            [line for message in request["messages"] for line in LINE.findall(text_of(message))]
            for request in self.requests
        ]


def workflow_of(store: Store, agent: Agent, **options: Any) -> Workflow:
    usual = {"tell_left": (0.5, 0.8), "budget": Budget(tokens=1_000), "tools": [lookup]}
    options = {**usual, **options}
    return Workflow(
        "told",
        model=ScriptedModel(agent),
        answer=answers.number(),
        store=store,
        **options,
    )


def lefts(recording: Any) -> list[Any]:
    return [event for event in recording.events if event.body.get("kind") == "left"]


async def test_it_is_told_once_for_each_share_and_replayed(sqlite_store: Store) -> None:
    free = await workflow_of(sqlite_store, Agent(), budget=Budget()).run("What is it?")
    limit = free.spent["tokens"] * 6 // 5
    agent = Agent()
    workflow = workflow_of(sqlite_store, agent, budget=Budget(tokens=limit), tell_left=(0.3, 0.6))
    result = await workflow.run("What is it?")
    assert (result.status, result.answer) == ("completed", "7")
    told = agent.told()
    assert [len(lines) for lines in told] == sorted(len(lines) for lines in told)
    assert (told[0], len(told[-1])) == ([], 2)
    shares = []
    for line in told[-1]:
        left = line.removesuffix(f" of {limit:,} tokens").replace(",", "")
        shares.append(1 - int(left) / limit)
    assert 0.3 <= shares[0] < 0.6 <= shares[1]
    recording = await sqlite_store.read(result.id)
    assert len(lefts(recording)) == 2
    for event in lefts(recording):
        parse_event(event.seq, event.type, event.key, event.body)
    # a tool's own result stays what it was: the line is the prompt's
    results = [
        recording.get(event.body["result"])["content"]
        for event in recording.events
        if event.type == "effect_finished" and event.body["kind"] == "tool"
    ]
    assert results == [f"found n{turn}" for turn in range(6)]
    calls = len(agent.requests)
    replayed = await workflow.replay(result.id)
    assert (replayed.answer, replayed.model_calls, len(agent.requests)) == ("7", 0, calls)


async def test_no_other_key_changes(sqlite_store: Store) -> None:
    found = []
    for shares in ((), (0.5, 0.8)):
        result = await workflow_of(sqlite_store, Agent(), tell_left=shares).run("What is it?")
        recording = await sqlite_store.read(result.id)
        kinds = ("model", "tool")
        found.append([e.key for e in recording.events if e.body.get("kind") in kinds])
    assert found[0] == found[1]


async def test_seconds_are_told_as_they_were_recorded(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(recorded, "Clocks", lambda _: Clocks(lambda: now))

    class Slow(Agent):
        def __call__(self, request: ModelRequest) -> Any:
            nonlocal now
            now += 10
            return super().__call__(request)

    agent = Slow()
    workflow = workflow_of(sqlite_store, agent, budget=Budget(wall=100, thinking=1_000))
    result = await workflow.run("What is it?")
    assert agent.told()[-1] == ["50 of 100 seconds"]
    now = 5_000.0
    assert (await workflow.replay(result.id)).answer == "7"


async def test_a_run_that_is_cut_off_is_told_what_it_was_told(sqlite_store: Store) -> None:
    """Wherever it is cut: what has left is asked again as it was, and told on every replay."""
    workflow = workflow_of(sqlite_store, Agent(turns=4), budget=Budget(tokens=700))
    whole = await workflow.run("What is it?", run_key=bytes(16))
    recording = await sqlite_store.read(whole.id)
    assert lefts(recording)
    for length in range(3, recording.length):
        copy = await copy_prefix(sqlite_store, recording, length)
        result = await workflow.resume(copy)
        assert result.status in ("completed", "incomplete")
        replayed = await workflow.replay(copy)
        assert (replayed.answer, replayed.model_calls) == (result.answer, 0)


async def test_each_of_several_branches_is_told(sqlite_store: Store) -> None:
    agent = Agent(turns=4)
    workflow = workflow_of(
        sqlite_store, agent, strategy=strategies.sample(4), budget=Budget(tokens=4_000)
    )
    result = await workflow.run("What is it?")
    recording = await sqlite_store.read(result.id)
    assert len({event.key.rsplit("/", 1)[0] for event in lefts(recording)}) > 1
    replayed = await workflow.replay(result.id)
    assert (replayed.answer, replayed.model_calls) == (result.answer, 0)


async def test_without_a_limit_nothing_is_told(sqlite_store: Store) -> None:
    agent = Agent()
    result = await workflow_of(sqlite_store, agent, budget=Budget()).run("What is it?")
    assert not any(agent.told())
    assert not lefts(await sqlite_store.read(result.id))


async def test_steps_of_a_thought_are_not_interrupted(sqlite_store: Store) -> None:
    agent = Agent(turns=0)
    workflow = workflow_of(
        sqlite_store,
        agent,
        tools=[],
        strategy=strategies.backtrack(),
        verifier=verifiers.callable(lambda candidate: True, partial=True),
        tell_left=(0.01,),
        budget=Budget(tokens=500),
    )
    await workflow.run("What is it?")
    assert agent.requests
    assert not any(agent.told())


@pytest.mark.parametrize("shares", [(0,), (1.0,), (True,), ("0.5",), "0.5", 0.5])
def test_what_is_no_share_is_refused(shares: Any) -> None:
    with pytest.raises(InvalidInput, match="tell_left"):
        Workflow(model="embedded", tell_left=shares)
