"""One cell of the suspension benchmark through the real protocol, in virtual time.

Agents ask an engine over HTTP: our client, our server, real sockets, streams. Only the engine is
virtual, and time. Beside each arm stands what the simulation without a protocol says of it. What
the agents record goes through a store, and every figure is read from what comes back.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import uvicorn

from benchmarks import virtual_time
from benchmarks.agent_client import Outcome, simulate
from benchmarks.agents import FAMILIES, Turn, Workload, workload
from benchmarks.results import arguments, report
from benchmarks.simulated_runs import BACKEND, Change, SimulatedRun, stored
from benchmarks.virtual_engine import EngineRates, Request, VirtualEngine
from longthought.budgets import Branch, BranchState, Controller
from longthought.orchestrator.models.allowance import Allowance
from longthought.orchestrator.models.openai import OpenAIModel
from longthought.orchestrator.serving import ChatApp
from longthought.orchestrator.traces import utilisation
from longthought.storage import Store
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

__all__ = [
    "ARMS",
    "Played",
    "VirtualModel",
    "measure",
    "play",
    "stored_figures",
    "through_protocol",
]

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
        self.name, self.slots = BACKEND, 10_000
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


class _Client:
    """Agents under an arm. This one holds a slot from an agent's first turn to its last."""

    def __init__(self, model: OpenAIModel, slots: int, capacity: int) -> None:
        self.model = model
        self.count, self.slots = slots, asyncio.Semaphore(slots)
        self.now = asyncio.get_running_loop().time
        self.runs: list[SimulatedRun] = []

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

    async def ask(
        self,
        number: int,
        messages: list[Message],
        turn: Turn,
        emit: Callable[[Delta], None] | None = None,
    ) -> _Call:
        """One model call; the conversation grows by what is new and by the reply."""
        known = sum(len(text_of(message)) for message in messages)
        text = f"agent {number} " if not messages else ""
        messages.append({"role": "user", "content": text.ljust(turn.new, "x")})
        request: ModelRequest = {"model": BACKEND, "messages": messages}
        sent = self.now()
        reply = await self.model.generate(request, Allowance(turn.output), emit or (lambda _: None))
        messages.append(reply["message"])
        return _Call(known, sent, self.now(), reply["usage"])

    async def act(self, run: SimulatedRun, turn: Turn, branch: Branch | None = None) -> None:
        """Wait for the tool that a turn has called, if it has."""
        if turn.tool:
            begin = self.now()
            await asyncio.sleep(turn.seconds)
            run.tool_ran(begin, self.now(), _changes(branch))


@dataclass(frozen=True, slots=True)
class _Call:
    """A model call that has ended: tokens it could have had from the cache, times, usage."""

    known: int
    sent: float
    ended: float
    usage: JSONObject

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


class _FifoClient(_Client):
    """Gives the slot up while a tool works; first come, first served."""

    async def agent(self, number: int, turns: tuple[Turn, ...]) -> None:
        run, messages = self.begin(number), list[Message]()
        for turn in turns:
            asked = self.now()
            async with self.slots:
                granted = self.now()
                call = await self.ask(number, messages, turn)
            call.record(run, [(asked, granted, self.now(), self.count)])
            await self.act(run, turn)
        run.ended(self.now())


class _LeaseClient(_Client):
    """Permits and leases of the controller."""

    def __init__(self, model: OpenAIModel, slots: int, capacity: int) -> None:
        super().__init__(model, slots, capacity)
        self.controller = Controller(now=self.now)
        self.controller.backend(BACKEND, slots, capacity=capacity)

    async def agent(self, number: int, turns: tuple[Turn, ...]) -> None:
        run, messages = self.begin(number), list[Message]()
        branch = self.controller.branch(f"agent {number}")
        branch.log = []
        for turn in turns:
            await self.generate(run, branch, number, messages, turn)
            if turn.tool:
                branch.move(BranchState.ACTING, tool=turn.tool)
                await self.act(run, turn, branch)
                branch.move(BranchState.READY)
        branch.move(BranchState.DONE)
        run.ended(self.now(), _changes(branch))

    async def generate(
        self,
        run: SimulatedRun,
        branch: Branch,
        number: int,
        messages: list[Message],
        turn: Turn,
    ) -> None:
        """One turn with a permit."""
        context = sum(len(text_of(message)) for message in messages) + turn.new
        came: list[float] = []
        async with self.controller.permit(BACKEND, branch, context=context) as permit:
            call = await self.ask(number, messages, turn, lambda _: came.append(self.now()))
            usage = Usage.from_json(call.usage)
            permit.used(
                context=context + turn.output,
                cached=usage.cached_tokens,
                first_token=(usage.prompt_tokens - usage.cached_tokens, came[0] - call.sent),
            )
        times = permit.asked_at, permit.granted_at, permit.released_at
        asked, granted, released = (at if at is not None else 0.0 for at in times)
        call.record(run, [(asked, granted, released, permit.slots)], branch)


_CLIENTS: dict[str, Callable[[OpenAIModel, int, int], _Client]] = {
    "hold": _Client,
    "fifo": _FifoClient,
    "leases": _LeaseClient,
}


@dataclass(frozen=True, slots=True)
class Played:
    """What the agents have recorded, and the engine that they asked."""

    runs: list[SimulatedRun]
    engine: VirtualEngine


async def _play(load: Workload, capacity: int, arm: str) -> Played:
    engine = VirtualEngine(capacity, EngineRates())
    async with _serving(VirtualModel(engine)) as url:
        patience = 3600.0  # virtual seconds
        model = OpenAIModel(
            BACKEND, base_url=url, api_key="none", timeout=patience, first_token_timeout=patience
        )
        client = _CLIENTS[arm](model, engine.rates.slots, capacity)
        jobs = iter(enumerate(load.jobs))

        async def one_after_the_other() -> None:
            for number, turns in jobs:
                await client.agent(number, turns)

        await asyncio.gather(*(one_after_the_other() for _ in range(load.in_flight)))
        await model.aclose()
    return Played(client.runs, engine)


def play(load: Workload, capacity: int, arm: str) -> Played:
    """Run all agents to their ends over HTTP."""
    return virtual_time.run(_play(load, capacity, arm))


async def stored_figures(played: Played) -> Outcome:
    """Every figure, from runs that were stored and read back."""
    with tempfile.TemporaryDirectory() as directory:
        async with Store(directory=directory) as store:
            return Outcome.of(utilisation(*await stored(played.runs, store)))


def through_protocol(load: Workload, capacity: int, arm: str) -> Outcome:
    """Run all agents to their ends over HTTP, and read their runs."""
    return asyncio.run(stored_figures(play(load, capacity, arm)))


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
            f"{arm}_permits_held_while_a_tool_runs": one.idle,
            f"{arm}_tool_seconds_in_the_generation_clock": one.tools_generating,
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
