"""``demo``: held-out problems of every task answered in several ways, shown, replayed, audited."""

from __future__ import annotations

import asyncio
import json
import shlex
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longthought.errors import InvalidInput
from longthought.orchestrator.cli.audit import audited
from longthought.orchestrator.cli.curve import going_on
from longthought.orchestrator.cli.failures import reported
from longthought.orchestrator.cli.output import console, count, mark, print_json, progress
from longthought.orchestrator.cli.output import seconds as duration
from longthought.orchestrator.cli.replay import replayed
from longthought.orchestrator.cli.settings import Settings, settings_of
from longthought.orchestrator.cli.show import print_tree
from longthought.types import JSONObject

if TYPE_CHECKING:
    from longthought.orchestrator.curves import Curve, Line, Point, Progress, QuestionSet
    from longthought.orchestrator.models.embedded import EmbeddedModel
    from longthought.storage import Store

__all__ = ["demo"]

_SAMPLES = 16
_SLOTS = 64
"""Replies that the model decodes together."""
_WAYS = {
    "puzzles": (
        *("direct", "greedy", "single", "tools", "majority", "best-of", "backtrack"),
        "pass",
    ),
    "words": ("direct", "greedy", "single", "tools", "majority", "checked", "backtrack:4", "pass"),
    "letters": ("direct", "greedy", "single", "majority"),
}
_TITLES = {
    "puzzles": "Make a target",
    "words": "Word problems",
    "letters": "Letters",
}
_SHOWN_STEPS = (4, 9)
"""How long the trace that is shown should be."""

_ABOUT = {
    "puzzles": (
        "A brute-force program solves all puzzles. The verifier checks every step and knows no "
        "answer. At 16 tries luck goes far: compare with it."
    ),
    "words": (
        "A few lines of code would do. The verifier checks whether the sums that were written are "
        "right, not whether they are the ones that were asked for. The texts that the model was "
        "trained on hold slips, made on purpose (see the model card): that is what a sample errs "
        "by, and what voting, checking and a calculator are there for."
    ),
    "letters": (
        "Counting is one line of code. There is no verifier. A direct answer looks at the word as "
        "a whole; all other ways spell it first."
    ),
}
"""What a reader of a task's table has to know."""

_INTRODUCTION = """\
{problems} held-out problems of each of {tasks}; the model was trained on none of them. The model: \
small transformers, {parameters:,} parameters together, whose weights are in this package, run \
with numpy on this machine. Every call, verdict and choice is recorded in {place}. Stopped at any \
moment, the same command goes on where it was.
"""
_NOTES = {
    "band": (
        "the middle 95 % of the figures that come out when the problems are drawn anew from "
        "these, with replacement (paired bootstrap). It has no width where all problems agree, "
        "which is not certainty; with few problems it is too narrow."
    ),
    "control": "luck alone, without a model.",
    "oracle": (
        "was shown the answers and picks a right one of the samples where there is one. No "
        "strategy can choose like that. What a better verifier could still bring is the distance "
        "to it; ways that draw their own thoughts (greedy, a calculator, backtracking) may be "
        "above it."
    ),
    "output, tokens": (
        "drawn per problem, and with prompts, which each step of backtracking and each use of a "
        "tool sends again, mostly read from the model's cache."
    ),
}
_WIDEST = 100  # columns of running text


@dataclass(frozen=True, slots=True)
class _Demo:
    """What was asked for, and how it is told."""

    settings: Settings
    folder: Path
    tasks: tuple[str, ...]
    problems: int
    seed: int
    quiet: bool
    begun: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        if not self.quiet:
            typer.echo(text)

    def explain(self, text: str, first: str = "", further: str = "") -> None:
        """Say running text, wrapped to the terminal."""
        width = min(console().width, _WIDEST)
        # a path stays whole, to be copied
        wrapped = textwrap.wrap(
            text,
            width,
            initial_indent=first,
            subsequent_indent=further,
            break_long_words=False,
            break_on_hyphens=False,
        )
        self.say("\n".join(wrapped))

    def heading(self, text: str) -> None:
        if not self.quiet:
            console().print(text, style="bold", markup=False)


@reported
def demo(
    context: typer.Context,
    problems: Annotated[int, typer.Option(help="Problems of each task.", min=2)] = 40,
    task: Annotated[
        list[str] | None, typer.Option(help="puzzles, words or letters; all unless given.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Which problems, and which samples.")] = 0,
    directory: Annotated[
        Path | None,
        typer.Option(help="Where the runs are kept; in the data directory unless given."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Answer held-out problems in several ways, then show, replay and audit one of the traces.

    Needs no key and no network. Writes demo.json and the scaling curves in demo.svg. Interrupted
    or killed, it goes on where it was when it is started again.

    \b
    Examples:
      longthought demo
      longthought demo --problems 200 --seed 7
      longthought demo --task words --json
    """
    settings = settings_of(context)
    folder = (directory or _own_folder(settings)).expanduser()
    own = Settings(settings.config_file, data_dir=folder)
    asked = _Demo(own, folder, _tasks(task), problems, seed, as_json)
    with going_on():
        told = asyncio.run(_demo(asked))
    if as_json:
        print_json(told)
    raise typer.Exit(0 if told["audit"]["ok"] and told["replay"]["diverged"] is None else 1)


def _tasks(given: list[str] | None) -> tuple[str, ...]:
    unknown = [name for name in given or () if name not in _WAYS]
    if unknown:
        raise InvalidInput("task", f"there is no {unknown[0]!r}", f"Use {', '.join(_WAYS)}")
    return tuple(name for name in _WAYS if not given or name in given)


async def _demo(asked: _Demo) -> JSONObject:
    from longthought.orchestrator.curves import task_questions
    from longthought.orchestrator.models.embedded import EmbeddedModel

    # all of them first: that there are too few is said before anything is run
    sets = [task_questions(name, asked.problems, asked.seed) for name in asked.tasks]
    model = EmbeddedModel(slots=_SLOTS)
    try:
        asked.explain(
            _INTRODUCTION.format(
                problems=asked.problems,
                tasks=count(len(asked.tasks), "task"),
                parameters=model.fingerprint()["parameters"],
                place=asked.folder,
            )
        )
        asked.say("")
        async with asked.settings.store() as store:
            curves = [await _measured(asked, questions, model, store) for questions in sets]
            shown = await _worth_showing(curves, store)
    finally:
        await model.aclose()
    _print_notes(asked)
    files = _written(asked.folder, curves)
    inspected = await _inspect(asked, shown)
    seconds = time.monotonic() - asked.begun
    where = shlex.quote(str(asked.folder))
    asked.say(f"\nDone after {duration(seconds)}. Scaling curves and all figures:")
    asked.say("\n".join(f"  {file}" for file in reversed(files)))
    asked.say("Look further, for example:")
    asked.say(f"  longthought --data-dir {where} runs")
    asked.say(f"  longthought --data-dir {where} why {shown}")
    return {
        "problems": asked.problems,
        "seed": asked.seed,
        "rows": [row for curve in curves for row in _rows_json(curve)],
        "shown": shown,
        **inspected,
        "files": files,
        "seconds": round(seconds, 1),
    }


async def _measured(
    asked: _Demo, questions: QuestionSet, model: EmbeddedModel, store: Store
) -> Curve:
    """One task: all its ways, and its part of the table."""
    from longthought.orchestrator.curves import measure, setup_for

    name = questions.name
    with progress(name, quiet=asked.quiet) as tell:
        curve = await measure(
            questions,
            setup_for(questions, model),
            store,
            strategies=_WAYS[name],
            samples=_SAMPLES,
            seed=asked.seed,
            tell=lambda at: tell(_line(name, at)),
        )
    asked.heading(_TITLES[name])
    asked.explain(f"For example: {questions.questions[-1].text}", "  ", "  ")
    asked.explain(_ABOUT[name], "  ", "  ")
    asked.say(_HEADER)
    for line, point in _rows(curve):
        asked.say(_row(line, point))
    asked.say("")
    return curve


def _print_notes(asked: _Demo) -> None:
    asked.heading("How to read this")
    asked.explain(
        "These are small tasks for a small model. What is real is the inference: what thinking, "
        "sampling, voting, checking, tools and going back cost and bring."
    )
    for term, note in _NOTES.items():
        asked.explain(f"{term}: {note}", "- ", "  ")
    asked.say("")


def _line(name: str, at: Progress) -> str:
    what = "samples" if at.plan == "bank" else at.plan
    return f"{name}, {what}: {at.done} of {at.total}"


# -- the table ----------------------------------------------------------------------------------


_HEADER = f"  {'':<36}{'right':>6}{'band':>11}{'output':>8}{'tokens':>8}{'calls':>7}"


def _rows(curve: Curve) -> Iterator[tuple[Line, Point]]:
    """The rows of the table: luck first, then every way at its largest size, oracles last."""
    order = {"control": 0, "oracle": 2}
    for line in sorted(curve.lines, key=lambda line: order.get(line.kind, 1)):
        if line.kind == "control" and not _constant(line.points):
            yield line, line.points[0]
        yield line, line.points[-1]


def _constant(points: Sequence[Point]) -> bool:
    """Whether more tries change nothing, as for a guess that is always the same."""
    return len({point.accuracy for point in points}) == 1


def _row(line: Line, point: Point) -> str:
    band = f"{100 * point.low:.0f} to {100 * point.high:.0f}"
    told = f"  {_label(line, point):<36}{point.accuracy:>6.0%}{band:>11}"
    if line.kind == "control":
        return told
    cost = point.cost
    return told + f"{cost.output_tokens:>8,.0f}{cost.tokens:>8,.0f}{cost.calls:>7.1f}"


def _label(line: Line, point: Point) -> str:
    if line.kind == "control" and _constant(line.points):
        return f"control: {line.label}"
    if line.kind == "control":
        return f"control: {line.label}, {count(point.size, 'try', 'tries')}"
    label = line.label.replace(" of k", f" of {point.size}").replace("@k", f"@{point.size}")
    return f"oracle: {label.removesuffix(', oracle')}" if line.kind == "oracle" else label


def _rows_json(curve: Curve) -> list[JSONObject]:
    return [
        {
            "task": curve.about["set"]["name"],
            "name": _label(line, point),
            "strategy": line.name,
            "kind": line.kind,
            **point.to_json(),
        }
        for line, point in _rows(curve)
    ]


def _written(folder: Path, curves: list[Curve]) -> list[str]:
    """The figures and the scaling curves as files; their paths."""
    from longthought.orchestrator.curves.output import chart_of, write_whole

    figures = {curve.about["set"]["name"]: curve.to_json() for curve in curves}
    text = json.dumps(figures, ensure_ascii=False, indent=2) + "\n"
    picture = chart_of(curves, title="What more thinking brings: the embedded model").to_svg()
    return [
        str(write_whole(folder / "demo.json", text)),
        str(write_whole(folder / "demo.svg", picture)),
    ]


# -- one trace ----------------------------------------------------------------------------------


async def _worth_showing(curves: list[Curve], store: Store) -> str:
    """A run that went back at least once and is not too long to read."""
    from longthought.orchestrator.traces import run_tree

    runs = [
        question.runs[way]
        for curve in curves
        for question in curve.questions
        for way in question.runs
        if way.startswith("backtrack")
    ] or [question.runs["bank"] for question in curves[0].questions]
    least, most = _SHOWN_STEPS
    best: tuple[tuple[bool, bool, int], str] | None = None
    for run in runs:
        tree = run_tree(await store.read(run))
        steps = int(tree.support.get("steps", 0))
        back = tree.status == "completed" and tree.support.get("dead_ends", 0) > 0
        rank = (not back, not least <= steps <= most, abs(steps - (least + most) // 2))
        if best is None or (rank, run) < best:
            best = (rank, run)
        if rank[:2] == (False, False):
            break
    assert best is not None  # noqa: S101 - every curve has questions
    return best[1]


async def _inspect(asked: _Demo, run: str) -> JSONObject:
    """Show one trace, replay it from its record alone, audit everything."""
    from longthought.orchestrator.traces import run_tree

    async with asked.settings.store() as store:
        tree = run_tree(await store.read(run))
    if not asked.quiet:
        print_tree(tree)
    told = await replayed(asked.settings, run)
    calls = told["model_calls"] + told["tool_calls"]
    effects, diverged = told["effects"], told["diverged"]
    with progress("auditing", quiet=asked.quiet):
        audit = await audited(asked.settings, replay=False)
    chain = audit["chain"]
    replay = {"id": run, "calls": calls, "effects": effects, "diverged": diverged}
    sign = mark("failed") if diverged else mark("passed")
    asked.say(f"\nreplay {sign} {count(effects, 'recorded effect')}, {count(calls, 'call')} made")
    sign = mark("passed") if chain["ok"] else mark("failed")
    read = f"{count(chain['runs'], 'run')}, {count(chain['events'], 'event')}"
    asked.say(f"audit  {sign} {read}, {count(len(chain['findings']), 'finding')}")
    return {"replay": replay, "audit": {"ok": audit["ok"], **chain}}


def _own_folder(settings: Settings) -> Path:
    from longthought.storage import data_dir

    _, folder = settings.location()
    return data_dir(folder) / "demo"
