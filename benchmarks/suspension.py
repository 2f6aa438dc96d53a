"""Suspending generation during tool waits, in virtual time: what leases give, cell by cell.

The engine is virtual, the scheduler is the one that runs in production. A cell is a size of the
context memory and a ratio r of tool time to generation time; every figure is the median over seeds.
Agents record what production records, and every figure is read from that (``show --clocks``).
"""

from __future__ import annotations

import multiprocessing
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from benchmarks.agent_client import ARMS, Outcome, simulate
from benchmarks.agents import FAMILIES, client_bound, workload
from benchmarks.results import arguments, report
from benchmarks.virtual_engine import EngineRates

__all__ = ["Cell", "grid", "ratios", "simulate_cell", "table"]

R = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
SEEDS = (0, 1, 2)
JOBS = 240
OURS = ("lease", "learned")


@dataclass(frozen=True, slots=True)
class Cell:
    """One simulation of every arm: a family of agents, a memory, tool times, a seed."""

    family: str
    size: str
    r: float
    seed: int
    jobs: int = JOBS
    arms: tuple[str, ...] = tuple(ARMS)


@dataclass(frozen=True, slots=True)
class Ratios:
    """Medians over the seeds of a cell, by arm; ``throughput`` and latencies relative to hold.

    ``worst`` is the throughput relative to the better of hold and FIFO, ``recomputed`` relative to
    FIFO, ``bound`` the throughput as a share of what no client passes. ``slots`` is the share of
    the slots that was held; ``idle`` is that of it in which a tool ran, and ``tools_generating``
    are seconds of tools in the model's clock, both the most of any seed. ``again`` is what was
    computed again per token decoded.
    """

    throughput: dict[str, float]
    worst: dict[str, float]
    p50: dict[str, float]
    p95: dict[str, float]
    recomputed: dict[str, float]
    slots: dict[str, float]
    bound: dict[str, float]
    idle: dict[str, float]
    tools_generating: dict[str, float]
    again: dict[str, float]
    parked: dict[str, float]
    shed: dict[str, float]
    resumed: dict[str, float]


def simulate_cell(cell: Cell) -> dict[str, Outcome | float]:
    """The outcome of every arm, and what no client passes as ``bound``."""
    load = workload(cell.family, cell.r, cell.seed, jobs=cell.jobs)
    capacity = FAMILIES[cell.family].memory[cell.size]
    outcomes: dict[str, Outcome | float] = {arm: simulate(load, capacity, arm) for arm in cell.arms}
    outcomes["bound"] = client_bound(load, capacity, EngineRates())
    return outcomes


def ratios(outcomes: Iterable[Mapping[str, Outcome | float]]) -> Ratios:
    """Medians of the ratios within each seed."""
    seeds = list(outcomes)
    arms = [arm for arm in seeds[0] if arm != "bound"]

    def median(
        ratio: Callable[[Outcome, Outcome, Outcome, float], float],
        among: Callable[[list[float]], float] = statistics.median,
    ) -> dict[str, float]:
        found = {}
        for arm in arms:
            values = []
            for seed in seeds:
                one, hold, fifo, bound = (seed[name] for name in (arm, "hold", "fifo", "bound"))
                assert isinstance(one, Outcome)
                assert isinstance(hold, Outcome)
                assert isinstance(fifo, Outcome)
                assert isinstance(bound, float)
                values.append(ratio(one, hold, fifo, bound))
            found[arm] = among(values)
        return found

    return Ratios(
        throughput=median(lambda one, hold, fifo, bound: one.throughput / hold.throughput),
        worst=median(
            lambda one, hold, fifo, bound: one.throughput / max(hold.throughput, fifo.throughput)
        ),
        p50=median(lambda one, hold, fifo, bound: one.p50 / hold.p50),
        p95=median(lambda one, hold, fifo, bound: one.p95 / hold.p95),
        recomputed=median(lambda one, hold, fifo, bound: one.recomputed / max(1, fifo.recomputed)),
        slots=median(lambda one, hold, fifo, bound: one.slots_used),
        bound=median(lambda one, hold, fifo, bound: one.throughput / bound),
        idle=median(lambda one, hold, fifo, bound: one.idle, max),
        tools_generating=median(lambda one, hold, fifo, bound: one.tools_generating, max),
        again=median(lambda one, hold, fifo, bound: one.recomputed / one.decoded),
        parked=median(lambda one, hold, fifo, bound: one.parked),
        shed=median(lambda one, hold, fifo, bound: one.shed),
        resumed=median(lambda one, hold, fifo, bound: one.resumed),
    )


def grid(quick: bool) -> dict[tuple[str, str, float], Ratios]:
    """All cells of both families, computed side by side on the cores there are."""
    places = [
        (family, size, r) for family, drawn in FAMILIES.items() for size in drawn.memory for r in R
    ]
    seeds = SEEDS
    if quick:
        places = [place for place in places if place[2] in {0.5, 1.0, 5.0}]
        seeds = SEEDS[:1]
    cells = [Cell(*place, seed) for place in places for seed in seeds]
    with multiprocessing.get_context("spawn").Pool() as pool:
        outcomes = pool.map(simulate_cell, cells, chunksize=1)
    found = {}
    for index, place in enumerate(places):
        found[place] = ratios(outcomes[index * len(seeds) : (index + 1) * len(seeds)])
    return found


def table(cells: Mapping[tuple[str, str, float], Ratios], family: str) -> str:
    """Throughput relative to hold for every arm; for ours also p95 and what is computed again."""
    arms = list(next(iter(cells.values())).throughput)
    lines = [f"family {family}: throughput / hold; [p95 / hold, recomputed / fifo] of ours; bound"]
    lines.append(
        "memory    r  "
        + " ".join(f"{arm:>9}" for arm in arms)
        + f"{'lease':>15}{'learned':>15}  of bound"
    )
    for (name, size, r), cell in cells.items():
        if name != family:
            continue
        row = " ".join(f"{cell.throughput[arm]:9.2f}" for arm in arms)
        ours = "".join(f"  [{cell.p95[arm]:.2f}, {cell.recomputed[arm]:.3f}]" for arm in OURS)
        lines.append(f"{size:<6} {r:>4g}  {row}{ours}  {cell.bound['learned']:.2f}")
    return "\n".join(lines)


def used(cells: Mapping[tuple[str, str, float], Ratios], family: str) -> str:
    """What slots and leases were used for where memory is tight and tools are slow, by arm."""
    cell = cells[family, "tight", 5.0]
    head = "latency / hold; slots held, of that while a tool ran; tools generating; again per token"
    lines = [
        f"family {family}, tight, r = 5: {head}; leases",
        "arm          p50   p95  slots   idle  tools  again   parked    shed  resumed",
    ]
    lines += [
        f"{arm:<10} {cell.p50[arm]:5.2f} {cell.p95[arm]:5.2f} {cell.slots[arm]:6.3f} "
        f"{cell.idle[arm]:6.3f} {cell.tools_generating[arm]:6.3f} {cell.again[arm]:6.2f} "
        f"{cell.parked[arm]:8.0f} {cell.shed[arm]:7.0f} {cell.resumed[arm]:8.0f}"
        for arm in cell.throughput
    ]
    return "\n".join(lines)


def figures(cells: Mapping[tuple[str, str, float], Ratios]) -> dict[str, float]:
    """What must be shown, and how far ours is from the oracle."""
    found: dict[str, float] = {
        "cells": len(cells),
        "permits_held_while_a_tool_runs": max(
            share for cell in cells.values() for arm, share in cell.idle.items() if arm != "hold"
        ),
        "tool_seconds_in_the_generation_clock": max(
            most for cell in cells.values() for most in cell.tools_generating.values()
        ),
    }
    for arm in (*OURS, "wrong"):
        for family in FAMILIES:
            own = [(place, cell) for place, cell in cells.items() if place[0] == family]
            found[f"{family}_{arm}_lowest_over_best_of_hold_and_fifo"] = min(
                cell.worst[arm] for _, cell in own
            )
            found[f"{family}_{arm}_highest_p95_over_hold"] = max(cell.p95[arm] for _, cell in own)
            found[f"{family}_{arm}_highest_p95_over_hold_r5"] = max(
                cell.p95[arm] for place, cell in own if place[2] == 5
            )
            found[f"{family}_{arm}_highest_recomputed_over_fifo_tight_r_to_1"] = max(
                cell.recomputed[arm] for place, cell in own if place[1] == "tight" and place[2] <= 1
            )
            for size, r in (("tight", 5.0), ("mid", 1.0), ("mid", 5.0)):
                cell = cells[family, size, r]
                found[f"{family}_{arm}_{size}_r{r:g}_over_hold"] = cell.throughput[arm]
            tight = cells[family, "tight", 5.0]
            for name in ("slots", "parked", "shed", "resumed"):
                found[f"{family}_{arm}_tight_r5_{name}"] = getattr(tight, name)[arm]
    for (family, size, r), cell in cells.items():
        if size == "tight" and 2 <= r <= 10:
            from_here, oracle = cell.throughput["hold"], cell.throughput["oracle"]
            best = max(from_here, cell.throughput["fifo"])
            bound = from_here / cell.bound["hold"]
            found[f"{family}_client_bound_tight_r{r:g}_over_hold"] = bound
            for arm in (*OURS, "exact"):
                closed = (cell.throughput[arm] - best) / (oracle - best)
                found[f"{family}_{arm}_tight_r{r:g}_of_distance_to_oracle"] = closed
    return found


def main() -> None:
    """Simulate, print a table for each family, report."""
    options = arguments(__doc__ or "")
    cells = grid(options.quick)
    if not options.json:
        for family in FAMILIES:
            print(table(cells, family), used(cells, family), sep="\n\n", end="\n\n")
    report("suspension", figures(cells), options)


if __name__ == "__main__":
    main()
