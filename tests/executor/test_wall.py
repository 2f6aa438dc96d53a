"""When the wall limit passes, the best answer so far is there: nothing is begun after it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from longthought import Budget, Store, Workflow, answers, strategies
from longthought.budgets import Clocks
from longthought.orchestrator import recorded
from longthought.orchestrator.models.scripted import ScriptedModel


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(recorded, "Clocks", lambda _: Clocks(lambda: self.now))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def workflow_of(store: Store, script: Any, wall: float, **options: Any) -> Workflow:
    return Workflow(
        "wall",
        model=ScriptedModel(script),
        answer=answers.number(),
        strategy=strategies.sample(8),
        budget=Budget(wall=wall),
        store=store,
        **options,
    )


def inputs(recording: Any) -> list[str]:
    return [event.body["input"] for event in recording.events if event.type == "fold"]


@pytest.mark.parametrize("wall", [5, 10, 35, 40, 41, 69])
async def test_no_call_leaves_after_the_limit(
    sqlite_store: Store, clock: Clock, wall: float
) -> None:
    """Each call takes ten seconds: the one during which the limit passes is the last."""
    calls = 0

    def script(request: Any) -> str:
        nonlocal calls
        calls += 1
        clock.now += 10
        return "The answer is 7"

    workflow = workflow_of(sqlite_store, script, wall, parallel=1)
    async with asyncio.timeout(60):
        result = await workflow.run("q")
    assert (result.status, result.stop_reason, result.answer) == ("incomplete", "wall", "7")
    assert calls == -(-wall // 10)
    assert result.support["samples"] == calls
    told = inputs(await sqlite_store.read(result.id))
    assert told[-2:] == ["tell", "exhausted"]  # the first look at the clock after it
    clock.now = 0.0
    replayed = await workflow.replay(result.id)
    assert (replayed.answer, replayed.status, replayed.model_calls) == ("7", "incomplete", 0)


async def test_a_call_that_never_ends_is_not_waited_for(sqlite_store: Store, clock: Clock) -> None:
    ended: list[int] = []

    async def script(request: Any) -> str:
        seed = request["sampling"]["seed"]
        if seed != 3:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(seed)
        clock.now = 100.0
        return "The answer is 7"

    workflow = workflow_of(sqlite_store, script, 100)
    async with asyncio.timeout(60):
        result = await workflow.run("q")
    assert (result.status, result.stop_reason, result.answer) == ("incomplete", "wall", "7")
    assert sorted(ended) == [0, 1, 2, 4, 5, 6, 7]
    assert result.spent["model_calls"] == 8
    told = inputs(await sqlite_store.read(result.id))
    assert told == ["ask", "tell", "exhausted", "cancel"]
    assert (await workflow.replay(result.id)).answer == "7"
