"""By how much a run passes its limit on wall time, whatever it is doing when that comes.

Each run has lines of thought that would never end, and, where the model is in the process, one that
has answered. They are in the middle of a stream, before a reply that comes whole, in a tool, in a
verifier, in the pause before a retry, waiting for a slot, waiting for a reservation, 64 streams at
once, or in a tool that blocks a thread. The server is a process of its own on loopback. The overrun
is read off the run's own clock when its result is there, with the best answer and everything on
record.

It is told in polls. The executor waits for the very moment with a timer (of a millisecond at
least, ``timer_ms``), so that the poll is the gap between two pieces of a stream: what a reader of
it would see, 20 ms here.

Part of an overrun is the machine's: others that run on its processors, and the disk under the last
commit (``commit_ms``, of one row). Our own part is told apart, as the processor time of the process
from the first look at the clock that finds the limit passed to the result (``cpu``).
"""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.protocol_server import in_process
from benchmarks.results import arguments, report
from longthought import Budget, Store, Workflow, answers, strategies
from longthought.orchestrator.definition import Retry
from longthought.orchestrator.models.openai import OpenAIModel
from longthought.orchestrator.models.scripted import ScriptedModel, call
from longthought.orchestrator.session import Session
from longthought.tools import tool
from longthought.types import Candidate, ModelRequest, Verdict

__all__ = ["CASES", "POLL_S", "Case", "Hanging", "overruns"]

POLL_S = 0.02
"""Seconds between two pieces of a stream of the server (its mode ``slow``)."""
RUNS, QUICK_RUNS = 24, 4
_WALL_S = 0.5
_BLOCKED_S = 1.0


@tool(effect="read")
async def hang() -> str:
    """Wait for ever."""
    await asyncio.Event().wait()
    return ""


@tool(effect="read")
def block() -> str:
    """Keep a thread busy, which nobody can stop."""
    time.sleep(_BLOCKED_S)
    return ""


class Hanging:
    """Passes the first answer, and never comes to an end with any other."""

    name = "hanging"

    def spec(self) -> dict[str, Any]:
        """Its name alone."""
        return {"name": self.name}

    async def judge(self, candidate: Candidate, context: Any) -> Verdict:
        """Pass it, or wait for ever."""
        if candidate.answer != "0":
            await asyncio.Event().wait()
        return Verdict(1.0)


@dataclass(frozen=True, slots=True)
class Case:
    """What a run is doing when its time is up: how the server behaves, and what the workflow has.

    ``script`` is for a model in the process, where it is not the model that hangs.
    """

    modes: str = "slow,w60"
    script: Any = None
    model: Mapping[str, Any] = field(default_factory=dict)
    workflow: Mapping[str, Any] = field(default_factory=dict)
    budget: Mapping[str, Any] = field(default_factory=dict)
    branches: int = 4


def _calling(name: str) -> Any:
    def script(request: ModelRequest) -> Any:
        seed = request.get("sampling", {}).get("seed", 0)
        return "The answer is 0" if not seed else call(name)

    return script


def _answering(request: ModelRequest) -> str:
    return f"The answer is {request.get('sampling', {}).get('seed', 0)}"


CASES: dict[str, Case] = {
    "streamed": Case(),
    "whole": Case("hang", model={"stream": False}),
    "tool": Case(script=_calling("hang"), workflow={"tools": [hang]}),
    "thread": Case(script=_calling("block"), workflow={"tools": [block]}),
    "verifier": Case(script=_answering, workflow={"verifier": Hanging()}),
    "retry": Case("status503", workflow={"retry": Retry(attempts=9, base=60.0, cap=60.0)}),
    "slot": Case("hang", model={"slots": 1}, workflow={"parallel": 8}, branches=8),
    "reservation": Case("hang", budget={"tokens": 600, "final_answer": 0}, branches=8),
    "branches_64": Case(model={"slots": 64}, branches=64),
}


async def overruns(store: Store, address: str, case: Case, runs: int) -> list[tuple[float, float]]:
    """The seconds by which each of some runs passed its limit, and those that were computed.

    Raises:
        RuntimeError: a run did not end for its wall.
    """
    model: Any = OpenAIModel("toy", base_url=address, api_key="any", **case.model)
    if case.script is not None:
        model = ScriptedModel(case.script)
    workflow = Workflow(
        "wall",
        model=model,
        answer=answers.number(),
        strategy=strategies.sample(case.branches),
        store=store,
        **case.workflow,
    )
    found = []
    for number in range(runs + 1):
        wall = _WALL_S + number * 0.0011  # not always at the same point of a stream
        noticed: list[float] = []
        with mock.patch.object(Session, "time_is_up", _noting(noticed)):
            result = await workflow.run("Add up.", budget=Budget(wall=wall, **case.budget))
        computed = time.process_time() - noticed[0] if noticed else 0.0
        if (result.status, result.stop_reason) != ("incomplete", "wall"):
            raise RuntimeError(f"ended as {result.status} for {result.stop_reason}: {result.error}")
        found.append((result.spent["seconds"]["wall"] - wall, computed))
    await workflow.aclose()
    return found[1:]  # the first one opened the connections


def _noting(noticed: list[float]) -> Any:
    """A look at the clock that notes the processor time when it finds the limit passed."""
    look = Session.time_is_up

    def time_is_up(session: Session) -> str | None:
        kind = look(session)
        if kind is not None:
            noticed.append(time.process_time())
        return kind

    return time_is_up


def _commit_ms(file: Path) -> float:
    """How long the disk takes for a commit of one row, in milliseconds: the middle of many."""
    taken = []
    connection = sqlite3.connect(file)
    connection.executescript(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE t (a INT)"
    )
    for number in range(50):
        begun = time.perf_counter()
        with connection:
            connection.execute("INSERT INTO t VALUES (?)", (number,))
        taken.append(time.perf_counter() - begun)
    connection.close()
    return 1000 * statistics.median(taken)


def _timer_ms() -> float:
    """How late a timer of the loop rings on this machine, in milliseconds: the middle of many."""

    async def late() -> float:
        begun = time.perf_counter()
        await asyncio.sleep(0.001)
        return time.perf_counter() - begun - 0.001

    async def many() -> list[float]:
        return [await late() for _ in range(200)]

    return 1000 * statistics.median(asyncio.run(many()))


def _percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def _measured(folder: Path, runs: int) -> dict[str, list[tuple[float, float]]]:
    found = {}
    with in_process() as server:
        async with Store(f"sqlite+aiosqlite:///{folder / 'wall.db'}") as store:
            for name, case in CASES.items():
                found[name] = await overruns(store, server.address(case.modes), case, runs)
    return found


def main() -> None:
    """Print the overrun of every case in polls; see the module."""
    options = arguments(__doc__ or "")
    runs = QUICK_RUNS if options.quick else RUNS
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(_measured(Path(folder), runs))
        commit_ms = _commit_ms(Path(folder) / "commit.db")
    everything = [each for pairs in found.values() for each in pairs]
    figures: dict[str, float] = {"runs": len(everything), "poll_ms": 1000 * POLL_S}
    figures |= {"timer_ms": _timer_ms(), "commit_ms": commit_ms}
    for name, pairs in [("all", everything), *found.items()]:
        late, computed = (
            [seconds / POLL_S for seconds in each] for each in zip(*pairs, strict=True)
        )
        figures[f"{name}_p50_polls"] = statistics.median(late)
        figures[f"{name}_p99_polls"] = _percentile(late, 0.99)
        figures[f"{name}_cpu_p50_polls"] = statistics.median(computed)
        figures[f"{name}_cpu_p99_polls"] = _percentile(computed, 0.99)
    report("wall", figures, options)


if __name__ == "__main__":
    main()
