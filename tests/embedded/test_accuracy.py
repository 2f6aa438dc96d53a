"""What the weights are worth: accuracy on held-out puzzles, and that nothing else does the work."""

from __future__ import annotations

import statistics

from longthought.orchestrator.models.embedded import (
    EmbeddedModel,
    Network,
    held_out,
    random_chance,
)
from longthought.orchestrator.models.embedded import vocabulary as v
from longthought.orchestrator.models.embedded.measure import best_of, sample
from longthought.orchestrator.models.embedded.network import Shape


async def test_accuracy_on_200_held_out_puzzles() -> None:
    puzzles = held_out(200, seed=0)
    model = EmbeddedModel(slots=64)
    drawn = await sample(model, puzzles, 16)
    await model.aclose()
    at_once = statistics.fmean(one.at_once for row in drawn for one in row)
    assert at_once >= 0.20  # one attempt, without going back
    assert best_of(drawn, 1) >= 0.20
    assert best_of(drawn, 16) >= 0.80
    control = statistics.fmean(random_chance(puzzle, 16) for puzzle in puzzles)
    assert control < 0.30


async def test_random_weights_solve_no_more_than_random_play() -> None:
    puzzles = held_out(30, seed=1)
    network = Network.random(Shape(v.SIZE, 128, 96, 3, 3), seed=0)
    model = EmbeddedModel("control", network=network, slots=64)
    drawn = await sample(model, puzzles, 4)
    await model.aclose()
    assert best_of(drawn, 4) <= statistics.fmean(random_chance(p, 4) for p in puzzles) + 0.05
