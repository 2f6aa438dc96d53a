"""What replaying a stored run costs: Python calls per effect, effects per second, calls made: none.

The stored runs are loops of a model and a tool: one of 50 effects, one of 1,000 in a single line
of thought, and one of 1,000 in forty branches. Loading the run from the store is part of a replay.
"""

from __future__ import annotations

import asyncio
import cProfile
import pstats
import tempfile
import time
from typing import Any

from benchmarks.results import arguments, report
from longthought import Budget, Store, Workflow, strategies, tool
from longthought.orchestrator.models.scripted import ScriptedModel, call
from longthought.types import ModelRequest

__all__ = ["looping", "measure", "replayed"]


@tool(effect="pure")
async def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: one number.
        b: the other.
    """
    return a + b


def looping(store: Store, turns: int, branches: int = 1) -> Workflow:
    """A workflow whose every branch has ``turns`` tool turns, and 2 x turns + 1 effects."""

    def script(request: ModelRequest) -> Any:
        turn = sum(1 for message in request["messages"] if message["role"] == "assistant")
        return call("add", a=turn, b=1) if turn < turns else "The sum is 42."

    return Workflow(
        "loop",
        model=ScriptedModel(script, slots=64),
        tools=[add],
        strategy=strategies.sample(branches),
        budget=Budget(model_calls=100_000),
        max_turns=turns + 1,
        store=store,
    )


async def replayed(store: Store, turns: int, branches: int = 1) -> dict[str, float]:
    """Record a run, then replay it: once for the counts, then for the time."""
    workflow = looping(store, turns, branches)
    run = await workflow.run("Add up.")
    await workflow.replay(run.id)  # what is loaded and compiled once does not count
    profiler = cProfile.Profile()
    profiler.enable()
    again = await workflow.replay(run.id)
    profiler.disable()
    begin = time.perf_counter()
    await workflow.replay(run.id)
    seconds = time.perf_counter() - begin
    if (again.answer, again.effects) != (run.answer, run.effects):
        raise RuntimeError(f"the replay came to {again}, the run to {run}")
    stats: Any = pstats.Stats(profiler)
    return {
        "effects": again.effects,
        "calls_per_effect": stats.total_calls / again.effects,
        "effects_per_second": again.effects / seconds,
        "model_and_tool_calls": again.model_calls + again.tool_calls,
    }


async def measure() -> dict[str, float]:
    """All figures."""
    cases = {"50": (25, 1), "1000": (500, 1), "1000_in_40_branches": (12, 40)}
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as directory:
        async with Store(directory=directory) as store:
            for name, (turns, branches) in cases.items():
                found = await replayed(store, turns, branches)
                figures |= {f"replay_{name}_{figure}": value for figure, value in found.items()}
    return figures


def main() -> None:
    """Measure and report."""
    options = arguments(__doc__ or "")
    report("replay", asyncio.run(measure()), options)


if __name__ == "__main__":
    main()
