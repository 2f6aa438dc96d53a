"""Rows of the embedded model under the leases of whole runs: kept, given up, let go; all counted.

A branch thinks with the calculator; while its call is on its way the test does what it likes, and
then lets it go on. Without other work the prefix cache would have room for nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import Context
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from longthought import Budget, Store, Workflow, answers, strategies
from longthought.budgets import BranchState
from longthought.orchestrator.models import Failover
from longthought.orchestrator.models.allowance import Allowance
from longthought.orchestrator.models.embedded import MODELS, EmbeddedModel
from longthought.orchestrator.models.embedded.engine import Engine
from longthought.orchestrator.models.embedded.leased_rows import LeasedRows
from longthought.orchestrator.traces import utilisation
from longthought.orchestrator.traces.utilisation import BackendUse
from longthought.tools import tool
from longthought.tools.calculator import evaluate, exact_text
from longthought.types import Message, ModelRequest, Sampling
from tests.moved_time import MovedTime

QUESTION = "4 7 8 8 -> 24"
OTHERS = 12
ROWS = 3
"""Sequences of other questions that the prefix cache has room for."""
LENGTH = 40
POSITION = MODELS["embedded/puzzle-large"][0].shape().position_bytes


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store(directory=tmp_path) as opened:
        yield opened


@dataclass
class Played:
    """A run of one branch, and what happened to its rows."""

    workflow: Workflow
    model: EmbeddedModel
    waits: list[Callable[[Played], Awaitable[None]]]
    wrong: list[AssertionError]
    """What was found wrong during a tool call; to the model that is a failed call alone."""

    @property
    def engine(self) -> Engine:
        return self.model.engine_of("puzzles")

    @property
    def kept(self) -> int:
        """Sequences that are kept; what the engine was told of before has been done by then."""
        self.engine.wait_idle()
        return len(self.engine.prefixes._kept)

    @property
    def leases(self) -> LeasedRows:
        return self.model._leased

    @property
    def slot(self) -> Any:
        (slot,) = self.workflow._shared_controller()._branches.values()
        return slot

    async def crowd(self) -> None:
        """Other questions, each in another mode, go through the cache: not a token in common."""
        for target in range(10, 10 + OTHERS):
            sampling = Sampling(seed=1, max_tokens=LENGTH)
            asked = [Message(role="user", content=f"1 2 3 4 -> {target}")]
            request = ModelRequest(model=self.model.name, messages=asked, sampling=sampling)
            call = self.model.generate(request, Allowance())
            await asyncio.create_task(call, context=Context())  # it belongs to no branch
        self.engine.wait_idle()


@asynccontextmanager
async def played(
    store: Store,
    *waits: Callable[[Played], Awaitable[None]],
    approval: Literal["never", "always"] = "never",
    **model: Any,
) -> AsyncIterator[Played]:
    """One branch; during each of its first tool calls something happens."""

    @tool(name="calculator", effect="read", approval=approval)
    async def calculator(expression: str) -> str:
        """Calculate.

        Args:
            expression: what.
        """
        try:
            if play.waits:
                await play.waits.pop(0)(play)
        except AssertionError as error:
            play.wrong.append(error)
            raise
        return exact_text(evaluate(expression))

    options = {"slots": 1, "cache_bytes": ROWS * LENGTH * POSITION} | model
    one = EmbeddedModel("embedded/puzzle-large", **options)
    workflow = Workflow(
        "rows",
        model=one,
        tools=[calculator],
        answer=answers.puzzle(),
        strategy=strategies.sample(1),
        store=store,
    )
    play = Played(workflow, one, list(waits), [])
    try:
        yield play
    finally:
        if play.wrong:
            raise play.wrong[0]
    await workflow.aclose()
    await one.aclose()


async def usage_of(store: Store, run: str) -> tuple[BackendUse, list[dict[str, int]]]:
    recording = await store.read(run)
    finished = [event.body for event in recording.events if event.type == "effect_finished"]
    calls = [body for body in finished if body["kind"] == "model"]
    results = [recording.get(body["result"]) for body in calls]
    usages = [
        {**result["usage"], "known": body.get("known", 0)}
        for body, result in zip(calls, results, strict=True)
    ]
    return utilisation(recording).backends["embedded/puzzle-large"], usages


async def crowded(play: Played) -> None:
    assert play.slot.state.value == "acting"
    await play.crowd()


async def needed_by_another(play: Played) -> None:
    """Somebody else begins to wait for a tool and needs nearly all the room that there is; then the
    cache is full of others."""
    controller, capacity = play.workflow._shared_controller(), play.model.context_capacity or 0
    context = capacity * 9 // 10
    another = controller.branch("another")
    async with controller.permit(play.model.name, another, context=context) as permit:
        permit.used(context=context)
        assert play.kept == 1
    for _ in range(9):
        controller.tool_times.observe("instant", 0.0)
    another.move(BranchState.ACTING, tool="instant")  # it is expected back first
    assert play.kept == 0
    another.move(BranchState.DONE)
    await play.crowd()


async def test_rows_of_a_branch_that_acts_are_kept_and_nothing_is_computed_again(
    store: Store,
) -> None:
    async with played(store, *[crowded] * 9) as play:
        run = await play.workflow.run(QUESTION)
        assert run.status == "completed"
        assert len(play.waits) <= 9 - 3
        use, usages = await usage_of(store, run.id)
        assert (use.recomputed_tokens, use.leases) == (0, {"taken": 1, "ended": 1})
        assert [one["known"] for one in usages[1:]] == [one["cached_tokens"] for one in usages[1:]]
        play.engine.wait_idle()
        assert (play.kept, len(play.leases)) == (0, 0)


async def test_rows_of_a_branch_that_was_parked_are_computed_anew_and_counted(
    store: Store,
) -> None:
    async with played(store, crowded, needed_by_another, crowded) as play:
        run = await play.workflow.run(QUESTION)
        assert run.status == "completed"
        use, usages = await usage_of(store, run.id)
        assert use.leases == {"taken": 1, "parked": 1, "resumed": 1, "ended": 1}
        lost = [one["known"] - one.get("cached_tokens", 0) for one in usages]
        assert lost == [0, 0, usages[2]["known"], *[0] * (len(usages) - 3)]
        assert use.recomputed_tokens == usages[2]["known"] > 0
        assert (play.kept, len(play.leases)) == (0, 0)


async def test_without_leases_what_was_used_last_stays_and_the_run_is_the_same(
    store: Store,
) -> None:
    """The same keys and requests with and without leases, and each replays."""
    asked, lost = [], []
    for leases in (True, False):
        async with played(store, *[crowded] * 9) as play:
            if not leases:
                play.model.context_capacity = None
            run = await play.workflow.run(QUESTION, run_key=b"sixteen bytes ok")
            recording = await store.read(run.id)
            use, usages = await usage_of(store, run.id)
            lost.append(sum(one["known"] - one.get("cached_tokens", 0) for one in usages))
            assert bool(use.leases) == leases
            finished = [event for event in recording.events if event.type == "effect_finished"]
            asked.append([(event.key, event.body["request"]) for event in finished])
            replay = await play.workflow.replay(run.id)
            assert (replay.model_calls, replay.answer) == (0, run.answer)
    assert asked[0] == asked[1]
    assert lost[0] == 0 < lost[1]


async def test_of_several_endpoints_each_keeps_the_rows_of_its_own_branches(store: Store) -> None:
    """Two engines are one model; what a branch has computed is kept by the one that computed it."""
    options: Any = {"slots": 1, "cache_bytes": ROWS * LENGTH * POSITION}
    models = [EmbeddedModel("embedded/puzzle-large", **options) for _ in range(2)]
    both: list[list[int]] = []
    acting = 0

    def kept() -> list[int]:
        for one in models:
            one.engine_of("puzzles").wait_idle()
        return [len(one.engine_of("puzzles").prefixes._kept) for one in models]

    @tool(name="calculator", effect="read")
    async def calculator(expression: str) -> str:
        """Calculate.

        Args:
            expression: what.
        """
        nonlocal acting
        acting += 1
        if acting == 2:  # both branches wait for a tool now
            both.append(kept())
            met.set()
        await met.wait()
        return exact_text(evaluate(expression))

    met = asyncio.Event()
    workflow = Workflow(
        "endpoints",
        model=Failover(models),
        tools=[calculator],
        answer=answers.puzzle(),
        strategy=strategies.sample(2),
        store=store,
    )
    run = await workflow.run(QUESTION)
    await workflow.aclose()
    assert run.status == "completed"
    assert both == [[1, 1]]
    assert kept() == [0, 0]
    assert [len(one._leased) for one in models] == [0, 0]
    use, _ = await usage_of(store, run.id)
    assert use.recomputed_tokens == 0


def test_the_model_states_the_memory_that_it_has() -> None:
    one = EmbeddedModel("embedded/puzzle-large", slots=3, cache_bytes=7 * POSITION + 1)
    assert one.context_capacity == 7
    assert EmbeddedModel(slots=1, cache_bytes=0).context_capacity == 1
    assert EmbeddedModel(context_capacity=500).context_capacity == 500


async def test_a_branch_that_is_cancelled_while_it_acts_keeps_nothing(store: Store) -> None:
    acts = asyncio.Event()

    async def never(play: Played) -> None:
        assert (play.kept, len(play.leases)) == (1, 1)
        acts.set()
        await asyncio.Event().wait()

    async with played(store, never) as play:
        task = asyncio.create_task(play.workflow.run(QUESTION))
        await acts.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (play.kept, len(play.leases)) == (0, 0)


async def test_a_run_that_ends_before_its_tool_does_keeps_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = MovedTime(monkeypatch)

    async def too_long(play: Played) -> None:
        assert play.kept == 1
        time.ahead = 3600.0
        await asyncio.Event().wait()

    async with played(store, too_long) as play:
        run = await play.workflow.run(QUESTION, budget=Budget(wall=3000))
        assert run.status == "incomplete"
        assert (play.kept, len(play.leases)) == (0, 0)


async def test_a_parked_run_gives_its_rows_up_and_computes_them_anew(store: Store) -> None:
    async with played(store, approval="always") as play:
        run = await play.workflow.run(QUESTION)
        assert run.status == "parked"
        assert (play.kept, len(play.leases)) == (0, 0)
        await play.crowd()
        (wait,) = run.waiting
        await play.workflow.signal(run.id, wait["name"], "yes", key=wait["key"])
        run = await play.workflow.resume(run.id)
        _, usages = await usage_of(store, run.id)
        assert [one.get("cached_tokens", 0) for one in usages] == [0, 0]


# -- without an executor ---------------------------------------------------------------------------


class Told:
    """Stands for an engine: what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, list[int], bool]] = []

    def keep(self, tokens: list[int]) -> None:
        self.told.append(("keep", tokens, False))

    def release(self, tokens: list[int], *, first: bool = True) -> None:
        self.told.append(("release", tokens, first))


def told_of(*changes: Any) -> list[tuple[str, list[int], bool]]:
    """What an engine is told when a lease changes so, or a branch has computed some tokens."""
    rows, engine = LeasedRows(), Told()
    for change in changes:
        if isinstance(change, str):
            rows.changed("b", change)  # type: ignore[arg-type]
        else:
            goes_on = change[-1] != 0
            rows.computed("b", engine, change, goes_on=goes_on)  # type: ignore[arg-type]
    return engine.told


@pytest.mark.parametrize("over", ["parked", "shed"])
def test_whose_room_is_needed_goes_first(over: str) -> None:
    assert told_of("taken", [1, 2], over) == [("release", [1, 2], True)]
    acted = [("keep", [1, 2], False), ("release", [1, 2], True)]
    assert told_of("taken", [1, 2], "acting", over) == acted
    assert told_of("taken", [1, 2], over, "acting", "resumed", "acting") == acted[1:]


def test_whose_branch_has_ended_is_as_good_as_any_other() -> None:
    """Other branches may go on from what it wrote."""
    assert told_of("taken", [1, 2], "ended") == []
    acted = [("keep", [1, 2], False), ("release", [1, 2], False)]
    assert told_of("taken", [1, 2], "acting", "ended") == acted


def test_who_comes_back_with_something_else_lets_go_what_was_kept() -> None:
    kept = ("keep", [1, 2], False)
    assert told_of("taken", [1, 2], "acting", [1, 2, 3]) == [kept]
    assert told_of("taken", [1, 2], "acting", [1, 3, 2]) == [kept, ("release", [1, 2], True)]
    assert told_of("taken", [1, 2], "acting", [1]) == [kept, ("release", [1, 2], True)]


def test_what_nobody_comes_back_to_or_has_no_lease_for_is_not_kept() -> None:
    assert told_of("taken", [1, 0], "acting", "parked") == []
    assert told_of([1, 2], "acting", "parked") == []
