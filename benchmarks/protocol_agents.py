"""Agents that ask a real model over the protocol, under an arm: who holds what while a tool works.

The turns are those of :mod:`benchmarks.agents`. What comes of each call is read from the usage of
its reply, as any client can.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.agents import Turn, Workload
from longthought.budgets import BranchState, Controller, Permit
from longthought.errors import BackendError
from longthought.orchestrator.models.allowance import Allowance
from longthought.orchestrator.models.openai import OpenAIModel
from longthought.orchestrator.models.scheduling import tell_scheduling
from longthought.types import Delta, Message, ModelReply, ModelRequest, Scheduling, Usage

__all__ = ["AgentClient", "Call", "FifoClient", "LeaseClient"]

_TRIES = 4


@dataclass(frozen=True, slots=True)
class Call:
    """One call as its reply reports it: tokens, and seconds from when it was sent.

    ``known`` is how much of the prompt had been computed before: the prompt of the agent's last
    call and what that generated.
    """

    known: int
    prompt: int
    cached: int
    output: int
    seconds: float

    @property
    def again(self) -> int:
        """Tokens that had been computed before and were not found."""
        return max(0, self.known - self.cached)


class AgentClient:
    """Agents under an arm. This one holds a slot from an agent's first turn to its last.

    ``latencies`` are seconds from an agent's arrival to its end. A call that may be tried again is,
    and counted in ``retries``.
    """

    def __init__(self, model: OpenAIModel, slots: int, capacity: int) -> None:
        self.model = model
        self.slots = asyncio.Semaphore(slots)
        self.calls: list[Call] = []
        self.latencies: list[float] = []
        self.retries = 0
        self._known: dict[int, int] = {}
        self._since: dict[int, float] = {}

    async def play(self, load: Workload) -> float:
        """All agents to their ends, ``in_flight`` at once; the seconds that it took."""
        now = asyncio.get_running_loop().time
        jobs, begin = iter(enumerate(load.jobs)), now()

        async def one_after_the_other() -> None:
            for number, turns in jobs:
                arrived = now()
                await self.agent(number, turns)
                self.latencies.append(now() - arrived)

        await asyncio.gather(*(one_after_the_other() for _ in range(load.in_flight)))
        return now() - begin

    async def agent(self, number: int, turns: tuple[Turn, ...]) -> None:
        """All turns of one agent."""
        async with self.slots:
            messages: list[Message] = []
            for turn in turns:
                await self.ask(number, messages, turn)
                await asyncio.sleep(turn.seconds)

    async def ask(
        self,
        number: int,
        messages: list[Message],
        turn: Turn,
        emit: Callable[[Delta], None] | None = None,
    ) -> Usage:
        """One model call; the conversation grows by what is new and by the reply."""
        known = self._known.get(number, 0)
        since = self._since.setdefault(number, time.time())
        tell_scheduling(Scheduling("benchmark", f"agent {number}", known > 0, since))
        text = f"agent {number} " if not messages else ""
        messages.append({"role": "user", "content": text.ljust(turn.new, "x")})
        now = asyncio.get_running_loop().time
        begin = now()
        request: ModelRequest = {"model": self.model.name, "messages": messages}
        reply = await self._reply(request, turn.output, emit or (lambda _: None))
        messages.append(reply["message"])
        usage = Usage.from_json(reply["usage"])
        prompt, output = usage.prompt_tokens, usage.completion_tokens
        self.calls.append(Call(known, prompt, usage.cached_tokens, output, now() - begin))
        self._known[number] = prompt + output
        return usage

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
        messages: list[Message] = []
        for turn in turns:
            async with self.slots:
                await self.ask(number, messages, turn)
            await asyncio.sleep(turn.seconds)


class LeaseClient(AgentClient):
    """Permits and leases of the controller, which is told what the executor tells it."""

    def __init__(self, model: OpenAIModel, slots: int, capacity: int) -> None:
        super().__init__(model, slots, capacity)
        self.controller = Controller(now=asyncio.get_running_loop().time)
        self.controller.backend(model.name, slots, capacity=capacity)

    async def agent(self, number: int, turns: tuple[Turn, ...]) -> None:
        """A permit for each turn; the lease stays while a tool works."""
        branch, messages = self.controller.branch(f"agent {number}"), list[Message]()
        context = 0
        for turn in turns:
            context += turn.new
            async with self.controller.permit(self.model.name, branch, context=context) as permit:
                context = await self._leased(permit, number, messages, turn)
            if turn.tool:
                branch.move(BranchState.ACTING, tool=turn.tool)
                await asyncio.sleep(turn.seconds)
                branch.move(BranchState.READY)
        branch.move(BranchState.DONE)

    async def _leased(
        self, permit: Permit, number: int, messages: list[Message], turn: Turn
    ) -> int:
        """One call under a permit; the length of the context after it."""
        now = self.controller.now
        came: list[float] = []
        begin = now()
        usage = await self.ask(number, messages, turn, lambda _: came.append(now()))
        context = usage.prompt_tokens + usage.completion_tokens
        fresh = usage.prompt_tokens - usage.cached_tokens
        permit.used(
            context=context, cached=usage.cached_tokens, first_token=(fresh, came[0] - begin)
        )
        return context
