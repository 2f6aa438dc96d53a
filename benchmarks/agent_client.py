"""A client of the virtual engine: agents that generate, wait for tools and come back, under an arm.

The arms differ in who holds what during a tool wait. Ours drives the very scheduler that runs in
production; what it is told is what a client can know: lengths, times, and cached tokens.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Self

from benchmarks.agents import Turn, Workload
from benchmarks.simulated_runs import BACKEND, Change, SimulatedRun
from benchmarks.virtual_engine import EngineRates, Request, VirtualEngine
from longthought.budgets import SlotScheduler
from longthought.budgets.lease_book import LeaseEvent
from longthought.budgets.leases import LeaseScheduler
from longthought.budgets.tool_times import ToolTimes
from longthought.orchestrator.traces import Utilisation, quantile, utilisation
from longthought.types import JSONObject

__all__ = ["ARMS", "Counted", "Outcome", "Simulation", "simulate"]

_NEVER = math.inf


@dataclass(frozen=True, slots=True)
class Outcome:
    """What runs of one backend came to; times in virtual seconds, the rest in tokens or events.

    ``slots_used`` is the share of the slots that was held, ``idle`` the part of that in which a
    tool of the same agent ran; ``tools_generating`` are seconds of tools in the model's clock.
    """

    throughput: float
    p50: float
    p95: float
    calls: int
    recomputed: int
    decoded: int
    slots_used: float
    idle: float
    tools_generating: float
    parked: int
    shed: int
    resumed: int

    @classmethod
    def of(cls, use: Utilisation) -> Self:
        """Everything from what the runs have recorded."""
        backend = use.backends[BACKEND]
        lost = backend.recomputed_tokens
        return cls(
            throughput=use.runs_per_second,
            p50=quantile(use.latencies, 0.5),
            p95=quantile(use.latencies, 0.95),
            calls=backend.calls,
            # this backend reports what it finds, also if that is never anything
            recomputed=backend.known_tokens if lost is None else lost,
            decoded=backend.output_tokens,
            slots_used=backend.share,
            idle=use.permit_seconds_during_tools / backend.busy_seconds,
            tools_generating=use.tool_seconds_in_generation,
            parked=backend.leases["parked"],
            shed=backend.leases["shed"],
            resumed=backend.leases["resumed"],
        )


@dataclass(slots=True, eq=False)
class _Agent:
    id: int
    turns: tuple[Turn, ...]
    run: SimulatedRun
    asked: float = 0.0
    """When it asked for the slot that it holds or waits for."""
    granted: float = -1.0
    queued: float = 0.0
    """When it wanted to generate."""
    sent: float = 0.0
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
        self.scheduler: SlotScheduler[_Agent] | LeaseScheduler[_Agent] = self.slots

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
        agent.sent = self.engine.now
        if agent.granted < 0:
            agent.granted = agent.sent
        agent.request = Request(agent.id, agent.context + turn.new, agent.context, turn.output)
        self.engine.submit(agent.request)

    def generated(self, agent: _Agent, request: Request, turn: Turn) -> None:
        """An agent has generated and waits for a tool now, or has ended."""
        self.slots.release(agent)

    def next_look(self) -> float:
        """When to dispatch again though nothing happens."""
        return _NEVER

    def lease_changes(self) -> Iterable[LeaseEvent]:
        """What has happened to leases since this was last asked for."""
        return ()


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
        self.scheduler = self.leases

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

    def lease_changes(self) -> Iterable[LeaseEvent]:
        """As the scheduler says."""
        return self.leases.take_events()

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


@dataclass(slots=True)
class Counted:
    """What a simulation counts itself: what its runs have recorded must come to the same."""

    latencies: list[float] = field(default_factory=list)
    slot_seconds: float = 0.0
    leases: Counter[str] = field(default_factory=Counter)


class Simulation:
    """All agents of a load under an arm, to their ends.

    Attributes:
        runs: what the agents have recorded, in the order in which they arrived.
        counted: what was counted beside it, for tests.
    """

    def __init__(self, load: Workload, capacity: int, arm: str) -> None:
        self.load = load
        self.engine = VirtualEngine(capacity, EngineRates())
        self.client = ARMS[arm](load, self.engine)
        self.runs: list[SimulatedRun] = []
        self.counted = Counted()
        self._agents: dict[int, _Agent] = {}
        self._tools: list[tuple[float, int]] = []
        self._changes: dict[int, list[Change]] = defaultdict(list)
        """What happened to leases and is not recorded yet."""

    def play(self) -> Outcome:
        """Run it; to be called once."""
        engine, client, tools = self.engine, self.client, self._tools
        for _ in range(self.load.in_flight):
            self._arrive()
        while self._agents:
            while tools and tools[0][0] <= engine.now:
                self._returned(self._agents[heapq.heappop(tools)[1]])
            client.dispatch()
            self._note_leases()
            until = min(tools[0][0] if tools else _NEVER, client.next_look())
            held, before = client.scheduler.in_use, engine.now
            ended = engine.advance(until)
            self.counted.slot_seconds += held * (engine.now - before)
            for request in ended:
                self._generated(self._agents[int(str(request.key))], request)
        return Outcome.of(utilisation(*self.runs))

    def _arrive(self) -> None:
        number, now = len(self.runs), self.engine.now
        if number < len(self.load.jobs):
            self.runs.append(SimulatedRun(number, now))
            agent = _Agent(number, self.load.jobs[number], self.runs[-1])
            self._agents[number] = agent
            self._ready(agent)

    def _ready(self, agent: _Agent) -> None:
        agent.queued = self.engine.now
        if not self.client.scheduler.holds(agent):
            agent.asked, agent.granted = agent.queued, -1.0
        self.client.ready(agent)

    def _returned(self, agent: _Agent) -> None:
        """A tool has ended, when it was to end: the engine may have looked a little later."""
        begun = agent.acting_until - agent.turns[agent.turn - 1].seconds
        agent.run.tool_ran(begun, agent.acting_until, self._changes.pop(agent.id, ()))
        self._ready(agent)

    def _generated(self, agent: _Agent, request: Request) -> None:
        now, client = self.engine.now, self.client
        turn, known = agent.turns[agent.turn], agent.context
        agent.context += turn.new + turn.output
        agent.turn += 1
        agent.acting_until = now + turn.seconds
        client.generated(agent, request, turn)
        self._note_leases()
        permits = []
        if not client.scheduler.holds(agent):
            permits.append((agent.asked, agent.granted, now, client.scheduler.slots))
        agent.run.generated(
            (agent.queued, agent.sent, now),
            permits,
            _usage(known + turn.new, turn.output, request.cached),
            known,
            self._changes.pop(agent.id, ()),
        )
        if turn.tool:
            heapq.heappush(self._tools, (agent.acting_until, agent.id))
        else:
            agent.run.ended(now)
            self.counted.latencies.append(now - agent.run.began)
            del self._agents[agent.id]
            self._arrive()

    def _note_leases(self) -> None:
        for change in self.client.lease_changes():
            self.counted.leases[change.kind] += 1
            told = (change.kind, change.at, change.tokens)
            self._changes[int(str(change.branch))].append(told)


def _usage(prompt: int, output: int, cached: int) -> JSONObject:
    usage = {"prompt_tokens": prompt, "completion_tokens": output, "calls": 1}
    return usage | {"cached_tokens": cached} if cached else usage


def simulate(load: Workload, capacity: int, arm: str) -> Outcome:
    """Run all agents to their ends under an arm."""
    return Simulation(load, capacity, arm).play()
