"""Two processes that drive one run: one of them is fenced, and writes nothing any more."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from longthought.storage import Event, Store
from longthought.storage.audit import audit
from tests.chaos.checks import sequences
from tests.chaos.nursery import Nursery
from tests.chaos.run import fresh_url
from tests.chaos.worker import BRANCHES, Job
from tests.chaos.world import Tally, World

GATED = "s3/model/1"


@dataclass
class Pair:
    """Two nurseries, one world, one store."""

    first: Nursery
    second: Nursery
    world: World
    store: Store
    job: Job

    async def until_gated(self) -> asyncio.Event:
        """Start the first worker; it stands still in one branch until the gate is opened."""
        reached = self.world.gate("start", GATED)
        await self.first.start(self.job)
        await reached.wait()
        return self.world.gates.pop(("start", GATED))  # the second one passes

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
        first = await stack.enter_async_context(Nursery())
        second = await stack.enter_async_context(Nursery())
        url = store.url.render_as_string(hide_password=False)
        job = Job(
            world=world.path,
            store=url,
            directory=str(directory),
            run="contested",
            question="case 1",
            idempotent=True,
            tokens=1_000_000,
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
    gate = await pair.until_gated()
    before = [event.type for event in await pair.events()].count("attempt_started")
    second = await pair.second.start(replace(pair.job, latency_seed="b"))
    assert await pair.second.ended() == 0
    assert pair.result_of(second)["error"] == "RunBusy"
    gate.set()
    assert await pair.first.ended() == 0
    await check_whole(pair)
    assert [event.type for event in await pair.events()].count("attempt_started") == before


async def test_the_one_taken_over_is_fenced(pair: Pair) -> None:
    gate = await pair.until_gated()
    first = pair.first.pid
    assert first is not None
    second = await pair.second.start(replace(pair.job, force=True, latency_seed="b"))
    assert await pair.second.ended() == 0
    assert pair.result_of(second)["status"] == "completed"
    length = len(await pair.events())
    gate.set()
    assert await pair.first.ended() == 0
    assert pair.result_of(first)["error"] == "Fenced"
    assert len(await pair.events()) == length
    await check_whole(pair)


async def test_both_at_full_speed(pair: Pair) -> None:
    """The first one works on while the second takes over; whoever comes later is fenced."""
    gate = await pair.until_gated()
    first = pair.first.pid
    assert first is not None
    second = await pair.second.start(replace(pair.job, force=True, latency_seed="b"))
    gate.set()
    assert await pair.first.ended() == 0
    assert await pair.second.ended() == 0
    await pair.world.quiet()
    outcomes = [pair.result_of(first), pair.result_of(second)]
    assert [said.get("status") for said in outcomes].count("completed") >= 1
    assert all(said.get("error") in (None, "Fenced") for said in outcomes), outcomes
    await check_whole(pair)


async def test_a_frozen_worker_that_wakes_up_writes_nothing(pair: Pair) -> None:
    gate = await pair.until_gated()
    first = pair.first.pid
    assert first is not None
    pair.first.send(signal.SIGSTOP)
    taken = len(await pair.events())
    second = await pair.second.start(replace(pair.job, force=True, latency_seed="b"))
    assert await pair.second.ended() == 0
    assert pair.result_of(second)["status"] == "completed"
    before = await pair.events()
    writes = dict(pair.world.tally.performed)
    pair.first.send(signal.SIGCONT)
    gate.set()
    assert await pair.first.ended() == 0
    await pair.world.quiet()
    assert pair.result_of(first)["error"] == "Fenced"
    after = await pair.events()
    assert after == before
    assert attempts(after)[taken:].count(1) == 0
    assert dict(pair.world.tally.performed) == writes
    await check_whole(pair)


async def test_a_frozen_worker_whose_lease_ran_out_is_taken_over_without_force(pair: Pair) -> None:
    pair.job = replace(pair.job, lease=0.5)
    gate = await pair.until_gated()
    first = pair.first.pid
    assert first is not None
    pair.first.send(signal.SIGSTOP)
    status = "RunBusy"
    tries = 0
    while status == "RunBusy":  # until the lease has run out, by the store's own clock
        tries += 1
        second = await pair.second.start(replace(pair.job, latency_seed=f"b{tries}"))
        assert await pair.second.ended() == 0
        said = pair.result_of(second)
        status = str(said.get("error") or said["status"])
    assert status == "completed"
    before = await pair.events()
    pair.first.send(signal.SIGCONT)
    gate.set()
    assert await pair.first.ended() == 0
    await pair.world.quiet()
    assert pair.result_of(first)["error"] == "Fenced"
    assert await pair.events() == before
    await check_whole(pair)
