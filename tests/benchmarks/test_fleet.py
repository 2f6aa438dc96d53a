"""Two engines of half the size against one, in virtual time: counts of tokens, no seconds."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from dataclasses import dataclass

from benchmarks.agents import Turn, Workload, workload
from benchmarks.virtual_engine import EngineRates, Request, VirtualEngine
from longthought.budgets.fleet import Fleet
from longthought.budgets.members import Member
from longthought.budgets.tool_times import ToolTimes

STEP = 0.1
CAPACITY = 120_000


@dataclass(slots=True, eq=False)
class Agent:
    id: int
    turns: tuple[Turn, ...]
    turn: int = 0
    context: int = 0
    at: str = ""
    moves: int = 0


@dataclass(slots=True)
class Count:
    """Tokens that had been computed before, those computed anew, moves of agents, most at once."""

    known: int
    recomputed: int
    moves: int
    most: list[int]

    @property
    def hits(self) -> float:
        return 1 - self.recomputed / self.known


def play(load: Workload, engines: int, *, keeps: bool = True, leases: bool = True) -> Count:
    """All agents to their ends at so many engines that share the memory and 16 slots."""
    slots, size = 16 // engines, CAPACITY // engines
    farm = {str(n): VirtualEngine(size, EngineRates(slots=slots)) for n in range(engines)}
    members = [Member(name, slots, size if leases else None) for name in farm]
    fleet = Fleet[Agent](members, keeps=keeps, tool_times=ToolTimes())
    tools: list[tuple[float, int]] = []
    agents: dict[Hashable, Agent] = {}
    most = dict.fromkeys(farm, 0)
    known, moves, born, now = 0, 0, 0, 0.0

    def ready(agent: Agent) -> None:
        context = agent.context + agent.turns[agent.turn].new
        fleet.enqueue(agent, resumed=agent.turn > 0, now=now, branch=agent.id, context=context)

    while born < len(load.jobs) or agents:
        while born < len(load.jobs) and len(agents) < 32:
            agents[born] = Agent(born, load.jobs[born])
            ready(agents[born])
            born += 1
        while tools and tools[0][0] <= now:
            agent = agents[heapq.heappop(tools)[1]]
            fleet.returned(agent.id, now)
            ready(agent)
        while (granted := fleet.grant(now)) is not None:
            place, turn = fleet.at(granted), granted.turns[granted.turn]
            moves += granted.at not in ("", place)
            granted.at = place
            most[place] = max(most[place], fleet.endpoints[place].in_use)
            prompt = granted.context + turn.new
            known += granted.context
            farm[place].submit(Request(granted.id, prompt, granted.context, turn.output))
        now += STEP
        for engine in farm.values():
            while ended := engine.advance(now):
                for request in ended:
                    agent = agents[request.key]
                    turn = agent.turns[agent.turn]
                    agent.context += turn.new + turn.output
                    agent.turn += 1
                    wait = request.first_token - request.submitted
                    fleet.first_token(agent, request.uncached, wait)
                    cached = request.cached
                    fleet.release(agent, now=now, context=agent.context, cached=cached)
                    if turn.tool:
                        fleet.acting(agent.id, now, tool=turn.tool)
                        heapq.heappush(tools, (now + turn.seconds, agent.id))
                    else:
                        fleet.end(agent.id, now)
                        del agents[agent.id]
        fleet.take_events()
    assert (fleet.in_use, fleet.waiting, fleet.leases) == (0, 0, 0)
    recomputed = sum(engine.recomputed for engine in farm.values())
    return Count(known, recomputed, moves, list(most.values()))


def test_two_engines_of_half_the_size_keep_most_of_what_one_keeps() -> None:
    load = workload("note", 1.0, 0, jobs=60)
    one, two = play(load, 1), play(load, 2)
    by_load = play(load, 2, keeps=False, leases=False)
    assert two.most == [8, 8]
    assert two.hits > one.hits - 0.1, (one, two)
    assert two.hits > by_load.hits + 0.05, (two, by_load)
    assert two.moves < 0.5 * by_load.moves, (two, by_load)
