"""What a model step costs, everything on, against the bare client and against other frameworks.

The job is a question, N turns of a model step and a trivial tool, and an answer: N + 1 model steps,
against a server without latency in a process of its own. *Ours* runs on the graph, with every
effect acknowledged on SQLite, under a budget. *Bare* is a loop over
``AsyncOpenAI.chat.completions.create`` that keeps nothing. The rivals are those of ``rivals.py``.

Calls are those of Python functions and built-ins in the main thread (cProfile), which do not
depend on the machine's mood. CPU time, memory and bytes are those of a process of its own for each
stack and concurrency, started in turn so that all have the same weather; the figure is the median,
a ratio the median of the ratios to the bare client of the same round. Bytes are those on disk, and
those of a run against the conversation as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import openai

from benchmarks.bare import MODEL, QUESTION, bare, conversation
from benchmarks.footprint import STACKS, Footprint, Plan, counted, run, total
from benchmarks.protocol_server import FINAL, ProtocolServer, in_process
from benchmarks.results import argument_parser, report
from benchmarks.rivals_environment import HOW, rivals_python
from longthought import Budget, Store, Workflow, tool
from longthought.orchestrator.models.openai import OpenAIModel

__all__ = ["add", "bare", "counted", "measure", "opened", "ours", "profile", "ratio", "total"]

CONCURRENCIES = (1, 32, 256)
NOT_STREAMED = {"pydantic_ai_dbos"}
COLUMNS = {
    "calls_per_step_5_turns": "calls/step t5",
    "calls_per_step_50_turns": "t50",
    "calls_per_step_5_turns_streamed": "t5 streamed",
    "cpu_ms_per_step_1": "CPU ms/step c1",
    "cpu_ratio_1": "x bare",
    "cpu_ms_per_step_32": "c32",
    "cpu_ratio_32": "x bare",
    "cpu_ms_per_step_256": "c256",
    "cpu_ratio_256": "x bare",
    "memory_mb_32": "MB c32",
    "memory_mb_256": "c256",
    "memory_ratio_256": "x bare",
    "bytes_per_step_5_turns": "B/step t5",
    "bytes_per_history_5_turns": "x history",
    "bytes_per_step_50_turns": "t50",
    "bytes_per_history_50_turns": "x history",
    "errors_256": "errors c256",
    "locked_256": "locked",
}
"""The figures of one stack, and what heads them in the table; the bare client's have no ratios."""


@tool(effect="pure")
async def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: one number.
        b: the other.
    """
    return a + b


@asynccontextmanager
async def opened(
    address: str, directory: Path, *, stream: bool = False
) -> AsyncIterator[Callable[[], Awaitable[str]]]:
    """The job by one workflow on one store in ``directory``, for any number of runs at once."""
    async with Store(directory=directory) as store:
        model = OpenAIModel(MODEL, base_url=address, api_key="any", stream=stream, slots=256)
        workflow = Workflow(
            "overhead",
            model=model,
            tools=[add],
            budget=Budget(tokens=10_000_000, model_calls=10_000, wall=3600),
            max_turns=100,
            store=store,
        )
        yield lambda: ours(workflow)
        await workflow.aclose()


async def ours(workflow: Workflow) -> str:
    """The job by a workflow with everything on."""
    result = await workflow.run(QUESTION)
    if result.status != "completed":
        raise RuntimeError(f"the run ended with {result.status}: {result.error}")
    return result.text


async def profile(
    server: ProtocolServer, modes: str, *, ours_too: bool = True, stream: bool = False, times: int
) -> tuple[cProfile.Profile, cProfile.Profile | None]:
    """Profiles of the bare client and of ours, on the job that the server's modes say."""
    address = server.address(modes)
    async with openai.AsyncOpenAI(api_key="any", base_url=address, max_retries=0) as client:
        by_hand = await counted(lambda: bare(client, stream=stream), times)
    if not ours_too:
        return by_hand, None
    with tempfile.TemporaryDirectory() as directory:
        async with opened(address, Path(directory), stream=stream) as job:
            return by_hand, await counted(job, times)


async def ratio(
    server: ProtocolServer, turns: int, *, words: int = 0, stream: bool = False, times: int
) -> tuple[float, float]:
    """Calls per model step: the bare client's, and ours."""
    modes = f"t{turns},w{words}" if words else f"t{turns}"
    by_hand, by_us = await profile(server, modes, stream=stream, times=times)
    assert by_us is not None
    steps = times * (turns + 1)
    return total(by_hand) / steps, total(by_us) / steps


@dataclass(frozen=True)
class Effort:
    """How much is done: runs for each concurrency, of so many turns, so many times over.

    The rivals have their own numbers of repetitions: they take most of the time.

    ``stored`` are pairs of turns and runs for the bytes, ``times`` runs have their calls counted.
    """

    turns: int = 5
    runs: tuple[int, ...] = (40, 64, 256)
    repetitions: int = 3
    rival_repetitions: tuple[int, ...] = (2, 2, 1)
    times: int = 10
    stored: tuple[tuple[int, int], ...] = ((5, 24), (50, 2))
    limit: float = 150.0


QUICK = Effort(
    turns=2,
    runs=(16, 32, 256),
    repetitions=1,
    rival_repetitions=(1, 1, 1),
    times=1,
    stored=((5, 20),),
    limit=40.0,
)


@dataclass
class Found:
    """What is known so far: figures, the versions of the stacks, and remarks."""

    figures: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    def tell(self, text: str) -> None:
        """Keep a remark, once."""
        if text not in self.told:
            self.told.append(text)

    def take(self, found: Footprint, what: str) -> bool:
        """Whether a process found something; what it complained of is kept.

        Raises:
            RuntimeError: the bare client or ours failed.
        """
        if found.version:
            self.versions[found.stack] = found.version
        if found.ended:
            if found.stack in ("bare", "ours"):
                raise RuntimeError(f"{found.stack}, {what}: {found.ended}")
            self.tell(f"{found.stack}, {what}: {found.ended}")
            self.figures[f"{found.stack}_killed_or_failed"] = 1
        elif found.errors:
            self.tell(
                f"{found.stack}, {what}: {found.errors} of {found.runs} runs were wrong, "
                f"{found.locks} of them by a locked database: {found.first_error}"
            )
        return not found.ended


def _name(stack: str, figure: str) -> str:
    return figure if stack == "ours" else f"{stack}_{figure}"


async def measure(quick: bool, rivals: str = "") -> dict[str, float]:
    """All figures, in one run against one server; ``rivals`` is the interpreter they have."""
    return (await _found(QUICK if quick else Effort(), rivals)).figures


async def _found(effort: Effort, rivals: str) -> Found:
    found = Found()
    with in_process() as server:
        await _count(server, effort.times, found.figures)
        pythons = dict.fromkeys(("bare", "ours"), sys.executable)
        if rivals:
            pythons |= {stack: rivals for stack in STACKS if stack not in pythons}
            _count_rivals(server, pythons, effort, found)
        _weigh(server, pythons, effort, found)
        await _weigh_bytes(server, pythons, effort, found)
    return found


async def _count(server: ProtocolServer, times: int, figures: dict[str, float]) -> None:
    """Python calls of the bare client and of ours."""
    for turns in (5, 50):
        theirs, mine = await ratio(server, turns, times=max(1, times * 5 // turns))
        figures[f"bare_calls_per_step_{turns}_turns"] = theirs
        figures[f"calls_per_step_{turns}_turns"] = mine
        figures[f"ratio_{turns}_turns"] = mine / theirs
    growth = figures["calls_per_step_50_turns"] / figures["calls_per_step_5_turns"] - 1
    figures["growth_5_to_50_turns"] = growth
    theirs, mine = await ratio(server, 5, stream=True, times=max(1, times // 4))
    figures["bare_calls_per_step_5_turns_streamed"] = theirs
    figures["calls_per_step_5_turns_streamed"] = mine
    few, many = 10, 200
    for words in (few, many):
        theirs, mine = await ratio(server, 0, words=words, stream=True, times=times)
        figures[f"bare_calls_per_step_{words}_deltas"] = theirs
        figures[f"calls_per_step_{words}_deltas"] = mine
        figures[f"ratio_{words}_deltas"] = mine / theirs
    figures["calls_per_delta"] = (
        figures[f"calls_per_step_{many}_deltas"] - figures[f"calls_per_step_{few}_deltas"]
    ) / (many - few)


def _count_rivals(
    server: ProtocolServer, pythons: dict[str, str], effort: Effort, found: Found
) -> None:
    """Python calls of the rivals."""
    cases = {"5_turns": (5, False), "50_turns": (50, False), "5_turns_streamed": (5, True)}
    for name, (turns, stream) in cases.items():
        for stack, python in pythons.items():
            if stack in ("bare", "ours") or (stream and stack in NOT_STREAMED):
                continue
            address = server.address(f"t{turns}")
            plan = Plan(stack, address, turns, FINAL, stream=stream, counting=True)
            one = run(plan, python=python, limit=effort.limit)
            if found.take(one, name.replace("_", " ")):
                found.figures[f"{stack}_calls_per_step_{name}"] = one.calls


async def _weigh_bytes(
    server: ProtocolServer, pythons: dict[str, str], effort: Effort, found: Found
) -> None:
    """The bytes that a run leaves, per model step and against its conversation as JSON."""
    for turns, runs in effort.stored:
        address = server.address(f"t{turns}")
        async with openai.AsyncOpenAI(api_key="any", base_url=address, max_retries=0) as client:
            messages = await conversation(client)
        text = json.dumps(messages, ensure_ascii=False, separators=(",", ":"))
        history = len(text.encode())
        for stack, python in pythons.items():
            if stack == "bare":
                continue
            sizes: list[float] = []
            for count in (0, runs):
                plan = Plan(stack, address, turns, FINAL, min(4, runs), count)
                one = run(plan, python=python, limit=effort.limit)
                if found.take(one, f"{count} stored runs"):
                    sizes.append(one.stored)
            if len(sizes) < 2 or sizes[0] == sizes[1]:
                continue  # it failed, or it keeps nothing
            each = (sizes[1] - sizes[0]) / one.done
            found.figures[_name(stack, f"bytes_per_step_{turns}_turns")] = each / (turns + 1)
            found.figures[_name(stack, f"bytes_per_history_{turns}_turns")] = each / history


def _weigh(server: ProtocolServer, pythons: dict[str, str], effort: Effort, found: Found) -> None:
    """CPU, memory and errors of every stack at every concurrency."""
    address = server.address(f"t{effort.turns}")
    for place, concurrency in enumerate(CONCURRENCIES):
        rounds: list[dict[str, Footprint]] = []
        out: set[str] = set()
        for number in range(effort.repetitions):
            rounds.append({})
            for stack, python in pythons.items():
                rival = stack not in ("bare", "ours")
                if stack in out or (rival and number >= effort.rival_repetitions[place]):
                    continue
                runs = effort.runs[place]
                plan = Plan(stack, address, effort.turns, FINAL, concurrency, runs)
                one = run(plan, python=python, limit=effort.limit)
                if found.take(one, f"{concurrency} at once"):
                    rounds[-1][stack] = one
                else:
                    out.add(stack)  # it would only take that long again
        for stack in pythons:
            _settle(stack, concurrency, rounds, found.figures)


def _settle(
    stack: str, concurrency: int, rounds: list[dict[str, Footprint]], figures: dict[str, float]
) -> None:
    """The figures of one stack at one concurrency."""
    pairs = [(one[stack], one["bare"]) for one in rounds if stack in one]
    if not pairs:
        return

    def put(figure: str, values: list[float]) -> None:
        figures[_name(stack, figure)] = statistics.median(values)

    put(f"cpu_ms_per_step_{concurrency}", [one.cpu_ms for one, _ in pairs])
    if stack != "bare":
        put(f"cpu_ratio_{concurrency}", [one.cpu_ms / by_hand.cpu_ms for one, by_hand in pairs])
    if concurrency > 1:
        put(f"memory_mb_{concurrency}", [one.memory_mb for one, _ in pairs])
    if concurrency == CONCURRENCIES[-1]:
        if stack != "bare":
            ratios = [one.memory_mb / by_hand.memory_mb for one, by_hand in pairs]
            put(f"memory_ratio_{concurrency}", ratios)
        figures[_name(stack, f"errors_{concurrency}")] = sum(one.errors for one, _ in pairs)
        figures[_name(stack, f"locked_{concurrency}")] = sum(one.locks for one, _ in pairs)


def table(found: Found) -> str:
    """Stacks as rows, figures as columns, and the remarks below."""
    rows = [["", *COLUMNS.values()]]
    for stack in found.versions:
        values = [found.figures.get(_name(stack, figure)) for figure in COLUMNS]
        rows.append([stack, *("-" if value is None else _shown(value) for value in values)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        )
        for row in rows
    ]
    return "\n".join([*lines, "", "; ".join(found.versions.values()), *found.told])


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value == 0 or abs(value) >= 100 else f"{value:.2f}"


def _arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__ or "")
    parser.add_argument("--rivals", action="store_true", help=f"measure others too: {HOW}")
    return parser.parse_args()


def main() -> None:
    """Measure and report."""
    options = _arguments()
    rivals = rivals_python(install=options.rivals)
    found = asyncio.run(_found(QUICK if options.quick else Effort(), rivals))
    if not rivals:
        found.tell(f"The rivals were left out. {HOW}")
    aside = sys.stderr if options.json else sys.stdout
    print(table(found), end="\n\n", file=aside)
    report("overhead", found.figures, options, note="; ".join(found.versions.values()))


if __name__ == "__main__":
    main()
