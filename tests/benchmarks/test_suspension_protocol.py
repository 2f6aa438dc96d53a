"""The cell of the suspension benchmark that goes through the real protocol."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

import pytest

from benchmarks import virtual_time
from benchmarks.agent_client import Outcome, simulate
from benchmarks.agents import Workload, workload
from benchmarks.suspension_protocol import ARMS, Played, play, stored_figures
from longthought.orchestrator.traces import utilisation

CAPACITY = 30_000


@pytest.fixture(scope="module")
def load() -> Workload:
    return workload("note", 2.0, 0, jobs=12, in_flight=12)


@pytest.fixture(scope="module")
def played(load: Workload) -> dict[str, Played]:
    return {arm: play(load, CAPACITY, arm) for arm in ARMS}


@pytest.fixture(scope="module")
def measured(played: dict[str, Played]) -> dict[str, Outcome]:
    return {arm: Outcome.of(utilisation(*one.runs)) for arm, one in played.items()}


def test_every_turn_is_one_call(load: Workload, measured: dict[str, Outcome]) -> None:
    for one in measured.values():
        assert one.calls == sum(map(len, load.jobs))
        assert one.decoded == sum(turn.output for job in load.jobs for turn in job)


def test_what_is_recorded_is_what_the_engine_did(
    load: Workload, played: dict[str, Played], measured: dict[str, Outcome]
) -> None:
    for arm, one in measured.items():
        engine = played[arm].engine
        assert (one.recomputed, one.decoded) == (engine.forgotten, engine.decoded)
        assert one.throughput == pytest.approx(len(load.jobs) / engine.now, rel=0.01)
        assert one.tools_generating == 0
        assert (one.idle > 0.2) if arm == "hold" else (one.idle == 0)
    leases = utilisation(*played["leases"].runs).backends["virtual"].leases
    assert leases["taken"] + leases["resumed"] == (
        leases["ended"] + leases["parked"] + leases["shed"]
    )
    assert leases["parked"] > 0


def test_the_figures_come_back_from_a_store(
    played: dict[str, Played], measured: dict[str, Outcome]
) -> None:
    again = asyncio.run(stored_figures(played["leases"]))
    assert asdict(again) == pytest.approx(asdict(measured["leases"]), rel=1e-5)


def test_what_is_simulated_is_what_comes_of_it(
    load: Workload, measured: dict[str, Outcome]
) -> None:
    for arm in ("fifo", "leases"):  # who holds a slot holds memory, too, in the simulation alone
        alone = simulate(load, CAPACITY, ARMS[arm])
        assert 0.75 <= measured[arm].throughput / alone.throughput <= 1.3


def test_leases_spare_what_first_come_first_served_computes_again(
    measured: dict[str, Outcome],
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
