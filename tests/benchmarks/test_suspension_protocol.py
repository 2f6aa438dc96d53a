"""The cell of the suspension benchmark that goes through the real protocol."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks import virtual_time
from benchmarks.agent_client import simulate
from benchmarks.agents import Workload, workload
from benchmarks.suspension_protocol import ARMS, Measured, through_protocol

CAPACITY = 30_000


@pytest.fixture(scope="module")
def load() -> Workload:
    return workload("note", 2.0, 0, jobs=12, in_flight=12)


@pytest.fixture(scope="module")
def measured(load: Workload) -> dict[str, Measured]:
    return {arm: through_protocol(load, CAPACITY, arm) for arm in ARMS}


def test_every_turn_is_one_call(load: Workload, measured: dict[str, Measured]) -> None:
    for one in measured.values():
        assert one.calls == sum(map(len, load.jobs))
        assert one.decoded == sum(turn.output for job in load.jobs for turn in job)


def test_what_is_simulated_is_what_comes_of_it(
    load: Workload, measured: dict[str, Measured]
) -> None:
    for arm in ("fifo", "leases"):  # who holds a slot holds memory, too, in the simulation alone
        alone = simulate(load, CAPACITY, ARMS[arm])
        assert 0.75 <= measured[arm].throughput / alone.throughput <= 1.3


def test_leases_spare_what_first_come_first_served_computes_again(
    measured: dict[str, Measured],
) -> None:
    assert measured["leases"].recomputed <= 0.5 * measured["fifo"].recomputed


def test_time_passes_only_where_it_is_waited_for() -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        await asyncio.gather(asyncio.sleep(3600), asyncio.sleep(7200))
        long = loop.time() - begin
        sum(range(100_000))
        return [long, loop.time() - begin]

    assert virtual_time.run(main()) == [7200.0, 7200.0]
