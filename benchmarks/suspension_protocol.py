"""One cell of the suspension benchmark through the real protocol, in virtual time.

Agents ask an engine over HTTP: our client, our server, real sockets, streams. Only the engine is
virtual, and time. Beside each arm stands what the simulation without a protocol says of it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import uvicorn

from benchmarks import virtual_time
from benchmarks.agent_client import simulate
from benchmarks.agents import FAMILIES, Turn, Workload, workload
from benchmarks.results import arguments, report
from benchmarks.virtual_engine import EngineRates, Request, VirtualEngine
from longthought.budgets import BranchState, Controller
from longthought.orchestrator.models.allowance import Allowance
from longthought.orchestrator.models.openai import OpenAIModel
from longthought.orchestrator.serving import ChatApp
from longthought.types import (
    Capabilities,
    Delta,
    Grant,
    JSONObject,
    Message,
    ModelReply,
    ModelRequest,
    Usage,
    text_of,
)

__all__ = ["ARMS", "Measured", "VirtualModel", "measure", "through_protocol"]

NAME = "virtual"
FAMILY, SIZE, R, SEED = "note", "tight", 5.0, 0
ARMS = {"hold": "hold", "fifo": "fifo", "leases": "learned"}
"""Our arms, and what each is called in the simulation."""


@dataclass(slots=True, eq=False)
class _Flight:
    request: Request
    first: asyncio.Future[None]
    end: asyncio.Future[None]


class VirtualModel:
    """A model whose tokens are characters, computed by a virtual engine as time goes by.

    Conversations are told apart by their first message; all but the last message of one is what
    the engine may still have.
    """

    def __init__(self, engine: VirtualEngine) -> None:
        self.name, self.slots = NAME, 10_000
        self.capabilities = Capabilities()
        self.engine = engine
        self._flights: dict[Request, _Flight] = {}
        self._driver: asyncio.Task[None] | None = None

    async def generate(
        self,
        request: ModelRequest,
        grant: Grant,
        emit: Callable[[Delta], None] | None = None,
    ) -> ModelReply:
        """As many characters as were asked for."""
        loop = asyncio.get_running_loop()
        texts = [text_of(message) for message in request["messages"]]
        prompt = sum(map(len, texts))
        output = min(grant.tokens, request.get("sampling", {}).get("max_tokens", grant.tokens))
        asked = Request(texts[0][:32], prompt, prompt - len(texts[-1]), output)
        flight = _Flight(asked, loop.create_future(), loop.create_future())
        self._submit(flight)
        await flight.first
        if emit is not None:
            emit(Delta("content", "y"))
        await flight.end
        if emit is not None and output > 1:
            emit(Delta("content", "y" * (output - 1), output - 1))
        usage = Usage(prompt, output, asked.cached, calls=1)
        message: Message = {"role": "assistant", "content": "y" * output}
        return ModelReply(
            message=message, finish_reason="stop", usage=usage.to_json(), model=self.name
        )

    def count_prompt(self, request: ModelRequest) -> int | None:
        """Its characters."""
        return sum(len(text_of(message)) for message in request["messages"])

    def fingerprint(self) -> JSONObject:
        """What it is."""
        return {"kind": "virtual"}

    async def aclose(self) -> None:
        """Nothing is held."""

    def _submit(self, flight: _Flight) -> None:
        if self._driver is None or self._driver.done():
            loop = asyncio.get_running_loop()
            self.engine.now = max(self.engine.now, loop.time())
            self._driver = loop.create_task(self._drive())
        self._flights[flight.request] = flight
        self.engine.submit(flight.request)

    async def _drive(self) -> None:
        """One iteration of the engine after the other, each at its time."""
        loop, engine = asyncio.get_running_loop(), self.engine
        while self._flights:
            ended = engine.advance(engine.now + 1e-9)
            await asyncio.sleep(engine.now - loop.time())
            for request in (*engine.running, *ended):
                first = self._flights[request].first
                if request.first_token and not first.done():
                    first.set_result(None)
            for request in ended:
                self._flights.pop(request).end.set_result(None)


@asynccontextmanager
async def _serving(model: VirtualModel) -> AsyncIterator[str]:
    """The address of a server for the model, in this loop."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        ChatApp([model]), lifespan="off", log_config=None, access_log=False, http="h11", ws="none"
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve([listening]))
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        await serving


@dataclass(frozen=True, slots=True)
class Measured:
    """What an arm came to: agents per virtual second, and tokens."""

    throughput: float
    recomputed: int
    decoded: int
    calls: int


class _Client:
    """Agents under an arm. This one holds a slot from an agent's first turn to its last."""

    def __init__(self, model: OpenAIModel, slots: int, capacity: int) -> None:
        self.model = model
        self.slots = asyncio.Semaphore(slots)
        self.calls = 0

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
    ) -> ModelReply:
        """One model call; the conversation grows by what is new and by the reply."""
        self.calls += 1
        text = f"agent {number} " if not messages else ""
        messages.append({"role": "user", "content": text.ljust(turn.new, "x")})
        request: ModelRequest = {"model": NAME, "messages": messages}
        reply = await self.model.generate(request, Allowance(turn.output), emit or (lambda _: None))
        messages.append(reply["message"])
        return reply


class _FifoClient(_Client):
    """Gives the slot up while a tool works; first come, first served."""

    async def agent(self, number: int, turns: tuple[Turn, ...]) -> None:
        messages: list[Message] = []
        for turn in turns:
            async with self.slots:
                await self.ask(number, messages, turn)
            await asyncio.sleep(turn.seconds)


class _LeaseClient(_Client):
    """Permits and leases of the controller."""

    def __init__(self, model: OpenAIModel, slots: int, capacity: int) -> None:
        super().__init__(model, slots, capacity)
        self.controller = Controller(now=asyncio.get_running_loop().time)
        self.controller.backend(NAME, slots, capacity=capacity)

    async def agent(self, number: int, turns: tuple[Turn, ...]) -> None:
        branch, messages = self.controller.branch(f"agent {number}"), []
        now, context = self.controller.now, 0
        for turn in turns:
            context += turn.new
            async with self.controller.permit(NAME, branch, context=context) as permit:
                came: list[float] = []
                begin = now()
                reply = await self.ask(number, messages, turn, lambda _, at=came: at.append(now()))
                usage = Usage.from_json(reply["usage"])
                context += turn.output
                fresh = usage.prompt_tokens - usage.cached_tokens
                permit.used(
                    context=context,
                    cached=usage.cached_tokens,
                    first_token=(fresh, came[0] - begin),
                )
            if turn.tool:
                branch.move(BranchState.ACTING, tool=turn.tool)
                await asyncio.sleep(turn.seconds)
                branch.move(BranchState.READY)
        branch.move(BranchState.DONE)


_CLIENTS: dict[str, Callable[[OpenAIModel, int, int], _Client]] = {
    "hold": _Client,
    "fifo": _FifoClient,
    "leases": _LeaseClient,
}


async def _run(load: Workload, capacity: int, arm: str) -> Measured:
    engine = VirtualEngine(capacity, EngineRates())
    async with _serving(VirtualModel(engine)) as url:
        patience = 3600.0  # virtual seconds
        model = OpenAIModel(
            NAME, base_url=url, api_key="none", timeout=patience, first_token_timeout=patience
        )
        client = _CLIENTS[arm](model, engine.rates.slots, capacity)
        jobs = iter(enumerate(load.jobs))
        loop = asyncio.get_running_loop()
        begin = loop.time()

        async def one_after_the_other() -> None:
            for number, turns in jobs:
                await client.agent(number, turns)

        await asyncio.gather(*(one_after_the_other() for _ in range(load.in_flight)))
        seconds = loop.time() - begin
        await model.aclose()
    return Measured(len(load.jobs) / seconds, engine.recomputed, engine.decoded, client.calls)


def through_protocol(load: Workload, capacity: int, arm: str) -> Measured:
    """Run all agents to their ends over HTTP."""
    return virtual_time.run(_run(load, capacity, arm))


def measure(quick: bool) -> dict[str, float]:
    """Every arm through the protocol, and what the simulation without one says of it."""
    load = workload(FAMILY, R, SEED, jobs=80 if quick else 240)
    capacity = FAMILIES[FAMILY].memory[SIZE]
    measured = {arm: through_protocol(load, capacity, arm) for arm in ARMS}
    simulated = {arm: simulate(load, capacity, name) for arm, name in ARMS.items()}
    figures: dict[str, float] = {"agents": len(load.jobs)}
    for arm, one in measured.items():
        alone = simulated[arm]
        figures |= {
            f"{arm}_calls": one.calls,
            f"{arm}_agents_per_second": one.throughput,
            f"{arm}_over_simulated": one.throughput / alone.throughput,
            f"{arm}_recomputed_per_decoded": one.recomputed / one.decoded,
            f"{arm}_recomputed_per_decoded_simulated": alone.recomputed / alone.decoded,
        }
    for rival in ("hold", "fifo"):
        ratio = measured["leases"].throughput / measured[rival].throughput
        alone = simulated["leases"].throughput / simulated[rival].throughput
        figures |= {f"leases_over_{rival}": ratio, f"leases_over_{rival}_simulated": alone}
    return figures


def main() -> None:
    """Measure and report."""
    options = arguments(__doc__ or "")
    report("suspension_protocol", measure(options.quick), options)


if __name__ == "__main__":
    main()
