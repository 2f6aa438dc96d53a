"""What runs cost while they wait: 10,000 of them parked in a store and woken again.

A third sleeps, a third waits for a signal, a third for a tool that is finished from outside. All
are begun and woken in one process, which is weighed between: memory, tasks, sessions, journals,
slots, leases. Two more waves of as many show what of its memory grows with the number of runs.
Then 1,000 more are woken by two processes at once, one of which is killed (SIGKILL) in the middle,
and a third takes over. ``python -m benchmarks.parking waker URL FOLDER`` is one.

Times are not waited for: whoever wakes has its clock set ahead.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import sqlalchemy as sa
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from benchmarks.results import arguments, report
from longthought import Context, Store, ToolContext, Workflow
from longthought.orchestrator.models.scripted import ScriptedModel
from longthought.orchestrator.runs import Attempt
from longthought.orchestrator.session import Session
from longthought.storage import Journal, audit
from longthought.storage.tables import events, runs, signals
from longthought.tools import pending, tool

__all__ = ["KINDS", "Held", "ahead", "answer_all", "held", "park", "waiting", "wakers"]

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("sleep", "signal", "tool")
RUNS, QUICK_RUNS, SHARED, TRACED, WAVES = 10_000, 300, 1_000, 300, 3
_HOUR = 3600.0
_AT_ONCE = 32
_HELD = (Attempt, Session, Journal)


class _State(TypedDict, total=False):
    question: str
    answer: str


@tool(effect="read")
async def survey(place: str, context: ToolContext) -> Any:
    """Have a place surveyed, which takes days.

    Args:
        place: which one.
    """
    del place
    return pending({"for": context.run_id})


async def _think(state: _State, runtime: Runtime[Context]) -> _State:
    await runtime.context.model(f"before {state['question']}")
    return {}


async def _wait(state: _State, runtime: Runtime[Context]) -> _State:
    context = runtime.context
    match state["question"].partition(" ")[0]:
        case "sleep":
            await context.sleep(_HOUR)
        case "signal":
            await context.suspend("review")
        case _:
            await context.tool("survey", place="the coast")
    return {}


async def _conclude(state: _State, runtime: Runtime[Context]) -> _State:
    reply = await runtime.context.model(f"after {state['question']}")
    return {"answer": str(reply["message"]["content"])}


def waiting(store: Store) -> Workflow:
    """A workflow that asks a model, waits for whatever its question begins with, and asks again."""
    graph: Any = StateGraph(_State, context_schema=Context)
    graph.add_node("think", _think)
    graph.add_node("wait", _wait)
    graph.add_node("conclude", _conclude)
    graph.add_edge(START, "think")
    graph.add_edge("think", "wait")
    graph.add_edge("wait", "conclude")
    graph.add_edge("conclude", END)
    model = ScriptedModel(lambda request: str(request["messages"][-1]["content"]), slots=_AT_ONCE)
    return Workflow("waiting", model=model, tools=[survey], graph=graph, store=store)


async def park(workflow: Workflow, ids: Sequence[str]) -> None:
    """Begin so many runs, a few at a time; all of them park."""
    left = iter(enumerate(ids))

    async def one_after_the_other() -> None:
        for number, run_id in left:
            question = f"{KINDS[number % len(KINDS)]} {number}"
            result = await workflow.run(question, run_id=run_id)
            if result.status != "parked":
                raise RuntimeError(f"run {run_id} is {result.status}: {result.error}")

    async with asyncio.TaskGroup() as group:
        for _ in range(min(_AT_ONCE, len(ids))):
            group.create_task(one_after_the_other())


async def answer_all(store: Store, ids: Sequence[str]) -> None:
    """Send what the runs wait for, in one transaction: a review, or the result of the tool."""
    names = {"signal": "review", "tool": "result:survey"}
    rows = [
        {"id": f"sent-{run_id}", "run_id": run_id, "name": names[kind], "created_at": time.time()}
        for number, run_id in enumerate(ids)
        if (kind := KINDS[number % len(KINDS)]) in names
    ]
    body = '{"key":"","value":"done"}'
    statement = sa.insert(signals).values(body=body)
    await store.database.write(lambda connection: connection.execute(statement, rows))


@contextmanager
def ahead(seconds: float = 2 * _HOUR) -> Iterator[None]:
    """Set the clock of this process ahead: what sleeps for an hour is due."""
    real = time.time
    time.time = lambda: real() + seconds
    try:
        yield
    finally:
        time.time = real


@dataclass(frozen=True)
class Held:
    """What a process and its store hold: none of it is to be left by a parked run."""

    tasks: int
    objects: int
    """Attempts, sessions and journals."""
    slots: int
    branches: int
    leases: int
    """Runs in the store that somebody holds."""


async def held(workflow: Workflow, store: Store) -> Held:
    """Count what is held now, after a garbage collection."""
    gc.collect()
    alive = sum(isinstance(one, _HELD) for one in gc.get_objects())
    view = workflow._shared_controller().view()  # noqa: SLF001 - nobody else has it
    query = sa.select(sa.func.count()).where(runs.c.lease_until > 0)
    leases = await store.database.read(lambda c: int(c.execute(query).scalar_one()))
    return Held(
        tasks=len(asyncio.all_tasks()) - 1,
        objects=alive,
        slots=sum(one["in_use"] + one["waiting"] for one in view["backends"].values()),
        branches=len(view["branches"]),
        leases=leases,
    )


# -- wakers in processes of their own -----------------------------------------------------------


@asynccontextmanager
async def wakers(url: str, directory: Path, number: int) -> AsyncIterator[list[Any]]:
    """So many processes that wake what is due; each prints the id of every run it woke."""
    command = [sys.executable, "-m", "benchmarks.parking", "waker", url, str(directory)]
    started = [
        await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, cwd=ROOT)
        for _ in range(number)
    ]
    try:
        yield started
    finally:
        for process in started:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
            await process.communicate()


async def _waker(url: str, directory: Path) -> None:
    async with Store(url, directory=directory) as store:
        workflow = waiting(store)

        async def go_on(row: Any) -> Any:
            result = await workflow.wake_run(row)
            print(result.id, flush=True)
            return result

        from longthought.orchestrator.waking import Waker

        failed: list[Any] = []
        waker = Waker(store, go_on, lambda result: failed.append(result.error), at_once=8)
        with ahead():
            await waker.run()
        if any(failed):
            raise SystemExit(f"could not wake: {failed[:3]}")


async def ends_of(store: Store, ids: Sequence[str]) -> Counter[str]:
    """How often each of these runs has been recorded as completed."""
    query = sa.select(events.c.run_id).where(
        events.c.type == "run_ended", events.c.body.like('%"status":"completed"%')
    )
    wanted = set(ids)

    def count(connection: sa.Connection) -> Counter[str]:  # row by row: all of them weigh something
        return Counter(row[0] for row in connection.execute(query) if row[0] in wanted)

    return await store.database.survey(count)


async def killed_in_the_middle(
    store: Store, url: str, directory: Path, ids: Sequence[str]
) -> dict[str, float]:
    """Park runs and have two processes wake them; kill one when it has woken a tenth, then a third.

    Raises:
        RuntimeError: a run was lost or has ended twice.
    """
    await park(waiting(store), ids)
    await answer_all(store, ids)
    async with wakers(url, directory, 2) as (first, second):
        for _ in range(max(1, len(ids) // 10)):
            await first.stdout.readline()
        with suppress(ProcessLookupError):  # it may have been through before we had read so much
            first.kill()
        await first.communicate()
        await second.communicate()
    async with wakers(url, directory, 1) as (third,):
        said, _ = await third.communicate()
        if third.returncode:
            raise RuntimeError("the last waker failed")
    ends = await ends_of(store, ids)
    query = sa.select(runs.c.id, runs.c.attempt, runs.c.status)
    rows = await store.database.survey(lambda c: c.execute(query).all())
    mine = [row for row in rows if row[0] in set(ids)]
    lost = sum(row[2] != "completed" for row in mine)
    twice = sum(count != 1 for count in ends.values())
    if lost or twice or len(ends) != len(ids):
        raise RuntimeError(f"{lost} runs lost, {twice} ended more than once")
    return {
        "killed_runs": len(ids),
        "killed_lost": lost,
        "killed_ended_twice": twice,
        "killed_gone_on_with": sum(row[1] > 2 for row in mine),
        "killed_left_for_the_third": len(said.split()),
    }


# -- the figures --------------------------------------------------------------------------------


def _resident() -> int:
    """Bytes of memory this process has now."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _stored(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


async def _warm(workflow: Workflow, store: Store) -> None:
    """An interpreter, a driver and a database need some runs until they have what they keep."""
    ids = [f"warm-{number}" for number in range(100)]
    await park(workflow, ids)
    await answer_all(store, ids)
    with ahead():
        await workflow.wake(at_once=_AT_ONCE)


async def _measured(directory: Path, number: int) -> dict[str, float]:
    """Waves of so many runs, one after the other in one process and one store.

    The figures are those of the first; of all of them what memory the process has afterwards.
    """
    url = f"sqlite:///{directory / 'longthought.db'}"
    figures: dict[str, float] = {"runs": number}
    async with Store(url, directory=directory) as store:
        workflow = waiting(store)
        await _warm(workflow, store)
        await store.database.scrub()
        before, begun = await held(workflow, store), _resident()
        blocks = sys.getallocatedblocks()
        for wave in range(1, WAVES + 1):
            ids = [f"wave-{wave}-{one}" for one in range(number)]
            found = await _wave(directory, workflow, store, ids, before)
            figures |= found if wave == 1 else {}
            figures[f"wave_{wave}_woken_once"] = found["ended_once"]
            figures[f"wave_{wave}_memory_above_start_mb"] = (_resident() - begun) / 1e6
            figures[f"wave_{wave}_blocks_above_start"] = sys.getallocatedblocks() - blocks
        return figures


async def _wave(
    directory: Path, workflow: Workflow, store: Store, ids: Sequence[str], before_held: Held
) -> dict[str, float]:
    """Park runs and wake them again; what they cost while they wait, and what is left of them."""
    number, figures = len(ids), dict[str, float]()
    await store.database.scrub()
    before_disk, before, blocks = _stored(directory), _resident(), sys.getallocatedblocks()
    begun = time.perf_counter()
    await park(workflow, ids)
    figures["parked_per_second"] = number / (time.perf_counter() - begun)
    await store.database.scrub()
    figures["disk_bytes_per_run"] = (_stored(directory) - before_disk) / number
    parked = await held(workflow, store)
    figures["memory_bytes_per_run"] = (_resident() - before) / number
    figures["blocks_per_run"] = (sys.getallocatedblocks() - blocks) / number
    for name in ("tasks", "objects", "slots", "branches", "leases"):
        figures[f"parked_{name}"] = getattr(parked, name) - getattr(before_held, name)

    await answer_all(store, ids)
    begun, woken = time.perf_counter(), Counter[str]()
    with ahead():
        # a result is the caller's to keep: it is not what a run costs
        while results := await workflow.wake(limit=500, at_once=_AT_ONCE):
            woken.update(result.id for result in results)
    figures["woken_per_second"] = number / (time.perf_counter() - begun)
    figures["woken"] = len(woken)
    figures["woken_twice"] = sum(count > 1 for count in woken.values())
    ends = await ends_of(store, ids)
    figures["ended_once"] = sum(count == 1 for count in ends.values())
    woken.clear()
    ends.clear()
    after = await held(workflow, store)
    for name in ("tasks", "objects", "slots", "branches", "leases"):
        figures[f"after_{name}"] = getattr(after, name) - getattr(before_held, name)
    return figures


async def _traced(directory: Path, number: int) -> dict[str, float]:
    """Bytes that Python itself has allocated and not freed, per run; this slows everything down."""
    async with Store(directory=directory) as store:
        workflow = waiting(store)
        await _warm(workflow, store)
        gc.collect()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            await park(workflow, [f"run-{one}" for one in range(number)])
            gc.collect()
            return {"traced_bytes_per_run": (tracemalloc.get_traced_memory()[0] - before) / number}
        finally:
            tracemalloc.stop()


async def _all(quick: bool) -> dict[str, float]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folders = [Path(name) / part for part in ("many", "traced", "killed")]
        for folder in folders:
            folder.mkdir()
        figures = await _measured(folders[0], QUICK_RUNS if quick else RUNS)
        figures |= await _traced(folders[1], 60 if quick else TRACED)
        url = f"sqlite:///{folders[2] / 'longthought.db'}"
        ids = [f"run-{one}" for one in range(60 if quick else SHARED)]
        async with Store(url, directory=folders[2]) as store:
            figures |= await killed_in_the_middle(store, url, folders[2], ids)
            found = await audit(store, ids[0])
            figures["findings"] = len(found.findings)
        return figures


def main() -> None:
    """Measure and tell."""
    if sys.argv[1:2] == ["waker"]:
        asyncio.run(_waker(sys.argv[2], Path(sys.argv[3])))
        return
    options = arguments("What runs cost while they wait.")
    note = f"store under {tempfile.gettempdir()}"  # in memory, no disk is waited for
    report("parking", asyncio.run(_all(options.quick)), options, note=note)


if __name__ == "__main__":
    main()
