"""``demo``: held-out puzzles solved in several ways, measured, shown, replayed and audited."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longthought.orchestrator.cli.audit import audited
from longthought.orchestrator.cli.failures import reported
from longthought.orchestrator.cli.options import workflow_from_options
from longthought.orchestrator.cli.output import count, mark, print_json, progress
from longthought.orchestrator.cli.replay import replayed
from longthought.orchestrator.cli.settings import Settings, settings_of
from longthought.orchestrator.cli.show import print_tree
from longthought.types import JSONObject

if TYPE_CHECKING:
    from longthought import Result
    from longthought.orchestrator.models.embedded import EmbeddedModel, Puzzle
    from longthought.orchestrator.traces import RunTree
    from longthought.storage import Store

__all__ = ["Row", "Ways", "demo"]

_SAMPLES = 16
_AT_ONCE = 8
"""Runs under way together: enough to keep the model's batch full."""
_SHOWN_BRANCHES = (4, 9)
"""How long the trace that is shown should be."""

_INTRODUCTION = """\
{puzzles} puzzles such as "{example}": use every number once, reach the target.
None of them was trained on. The model is a transformer of {parameters:,} parameters
in this package, run with numpy on this machine. Every call, verdict and choice
is recorded in {place}.
"""
_NOTES = """\
Read this with care. A brute-force program solves all of these puzzles in no
time, and luck goes far: that is why random legal play stands above the model.
The table shows what sampling, voting, verifying and going back cost and bring.
The verifier checks arithmetic exactly; it does not know any solution. Over
{puzzles} puzzles the standard error is up to {error:.0f} points. Tokens are means per puzzle,
prompt and output. Each step of backtracking sends its thought again, so its
tokens are mostly prompt, most of it read from the model's cache.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """What one way of solving came to; tokens and calls are means per puzzle."""

    name: str
    solved: float
    tokens: float = 0.0
    output_tokens: float = 0.0
    model_calls: float = 0.0
    seconds: float = 0.0

    def to_json(self) -> JSONObject:
        """All fields."""
        return {
            "name": self.name,
            "solved": round(self.solved, 4),
            "tokens": round(self.tokens, 1),
            "output_tokens": round(self.output_tokens, 1),
            "model_calls": round(self.model_calls, 2),
            "seconds": round(self.seconds, 2),
        }


@reported
def demo(
    context: typer.Context,
    puzzles: Annotated[int, typer.Option(help="How many puzzles.", min=1)] = 50,
    seed: Annotated[int, typer.Option(help="Which puzzles, and which samples.")] = 0,
    directory: Annotated[
        Path | None,
        typer.Option(help="Where the runs are kept; in the data directory unless given."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Solve held-out puzzles in five ways, then show, replay and audit one of the traces.

    Needs no key and no network.

    \b
    Examples:
      longthought demo
      longthought demo --puzzles 200 --seed 7
      longthought demo --puzzles 10 --json
    """
    folder = directory or _own_folder(settings_of(context))
    settings = Settings(data_dir=folder)
    told = asyncio.run(_demo(settings, puzzles, seed, as_json))
    if as_json:
        print_json(told)
    raise typer.Exit(0 if told["audit"]["ok"] and told["replay"]["diverged"] is None else 1)


async def _demo(settings: Settings, puzzles: int, seed: int, quiet: bool) -> JSONObject:
    from longthought.orchestrator.models.embedded import EmbeddedModel, held_out

    begun = time.monotonic()
    drawn = held_out(puzzles, seed)
    say: Callable[[str], None] = (lambda _text: None) if quiet else typer.echo
    model = EmbeddedModel(slots=64)
    try:
        say(
            _INTRODUCTION.format(
                puzzles=puzzles,
                example=drawn[0],
                parameters=model.fingerprint()["parameters"],
                place=settings.data_dir,
            )
        )
        async with settings.store() as store:
            rows, shown = await _measure(Ways(model, store, settings), drawn, seed, say, quiet)
    finally:
        await model.aclose()
    error = 100 * math.sqrt(0.25 / puzzles)
    say("\n" + _NOTES.format(puzzles=puzzles, error=error))
    told = await _inspect(settings, shown, say, quiet)
    elapsed = time.monotonic() - begun
    say(f"\n{elapsed:.0f} s. Look further, for example:")
    say(f"  longthought --data-dir {settings.data_dir} runs")
    say(f"  longthought --data-dir {settings.data_dir} why {shown}")
    return {
        "puzzles": puzzles,
        "seed": seed,
        "rows": [row.to_json() for row in rows],
        "shown": shown,
        **told,
        "seconds": round(elapsed, 1),
    }


class Ways:
    """The ways of solving, each a workflow on one model and one store.

    They are made from options as ``solve`` keeps them, so that ``replay`` and ``audit`` find them.
    """

    def __init__(self, model: EmbeddedModel, store: Store, settings: Settings) -> None:
        from longthought import answers

        n = _SAMPLES
        plans: dict[str, JSONObject] = {
            "greedy, one answer": {"strategy": "single", "temperature": 0.0},
            "one sample": {"strategy": "single"},
            f"majority of {n}": {"strategy": "majority", "n": n},
            f"best of {n}, verified": {"strategy": "best-of", "n": n, "verifier": "puzzle"},
            "backtracking, verified": {"strategy": "backtrack", "n": n, "verifier": "puzzle"},
        }
        common = {"cli": 1, "model": model.name, "answer": "puzzle", "verifier": "none"}
        self.options = {
            name: {**common, "name": _short(name), **plan} for name, plan in plans.items()
        }
        self.workflows = {
            name: workflow_from_options(options, settings, store, model=model)
            for name, options in self.options.items()
        }
        self.answer = answers.puzzle()

    async def solve(
        self, name: str, puzzles: Sequence[Puzzle], seed: int, done: Callable[[], None]
    ) -> list[Result]:
        """All puzzles in one way, some at once."""
        free = asyncio.Semaphore(_AT_ONCE)

        async def one(place: int, puzzle: Puzzle) -> Result:
            async with free:
                # far apart: the samples of two puzzles must not be drawn from equal seeds
                own = (seed * len(puzzles) + place) * 1000
                result = await self.workflows[name].run(
                    str(puzzle), seed=own, options=self.options[name]
                )
            done()
            return result

        return await asyncio.gather(*(one(i, puzzle) for i, puzzle in enumerate(puzzles)))

    def right(self, puzzle: Puzzle, result: Result) -> bool:
        """Graded exactly: the gold answer of a puzzle is its question."""
        from longthought.verifiers import grade

        return grade(self.answer, result.answer, str(puzzle))


async def _measure(
    ways: Ways, puzzles: Sequence[Puzzle], seed: int, say: Callable[[str], None], quiet: bool
) -> tuple[list[Row], str]:
    """Every way on every puzzle; also the run whose trace is worth showing."""
    rows: list[Row] = []

    def add(row: Row) -> None:
        rows.append(row)
        say(_line(row))

    say(f"{'':<28}{'solved':>7}{'tokens':>9}{'output':>9}{'calls':>7}{'seconds':>9}")
    for row in _control(puzzles):
        add(row)
    results: list[Result] = []
    for name in ways.workflows:
        with progress(name, quiet=quiet) as tell:
            begun, finished = time.monotonic(), 0

            def done(name: str = name, tell: Callable[[str], None] = tell) -> None:
                nonlocal finished
                finished += 1
                tell(f"{name}: {finished} of {len(puzzles)}")

            results = await ways.solve(name, puzzles, seed, done)
        add(_row(name, ways, puzzles, results, time.monotonic() - begun))
    return rows, _worth_showing(results)


def _control(puzzles: Sequence[Puzzle]) -> list[Row]:
    from longthought.orchestrator.models.embedded import random_chance

    return [
        Row(
            f"random legal play, {count(attempts, 'try', 'tries')}",
            sum(random_chance(puzzle, attempts) for puzzle in puzzles) / len(puzzles),
        )
        for attempts in (1, _SAMPLES)
    ]


def _row(
    name: str, ways: Ways, puzzles: Sequence[Puzzle], results: Sequence[Result], elapsed: float
) -> Row:
    def mean(kind: str) -> float:
        total: int = sum(result.spent[kind] for result in results)
        return total / len(results)

    right = sum(ways.right(p, r) for p, r in zip(puzzles, results, strict=True))
    means = {kind: mean(kind) for kind in ("tokens", "output_tokens", "model_calls")}
    return Row(name, right / len(puzzles), **means, seconds=elapsed)


def _line(row: Row) -> str:
    line = f"{row.name:<28}{row.solved:>7.0%}"
    if row.model_calls:
        line += f"{row.tokens:>9,.0f}{row.output_tokens:>9,.0f}{row.model_calls:>7.1f}"
        line += f"{row.seconds:>9.1f}"
    return line


def _worth_showing(results: Sequence[Result]) -> str:
    """A run that went back at least once and is not too long to read."""

    def rank(result: Result) -> tuple[bool, bool, int]:
        steps = int(result.support.get("steps", 0))
        least, most = _SHOWN_BRANCHES
        went_back = result.support.get("dead_ends", 0) > 0 and result.status == "completed"
        return (not went_back, not least <= steps <= most, abs(steps - sum(_SHOWN_BRANCHES) // 2))

    return min(results, key=rank).id


async def _inspect(
    settings: Settings, run: str, say: Callable[[str], None], quiet: bool
) -> JSONObject:
    """Show one trace, replay it from its record alone, audit everything."""
    from longthought.orchestrator.traces import run_tree

    async with settings.store() as store:
        tree: RunTree = run_tree(await store.read(run))
    if not quiet:
        print_tree(tree)
    told = await replayed(settings, run)
    calls = told["model_calls"] + told["tool_calls"]
    effects, diverged = told["effects"], told["diverged"]
    with progress("auditing", quiet=quiet):
        audit = await audited(settings, replay=False)
    chain = audit["chain"]
    replay = {"id": run, "calls": calls, "effects": effects, "diverged": diverged}
    sign = mark("failed") if diverged else mark("passed")
    say(f"\nreplay {sign} {count(effects, 'recorded effect')}, {count(calls, 'call')} made")
    sign = mark("passed") if chain["ok"] else mark("failed")
    read = f"{count(chain['runs'], 'run')}, {count(chain['events'], 'event')}"
    say(f"audit  {sign} {read}, {count(len(chain['findings']), 'finding')}")
    return {"replay": replay, "audit": {"ok": audit["ok"], **chain}}


def _short(name: str) -> str:
    return "demo-" + name.partition(",")[0].replace(" ", "-")


def _own_folder(settings: Settings) -> Path:
    from longthought.storage import data_dir

    _, folder = settings.location()
    return data_dir(folder) / "demo"
