"""What the weights for word problems are worth, held out, and that nothing else does the work."""

from __future__ import annotations

import asyncio
import statistics
from collections import Counter
from collections.abc import Sequence

import pytest

from longthought import Store
from longthought.orchestrator.curves import measure, setup_for, task_questions
from longthought.orchestrator.models.embedded import EmbeddedModel, Network
from longthought.orchestrator.models.embedded.drawing import Reply, draw_replies, reply_with_tool
from longthought.orchestrator.models.embedded.network import Shape
from longthought.orchestrator.models.embedded.words import Problem, apply, held_out, judge
from longthought.orchestrator.models.embedded.words import vocabulary as v
from longthought.types import Sampling

SEED = 0
SAMPLES = 16


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    return held_out(180, SEED)


@pytest.fixture(scope="module")
def drawn(problems: list[Problem]) -> list[list[Reply]]:
    """16 replies to each of 180 problems."""
    model = EmbeddedModel("words", slots=64)
    texts = [problem.text for problem in problems]
    replies = asyncio.run(draw_replies(model, texts, SAMPLES))
    asyncio.run(model.aclose())
    return replies


def right(problems: Sequence[Problem], drawn: Sequence[Sequence[Reply]]) -> list[float]:
    """The share of right replies, for each problem."""
    pairs = zip(problems, drawn, strict=True)
    return [statistics.fmean(judge(p, one.text).right for one in row) for p, row in pairs]


def voted(
    problems: Sequence[Problem],
    drawn: Sequence[Sequence[Reply]],
    size: int,
    *,
    checked: bool = False,
) -> list[bool]:
    """Whether the vote of the first ``size`` is right; ``checked``: of those with right sums."""
    outcome = []
    for problem, row in zip(problems, drawn, strict=True):
        judged = [judge(problem, one.text) for one in row[:size]]
        sound = [one for one in judged if one.sound]
        voters = (sound or judged) if checked else judged
        votes = Counter(one.answer for one in voters if one.answer is not None)
        outcome.append(bool(votes) and votes.most_common(1)[0][0] == problem.answer)
    return outcome


def area_under_curve(scores: Sequence[float], labels: Sequence[bool]) -> float:
    """The chance that one that is right scores higher than one that is not; ties count half."""
    good = [score for score, label in zip(scores, labels, strict=True) if label]
    bad = [score for score, label in zip(scores, labels, strict=True) if not label]
    wins = sum((a > b) + 0.5 * (a == b) for a in good for b in bad)
    return wins / (len(good) * len(bad))


def test_one_sample_and_votes(problems: list[Problem], drawn: list[list[Reply]]) -> None:
    single = statistics.fmean(right(problems, drawn))
    majority = statistics.fmean(voted(problems, drawn, SAMPLES))
    checked = statistics.fmean(voted(problems, drawn, SAMPLES, checked=True))
    assert 0.55 <= single <= 0.70
    assert majority >= max(0.85, single + 0.15)
    assert checked > majority


def test_accuracy_falls_with_the_number_of_steps(
    problems: list[Problem], drawn: list[list[Reply]]
) -> None:
    shares: dict[int, list[float]] = {}
    for problem, share in zip(problems, right(problems, drawn), strict=True):
        shares.setdefault(len(problem.steps), []).append(share)
    means = [statistics.fmean(shares[steps]) for steps in sorted(shares)]
    assert means == sorted(means, reverse=True)
    assert means[0] > means[-1] + 0.2


def test_agreement_of_a_first_wave_tells_whether_its_vote_is_right(
    problems: list[Problem], drawn: list[list[Reply]]
) -> None:
    agreement = [
        max(Counter(judge(p, one.text).answer for one in row[:4]).values())
        for p, row in zip(problems, drawn, strict=True)
    ]
    assert area_under_curve(agreement, voted(problems, drawn, 4)) >= 0.80


async def test_answers_at_once_have_their_place_on_easy_problems(problems: list[Problem]) -> None:
    model = EmbeddedModel("words", slots=64)
    easy = held_out(60, SEED, steps=[1])
    hard = [problem for problem in problems if len(problem.steps) > 2]
    at_once = {
        name: right(
            chosen,
            await draw_replies(
                model, [p.text for p in chosen], 1, temperature=0.0, reasoning_effort="none"
            ),
        )
        for name, chosen in (("easy", easy), ("hard", hard))
    }
    await model.aclose()
    assert statistics.fmean(at_once["easy"]) >= 0.6
    assert statistics.fmean(at_once["hard"]) <= 0.1


def calculate(expression: str) -> str:
    left, operator, right_ = expression.split()
    result = apply(int(left), operator, int(right_))
    return "no whole number up to 9,999" if result is None else str(result)


@pytest.mark.parametrize(("kind", "least"), [("usual", 0.90), ("numbers", 0.70)])
async def test_a_calculator_removes_the_slips(kind: str, least: float) -> None:
    model = EmbeddedModel("words", slots=64)
    chosen = held_out(120, SEED, "usual" if kind == "usual" else "numbers")
    replies = [
        [await reply_with_tool(model, problem.text, calculate, Sampling(seed=place))]
        for place, problem in enumerate(chosen)
    ]
    await model.aclose()
    assert statistics.fmean(right(chosen, replies)) >= least


async def test_rewinding_lines_whose_sums_are_wrong(sqlite_store: Store) -> None:
    model = EmbeddedModel("words", slots=64)
    questions = task_questions("words", 120, SEED)
    curve = await measure(
        questions,
        setup_for(questions, model),
        sqlite_store,
        strategies=["single", "backtrack:4"],
        samples=4,
    )
    await model.aclose()
    single, rewinding = curve.line("single").points[0], curve.line("backtrack:4").points[0]
    assert rewinding.accuracy >= single.accuracy + 0.15
    assert rewinding.cost.output_tokens <= 1.25 * single.cost.output_tokens


async def test_random_weights_answer_nothing() -> None:
    # the control: without what was learnt, a reply does not even come to an answer
    network = Network.random(Shape(v.SIZE, 256, 96, 4, 3, rotary=True, digits=10), seed=0)
    model = EmbeddedModel("words", network=network, slots=64)
    chosen = held_out(20, SEED)
    drawn = await draw_replies(model, [problem.text for problem in chosen], 2)
    await model.aclose()
    assert statistics.fmean(right(chosen, drawn)) <= 0.05
