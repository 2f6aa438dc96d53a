"""Leases on a real engine: vLLM's build for processors, a memory that is too small, tool waits.

Twenty agents at once with contexts of 3,500 to 7,000 tokens, four slots, a KV cache of 40,960
tokens. Agents are played by our client and the controller rather than by whole workflows: a random
model asks for no tools, and an arm that holds its slot over a tool wait is nothing that a workflow
can be told to do.

Opt-in: give it a vLLM (``--vllm``, or ``LONGTHOUGHT_VLLM``) or the address of one that runs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import statistics
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.agents import Turn, Workload, lognormal_tool
from benchmarks.protocol_agents import AgentClient, FifoClient, LeaseClient
from benchmarks.results import argument_parser, report
from longthought.orchestrator.models import ask_server
from longthought.orchestrator.models.backends import RequestParameters
from longthought.orchestrator.models.openai import OpenAIModel

__all__ = ["ARMS", "Endpoint", "Played", "figures", "measure", "play", "workload"]

VARIABLE = "LONGTHOUGHT_VLLM"
HOW = f"Left out: give --vllm PATH (or {VARIABLE}) or --base-url URL, see docs/engines.md."
SLOTS, BLOCKS, BLOCK = 4, 320, 128
AGENTS, IN_FLIGHT, OUTPUT = 20, 20, 40
FIRST, LATER, TURNS = (3500, 4500), (200, 500), (3, 6)
"""Tokens of a question, of a tool's result, and turns of an agent: each from, to."""
RATIOS = (0.5, 2.0)
_PATIENCE = 600.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server: its address, its model, calls at once, and tokens of its KV cache."""

    url: str
    model: str
    slots: int = SLOTS
    capacity: int = BLOCKS * BLOCK
    version: str = ""

    def client(self, salt: str, *, priority: bool = False) -> OpenAIModel:
        """A model whose prefixes are kept apart from those of any other salt."""
        parameters = RequestParameters(priority="lower" if priority else None, cache_salt=salt)
        return OpenAIModel(
            self.model,
            base_url=self.url,
            api_key="none",
            timeout=_PATIENCE,
            first_token_timeout=_PATIENCE,
            slots=IN_FLIGHT,
            parameters=parameters,
            # Nothing ends by itself, so that all arms generate the same number of tokens.
            extra_body={"min_tokens": OUTPUT, "ignore_eos": True},
        )


@dataclass(frozen=True, slots=True)
class Arm:
    """How agents ask: who decides, how many calls are sent at once, and whether with a priority."""

    client: Callable[[OpenAIModel, int, int], AgentClient]
    queues: bool
    priority: bool = False


ARMS = {
    "hold": Arm(AgentClient, queues=False),
    "fifo": Arm(FifoClient, queues=True),
    "priority": Arm(FifoClient, queues=True, priority=True),
    "leases": Arm(LeaseClient, queues=False),
}
"""``hold`` keeps a slot over tool waits; ``fifo`` and ``priority`` send all that is ready and leave
the order to the engine, as calls came or resumed ones first; ``leases`` are ours."""


@dataclass(frozen=True, slots=True)
class Played:
    """What an arm did, by the usage of its replies: tokens, and seconds."""

    seconds: float
    agents: int
    known: int
    found: int
    again: int
    decoded: int
    generation: float
    p50: float
    p95: float
    retries: int

    @property
    def hit(self) -> float:
        """Of what had been computed before, the share that was found."""
        return self.found / max(1, self.known)

    @property
    def recomputed(self) -> float:
        """Tokens computed once more, per token decoded."""
        return self.again / max(1, self.decoded)

    @property
    def throughput(self) -> float:
        """Agents per second."""
        return self.agents / self.seconds


def workload(seed: int, mean: float, agents: int = AGENTS) -> Workload:
    """Agents with tools that take ``mean`` seconds in the mean."""
    rng = random.Random(f"vllm {seed}")
    jobs = []
    for _ in range(agents):
        count = rng.randint(*TURNS)
        turns = []
        for index in range(count):
            new = rng.randint(*(LATER if index else FIRST))
            tool, seconds = lognormal_tool(rng, mean)
            last = index == count - 1
            turns.append(Turn(new, OUTPUT, "" if last else tool, 0.0 if last else seconds))
        jobs.append(tuple(turns))
    return Workload(tuple(jobs), min(IN_FLIGHT, agents), mean)


async def play(endpoint: Endpoint, arm: Arm, load: Workload, salt: str) -> Played:
    """Run all agents of a workload to their ends."""
    model = endpoint.client(salt, priority=arm.priority)
    slots = load.in_flight if arm.queues else endpoint.slots
    client = arm.client(model, slots, endpoint.capacity)
    try:
        seconds = await client.play(load)
    finally:
        await model.aclose()
    calls, latencies = client.calls, sorted(client.latencies)
    return Played(
        seconds=seconds,
        agents=len(load.jobs),
        known=sum(call.known for call in calls),
        found=sum(min(call.known, call.tokens.cached_tokens) for call in calls),
        again=sum(call.again for call in calls),
        decoded=sum(call.tokens.completion_tokens for call in calls),
        generation=sum(call.seconds for call in calls) / len(calls),
        p50=latencies[len(latencies) // 2],
        p95=latencies[int(0.95 * len(latencies))],
        retries=client.retries,
    )


async def measure(
    endpoint: Endpoint,
    ratio: float,
    repetitions: int,
    *,
    agents: int = AGENTS,
    show: Callable[[str], None] = print,
) -> list[dict[str, Played]]:
    """Play every arm in each repetition; the arms take turns in going first.

    Tools take ``ratio`` times as long as a call of a full batch that waits for none, which is
    measured at the beginning of each repetition.
    """
    rounds = []
    for number in range(repetitions):
        salt = uuid.uuid4().hex
        full = workload(-1 - number, 0.0, endpoint.slots)
        generation = (await play(endpoint, ARMS["hold"], full, f"{salt} full")).generation
        load = workload(number, ratio * generation, agents)
        names = [*ARMS][number % len(ARMS) :] + [*ARMS][: number % len(ARMS)]
        one = {name: await play(endpoint, ARMS[name], load, f"{salt} {name}") for name in names}
        rounds.append(one)
        show(table(ratio, number, generation, one))
    return rounds


def table(ratio: float, number: int, generation: float, one: dict[str, Played]) -> str:
    """A line for each arm of a repetition."""
    lines = [
        f"r={ratio:g}, repetition {number}: a call takes {generation:.2f} s",
        "arm       over hold   p50 s   p95 s    hit  recomputed  retries",
    ]
    for name in ARMS:
        arm = one[name]
        lines.append(
            f"{name:<9} {arm.throughput / one['hold'].throughput:>9.2f} {arm.p50:>7.1f}"
            f" {arm.p95:>7.1f} {arm.hit:>6.3f} {arm.recomputed:>11.1f} {arm.retries:>8}"
        )
    return "\n".join([*lines, ""])


def figures(ratio: float, rounds: Sequence[dict[str, Played]]) -> dict[str, float]:
    """Medians over the repetitions, with the least and the most; ratios are within each."""
    found: dict[str, float] = {}

    def put(name: str, of: Callable[[dict[str, Played]], float]) -> None:
        values = [of(one) for one in rounds]
        name = f"r{ratio:g}_{name}"
        found[name] = statistics.median(values)
        found[f"{name}_least"], found[f"{name}_most"] = min(values), max(values)

    for arm in ARMS:
        put(f"{arm}_hit", lambda one, arm=arm: one[arm].hit)
        put(f"{arm}_recomputed_per_decoded", lambda one, arm=arm: one[arm].recomputed)
        if arm != "hold":
            put(
                f"{arm}_over_hold",
                lambda one, arm=arm: one[arm].throughput / one["hold"].throughput,
            )
            put(f"{arm}_p50_over_hold", lambda one, arm=arm: one[arm].p50 / one["hold"].p50)
            put(f"{arm}_p95_over_hold", lambda one, arm=arm: one[arm].p95 / one["hold"].p95)
    put("leases_over_fifo", lambda one: one["leases"].throughput / one["fifo"].throughput)
    put(
        "leases_recomputed_over_fifo",
        lambda one: one["leases"].recomputed / max(1e-9, one["fifo"].recomputed),
    )
    found[f"r{ratio:g}_retries"] = sum(arm.retries for one in rounds for arm in one.values())
    return found


@contextlib.contextmanager
def started(program: Path) -> Iterator[str]:
    """The address of a server of the program with a model made for it, while the block runs."""
    from tests.engines import vllm
    from tests.engines.server import Server, free_port
    from tests.engines.tiny_model import CONTEXT

    with tempfile.TemporaryDirectory() as scratch:
        port = free_port()
        command = vllm.command(program, port, Path(scratch), context=CONTEXT, blocks=BLOCKS)
        log = Path(scratch) / "server.log"
        environment = vllm.environment()
        with Server("vllm", port, SLOTS, CONTEXT, command, log, environment) as server:
            yield server.url


async def found_at(url: str) -> Endpoint:
    """A server that runs: its first model, and its memory if it tells.

    Raises:
        SystemExit: it cannot be asked, or has no model.
    """
    facts = await ask_server(url)
    if not facts.models:
        raise SystemExit(f"--base-url {url}: {facts.problem or 'it has no model'}")
    told = f"{facts.kind or 'server'} {facts.version or 'of no known version'}"
    capacity = facts.context_capacity or BLOCKS * BLOCK
    return Endpoint(url, facts.models[0], capacity=capacity, version=told)


async def _measured(url: str, options: argparse.Namespace) -> tuple[dict[str, float], str]:
    """The figures, and of what version of the server they are."""
    endpoint = await found_at(url)
    repetitions, agents = (1, 6) if options.quick else (options.repetitions, AGENTS)
    show: Callable[[str], None] = (lambda _: None) if options.json else partial(print, flush=True)
    found: dict[str, float] = {"repetitions": repetitions, "agents": agents}
    for ratio in options.r[:1] if options.quick else options.r:
        rounds = await measure(endpoint, ratio, repetitions, agents=agents, show=show)
        found |= figures(ratio, rounds)
    return found, endpoint.version


def _arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__ or "")
    parser.add_argument("--vllm", type=Path, default=os.environ.get(VARIABLE), help="the program")
    parser.add_argument("--base-url", help="a server with --max-num-seqs 4, priorities on")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--r", type=float, nargs="+", default=RATIOS, help="tool / generation time")
    return parser.parse_args()


def main() -> None:
    """Measure and report, or say why not."""
    options = _arguments()
    if not options.base_url and not options.vllm:
        print(HOW, file=sys.stderr if options.json else sys.stdout)
        if options.json:
            print('{"figures": {}}')
        return
    told = contextlib.nullcontext(options.base_url)
    with told if options.base_url else started(Path(options.vllm)) as url:
        found, version = asyncio.run(_measured(url, options))
    report("suspension_vllm", found, options, note=version)


if __name__ == "__main__":
    main()
