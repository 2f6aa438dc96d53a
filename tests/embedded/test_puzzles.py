"""The rules of the puzzles, the held-out split, the referee and the control."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longthought.errors import InvalidInput
from longthought.orchestrator.models.embedded import (
    Puzzle,
    held_out,
    judge,
    random_chance,
    random_play,
)
from longthought.orchestrator.models.embedded.puzzles import problems as p
from longthought.orchestrator.models.embedded.puzzles import vocabulary as v
from longthought.orchestrator.models.embedded.training.packing import Segment, pack
from longthought.orchestrator.models.embedded.training.puzzle_data import segments


def test_moves_are_exact_and_stay_in_range() -> None:
    for move in p.moves((0, 3, 8, 13)):
        assert p.apply(move.left, move.operator, move.right) == move.result
        assert 0 <= move.result <= v.NUMBER_MAX
        assert len(move.rest) == 3
    assert p.apply(7, v.DIVIDE, 0) is None
    assert p.apply(7, v.DIVIDE, 2) is None
    assert p.apply(3, v.MINUS, 8) is None
    assert 24 in p.reachable((4, 7, 8, 8))
    assert p.solution_count((2, 3), 6) == 1


def test_held_out_puzzles_depend_on_the_seed_and_are_solvable() -> None:
    assert len(p.held_out_pool()) >= 350
    chosen = held_out(200, seed=7)
    assert chosen == held_out(200, seed=7) != held_out(200, seed=8)
    assert len(set(chosen)) == 200
    assert all(24 in p.reachable(puzzle.numbers) for puzzle in chosen)
    with pytest.raises(InvalidInput):
        held_out(10_000)


def test_no_held_out_puzzle_can_come_out_of_the_training_generator() -> None:
    # By construction: these multisets are all that a training prompt may start from.
    reserved = {puzzle.numbers for puzzle in p.held_out_pool()}
    assert reserved.isdisjoint(p.training_multisets(4))
    assert len(p.training_multisets(4)) + sum(map(p.is_reserved, p.multisets(4))) == 1820
    # And by looking: the first numbers of every prompt, under any target and in every mode.
    for segment in itertools.islice(segments("a test's own seed"), 20_000):
        numbers = tuple(segment.tokens[2 : segment.tokens.index(v.COLON)])
        assert not p.is_reserved(numbers)


def _parts(segment: Segment) -> tuple[int, Puzzle, list[int]]:
    colon = segment.tokens.index(v.COLON)
    mode, target, *numbers = segment.tokens[:colon]
    return mode, Puzzle(tuple(numbers), target), segment.tokens[colon + 1 :]


def test_every_training_trace_is_right() -> None:
    seen = set()
    for segment in itertools.islice(segments(5), 3000):
        mode, puzzle, written = _parts(segment)
        seen.add(mode)
        assert len(segment.tokens) == len(segment.trained) <= 128
        if mode == v.MODE_VALUE:
            assert written == [v.YES if puzzle.target in p.reachable(puzzle.numbers) else v.NO]
        else:
            assert judge(puzzle, v.decode(written)).solved, v.decode(segment.tokens)
    assert seen == {v.MODE_CHAIN, v.MODE_TOOL, v.MODE_DIRECT, v.MODE_VALUE}


def test_packed_rows_repeat_and_hold_whole_segments() -> None:
    first, second = (pack(segments("seed"), 20, 128, v.PADDING) for _ in range(2))
    assert (first.tokens == second.tokens).all()
    assert (first.segment > 0).mean() > 0.85
    assert not first.trained[first.segment == 0].any()
    starts = first.tokens[(first.position == 0) & (first.segment > 0)]
    assert set(starts.tolist()) <= {v.MODE_CHAIN, v.MODE_TOOL, v.MODE_DIRECT, v.MODE_VALUE}


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("8 / 8 = 1 [1 4 7 left]; 7 - 1 = 6 [4 6 left]; 6 * 4 = 24. DONE", "solved"),
        ("8 / 8 CALL 1 RET [1 4 7 left]; 7 - 1 CALL 6 RET [4 6 left]; 6 * 4 CALL 24 RET", "solved"),
        ("8 + 8 = 16 [4 7 16 left]; 16 + 7 = 23 [4 23 left]; 23 + 4 = 27. DONE", "missed"),
        ("8 + 8 = 17 [4 7 17 left]; 17 + 7 = 24 [4 24 left]; 24 - 4 = 20. DONE", "arithmetic"),
        ("8 * 3 = 24 [4 7 24 left]; 24 - 7 = 17 [4 17 left]; 17 + 4 = 21. DONE", "numbers"),
        ("8 / 8 = 1 [1 4 4 left]; 4 - 1 = 3 [3 4 left]; 4 * 3 = 12. DONE", "numbers"),
        ("(7 - (8 / 8)) * 4. DONE", "solved"),
        ("7 - 1 = 6. DONE", "numbers"),
        ("8 / 8 = 1", "form"),
        ("24. DONE", "form"),
        ("the answer is 24", "form"),
        ("(7 - (8 / 8)) * (4", "form"),
        ("8 + 8 = 16 [4 7 16 left]; 16 * 7 = 112. BACK\n(7 - (8 / 8)) * 4. DONE", "solved"),
    ],
)
def test_the_referee(text: str, outcome: str) -> None:
    assert judge(Puzzle((4, 7, 8, 8), 24), text).outcome == outcome


def test_a_judgement_shows_the_expression() -> None:
    text = "8 / 8 = 1 [1 4 7 left]; 7 - 1 = 6 [4 6 left]; 6 * 4 = 24. DONE"
    assert judge(Puzzle((4, 7, 8, 8), 24), text).expression == "(7 - (8 / 8)) * 4"
    assert judge(Puzzle((1, 2, 3, 4), 10), "(1 + 2) + (3 + 4). DONE").expression == (
        "(1 + 2) + (3 + 4)"
    )


@given(st.lists(st.integers(0, v.SIZE - 1), max_size=30))
def test_the_referee_never_stumbles(tokens: list[int]) -> None:
    judge(Puzzle((4, 7, 8, 8), 24), v.decode(tokens))


def test_random_play_is_legal_and_its_chance_is_exact() -> None:
    puzzle = Puzzle((1, 2, 3, 4), 24)
    draw = random.Random(0)
    outcomes = [judge(puzzle, random_play(puzzle, draw)).outcome for _ in range(4000)]
    assert set(outcomes) == {"solved", "missed"}
    chance = random_chance(puzzle)
    assert outcomes.count("solved") / 4000 == pytest.approx(chance, abs=0.02)
    assert random_chance(puzzle, 3) == pytest.approx(1 - (1 - chance) ** 3)
