"""Measuring: draw the bank, run what is live, compute every figure and what is certain of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np

from longthought.budgets import Amount, Budget, Scope
from longthought.errors import InvalidInput
from longthought.orchestrator.curves.bank import Answered, Banked, read_answer, read_samples
from longthought.orchestrator.curves.bootstrap import Bootstrap
from longthought.orchestrator.curves.costs import Cost
from longthought.orchestrator.curves.curve import (
    Curve,
    Difference,
    GroupShares,
    Kind,
    Line,
    Point,
    QuestionResult,
    Unanswered,
)
from longthought.orchestrator.curves.estimate import Bank, Figures, live, scaled
from longthought.orchestrator.curves.questions import Control, QuestionSet
from longthought.orchestrator.curves.runs import Ended, PlannedRuns, Tell
from longthought.orchestrator.curves.setup import Setup
from longthought.orchestrator.curves.ways import (
    Coverage,
    Live,
    Sampled,
    Way,
    bank_plan,
    parse_ways,
    sizes_of,
)
from longthought.storage import Store
from longthought.types import JSONObject

__all__ = ["default_strategies", "measure"]

_MOST_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class _Figure:
    """One point to be: where it stands, and what was measured there."""

    name: str
    label: str
    kind: Kind
    size: int
    figures: Figures
    at: Cost

    @property
    def key(self) -> str:
        return f"{self.name}@{self.size}"


def default_strategies(questions: QuestionSet, verified: bool) -> tuple[str, ...]:
    """The words of the ways to compare on a set, if nobody says which."""
    if questions.strategies:
        return questions.strategies
    return ("majority", "beta:0.95", *(("best-of",) if verified else ()), "greedy", "pass")


async def measure(
    questions: QuestionSet,
    setup: Setup,
    store: Store,
    *,
    strategies: Sequence[str | Way] = (),
    samples: int = 16,
    seed: int = 0,
    pool: Budget | None = None,
    at_once: int | None = None,
    resamples: int = 2_000,
    tell: Tell | None = None,
) -> Curve:
    """Accuracy against compute for several strategies, from one bank of samples per question.

    ``samples`` are drawn of every question, in one recorded run each, if any strategy needs them;
    live strategies are one recorded run per question too. All of them are found again: what was
    drawn is never drawn twice, whatever interrupted it, and a curve that is measured again costs
    nothing. ``pool`` limits everything together, earlier attempts included. ``at_once`` questions
    are under way together; unless given, as many as fill the model's slots.

    Raises:
        InvalidInput: a strategy, a limit or the model cannot be used, or no question can be asked.
        RunBusy: another process measures the same.
        StorageError: the store failed; what is recorded stands, go on by calling this again.
    """
    if samples < 1:
        raise InvalidInput("samples", f"{samples} is too few", "Draw 1 or more")
    verified = setup.verifier is not None
    words = strategies or default_strategies(questions, verified)
    ways = parse_ways(words, samples=samples, verified=verified, step_stop=setup.step_stop)
    scope = Scope("pool", pool) if pool is not None else None
    planned = partial(PlannedRuns, setup=setup, questions=questions.questions, store=store)
    planned = partial(planned, seed=seed, pool=scope)
    plan = bank_plan(samples, verified)
    drawing = planned(plan, read=partial(read_samples, count=samples))
    running = {
        way.name: planned(way.plan, read=read_answer) for way in ways if isinstance(way, Live)
    }
    sampling = any(not isinstance(way, Live) for way in ways)  # else a bank is of no use
    for runs in (*((drawing,) if sampling else ()), *running.values()):
        await runs.look()  # all of it is charged to the pool before anything is begun
    slots, banked = setup.model.slots, list[Ended[Banked]]()
    if sampling:
        banked = await drawing.complete(at_once or _at_once(slots, samples), tell)
    ran = {
        name: await runs.complete(at_once or _at_once(slots, 1), tell)
        for name, runs in running.items()
    }
    return _curve(questions, setup, ways, banked, ran, samples, seed, resamples)


def _at_once(slots: int, branches: int) -> int:
    """Questions under way together: enough to keep every slot busy while some come to an end."""
    return min(_MOST_AT_ONCE, max(2, -(-2 * slots // branches)))


def _curve(
    questions: QuestionSet,
    setup: Setup,
    ways: Sequence[Way],
    banked: Sequence[Ended[Banked]],
    ran: dict[str, list[Ended[Answered]]],
    samples: int,
    seed: int,
    resamples: int,
) -> Curve:
    bank = Bank([one.value for one in banked], questions.answer, seed)
    answers = {name: [one.value for one in ended] for name, ended in ran.items()}
    figures = _figures(questions, setup, ways, bank, answers, samples)
    bands = Bootstrap(
        [question.id for question in questions.questions], resamples=resamples, seed=seed
    )
    charged = [one.charged for one in banked]
    charged += [one.charged for ended in ran.values() for one in ended]
    return Curve(
        about=_about(questions, setup, samples, seed, resamples),
        lines=_lines(figures, bands),
        differences=_differences(figures, bands),
        questions=_question_results(questions, bank, answers),
        unanswered=_unanswered(bank, answers),
        failed_samples=sum(entry.failed for entry in bank.entries if not entry.problem),
        spent=_spent(charged),
        groups=_groups(questions, figures),
    )


def _figures(
    questions: QuestionSet,
    setup: Setup,
    ways: Sequence[Way],
    bank: Bank,
    answers: dict[str, list[Answered]],
    samples: int,
) -> list[_Figure]:
    knows_gold = setup.verifier is not None and bool(setup.verifier.spec().get("oracle"))
    found: list[_Figure] = []
    for way in ways:
        kind: Kind
        if isinstance(way, Live):
            measured = live(answers[way.name], questions.answer)
            kind = "oracle" if knows_gold and way.plan.verified else "live"
            found.append(_Figure(way.name, way.label, kind, way.size, measured, measured.cost))
            continue
        for size in sizes_of(way, samples):
            if isinstance(way, Sampled):
                measured = bank.sampled(way, size)
                kind = "oracle" if knows_gold and way.verified else "sampled"
            else:
                measured, kind = bank.covered(size), "oracle"
            found.append(_Figure(way.name, way.label, kind, size, measured, measured.cost))
    for control in questions.controls:
        found += _control(questions, control, bank, samples)
    return found


def _control(questions: QuestionSet, control: Control, bank: Bank, samples: int) -> list[_Figure]:
    found = []
    for size in sizes_of(Coverage(), samples):
        chances = [control.chance(question, size) for question in questions.questions]
        figures = Figures(np.array(chances, dtype=np.float64), Cost(samples=size))
        at = scaled(bank.per_sample(), size) if bank.entries else Cost(samples=size)
        found.append(_Figure(control.name, control.name, "control", size, figures, at))
    return found


def _lines(figures: Sequence[_Figure], bands: Bootstrap) -> tuple[Line, ...]:
    band = bands.bands({one.key: one.figures.right for one in figures})
    points: dict[str, list[Point]] = {}
    first: dict[str, _Figure] = {}
    for one in figures:
        first.setdefault(one.name, one)
        around = band[one.key]
        points.setdefault(one.name, []).append(
            Point(one.size, around.mean, around.low, around.high, one.figures.cost, one.at)
        )
    return tuple(
        Line(name, one.label, one.kind, tuple(points[name])) for name, one in first.items()
    )


def _differences(figures: Sequence[_Figure], bands: Bootstrap) -> tuple[Difference, ...]:
    """Every two strategies at one size; what only an oracle or luck reaches is left out."""
    fair = [one for one in figures if one.kind in ("sampled", "live")]
    pairs = [(a, b) for a, b in combinations(fair, 2) if a.size == b.size and a.name != b.name]
    band = bands.bands({f"{a.key} {b.key}": a.figures.right - b.figures.right for a, b in pairs})
    return tuple(Difference(a.name, b.name, a.size, band[f"{a.key} {b.key}"]) for a, b in pairs)


def _question_results(
    questions: QuestionSet, bank: Bank, answers: dict[str, list[Answered]]
) -> tuple[QuestionResult, ...]:
    found = []
    for place, question in enumerate(questions.questions):
        runs = {"bank": bank.entries[place].run} if bank.entries else {}
        runs |= {name: answered[place].run for name, answered in answers.items()}
        graded = bank.right[place] if bank.entries else ()
        found.append(QuestionResult(question.id, question.group, sum(graded), len(graded), runs))
    return tuple(found)


def _groups(questions: QuestionSet, figures: Sequence[_Figure]) -> tuple[GroupShares, ...]:
    members: dict[str, list[int]] = {}
    for place, question in enumerate(questions.questions):
        members.setdefault(question.group, []).append(place)
    if len(members) < 2:
        return ()
    largest = {one.name: one for one in figures}  # the last of a name is its largest size
    return tuple(
        GroupShares(
            one.name,
            one.size,
            {group: float(one.figures.right[places].mean()) for group, places in members.items()},
        )
        for one in largest.values()
    )


def _unanswered(bank: Bank, answers: dict[str, list[Answered]]) -> tuple[Unanswered, ...]:
    entries: list[tuple[str, Sequence[Banked | Answered]]] = [("bank", bank.entries)]
    entries += list(answers.items())
    return tuple(
        Unanswered(one.question.id, way, one.run, one.problem)
        for way, found in entries
        for one in found
        if one.problem
    )


def _about(
    questions: QuestionSet, setup: Setup, samples: int, seed: int, resamples: int
) -> JSONObject:
    return {
        "set": {
            "name": questions.name,
            "questions": len(questions),
            "digest": questions.digest,
            "answer": questions.answer.spec(),
            "controls": [control.name for control in questions.controls],
        },
        "model": setup.model.fingerprint(),
        "verifier": setup.verifier.spec() if setup.verifier else None,
        "system": setup.system,
        "sampling": dict(setup.sampling),
        "samples": samples,
        "seed": seed,
        "resamples": resamples,
    }


def _spent(charged: Sequence[Amount]) -> JSONObject:
    total = sum(charged, Amount())
    return {
        "tokens": total.tokens,
        "output_tokens": total.output_tokens,
        "model_calls": total.model_calls,
        "usd": float(total.usd),
    }
