"""What leases know beyond one run: starts that runs share, and how long tools took before.

Nothing is waited for: the controller's clock stands still, and what generates does so for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from langgraph.runtime import Runtime

from longthought import Context, Store, Workflow, strategies
from longthought.budgets import Controller
from longthought.orchestrator.models.scripted import ScriptedModel, call, says
from longthought.orchestrator.starts import beginning_of
from longthought.storage.tool_runs import ToolRun
from longthought.tools import tool
from longthought.types import JSONObject, Message
from tests.executor.test_waking import State, graph_of
from tests.executor.workflows import turns_of

FOR_EVER = 1e6
LONG = "You are patient. " * 400


class Clock:
    """The clock of a controller, which only a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Process:
    """What a process would know anew: a workflow, its controller, and what that tells."""

    def __init__(self, store: Store, **options: Any) -> None:
        self.clock = Clock()
        self.events: list[JSONObject] = []
        self.controller = Controller(now=self.clock, on_event=self.events.append)
        self.workflow = Workflow("kept", store=store, **options)
        self.workflow._controllers[asyncio.get_running_loop()] = self.controller

    def told(self, kind: str) -> list[str]:
        """The branches of all events of a kind."""
        return [str(one["branch"])[-2:] for one in self.events if one["event"] == kind]

    def states(self) -> list[str]:
        branches: Any = self.controller.view()["branches"]
        return sorted(branches.values())

    def memory(self) -> int:
        """Tokens charged to all leases."""
        backends: Any = self.controller.view()["backends"]
        return int(backends["scripted"]["charged"])

    @asynccontextmanager
    async def running(
        self, questions: Sequence[str], until: Callable[[], bool]
    ) -> AsyncIterator[None]:
        """Runs under way, until something holds; cancelled afterwards, and nothing is left."""
        tasks = [asyncio.create_task(self.workflow.run(question)) for question in questions]
        try:
            async with asyncio.timeout(60):
                while not until():
                    assert not any(task.done() for task in tasks), tasks
                    await asyncio.sleep(0.001)
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert (self.memory(), self.states()) == (0, [])


# -- starts ----------------------------------------------------------------------------------------


async def charged(store: Store, questions: Sequence[str], system: str = LONG) -> int:
    """Tokens charged while so many runs generate."""
    model = ScriptedModel(lambda _: "x", context_capacity=200_000, latency=lambda _: FOR_EVER)
    process = Process(store, model=model, system=system)

    def all_generate() -> bool:
        return process.states() == ["generating"] * len(questions)

    async with process.running(questions, all_generate):
        return process.memory()


async def test_runs_of_a_workflow_pay_for_their_system_prompt_once(sqlite_store: Store) -> None:
    short = await charged(sqlite_store, ["a", "b"], "Be short.") - await charged(
        sqlite_store, ["a"], "Be short."
    )
    one = await charged(sqlite_store, ["a"])
    assert one > 5 * short
    for questions in (["a", "a"], ["a", "b"]):
        both = await charged(sqlite_store, questions)
        assert both - one == pytest.approx(short, abs=10), questions


async def test_runs_of_a_question_pay_for_it_once(sqlite_store: Store) -> None:
    question, other = "Why? " * 1_000, "When? " * 1_000
    one = await charged(sqlite_store, [question], "Be short.")
    same = await charged(sqlite_store, [question] * 3, "Be short.") - one
    different = await charged(sqlite_store, [question, other], "Be short.") - one
    assert same < different / 2


def test_a_start_is_what_is_said_and_nothing_else() -> None:
    system: Message = {"role": "system", "content": "s"}
    asked: list[Message] = [system, {"role": "user", "content": "q"}]
    lookup: Any = {"name": "lookup", "description": "Looks.", "parameters": {}}
    known = dict(beginning_of("m", [], asked, 2))
    assert list(known.values())[-1] == 1.0
    assert len(known) == 2
    assert known == dict(beginning_of("m", [], [{**one} for one in asked], 2))
    more = beginning_of("m", [], [*asked, {"role": "assistant", "content": "step"}], 2)
    assert [start for start, _ in more][:2] == list(known)
    assert len(more) == 3
    parted = beginning_of("m", [], [system, {"role": "user", "content": "r"}], 2)
    assert [start in known for start, _ in parted] == [True, False]
    for others in (
        beginning_of("n", [], asked, 2),
        beginning_of("m", [lookup], asked, 2),
        beginning_of("m", [], [{"role": "system", "content": "t"}, asked[1]], 2),
        beginning_of("m", [], asked[1:], 1),
    ):
        assert known.keys().isdisjoint(start for start, _ in others)
    assert len(beginning_of("m", [lookup], asked[1:], 1)) == 2, "tools are a start, too"


# -- tool times ------------------------------------------------------------------------------------


def three(request: Any) -> Any:
    """The first sample asks for a tool, the others only generate."""
    if request["sampling"]["seed"] == 0 and turns_of(request) == 0:
        return says("", call("survey", place="the coast"))
    return "done"


def surveys(store: Store, job: Any, **more: Any) -> Process:
    """Room for the contexts of two samples."""

    def latency(request: Any) -> float:
        return 0.0 if request["sampling"]["seed"] == 0 else FOR_EVER

    model = ScriptedModel(three, slots=8, context_capacity=800, latency=latency)
    return Process(store, model=model, tools=[job], early_start=False, **more)


async def test_a_new_process_knows_how_long_a_tool_takes(store: Store) -> None:
    """By lease events: the lease of who waits for a long tool is parked at once."""

    @tool(effect="read", name="survey")
    async def blocked(place: str) -> str:
        """Have a place surveyed."""
        await asyncio.Event().wait()
        return place

    async def parked_at_once() -> list[str]:
        process = surveys(store, blocked, strategy=strategies.sample(3), parallel=3)
        async with process.running(["go"], lambda: "acting" in process.states()):
            assert process.clock.now == 0.0
            waits = process.states().count("queued")
            assert process.told("lease_parked") == [] if waits else ["s0"]
            return process.told("lease_parked")

    assert await parked_at_once() == [], "nobody knows the tool"

    for _ in range(5):
        process: Process

        @tool(effect="read", name="survey")
        async def long(place: str) -> str:
            """Have a place surveyed."""
            process.clock.now += 3600.0  # noqa: B023
            return place

        process = surveys(store, long)
        assert (await process.workflow.run("go")).status == "completed"

    found = await store.tool_runs("kept", {"survey"})
    assert found == [ToolRun("survey", len('{"place": "the coast"}'), 3600.0)] * 5
    assert await store.tool_runs("kept", {"other"}) == []
    assert await store.tool_runs("another", {"survey"}) == []
    assert await parked_at_once() == ["s0"]


async def test_what_nobody_needs_is_not_read(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for a controller, and only where there are both tools and leases."""
    asked: list[str] = []

    async def counted(_store: Store, workflow: str, _tools: Any) -> list[ToolRun]:
        asked.append(workflow)
        return []

    monkeypatch.setattr(Store, "tool_runs", counted)

    @tool(effect="read")
    async def survey(place: str) -> str:
        """Have a place surveyed."""
        return place

    for capacity, tools, times in ((None, [survey], 0), (10_000, [], 0), (10_000, [survey], 1)):
        asked.clear()
        model = ScriptedModel(lambda _: "x", context_capacity=capacity)
        process = Process(sqlite_store, model=model, tools=tools)
        for _ in range(3):
            await process.workflow.run("go")
        assert len(asked) == times, (capacity, tools)


# -- nodes -----------------------------------------------------------------------------------------


async def ask(state: State, runtime: Runtime[Context]) -> State:
    await runtime.context.model("ask")
    return {}


async def look(state: State, runtime: Runtime[Context]) -> State:
    result = await runtime.context.tool("survey", place="the coast")
    return {"answer": result.content}


async def alone(state: State, runtime: Runtime[Context]) -> State:
    await runtime.context.model("ask")
    result = await runtime.context.tool("survey", place="the coast")
    return {"answer": result.content}


@pytest.mark.parametrize("nodes", [(ask, look), (alone,)])
async def test_a_node_that_waits_for_its_tool_acts(sqlite_store: Store, nodes: Any) -> None:
    """Whether the conversation is its own, or that of the node before."""

    @tool(effect="read")
    async def survey(place: str) -> str:
        """Have a place surveyed."""
        process.clock.now += 60.0
        return place

    model = ScriptedModel(lambda _: "x", context_capacity=10_000)
    process = Process(sqlite_store, model=model, tools=[survey], graph=graph_of(*nodes))
    done = await process.workflow.run("go")
    assert done.status == "completed", done.error
    moves = [(one["from"], one["to"]) for one in process.events if one["event"] == "state"]
    assert moves.count(("ready", "acting")) == moves.count(("acting", "ready")) == 1
    assert process.controller.tool_times.seen("survey") == 1
    assert process.controller.tool_times.quantile("survey", 0.5) == pytest.approx(60, rel=0.4)
    assert process.states() == []
