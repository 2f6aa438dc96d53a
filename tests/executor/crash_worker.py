"""Processes that wake runs, one after the other; a run among them kills whoever drives it.

``python -m tests.executor.crash_worker URL DIRECTORY`` reads the time of day, forks a waker for
which it stands still, and writes what that woke: run, status and stop reason, and how it ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from longthought import Context, Result, Store, Workflow
from longthought.orchestrator.models.scripted import ScriptedModel
from longthought.orchestrator.waking import Waker
from longthought.storage import RunRow

__all__ = ["KILLER", "deadly"]

KILLER = "a-killer"


class State(TypedDict, total=False):
    answer: str


def deadly(store: Store, beside: set[str] | None = None) -> Workflow:
    """Waits for a review; then the killer ends its process, and others wait while it is there.

    ``beside`` are the runs in this process; without it nobody is killed.
    """

    async def work(state: State, runtime: Runtime[Context]) -> State:
        value = await runtime.context.suspend("review")
        while beside and KILLER in beside:
            if runtime.context.run_id == KILLER:
                os.kill(os.getpid(), signal.SIGKILL)
            await asyncio.sleep(0)
        return {"answer": str(value)}

    graph: Any = StateGraph(State, context_schema=Context)
    graph.add_node("work", work)
    graph.add_edge(START, "work")
    graph.add_edge("work", END)
    return Workflow("deadly", model=ScriptedModel(lambda _: "x"), graph=graph, store=store)


async def _wake(url: str, directory: str) -> None:
    beside: set[str] = set()
    async with Store(url, directory=Path(directory)) as store:
        workflow = deadly(store, beside)

        async def go_on(row: RunRow) -> Result:
            beside.add(row.id)
            try:
                return await workflow.wake_run(row)
            finally:
                beside.discard(row.id)

        await Waker(store, go_on, _tell).run()


def _tell(result: Result) -> None:
    print(json.dumps([result.id, result.status, result.stop_reason]), flush=True)


def main(url: str, directory: str) -> None:
    """Fork a waker for every line that is read."""
    for line in sys.stdin:
        now = float(line)
        sys.stdout.flush()
        child = os.fork()
        if not child:
            time.time = partial(float, now)
            asyncio.run(_wake(url, directory))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(json.dumps(["died", os.waitstatus_to_exitcode(status)]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
