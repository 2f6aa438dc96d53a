"""What the puzzle weights are worth, held out, and that nothing else does the work."""

from __future__ import annotations

import asyncio
import statistics
from collections import Counter
from collections.abc import Sequence

import pytest

from longthought import Store
from longthought.orchestrator.curves import measure, setup_for, task_questions
from longthought.orchestrator.models.embedded import (
    EmbeddedModel,
    Network,
    Puzzle,
    held_out,
    random_chance,
)
from longthought.orchestrator.models.embedded.measure import Solved, best_of, sample
from longthought.orchestrator.models.embedded.network import Shape
from longthought.orchestrator.models.embedded.puzzles import vocabulary as v
from longthought.verifiers import answers

SEED = 0
pytestmark = pytest.mark.timeout(900)  # 12,800 replies, and whatever else the machine does


@pytest.fixture(scope="module")
def puzzles() -> list[Puzzle]:
    return held_out(200, SEED)


@pytest.fixture(scope="module")
def large(puzzles: list[Puzzle]) -> list[list[Solved]]:
    """64 replies to each of 200 puzzles."""
    model = EmbeddedModel("puzzle-large", slots=64)
    drawn = asyncio.run(sample(model, puzzles, 64))
    asyncio.run(model.aclose())
    return drawn


def voted(puzzles: Sequence[Puzzle], drawn: Sequence[Sequence[str]], size: int) -> float:
    """The accuracy of the majority vote of ``size`` texts, over all such groups in a row."""
    kind = answers.puzzle()
    right = []
    for puzzle, texts in zip(puzzles, drawn, strict=True):
        found = [kind.find(text) for text in texts]
        for start in range(0, len(found) - size + 1, size):
            votes = Counter(answer for answer in found[start : start + size] if answer)
            pick = votes.most_common(1)[0][0] if votes else None
            right.append(pick is not None and kind.equal(pick, str(puzzle)))
    return statistics.fmean(right)


def test_accuracy_on_200_held_out_puzzles(puzzles: list[Puzzle], large: list[list[Solved]]) -> None:
    at_once = statistics.fmean(one.at_once for row in large for one in row)
    assert at_once >= 0.22  # one attempt, without going back
    assert best_of(large, 1) >= 0.22
    assert best_of(large, 16) >= 0.85
    assert best_of(large, 64) >= 0.95
    control = [statistics.fmean(random_chance(p, n) for p in puzzles) for n in (1, 16, 64)]
    assert control[0] < 0.03
    assert best_of(large, 16) > control[1] + 0.5
    assert best_of(large, 64) > control[2] + 0.3


def test_going_back_in_the_trace_beats_the_same_tokens_without(
    puzzles: list[Puzzle], large: list[list[Solved]]
) -> None:
    tokens = statistics.fmean(one.tokens for row in large for one in row)
    attempt = statistics.fmean(one.first_tokens for row in large for one in row)
    # as many attempts that never go back as the same tokens pay for, or one more, and their vote
    size = int(tokens / attempt) + 1
    firsts = [[one.first for one in row[:24]] for row in large]
    assert size * attempt >= tokens
    assert best_of(large, 1) >= voted(puzzles, firsts, size) + 0.10


async def test_the_small_model_with_a_verifier_beats_one_sample_of_the_large(
    puzzles: list[Puzzle], large: list[list[Solved]]
) -> None:
    model = EmbeddedModel("puzzle-small", slots=64)
    small = await sample(model, puzzles, 11)
    sizes = [
        EmbeddedModel(name).fingerprint()["parameters"] for name in ("puzzle-large", model.name)
    ]
    await model.aclose()
    # two operations for each parameter and token: what one reply of the large pays for
    tokens = [
        statistics.fmean(one.tokens for row in drawn for one in row) for drawn in (large, small)
    ]
    equal = int(sizes[0] * tokens[0] / (sizes[1] * tokens[1]))
    assert 7 <= equal <= 11
    assert best_of(small, equal) > best_of(large, 1) + 0.05
    assert best_of(small, 11) > best_of(large, 1) + 0.05


async def test_search_backtracking_beats_the_same_tokens_without(sqlite_store: Store) -> None:
    model = EmbeddedModel("puzzle-large", slots=64)
    questions = task_questions("puzzles", 60, SEED)
    curve = await measure(
        questions,
        setup_for(questions, model),
        sqlite_store,
        strategies=["majority", "backtrack"],
        samples=16,
    )
    await model.aclose()
    going_back = curve.line("backtrack").points[0]
    tokens = going_back.cost.output_tokens
    dearer = [p for p in curve.line("majority").points if p.cost.output_tokens >= tokens]
    assert dearer, "majority was not given as many tokens"
    assert going_back.accuracy >= dearer[0].accuracy + 0.10


async def test_random_weights_solve_no_more_than_random_play() -> None:
    puzzles = held_out(30, seed=1)
    network = Network.random(Shape(v.SIZE, 128, 96, 3, 3), seed=0)
    model = EmbeddedModel("puzzle-large", network=network, slots=64)
    drawn = await sample(model, puzzles, 4)
    await model.aclose()
    assert best_of(drawn, 4) <= statistics.fmean(random_chance(p, 4) for p in puzzles) + 0.05
