"""A client of the virtual engine: agents that generate, wait for tools and come back, under an arm.

The arms differ in who holds what during a tool wait. Ours drives the very scheduler that runs in
production; what it is told is what a client can know: lengths, times, and cached tokens.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import partial

from benchmarks.agents import Turn, Workload
from benchmarks.virtual_engine import EngineRates, Request, VirtualEngine
from longthought.budgets import SlotScheduler
from longthought.budgets.leases import LeaseScheduler
from longthought.budgets.tool_times import ToolTimes

__all__ = ["ARMS", "Outcome", "simulate"]

_NEVER = math.inf


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a simulation came to; times in virtual seconds, the rest in tokens or events."""

    throughput: float
    p50: float
    p95: float
    recomputed: int
    decoded: int
    slots_used: float
    parked: int
    preempted: int


@dataclass(slots=True, eq=False)
class _Agent:
    id: int
    turns: tuple[Turn, ...]
    arrived: float
    turn: int = 0
    context: int = 0
    acting_until: float = -1.0
    request: Request | None = field(default=None)


class _ExactTimes(ToolTimes):
    """Knows how long each call will take: the shape of its arguments tells."""

    def price(self, tool: str, elapsed: float, shape: Hashable = None) -> float | None:
        """What is left."""
        return max(0.0, float(str(shape)) - elapsed)


class _WrongTimes(ToolTimes):
    """Says of slow calls that they are fast, of fast ones that they are slow, and never learns."""

    middle = 1.0

    def price(self, tool: str, elapsed: float, shape: Hashable = None) -> float | None:
        """What would be left if the logarithm of the time were mirrored."""
        seconds = max(1e-3, float(str(shape)))
        left = self.middle * self.middle / seconds - elapsed
        return left if left > 0 else elapsed


class Arm:
    """Who may generate, and what becomes of a context. This one: first come, first served.

    ``resumed_first`` takes who has generated before first.
    """

    def __init__(self, load: Workload, engine: VirtualEngine, *, resumed_first: bool = False):
        self.engine = engine
        self.resumed_first = resumed_first
        self.slots = SlotScheduler[_Agent](engine.rates.slots)
        self.parked = 0

    def ready(self, agent: _Agent) -> None:
        """An agent wants to generate."""
        self.slots.enqueue(
            agent, resumed=self.resumed_first and agent.turn > 0, now=self.engine.now
        )

    def dispatch(self) -> None:
        """Submit what may run now."""
        while (agent := self.slots.grant(self.engine.now)) is not None:
            self.submit(agent)

    def submit(self, agent: _Agent) -> None:
        """Hand the next turn of an agent to the engine."""
        turn = agent.turns[agent.turn]
        agent.request = Request(agent.id, agent.context + turn.new, agent.context, turn.output)
        self.engine.submit(agent.request)

    def generated(self, agent: _Agent, request: Request, turn: Turn) -> None:
        """An agent has generated and waits for a tool now, or has ended."""
        self.slots.release(agent)

    def next_look(self) -> float:
        """When to dispatch again though nothing happens."""
        return _NEVER


class HoldArm(Arm):
    """Slot and memory are held from an agent's first turn to its last."""

    def ready(self, agent: _Agent) -> None:
        """Only the first turn has to wait."""
        if agent.turn:
            self.submit(agent)
        else:
            super().ready(agent)

    def generated(self, agent: _Agent, request: Request, turn: Turn) -> None:
        """The engine keeps all."""
        if turn.tool:
            self.engine.hold(request)
        else:
            self.slots.release(agent)


class OracleArm(Arm):
    """Inside the engine, after InferCept: keep, discard or swap, by the least waste of memory.

    It knows how long each tool will take, and moving a context out and back costs it no time.
    """

    swap_rate = 40_000.0

    def generated(self, agent: _Agent, request: Request, turn: Turn) -> None:
        """Token-seconds that each way would waste."""
        super().generated(agent, request, turn)
        if not turn.tool:
            return
        engine, tokens = self.engine, agent.context
        keep = turn.seconds * tokens
        discard = tokens / engine.rates.prefill * (tokens / 2 + engine.running_tokens)
        swap = 2 * tokens / self.swap_rate * tokens
        if keep <= min(discard, swap):
            engine.keep(agent.id)
        elif swap <= discard:
            engine.swap(agent.id)
        else:
            engine.discard(agent.id)


class LeaseArm(Arm):
    """Ours: permits and leases, as in production."""

    def __init__(
        self,
        load: Workload,
        engine: VirtualEngine,
        *,
        times: type[ToolTimes] | None = None,
    ):
        super().__init__(load, engine)
        tool_times = times() if times else None
        self.tells = isinstance(tool_times, (_ExactTimes, _WrongTimes))
        if isinstance(tool_times, _WrongTimes):
            seconds = sorted(turn.seconds for job in load.jobs for turn in job if turn.tool)
            tool_times.middle = seconds[len(seconds) // 2]
        self.leases = LeaseScheduler[_Agent](
            engine.rates.slots, capacity=engine.capacity, tool_times=tool_times
        )

    def ready(self, agent: _Agent) -> None:
        """A returning agent's prompt is its context and what is new."""
        now = self.engine.now
        if agent.turn:
            self.leases.returned(agent.id, agent.acting_until)
        self.leases.enqueue(
            agent,
            resumed=agent.turn > 0,
            now=now,
            branch=agent.id,
            context=agent.context + agent.turns[agent.turn].new,
        )

    def dispatch(self) -> None:
        """Submit what the scheduler grants."""
        now = self.engine.now
        while (agent := self.leases.grant(now)) is not None:
            self.submit(agent)
        for event in self.leases.take_events():
            self.parked += event.kind in {"parked", "shed"}

    def generated(self, agent: _Agent, request: Request, turn: Turn) -> None:
        """Report what a client sees of a call, then what the branch does."""
        now, leases = self.engine.now, self.leases
        leases.first_token(request.uncached, request.first_token - request.submitted)
        leases.release(agent, now=now, context=agent.context, cached=request.cached)
        if turn.tool:
            shape = turn.seconds if self.tells else None
            leases.acting(agent.id, now, tool=turn.tool, shape=shape)
        else:
            leases.end(agent.id, now)

    def next_look(self) -> float:
        """As the scheduler says."""
        look = self.leases.next_look(self.engine.now)
        return _NEVER if look is None else look


ARMS: dict[str, Callable[[Workload, VirtualEngine], Arm]] = {
    "hold": HoldArm,
    "fifo": Arm,
    "resume": partial(Arm, resumed_first=True),
    "lease": LeaseArm,
    "learned": partial(LeaseArm, times=ToolTimes),
    "exact": partial(LeaseArm, times=_ExactTimes),
    "wrong": partial(LeaseArm, times=_WrongTimes),
    "oracle": partial(OracleArm, resumed_first=True),
}
"""Rivals: ``hold`` keeps slot and memory during tool waits; ``fifo`` releases the slot, first come
first served; ``resume`` releases it, who returns goes first. Ours: ``lease`` knows nothing of
tools; ``learned`` learns their times by name; ``exact`` is told every time, ``wrong`` the opposite.
``oracle`` works inside the engine, knows every time and swaps for free."""


def simulate(load: Workload, capacity: int, arm: str) -> Outcome:
    """Run all agents to their ends under an arm."""
    engine = VirtualEngine(capacity, EngineRates())
    client = ARMS[arm](load, engine)
    agents: dict[int, _Agent] = {}
    tools: list[tuple[float, int]] = []
    latencies: list[float] = []

    def arrive() -> None:
        if len(latencies) + len(agents) < len(load.jobs):
            number = len(latencies) + len(agents)
            agents[number] = _Agent(number, load.jobs[number], engine.now)
            client.ready(agents[number])

    for _ in range(load.in_flight):
        arrive()
    while agents:
        while tools and tools[0][0] <= engine.now:
            client.ready(agents[heapq.heappop(tools)[1]])
        client.dispatch()
        until = min(tools[0][0] if tools else _NEVER, client.next_look())
        for request in engine.advance(until):
            agent = agents[int(str(request.key))]
            turn = agent.turns[agent.turn]
            agent.context += turn.new + turn.output
            agent.turn += 1
            agent.acting_until = engine.now + turn.seconds
            client.generated(agent, request, turn)
            if turn.tool:
                heapq.heappush(tools, (agent.acting_until, agent.id))
            else:
                latencies.append(engine.now - agent.arrived)
                del agents[agent.id]
                arrive()
    latencies.sort()
    count = len(latencies)
    return Outcome(
        throughput=count / engine.now,
        p50=latencies[count // 2],
        p95=latencies[int(0.95 * count)],
        recomputed=engine.recomputed,
        decoded=engine.decoded,
        slots_used=engine.slot_seconds / engine.now / engine.rates.slots,
        parked=client.parked,
        preempted=engine.preempted,
    )
