"""``curve``: accuracy against compute for several strategies, from one bank of samples."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longthought.errors import InvalidInput, RunBusy
from longthought.orchestrator.cli import asking
from longthought.orchestrator.cli.failures import INTERRUPTED, reported
from longthought.orchestrator.cli.options import (
    ANSWERS,
    budget_from,
    definition_options,
    parts_of,
)
from longthought.orchestrator.cli.output import (
    console,
    count,
    one_line,
    plain_table,
    print_json,
    progress,
)
from longthought.orchestrator.cli.settings import Settings, settings_of
from longthought.types import JSONObject

if TYPE_CHECKING:
    from longthought.budgets import Budget, PriceBook
    from longthought.orchestrator.curves import Curve, Fields, Line, Progress, QuestionSet, Setup
    from longthought.orchestrator.models import BackendSettings
    from longthought.types import Model

__all__ = ["curve", "going_on", "print_curve"]

_SLOTS = 64
"""Calls of the embedded model in flight together: it decodes them in one batch."""
_DIFFERENCES = 10
"""Most differences that are printed; the others stand in the JSON."""
_NUMBER = re.compile(r"[-+\u2212$€£ ]*[\d.,/ ]*\d ?%?|.*####[-+\u2212$ ]*[\d.,]+", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What was typed about the measurement itself."""

    strategies: tuple[str, ...]
    samples: int
    seed: int
    pool: Budget | None
    at_once: int | None
    resamples: int


@reported
def curve(
    context: typer.Context,
    data: Annotated[
        Path | None, typer.Option(help="Questions: .jsonl, .json, .csv, .tsv.", metavar="FILE")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="Held-out questions of the embedded model: puzzles, words, letters."),
    ] = None,
    question: Annotated[
        str | None, typer.Option(help="Field of the question; a.b for nested.", metavar="FIELD")
    ] = None,
    gold: Annotated[
        str | None, typer.Option(help="Field of the expected answer.", metavar="FIELD")
    ] = None,
    id_: Annotated[
        str | None, typer.Option("--id", help="Field of an id.", metavar="FIELD")
    ] = None,
    questions: Annotated[
        int | None, typer.Option(help="How many; all of a file, 50 of a task.", min=1)
    ] = None,
    strategies: Annotated[
        str | None,
        typer.Option("--strategies", "-s", help="Separated by commas; see above.", metavar="LIST"),
    ] = None,
    samples: Annotated[
        int, typer.Option("--samples", "-n", help="Samples of each question.", min=1)
    ] = 16,
    x: Annotated[str, typer.Option("--x", help="output, tokens or samples.")] = "output",
    model: asking.Model = None,
    base_url: asking.BaseUrl = None,
    verifier: asking.Verifier = None,
    answer: Annotated[
        str | None, typer.Option(help=f"{ANSWERS.removesuffix(' or text')}.", metavar="KIND")
    ] = None,
    system: asking.System = None,
    temperature: asking.Temperature = None,
    max_tokens: asking.MaxTokens = None,
    seed: Annotated[int, typer.Option(help="Which questions, and which samples.")] = 0,
    tokens: Annotated[int | None, typer.Option(help="Limit on everything: tokens.")] = None,
    usd: Annotated[
        str | None, typer.Option(help="Limit on everything: dollars.", metavar="USD")
    ] = None,
    question_tokens: Annotated[
        int | None, typer.Option(help="Limit on each run of a question: tokens.")
    ] = None,
    question_usd: Annotated[
        str | None, typer.Option(help="Limit on each run of a question: dollars.", metavar="USD")
    ] = None,
    at_once: Annotated[
        int | None, typer.Option(help="Questions under way together.", min=1)
    ] = None,
    resamples: Annotated[int, typer.Option(help="Resamples of the bootstrap.", min=100)] = 2_000,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for curve.json and curve.svg; in the data directory unless given."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure accuracy against compute for several strategies.

    Draws one bank of samples per question, as recorded runs, and computes every strategy of
    independent samples from it. Start it again to go on where it was stopped; what is there is
    not drawn again.

    \b
    Strategies: single, majority, checked, weighted, best-of[:WAVE],
    beta[:SURE[:WAVE]], pass (an oracle), at every size or at one as in
    majority@8; and, run for themselves, greedy, direct, tools,
    backtrack[:ATTEMPTS].

    \b
    Examples:
      longthought curve --task puzzles
      longthought curve --task puzzles --questions 200 --strategies majority,best-of
      longthought curve --data gsm8k.jsonl --model openai/NAME --questions 100 \\
          --base-url http://localhost:11434/v1 --usd 5
      longthought curve --data exam.csv --question stem --gold key --answer choice:A,B,C,D
    """
    from longthought.orchestrator.curves import Fields
    from longthought.orchestrator.curves.output import AXES

    settings = settings_of(context)
    if x not in AXES:
        raise InvalidInput("x", f"there is no axis {x!r}", f"Use {', '.join(AXES)}")
    given = {
        "model": model,
        "base_url": base_url,
        "verifier": verifier,
        "answer": answer,
        "system": system,
        "temperature": temperature,
        "max_tokens": max_tokens,
        "strategy": "majority",
        "n": samples,
    }
    asked_of = _questions(data, task, Fields(question, gold, id_), questions, seed)
    asked_of, options = _with_parts(asked_of, given, settings)
    own = {"tokens": question_tokens, "usd": question_usd}
    limits = budget_from(own, settings.config.defaults.get("budget", {}))
    shared = {"tokens": tokens, "usd": usd}
    pool = budget_from(shared, {}) if any(v is not None for v in shared.values()) else None
    asked = _Asked(_words(strategies), samples, seed, pool, at_once, resamples)
    with going_on():
        measured = _measured(asked_of, options, settings, limits, asked, as_json)
    _show(measured, out or _folder(settings, measured), x, as_json)


@contextmanager
def going_on() -> Iterator[None]:
    """Around a measurement: whatever stops it, it is said how to go on with it."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("longthought: interrupted. The same command goes on from here", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except RunBusy as error:
        said = f"another process measures the same ({error.owner}, at {error.run_id})"
        fix = "Wait until it has ended, then give the same command"
        typer.echo(f"longthought: {said}. {fix}", err=True)
        raise typer.Exit(error.exit_code) from None


def _show(measured: Curve, folder: Path, axis: Any, as_json: bool) -> None:
    from longthought.orchestrator.curves.output import write_curve

    data, picture = write_curve(measured, folder, axis)
    if as_json:
        print_json({**measured.to_json(), "files": [str(data), str(picture)]})
    else:
        print_curve(measured)
        typer.echo(f"\n{data}\n{picture}")
    lost = {one.question for one in measured.unanswered if one.way == "bank"}
    raise typer.Exit(1 if len(lost) == len(measured.questions) else 0)


# -- what is asked, and of what -----------------------------------------------------------------


def _questions(
    data: Path | None, task: str | None, fields: Fields, wanted: int | None, seed: int
) -> QuestionSet:
    from longthought.orchestrator.curves import QuestionSet, read_questions, task_questions

    if (data is None) == (task is None):
        raise InvalidInput("data", "questions are needed", "Give --data FILE or --task NAME")
    if task is not None:
        if fields != type(fields)():
            raise InvalidInput("task", "its questions have no fields", "Leave the field away")
        return task_questions(task, wanted, seed)
    assert data is not None  # noqa: S101 - one of the two was given
    name = data.name.removesuffix(".gz").rpartition(".")[0] or data.name
    from longthought.verifiers import answers

    return QuestionSet(name, read_questions(data, fields), answers.exact()).some(wanted, seed)


def _with_parts(
    questions: QuestionSet, given: dict[str, Any], settings: Settings
) -> tuple[QuestionSet, JSONObject]:
    """The set with the answer kind and verifier that were asked for, and all options in words."""
    answer = given["answer"] or questions.options.get("answer") or _guessed_kind(questions)
    verifier = given["verifier"] or questions.options.get("verifier") or "none"
    if answer == "text":
        raise InvalidInput("answer", "text cannot be compared", "Use exact, or another kind")
    words = {**given, "answer": answer, "verifier": verifier}
    options = definition_options(questions.questions[0].text, words, settings)
    kind, judge, _ = parts_of(options)
    assert kind is not None  # noqa: S101 - only "text" has none
    questions = replace(questions, answer=kind, verifier=judge)
    questions.check_gold()
    return questions, options


def _guessed_kind(questions: QuestionSet) -> str:
    """``number`` where every expected answer is one or ends with ``#### 42``, else ``exact``."""
    plain = all(_NUMBER.fullmatch(question.gold) for question in questions.questions)
    return "number" if plain else "exact"


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


def _measured(
    questions: QuestionSet,
    options: JSONObject,
    settings: Settings,
    limits: Budget,
    asked: _Asked,
    quiet: bool,
) -> Curve:
    from longthought.orchestrator.curves import Setup, measure

    async def work(tell: Callable[[Progress], None]) -> Curve:
        model = _model(options, settings)
        _, _, sampling = parts_of(options)
        setup: Setup = Setup(
            model=model,
            answer=questions.answer,
            verifier=questions.verifier,
            system=options.get("system"),
            sampling=sampling,
            budget=limits,
            prices=_prices(options, settings),
            options=options,
        )
        try:
            async with settings.store() as store:
                return await measure(
                    questions,
                    setup,
                    store,
                    strategies=asked.strategies,
                    samples=asked.samples,
                    seed=asked.seed,
                    pool=asked.pool,
                    at_once=asked.at_once,
                    resamples=asked.resamples,
                    tell=tell,
                )
        finally:
            await model.aclose()

    with progress(f"measuring {questions.name}", quiet=quiet) as tell:
        return asyncio.run(work(lambda at: tell(_line(at))))


def _model(options: JSONObject, settings: Settings) -> Model:
    from longthought.orchestrator.models import resolve_model

    model = options["model"]
    backends = _backends(options, settings)
    if model.partition("/")[0] == "embedded" and backends[model].slots is None:
        backends[model] = replace(backends[model], slots=_SLOTS)
    return resolve_model(model, backends=backends)


def _prices(options: JSONObject, settings: Settings) -> PriceBook:
    from longthought.orchestrator.models.registry import priced

    own = _backends(options, settings)
    return priced(settings.prices(), [options["model"]], backends=own)


def _backends(options: JSONObject, settings: Settings) -> dict[str, BackendSettings]:
    return settings.backends(options["model"], options.get("base_url"), options.get("server"))


def _line(at: Progress) -> str:
    what = "samples" if at.plan == "bank" else at.plan
    there = f", {at.read} of them there already" if at.read else ""
    return f"{what}: {at.done:,} of {count(at.total, 'question')}{there}"


def _folder(settings: Settings, measured: Curve) -> Path:
    from longthought.storage import data_dir

    _, folder = settings.location()
    about = measured.about
    name = f"{about['set']['name']}-{about['model'].get('name', 'model')}"
    return data_dir(folder) / "curves" / (re.sub(r"[^\w.-]+", "-", name).strip("-.") or "curve")


# -- printing -----------------------------------------------------------------------------------


def print_curve(measured: Curve) -> None:
    """The table of all points, what is certain about pairs, and what went wrong."""
    about = measured.about
    head = f"{about['model'].get('name', '')} on {about['set']['name']}"
    asked = count(about["set"]["questions"], "question")
    typer.echo(f"{head}: {asked}, {count(about['samples'], 'sample')} of each\n")
    console().print(_table(measured))
    _print_groups(measured)
    _print_differences(measured)
    typer.echo("\nBands: 95 % of resamples of the questions, the same for all (paired bootstrap).")
    if any(line.kind == "oracle" for line in measured.lines):
        typer.echo("oracle: was shown the expected answers: the best choice among the samples.")
    spent = measured.spent
    money = f", {spent['usd']:.4f} dollars" if spent["usd"] else ""
    calls = count(spent["model_calls"], "model call")
    typer.echo(f"Spent in all: {count(spent['tokens'], 'token')}, {calls}{money}.")
    if measured.failed_samples:
        typer.echo(f"{count(measured.failed_samples, 'sample')} did not come back.")
    lost = Counter((one.way, one.problem) for one in measured.unanswered)
    for (way, problem), number in lost.most_common(5):
        shown = one_line(problem, 100)
        typer.echo(f"{count(number, 'question')} unanswered, counted as wrong ({way}): {shown}")


def _table(measured: Curve) -> Any:
    figures = ("k", "right", "band", "samples", "output", "tokens", "calls")
    table = plain_table("strategy", *figures, right=figures)
    for line, point in measured.rows():
        cost = point.cost
        band = f"{100 * point.low:.1f} to {100 * point.high:.1f}"
        row = [_named(line), str(point.size), f"{point.accuracy:.1%}", band, f"{cost.samples:.1f}"]
        tokens = [f"{cost.output_tokens:,.0f}", f"{cost.tokens:,.0f}", f"{cost.calls:.1f}"]
        table.add_row(*row, *(["-"] * 3 if line.kind == "control" else tokens))
    return table


def _named(line: Line) -> str:
    """A line's name, and whether it is an oracle or luck: said wherever a figure is printed."""
    return line.name if line.kind in ("sampled", "live") else f"{line.name} ({line.kind})"


def _print_groups(measured: Curve) -> None:
    if not measured.groups:
        return
    sizes = Counter(question.group for question in measured.questions)
    names = tuple(f"{group or 'no group'} ({sizes[group]})" for group in measured.groups[0].shares)
    typer.echo("\nRight in each group, with how many questions it has, at the largest size:")
    table = plain_table("strategy", "k", *names, right=("k", *names))
    for one in measured.groups:
        name = _named(measured.line(one.name))
        table.add_row(name, str(one.size), *(f"{share:.1%}" for share in one.shares.values()))
    console().print(table)


def _print_differences(measured: Curve) -> None:
    size = max((one.size for one in measured.differences), default=0)
    differences = measured.differences_at(size)[:_DIFFERENCES]
    if not differences:
        return
    typer.echo(f"\nDifferences at k = {size}, in points:")
    table = plain_table("pair", "difference", "band", "", right=("difference", "band"))
    table.show_header = False
    for one in differences:
        band = f"{100 * one.band.low:+.1f} to {100 * one.band.high:+.1f}"
        sure = "" if one.band.excludes_zero else "not distinguishable"
        table.add_row(f"{one.a} - {one.b}", f"{100 * one.band.mean:+.1f}", band, sure)
    console().print(table)
