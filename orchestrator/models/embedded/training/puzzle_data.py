"""The training generator: traces of solved puzzles as token sequences.

Five kinds of segment, told apart by their first token: chain of thought (with dead ends that end
in BACK), the same with a tool call for each result, direct answer, and "can this be reached?".
Choices that led to a dead end, and what a tool returns, are seen but carry no loss.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from longthought.orchestrator.models.embedded.puzzles import problems as p
from longthought.orchestrator.models.embedded.puzzles import vocabulary as v
from longthought.orchestrator.models.embedded.training.packing import Segment

__all__ = ["prompt_tokens", "segments"]

_SHARES = ((v.MODE_CHAIN, 0.48), (v.MODE_TOOL, 0.28), (v.MODE_DIRECT, 0.09), (v.MODE_VALUE, 0.15))
_DEAD_ENDS = (0.66, 0.21, 0.09, 0.04)  # of 0, 1, 2 and 3 before the attempt that succeeds
_FOUR_SHARE = 0.87
_TARGET_24_SHARE = 0.62


def prompt_tokens(mode: int, numbers: tuple[int, ...], target: int) -> list[int]:
    """The prompt as the model sees it: mode, target, numbers in ascending order, colon."""
    return [mode, target, *sorted(numbers), v.COLON]


def _good_path(draw: random.Random, state: tuple[int, ...], target: int) -> list[p.Move]:
    path: list[p.Move] = []
    while len(state) > 1:
        useful = [move for move in p.moves(state) if target in p.reachable(move.rest)]
        # The root flattens the choice: moves with many continuations stay likelier, not dominant.
        weights = [p.solution_count(move.rest, target) ** 0.5 for move in useful]
        path.append(draw.choices(useful, weights)[0])
        state = path[-1].rest
    return path


def _dead_end(draw: random.Random, state: tuple[int, ...], target: int) -> list[p.Move] | None:
    for _ in range(20):
        path: list[p.Move] = []
        here = state
        while len(here) > 1:
            path.append(draw.choice(p.moves(here)))
            here = path[-1].rest
        if target not in here:
            return path
    return None


def _write_path(into: Segment, path: list[p.Move], tool: bool, choices: bool, mark: int) -> None:
    """Append one attempt; ``choices`` says whether its moves are to be learnt."""
    for move in path:
        into.tokens.extend([move.left, move.operator, move.right])
        into.trained.extend([choices] * 3)
        into.tokens.extend([v.CALL, move.result, v.RETURN] if tool else [v.EQUALS, move.result])
        into.trained.extend([True, False, False] if tool else [True, True])
        ending = [*move.rest, v.SEMICOLON] if len(move.rest) > 1 else [mark]
        into.tokens.extend(ending)
        into.trained.extend([True] * len(ending))


def _expression(path: list[p.Move]) -> list[int]:
    """The solution as one bracketed expression over the original numbers."""
    made: dict[int, list[list[int]]] = {}

    def take(value: int) -> list[int]:
        waiting = made.get(value)
        return [v.OPEN, *waiting.pop(), v.CLOSE] if waiting else [value]

    expression: list[int] = []
    for move in path:
        expression = [*take(move.left), move.operator, *take(move.right)]
        made.setdefault(move.result, []).append(expression)
    return expression


def _value_segment(draw: random.Random, state: tuple[int, ...], target: int) -> Segment:
    """Can the target still be reached after some moves? Half of the walks stay on a good path."""
    steps = len(state) - 1
    good = draw.random() < 0.5
    for _ in range(draw.choices(range(steps), (2, 3, 1)[:steps])[0]):
        options = p.moves(state)
        if good:
            options = tuple(m for m in options if target in p.reachable(m.rest)) or options
        state = draw.choice(options).rest
    prompt = prompt_tokens(v.MODE_VALUE, state, target)
    verdict = v.YES if target in p.reachable(state) else v.NO
    return Segment([*prompt, verdict], [False] * len(prompt) + [True])


def _segment(draw: random.Random) -> Segment:
    mode = draw.choices([m for m, _ in _SHARES], [share for _, share in _SHARES])[0]
    while True:
        numbers = draw.choice(p.training_multisets(4 if draw.random() < _FOUR_SHARE else 3))
        common = draw.random() < _TARGET_24_SHARE
        target = p.HELD_OUT_TARGET if common else draw.randint(1, p.LARGEST_TARGET)
        if mode == v.MODE_VALUE:
            return _value_segment(draw, numbers, target)
        if target in p.reachable(numbers):
            break
    prompt = prompt_tokens(mode, numbers, target)
    made = Segment(prompt, [False] * len(prompt))
    if mode == v.MODE_DIRECT:
        answer = [*_expression(_good_path(draw, numbers, target)), v.DONE]
        made.tokens.extend(answer)
        made.trained.extend([True] * len(answer))
        return made
    tool = mode == v.MODE_TOOL
    for _ in range(draw.choices(range(4), _DEAD_ENDS)[0]):
        path = _dead_end(draw, numbers, target)
        if path is not None:
            _write_path(made, path, tool, False, v.BACK)
    _write_path(made, _good_path(draw, numbers, target), tool, True, v.DONE)
    return made


def segments(seed: int | str, progress: float = 0.0) -> Iterator[Segment]:
    """An endless stream of training examples, the same for the same seed.

    They do not change with the ``progress`` of the training.
    """
    del progress
    draw = random.Random(seed)
    while True:
        yield _segment(draw)
