"""Two processes that drive one run: one of them is fenced, and writes nothing any more."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from longthought import Workflow
from longthought.orchestrator.models.scripted import ScriptedModel
from longthought.storage import Event, Store
from longthought.storage.audit import audit
from longthought.storage.rows import RunRow
from longthought.storage.tables import runs
from tests.chaos.checks import sequences
from tests.chaos.nursery import Nursery
from tests.chaos.run import fresh_url
from tests.chaos.worker import BRANCHES, Job
from tests.chaos.world import Tally, World

GATED = [f"s{branch}/model/1" for branch in range(BRANCHES)]
LONG = 600.0


@dataclass
class Pair:
    """Two nurseries, one world, one store."""

    first: Nursery
    second: Nursery
    world: World
    store: Store
    job: Job
    opened: list[asyncio.Event] = field(default_factory=list)

    async def until_gated(self) -> int:
        """Start the first worker and wait until every branch of it stands at its gate.

        Nothing of it is then under way, least of all a transaction: a process that is frozen in one
        keeps the whole SQLite file locked.
        """
        reached = [self.world.gate("start", what) for what in GATED]
        pid = await self.first.start(self.job)
        for event in reached:
            await event.wait()
        self.opened = [self.world.gates.pop(("start", what)) for what in GATED]
        return pid  # the second one finds no gates

    def open(self) -> None:
        for gate in self.opened:
            gate.set()

    def result_of(self, pid: int) -> dict[str, object]:
        return next(said for said in self.world.tally.results if said["pid"] == pid)

    async def events(self) -> list[Event]:
        return (await self.store.read(self.job.run)).events


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store_url = await stack.enter_async_context(fresh_url(request.param, directory))
        world = await stack.enter_async_context(World(directory))
        store = await stack.enter_async_context(Store(store_url, directory=directory))
        first, second = Nursery(), Nursery()
        entering = map(stack.enter_async_context, (first, second))
        await asyncio.gather(*entering)
        url = store.url.render_as_string(hide_password=False)
        job = Job(
            world=world.path,
            store=url,
            directory=str(directory),
            run="contested",
            question="case 1",
            idempotent=True,
            tokens=1_000_000,
            lease=LONG,
        )
        yield Pair(first, second, world, store, job)


def attempts(events: list[Event]) -> list[int]:
    """The attempt that wrote each event."""
    numbers, current = [], 0
    for event in events:
        if event.type == "attempt_started":
            current = event.body["attempt"]
        numbers.append(current)
    return numbers


async def check_whole(pair: Pair) -> None:
    events = await pair.events()
    assert sum(event.type == "run_ended" for event in events) == 1
    assert events[-1].type == "run_ended"
    assert attempts(events) == sorted(attempts(events))
    assert (await audit(pair.store, pair.job.run)).ok
    finished = [event.key for event in events if event.type == "effect_finished"]
    assert len(finished) == len(set(finished))
    assert len(sequences(await pair.store.read(pair.job.run))) == BRANCHES
    tally: Tally = pair.world.tally
    assert set(tally.performed.values()) == {1}


async def test_a_live_worker_is_not_disturbed(pair: Pair) -> None:
    await pair.until_gated()
    before = [event.type for event in await pair.events()].count("attempt_started")
    second = await pair.second.start(replace(pair.job, latency_seed="b"))
    assert await pair.second.ended() == 0
    assert pair.result_of(second)["error"] == "RunBusy"
    pair.open()
    assert await pair.first.ended() == 0
    await check_whole(pair)
    assert [event.type for event in await pair.events()].count("attempt_started") == before


async def test_the_one_taken_over_is_fenced(pair: Pair) -> None:
    first = await pair.until_gated()
    second = await pair.second.start(replace(pair.job, force=True, latency_seed="b"))
    assert await pair.second.ended() == 0
    assert pair.result_of(second)["status"] == "completed"
    length = len(await pair.events())
    pair.open()
    assert await pair.first.ended() == 0
    assert pair.result_of(first)["error"] == "Fenced"
    assert len(await pair.events()) == length
    await check_whole(pair)


async def test_a_run_that_ends_while_it_is_claimed_ends_once(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    workflow = Workflow("one", model=ScriptedModel(["done"]), store=sqlite_store)
    run = await workflow.run("Do it.")
    stale = replace(await sqlite_store.row(run.id), status="running")

    async def as_it_was(_run_id: str) -> RunRow:
        return stale

    monkeypatch.setattr(sqlite_store, "row", as_it_was)
    again = await workflow.resume(run.id, force=True)
    assert (again.status, again.answer, again.model_calls) == ("completed", run.answer, 0)
    events = (await sqlite_store.read(run.id)).events
    assert [event.type for event in events].count("attempt_started") == 1
    assert [event.type for event in events].count("run_ended") == 1


async def test_both_at_full_speed(pair: Pair) -> None:
    """The first one works on while the second takes over; whoever comes later is fenced."""
    first = await pair.until_gated()
    second = await pair.second.start(replace(pair.job, force=True, latency_seed="b"))
    pair.open()
    assert await pair.first.ended() == 0
    assert await pair.second.ended() == 0
    await pair.world.quiet()
    outcomes = [pair.result_of(first), pair.result_of(second)]
    assert [said.get("status") for said in outcomes].count("completed") >= 1
    assert all(said.get("error") in (None, "Fenced") for said in outcomes), outcomes
    await check_whole(pair)


async def test_a_frozen_worker_that_wakes_up_writes_nothing(pair: Pair) -> None:
    first = await pair.until_gated()
    pair.first.send(signal.SIGSTOP)
    taken = len(await pair.events())
    second = await pair.second.start(replace(pair.job, force=True, latency_seed="b"))
    assert await pair.second.ended() == 0
    assert pair.result_of(second)["status"] == "completed"
    before = await pair.events()
    writes = dict(pair.world.tally.performed)
    pair.first.send(signal.SIGCONT)
    pair.open()
    assert await pair.first.ended() == 0
    await pair.world.quiet()
    assert pair.result_of(first)["error"] == "Fenced"
    after = await pair.events()
    assert after == before
    assert attempts(after)[taken:].count(1) == 0
    assert dict(pair.world.tally.performed) == writes
    await check_whole(pair)


async def test_a_frozen_worker_whose_lease_ran_out_is_taken_over_without_force(pair: Pair) -> None:
    first = await pair.until_gated()
    pair.first.send(signal.SIGSTOP)
    second = await pair.second.start(replace(pair.job, latency_seed="b"))
    assert await pair.second.ended() == 0
    assert pair.result_of(second)["error"] == "RunBusy"
    await pair.store.database.write(
        lambda c: c.execute(sa.update(runs).values(lease_until=0.0)).close()
    )
    third = await pair.second.start(replace(pair.job, latency_seed="c"))
    assert await pair.second.ended() == 0
    assert pair.result_of(third)["status"] == "completed"
    before = await pair.events()
    pair.first.send(signal.SIGCONT)
    pair.open()
    assert await pair.first.ended() == 0
    await pair.world.quiet()
    assert pair.result_of(first)["error"] == "Fenced"
    assert await pair.events() == before
    await check_whole(pair)
