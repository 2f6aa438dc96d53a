"""When the wall limit passes, the best answer so far is there: nothing is begun after it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langgraph.runtime import Runtime

from benchmarks.wall import Hanging
from longthought import Budget, Store, Workflow, answers, strategies
from longthought.budgets import Clocks
from longthought.errors import BackendError
from longthought.orchestrator import recorded, search
from longthought.orchestrator.context import Context
from longthought.orchestrator.definition import Retry
from longthought.orchestrator.models.scripted import ScriptedModel, call
from longthought.orchestrator.session import Session
from longthought.storage import Journal
from longthought.tools import tool
from longthought.types import Capabilities, ModelRequest
from tests.executor.test_raised_late import State, own_graph


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


async def test_the_end_of_many_streams_begins_so_much_sooner_that_it_is_over_in_time(
    sqlite_store: Store, clock: Clock
) -> None:
    """One of 64 answers fifty milliseconds before the limit: there is time for nothing else."""
    everybody, waiting, ended = asyncio.Event(), 0, 0

    async def script(request: Any) -> str:
        nonlocal waiting, ended
        waiting += 1
        if waiting == 64:
            everybody.set()
        await everybody.wait()
        if request["sampling"]["seed"]:
            try:
                await asyncio.Event().wait()
            finally:
                ended += 1
        clock.now = 100 - 0.05
        return "The answer is 7"

    workflow = Workflow(
        "wall",
        model=ScriptedModel(script, slots=64),
        answer=answers.number(),
        strategy=strategies.sample(64),
        budget=Budget(wall=100),
        parallel=64,
        store=sqlite_store,
    )
    async with asyncio.timeout(60):
        result = await workflow.run("q")
    assert (result.status, result.stop_reason, result.answer) == ("incomplete", "wall", "7")
    assert ended == 63, "every stream was closed by then"
    assert result.spent["model_calls"] == 64
    assert result.spent["seconds"]["wall"] == pytest.approx(100 - 0.05)
    assert (await workflow.replay(result.id)).answer == "7"


@pytest.mark.parametrize(("calls", "early"), [(4, False), (64, True)])
async def test_a_graph_of_ones_own_is_ended_as_soon(
    sqlite_store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch, calls: int, early: bool
) -> None:
    """By its clock, which it looks at until then: sooner the more there is to stop."""
    looks, look, waiting = 0, Session.time_is_up, 0
    everybody = asyncio.Event()

    def counted(session: Session) -> str | None:
        nonlocal looks
        looks += 1
        return look(session)

    monkeypatch.setattr(Session, "time_is_up", counted)

    async def looked() -> None:
        before = looks
        while looks < before + 3:
            await asyncio.sleep(0.001)

    async def script(request: Any) -> str:
        nonlocal waiting
        waiting += 1
        if waiting == calls:
            everybody.set()
        await asyncio.Event().wait()
        return ""

    async def ask(context: Context, number: int) -> None:
        with context.label(str(number)):
            await context.model("q")

    async def work(state: State, runtime: Runtime[Context]) -> State:
        await asyncio.gather(*(ask(runtime.context, number) for number in range(calls)))
        return {"answer": 1}

    wall = 0.6
    options: dict[str, Any] = {"model": ScriptedModel(script, slots=calls), "tools": []}
    workflow = own_graph(sqlite_store, work, budget=Budget(wall=wall), **options)
    async with asyncio.timeout(60):
        run = await workflow.start("q")
        await everybody.wait()
        await looked()
        clock.now = wall - 0.05
        if not early:
            await looked()
            assert not run.done
            clock.now = wall
        result = await run.result()
    assert (result.status, result.stop_reason) == ("incomplete", "wall")
    assert result.spent["seconds"]["wall"] == pytest.approx(clock.now, abs=0.001)
    assert (await workflow.replay(result.id)).status == "incomplete"


async def test_a_graph_of_ones_own_is_not_out_of_thinking_while_nobody_thinks(
    sqlite_store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, look = asyncio.Semaphore(0), Session.time_is_up

    def counted(session: Session) -> str | None:
        looked.release()
        return look(session)

    monkeypatch.setattr(Session, "time_is_up", counted)

    async def work(state: State, runtime: Runtime[Context]) -> State:
        for _ in range(4):  # with the pauses between them, longer than it may think
            await looked.acquire()
        return {"answer": 1}

    workflow = own_graph(sqlite_store, work, budget=Budget(thinking=0.01))
    async with asyncio.timeout(60):
        result = await workflow.run("q")
    assert (result.status, result.answer) == ("completed", 1)


@tool(effect="read")
async def hang() -> str:
    """Wait for ever."""
    await asyncio.Event().wait()
    return ""


def unavailable(request: ModelRequest, attempt: int) -> Exception | None:
    if not request["sampling"]["seed"]:
        return None
    return BackendError("not now", status=503, retryable=True, retry_after=90.0)


CASES: dict[str, dict[str, Any]] = {
    "reply": {"other": None},
    "tool": {"other": call("hang"), "workflow": {"tools": [hang]}},
    "verifier": {"other": "The answer is 1", "workflow": {"verifier": Hanging()}},
    "retry": {"other": "", "model": {"faults": unavailable}, "workflow": {"retry": Retry()}},
    "slot": {"other": None, "model": {"slots": 2}, "workflow": {"parallel": 8}},
    "reservation": {
        "other": None,
        "model": {"capabilities": Capabilities(seeds=True)},
        "budget": {"tokens": 160, "final_answer": 0},
        "workflow": {"sampling": {"max_tokens": 40}},
    },
}


@pytest.mark.parametrize("what", CASES)
async def test_whatever_the_others_wait_for_the_answer_waits_for_none(
    sqlite_store: Store, clock: Clock, what: str
) -> None:
    """The first sample answers at the very moment of the limit; seven others would never end."""
    case = CASES[what]

    async def script(request: Any) -> Any:
        if request["sampling"]["seed"]:
            if case["other"] is None:
                await asyncio.Event().wait()
            return case["other"]
        for _ in range(200):  # until all the others are where they wait
            await asyncio.sleep(0)
        clock.now = 100.0
        return "The answer is 0"

    workflow = Workflow(
        "wall",
        model=ScriptedModel(script, **case.get("model", {})),
        answer=answers.number(),
        strategy=strategies.sample(8),
        budget=Budget(wall=100, **case.get("budget", {})),
        store=sqlite_store,
        **case.get("workflow", {}),
    )
    async with asyncio.timeout(60):
        result = await workflow.run("q")
    assert (result.status, result.stop_reason, result.answer) == ("incomplete", "wall", "0")
    assert result.support["samples"] == 1
    told = inputs(await sqlite_store.read(result.id))
    assert told[-3:] == ["tell", "exhausted", "cancel"]
    replayed = await workflow.replay(result.id)
    assert (replayed.answer, replayed.stop_reason, replayed.model_calls) == ("0", "wall", 0)


async def test_the_way_from_the_limit_to_the_result_is_as_long_for_many_branches(
    sqlite_store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commits, and turns of the loop until the end is on its way to disk, of 4 and 64 branches."""
    seen: list[tuple[int, int]] = []
    look, flush = Session.time_is_up, Journal.flush
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    def noticed(session: Session) -> str | None:
        kind = look(session)
        if kind is not None and not seen:
            seen.append((turns, sqlite_store.writer.transactions))
        return kind

    async def flushed(journal: Journal, status: str | None = None) -> None:
        if status == "incomplete":
            seen.append((turns, sqlite_store.writer.transactions))
        await flush(journal, status)

    monkeypatch.setattr(Session, "time_is_up", noticed)
    monkeypatch.setattr(Journal, "flush", flushed)

    async def way(branches: int) -> tuple[int, int]:
        clock.now, waiting, everybody = 0.0, 0, asyncio.Event()

        async def script(request: Any) -> Any:
            nonlocal waiting
            waiting += 1
            if waiting == branches:
                everybody.set()
            if request["sampling"]["seed"]:
                await asyncio.Event().wait()
            await everybody.wait()
            clock.now = 100.0
            return "The answer is 0"

        workflow = Workflow(
            "wall",
            model=ScriptedModel(script, slots=branches),
            answer=answers.number(),
            strategy=strategies.sample(branches),
            budget=Budget(wall=100),
            parallel=branches,
            store=sqlite_store,
        )
        seen.clear()
        async with asyncio.timeout(60):
            result = await workflow.run("q")
        assert (result.stop_reason, result.answer, result.spent["model_calls"]) == (
            "wall",
            "0",
            branches,
        )
        (turns_before, commits_before), (turns_after, _) = seen
        commits = sqlite_store.writer.transactions - commits_before
        return turns_after - turns_before, commits

    turning = asyncio.create_task(turn())
    few, many = await way(4), await way(64)
    turning.cancel()
    assert few == many
    assert few[1] == 1, "all that was cancelled and the end of the run, in one commit"


async def test_what_does_not_stop_is_left_behind(
    sqlite_store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tool that takes a cancellation for nothing: the run ends, and it may go on as it likes."""
    monkeypatch.setattr(search, "PATIENCE_S", 0.01)
    released, calls = asyncio.Event(), 0
    entered = asyncio.Semaphore(0)

    @tool(effect="read")
    async def stubborn() -> str:
        """Never stop."""
        entered.release()
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue
        return "late"

    async def script(request: Any) -> Any:
        nonlocal calls
        calls += 1
        if request["sampling"]["seed"]:
            return call("stubborn")
        for _ in range(7):
            await entered.acquire()
        clock.now = 100.0
        return "The answer is 0"

    workflow = workflow_of(sqlite_store, script, 100, tools=[stubborn])
    async with asyncio.timeout(60):
        result = await workflow.run("q")
    assert (result.status, result.stop_reason, result.answer) == ("incomplete", "wall", "0")
    length = (await sqlite_store.read(result.id)).length
    released.set()
    async with asyncio.timeout(60):
        others = [task for task in asyncio.all_tasks() if task.get_name().startswith("branch")]
        await asyncio.gather(*others, return_exceptions=True)
    assert len(others) == 7
    assert calls == 8  # none of them has asked for anything more
    assert (await sqlite_store.read(result.id)).length == length
    assert (await workflow.replay(result.id)).answer == "0"
