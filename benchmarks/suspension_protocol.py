"""One cell of the suspension benchmark through the real protocol, in virtual time.

Agents ask an engine over HTTP: our client, our server, real sockets, streams. Only the engine is
virtual, and time. Beside each arm stands what the simulation without a protocol says of it. What
the agents record goes through a store, and every figure is read from what comes back.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import uvicorn

from benchmarks import virtual_time
from benchmarks.agent_client import Outcome, simulate
from benchmarks.agents import FAMILIES, Workload, workload
from benchmarks.protocol_agents import AgentClient, FifoClient, LeaseClient
from benchmarks.results import arguments, report
from benchmarks.simulated_runs import BACKEND, SimulatedRun, stored
from benchmarks.virtual_engine import EngineRates, Request, VirtualEngine
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


_CLIENTS: dict[str, Callable[[OpenAIModel, int, int], AgentClient]] = {
    "hold": AgentClient,
    "fifo": FifoClient,
    "leases": LeaseClient,
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
        await client.play(load)
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
