"""Agents that ask a real model over the protocol, under an arm: who holds what while a tool works.

The turns are those of :mod:`benchmarks.agents`. What comes of each call is read from the usage of
its reply, as any client can, and recorded as a run would record it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.agents import Turn, Workload
from benchmarks.simulated_runs import Change, SimulatedRun
from longthought.budgets import Branch, BranchState, Controller
from longthought.errors import BackendError
from longthought.orchestrator.models.allowance import Allowance
from longthought.orchestrator.models.openai import OpenAIModel
from longthought.orchestrator.models.scheduling import tell_scheduling
from longthought.types import (
    Delta,
    JSONObject,
    Message,
    ModelReply,
    ModelRequest,
    Scheduling,
    Usage,
)

__all__ = ["AgentClient", "Call", "FifoClient", "LeaseClient"]

_TRIES = 4


@dataclass(frozen=True, slots=True)
class Call:
    """One call as its reply reports it: its usage, and when it was sent and had ended, in seconds.

    ``known`` is how much of the prompt had been computed before: the prompt of the agent's last
    call and what that generated.
    """

    known: int
    sent: float
    ended: float
    usage: JSONObject

    @property
    def tokens(self) -> Usage:
        """Its usage, with a nought for what is left out."""
        return Usage.from_json(self.usage)

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.sent

    @property
    def again(self) -> int:
        """Tokens that had been computed before and were not found."""
        return max(0, self.known - self.tokens.cached_tokens)

    def record(
        self,
        run: SimulatedRun,
        permits: Sequence[tuple[float, float, float, int]],
        branch: Branch | None = None,
    ) -> None:
        """Put it on record with the permits that were given back after it."""
        queued = permits[0][0] if branch is not None else self.sent
        clock = (queued, self.sent, self.ended)
        run.generated(clock, permits, self.usage, self.known, _changes(branch))


def _changes(branch: Branch | None) -> list[Change]:
    """What has happened to a branch's leases since this was last asked for."""
    if branch is None or branch.log is None:
        return []
    told: list[Change] = [(what, at, tokens) for what, _, at, tokens in branch.log]
    branch.log.clear()
    return told


class AgentClient:
    """Agents under an arm. This one holds a slot from an agent's first turn to its last.

    ``runs`` are their records, ``latencies`` seconds from an agent's arrival to its end. A call
    that may be tried again is, and counted in ``retries``.
    """

    def __init__(self, model: OpenAIModel, slots: int, capacity: int) -> None:
        self.model = model
        self.count, self.slots = slots, asyncio.Semaphore(slots)
        self.now = asyncio.get_running_loop().time
        self.runs: list[SimulatedRun] = []
        self.calls: list[Call] = []
        self.latencies: list[float] = []
        self.retries = 0
        self._known: dict[int, int] = {}
        self._since: dict[int, float] = {}

    async def play(self, load: Workload) -> float:
        """All agents to their ends, ``in_flight`` at once; the seconds that it took."""
        jobs, begin = iter(enumerate(load.jobs)), self.now()

        async def one_after_the_other() -> None:
            for number, turns in jobs:
                arrived = self.now()
                await self.agent(number, turns)
                self.latencies.append(self.now() - arrived)

        await asyncio.gather(*(one_after_the_other() for _ in range(load.in_flight)))
        return self.now() - begin

    def begin(self, number: int) -> SimulatedRun:
        """The record of an agent that has arrived."""
        self.runs.append(SimulatedRun(number, self.now()))
        return self.runs[-1]

    async def agent(self, number: int, turns: tuple[Turn, ...]) -> None:
        """All turns of one agent."""
        run, messages = self.begin(number), list[Message]()
        asked = self.now()
        async with self.slots:
            granted = self.now()
            for turn in turns:
                call = await self.ask(number, messages, turn)
                held = () if turn.tool else ((asked, granted, self.now(), self.count),)
                call.record(run, held)
                await self.act(run, turn)
        run.ended(self.now())

    async def act(self, run: SimulatedRun, turn: Turn, branch: Branch | None = None) -> None:
        """Wait for the tool that a turn has called, if it has."""
        if turn.tool:
            begin = self.now()
            await asyncio.sleep(turn.seconds)
            run.tool_ran(begin, self.now(), _changes(branch))

    async def ask(
        self,
        number: int,
        messages: list[Message],
        turn: Turn,
        emit: Callable[[Delta], None] | None = None,
    ) -> Call:
        """One model call; the conversation grows by what is new and by the reply."""
        known = self._known.get(number, 0)
        since = self._since.setdefault(number, time.time())
        tell_scheduling(Scheduling("benchmark", f"agent {number}", known > 0, since))
        text = f"agent {number} " if not messages else ""
        messages.append({"role": "user", "content": text.ljust(turn.new, "x")})
        sent = self.now()
        request: ModelRequest = {"model": self.model.name, "messages": messages}
        reply = await self._reply(request, turn.output, emit or (lambda _: None))
        messages.append(reply["message"])
        call = Call(known, sent, self.now(), reply["usage"])
        self.calls.append(call)
        self._known[number] = call.tokens.prompt_tokens + call.tokens.completion_tokens
        return call

    async def _reply(
        self, request: ModelRequest, output: int, emit: Callable[[Delta], None]
    ) -> ModelReply:
        for left in reversed(range(_TRIES)):
            try:
                return await self.model.generate(request, Allowance(output), emit)
            except BackendError as error:
                if not (error.retryable and left):
                    raise
                self.retries += 1
        raise AssertionError("the last try returns or raises")


class FifoClient(AgentClient):
    """Gives the slot up while a tool works; first come, first served."""

    async def agent(self, number: int, turns: tuple[Turn, ...]) -> None:
        """A slot for each turn."""
        run, messages = self.begin(number), list[Message]()
        for turn in turns:
            asked = self.now()
            async with self.slots:
                granted = self.now()
                call = await self.ask(number, messages, turn)
            call.record(run, [(asked, granted, self.now(), self.count)])
            await self.act(run, turn)
        run.ended(self.now())


class LeaseClient(AgentClient):
    """Permits and leases of the controller, which is told what the executor tells it."""

    def __init__(self, model: OpenAIModel, slots: int, capacity: int) -> None:
        super().__init__(model, slots, capacity)
        self.controller = Controller(now=self.now)
        self.controller.backend(model.name, slots, capacity=capacity)

    async def agent(self, number: int, turns: tuple[Turn, ...]) -> None:
        """A permit for each turn; the lease stays while a tool works."""
        run, messages = self.begin(number), list[Message]()
        branch = self.controller.branch(f"agent {number}")
        branch.log = []
        for turn in turns:
            call, permit = await self._leased(number, branch, messages, turn)
            call.record(run, [permit], branch)
            if turn.tool:
                branch.move(BranchState.ACTING, tool=turn.tool)
                await self.act(run, turn, branch)
                branch.move(BranchState.READY)
        branch.move(BranchState.DONE)
        run.ended(self.now(), _changes(branch))

    async def _leased(
        self, number: int, branch: Branch, messages: list[Message], turn: Turn
    ) -> tuple[Call, tuple[float, float, float, int]]:
        """One call under a permit, and that permit as it is recorded."""
        came: list[float] = []
        context = self._known.get(number, 0) + turn.new
        async with self.controller.permit(self.model.name, branch, context=context) as permit:
            call = await self.ask(number, messages, turn, lambda _: came.append(self.now()))
            usage = call.tokens
            permit.used(
                context=usage.prompt_tokens + usage.completion_tokens,
                cached=usage.cached_tokens,
                first_token=(usage.prompt_tokens - usage.cached_tokens, came[0] - call.sent),
            )
        times = permit.asked_at, permit.granted_at, permit.released_at
        asked, granted, released = (at if at is not None else 0.0 for at in times)
        return call, (asked, granted, released, permit.slots)
