"""What a stack weighs: CPU, memory, bytes on disk and errors, in a process of its own.

``run`` starts one process that does the job with one stack, so many times at one concurrency, and
reads the JSON it prints; a process that takes too long is killed, and that is its figure. The
process needs nothing of longthought unless the stack is ours, so a rival can run in an
environment of its own.
"""

from __future__ import annotations

import asyncio
import cProfile
import gc
import importlib
import importlib.metadata
import json
import os
import pstats
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["STACKS", "Footprint", "Plan", "counted", "run", "total"]

ROOT = Path(__file__).resolve().parents[1]
STACKS = {
    "bare": ("benchmarks.bare", "opened", "openai"),
    "ours": ("benchmarks.overhead", "opened", "longthought"),
    "langgraph": ("benchmarks.rivals", "langgraph", "langgraph"),
    "pydantic_ai": ("benchmarks.rivals", "pydantic_ai", "pydantic-ai-slim"),
    "pydantic_ai_dbos": ("benchmarks.rivals", "pydantic_ai_dbos", "dbos"),
    "openai_agents": ("benchmarks.rivals", "openai_agents", "openai-agents"),
}
"""Module and function that open a stack, and the package whose version is told."""

_LOCKED = "database is locked"


@dataclass(frozen=True)
class Plan:
    """What one process does: ``runs`` jobs of ``turns`` tool turns, ``concurrency`` at a time.

    Without runs it only opens and closes the stack, which tells the bytes of an empty store.
    ``counting`` counts Python calls (cProfile, the main thread) and makes the CPU time worthless.
    ``expected`` is the text that each job must end with.
    """

    stack: str
    address: str
    turns: int
    expected: str
    concurrency: int = 1
    runs: int = 1
    stream: bool = False
    counting: bool = False


@dataclass
class Footprint:
    """What one process found; ``ended`` says why it found nothing, and is empty when it did.

    CPU is that of all threads per model step (ms), memory the peak of the process (MB), calls those
    per model step, ``stored`` the bytes on disk after closing, of all ``done`` runs: those of the
    warm-up too. A run that raised or ended with another text is an error; ``locks`` are the errors
    that were a locked database.
    """

    stack: str
    concurrency: int
    cpu_ms: float = 0.0
    memory_mb: float = 0.0
    calls: float = 0.0
    runs: int = 0
    done: int = 0
    stored: int = 0
    errors: int = 0
    locks: int = 0
    first_error: str = ""
    version: str = ""
    ended: str = ""


def run(plan: Plan, *, python: str = sys.executable, limit: float = 120.0) -> Footprint:
    """One process by ``python``, killed after ``limit`` seconds."""
    command = [python, "-m", "benchmarks.footprint", json.dumps(asdict(plan))]
    silent = {"DO_NOT_TRACK": "1", "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(ROOT)}
    environment = {**os.environ, **silent}
    ended = ""
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, timeout=limit, check=False
        )
        printed, complaint = done.stdout, done.stderr.decode(errors="replace").strip()
        if done.returncode:
            ended = f"failed: {complaint.splitlines()[-1] if complaint else done.returncode}"
    except subprocess.TimeoutExpired as late:
        printed, ended = late.stdout or b"", f"killed after {limit:.0f} s"
    lines = printed.decode(errors="replace").splitlines()
    if lines and lines[-1].startswith('{"stack"') and lines[-1].endswith("}"):
        return Footprint(**json.loads(lines[-1]))  # a process that only does not end is no failure
    return Footprint(plan.stack, plan.concurrency, ended=ended or "failed: it printed nothing")


async def counted(job: Callable[[], Awaitable[str]], times: int) -> cProfile.Profile:
    """The profile of a job done so many times, after two that are not counted."""
    for _ in range(2):
        await job()
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(times):
        await job()
    profiler.disable()
    return profiler


def total(profiler: cProfile.Profile) -> int:
    """How many calls a profile holds."""
    stats: Any = pstats.Stats(profiler)
    return int(stats.total_calls)


async def _measured(plan: Plan) -> Footprint:
    module, function, package = STACKS[plan.stack]
    opened = getattr(importlib.import_module(module), function)
    found = Footprint(plan.stack, plan.concurrency, runs=plan.runs)
    found.version = f"{package} {importlib.metadata.version(package)}"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        directory = Path(name)
        async with opened(plan.address, directory, stream=plan.stream) as job:
            if plan.runs and plan.counting:
                steps = plan.runs * (plan.turns + 1)
                found.done = plan.runs + 2
                found.calls = total(await counted(job, plan.runs)) / steps
            elif plan.runs:
                await _timed(plan, job, found)
        found.stored = _size(directory)
    found.memory_mb = _peak_memory() / 1e6
    return found


async def _timed(plan: Plan, job: Callable[[], Awaitable[str]], found: Footprint) -> None:
    """CPU and errors, after some runs that are not counted."""
    warm = 8  # an interpreter needs some to settle, and a wide stack more than a narrow one
    await _drive(plan, job, warm, Footprint(plan.stack, plan.concurrency))
    gc.collect()
    before = time.process_time()
    await _drive(plan, job, plan.runs, found)
    spent = time.process_time() - before
    found.cpu_ms = spent * 1e3 / (plan.runs * (plan.turns + 1))
    found.done = warm + plan.runs


async def _drive(
    plan: Plan, job: Callable[[], Awaitable[str]], runs: int, found: Footprint
) -> None:
    left = iter(range(runs))

    async def one_after_the_other() -> None:
        for _ in left:
            try:
                text = await job()
            except Exception as error:
                said = " / ".join(_messages(error))
            else:
                said = "" if text == plan.expected else f"the text is {text!r}"
            if said:
                found.errors += 1
                found.locks += _LOCKED in said
                found.first_error = found.first_error or said[:300]

    async with asyncio.TaskGroup() as group:
        for _ in range(min(plan.concurrency, runs)):
            group.create_task(one_after_the_other())


def _messages(error: BaseException | None) -> list[str]:
    """What an error says, and those it came from."""
    found: list[str] = []
    while error is not None and len(found) < 8:
        found.append(f"{type(error).__name__}: {error}")
        if isinstance(error, BaseExceptionGroup):
            for inner in error.exceptions[:4]:
                found += _messages(inner)
        error = error.__cause__ or error.__context__
    return found


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def _peak_memory() -> int:
    """The most memory this process had, in bytes."""
    status = Path("/proc/self/status")  # there, because `ru_maxrss` counts what the parent had
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> None:
    """Do one plan and print what was found."""
    plan = Plan(**json.loads(sys.argv[1]))
    print(json.dumps(asdict(asyncio.run(_measured(plan)))), flush=True)


if __name__ == "__main__":
    main()
