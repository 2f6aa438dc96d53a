"""Agents for the simulations of suspended generation: turns, tool calls, how long tools take.

Two families. ``note`` is the one whose seeds policies were tuned on: lognormal tool times of sigma
1.5, of which the tool called explains a part. ``other`` was only ever looked at afterwards: tools
that are mostly fast and sometimes very slow, tools with a Pareto tail, short and long agents mixed.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.virtual_engine import EngineRates

__all__ = ["FAMILIES", "Turn", "Workload", "client_bound", "lognormal_tool", "workload"]

BETWEEN_TOOLS, WITHIN_TOOL = 1.2, 0.9
"""Standard deviations of the logarithm of a tool's time: 1.5 together, 64 % told by its name."""
_OTHER_MOST = 30.0
"""Longest time, in means, in the second family; with more, one agent decides when all end."""
_NORMAL_8 = (-1.534, -0.887, -0.489, -0.157, 0.157, 0.489, 0.887, 1.534)


@dataclass(frozen=True, slots=True)
class Turn:
    """One model call of an agent and the tool call that follows it, if one does.

    Attributes:
        new: tokens that the prompt has more than the context before: a question or a result.
        output: tokens decoded.
        tool: name of the tool, empty at the last turn.
        seconds: how long the tool takes.
    """

    new: int
    output: int
    tool: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Workload:
    """Agents, each a sequence of turns.

    Attributes:
        jobs: the agents, in the order in which they arrive.
        in_flight: agents that are under way at once; the next arrives when one has ended.
        generation: mean seconds of one generation in a full batch, the unit of ``r``.
    """

    jobs: tuple[tuple[Turn, ...], ...]
    in_flight: int
    generation: float


def lognormal_tool(rng: random.Random, mean: float) -> tuple[str, float]:
    """One of eight tools, and how long this call of it takes; ``mean`` is over all of them."""
    scale = sum(math.exp(BETWEEN_TOOLS * z) for z in _NORMAL_8) / 8 * math.exp(WITHIN_TOOL**2 / 2)
    tool = rng.randrange(8)
    spread = BETWEEN_TOOLS * _NORMAL_8[tool] + WITHIN_TOOL * rng.gauss(0, 1)
    return f"tool {tool}", min(mean / scale * math.exp(spread), 100 * mean)


def _note_agent(rng: random.Random, mean: float) -> tuple[Turn, ...]:
    count = rng.randint(4, 16)
    turns = []
    for index in range(count):
        new = rng.randint(*((100, 1500) if index else (1000, 4000)))
        output = max(8, int(rng.lognormvariate(5.0, 0.7)))
        tool, seconds = lognormal_tool(rng, mean)
        last = index == count - 1
        turns.append(Turn(new, output, "" if last else tool, 0.0 if last else seconds))
    return tuple(turns)


def _other_seconds(rng: random.Random, tool: int) -> float:
    """Of mean 1: five tools mostly fast and sometimes slow, three with a Pareto tail."""
    if tool < 5:
        slow = rng.random() < 0.04 * (tool + 1)
        mean_fast = 0.05 * (tool + 1)
        mean_slow = (1 - mean_fast * (1 - 0.04 * (tool + 1))) / (0.04 * (tool + 1))
        return rng.expovariate(1.0) * mean_slow if slow else rng.uniform(0.5, 1.5) * mean_fast
    shape = (1.3, 1.7, 2.5)[tool - 5]
    return rng.paretovariate(shape) * (shape - 1) / shape


def _other_agent(rng: random.Random, mean: float) -> tuple[Turn, ...]:
    long = rng.random() < 0.35
    count = rng.randint(12, 28) if long else rng.randint(2, 8)
    turns = []
    for index in range(count):
        if index == 0:
            new = int(rng.lognormvariate(7.2, 0.8))
        else:
            new = int(rng.lognormvariate(5.2 if long else 6.8, 1.0))
        output = max(8, int(rng.lognormvariate(4.6 if long else 5.4, 0.8)))
        tool = rng.randrange(8)
        seconds = mean * min(_other_seconds(rng, tool), _OTHER_MOST)
        last = index == count - 1
        turns.append(
            Turn(
                min(new, 8000) + 1, output, "" if last else f"tool {tool}", 0.0 if last else seconds
            )
        )
    return tuple(turns)


@dataclass(frozen=True, slots=True)
class Family:
    """How agents of a family are drawn, and the three sizes of memory, in tokens."""

    agent: Callable[[random.Random, float], tuple[Turn, ...]]
    output: float
    memory: dict[str, int]


FAMILIES = {
    "note": Family(
        _note_agent,
        math.exp(5.0 + 0.7**2 / 2),
        {"tight": 120_000, "mid": 400_000, "ample": 1_000_000},
    ),
    "other": Family(
        _other_agent,
        math.exp(4.6 + 0.8**2 / 2) * 0.66 + math.exp(5.4 + 0.8**2 / 2) * 0.34,
        {"tight": 100_000, "mid": 330_000, "ample": 830_000},
    ),
}


def workload(family: str, r: float, seed: int, *, jobs: int = 240, in_flight: int = 64) -> Workload:
    """Draw agents whose tools take ``r`` times as long as their generations, in the mean."""
    rates, drawn = EngineRates(), FAMILIES[family]
    generation = drawn.output * (rates.step + rates.step_each * rates.slots)
    rng = random.Random(f"{family} {seed}")
    agents = tuple(drawn.agent(rng, r * generation) for _ in range(jobs))
    return Workload(agents, in_flight, generation)


def client_bound(load: Workload, capacity: int, rates: EngineRates) -> float:
    """Agents per second that no client passes, whatever it knows and in whatever order it asks.

    A client can have a context kept, which takes memory for as long as the tool, or computed again,
    which takes the engine; it may have each token decoded in as large a batch as it likes, which
    saves engine time and takes memory for longer. With ``w`` between 0 and 1, all the work takes at
    least ``(1 - w) * engine seconds + w * token-seconds / capacity``, the least for every wait
    and every token by itself: the dual of a linear program, and concave in ``w``. Left out is what
    would need an order: memory held while others are prefilled, and contexts of no use.

    The other bound is that of the agents in flight: each taking no longer than alone.
    """
    tokens: list[tuple[float, int]] = []
    waits: list[tuple[float, int]] = []
    new, places = 0, [0.0] * load.in_flight
    for job in load.jobs:
        context, alone = 0, 0.0
        for turn in job:
            context += turn.new
            new += turn.new
            tokens.append((context + turn.output / 2, turn.output))
            alone += turn.output * (rates.step + rates.step_each) + turn.new / rates.prefill
            alone += turn.seconds
            context += turn.output
            if turn.seconds:
                waits.append((turn.seconds, context))
        heapq.heapreplace(places, places[0] + alone)

    def least(w: float) -> float:
        engine, memory = 1 - w, w / capacity
        total = engine * new / rates.prefill
        for context, output in tokens:
            shared, each = engine * rates.step, memory * context * rates.step_each
            batch = min(rates.slots, max(1.0, math.sqrt(shared / each)))
            fixed = engine * rates.step_each + memory * context * rates.step
            total += output * (shared / batch + fixed + each * batch)
        return total + sum(
            context * min(engine / rates.prefill, memory * seconds) for seconds, context in waits
        )

    low, high = 1e-6, 1 - 1e-6
    for _ in range(30):
        third = (high - low) / 3
        if least(low + third) < least(high - third):
            low += third
        else:
            high -= third
    return len(load.jobs) / max(least((low + high) / 2), *places)
