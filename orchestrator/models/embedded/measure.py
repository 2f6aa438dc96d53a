"""``python -m longthought.orchestrator.models.embedded.measure``: the table of the puzzle card.

Every number is over held-out puzzles, judged exactly, with random legal play beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from longthought.orchestrator.models.allowance import Allowance
from longthought.types import Message, ModelRequest, Sampling

from .catalogue import ALL_TASKS, MODELS
from .drawing import Reply, draw_replies, reply_with_tool
from .model import EmbeddedModel
from .puzzles.problems import Puzzle, State, apply, held_out, moves, reachable
from .puzzles.random_play import random_chance
from .puzzles.traces import judge
from .puzzles.vocabulary import encode

__all__ = ["Solved", "best_of", "main", "sample", "solve_with_tool", "value_quality"]


@dataclass(frozen=True, slots=True)
class Solved:
    """One reply: was it right, was its first attempt (before any BACK), did it end with DONE.

    ``first`` is the text of the first attempt, ``first_tokens`` its length.
    """

    solved: bool
    at_once: bool
    claimed: bool
    tokens: int
    first: str
    first_tokens: int


async def sample(
    model: EmbeddedModel, puzzles: Sequence[Puzzle], count: int, **sampling: object
) -> list[list[Solved]]:
    """``count`` replies to each puzzle, seeded 0, 1, ..."""
    drawn = await draw_replies(model, [str(puzzle) for puzzle in puzzles], count, **sampling)
    return [
        [_solved(puzzle, reply) for reply in replies]
        for puzzle, replies in zip(puzzles, drawn, strict=True)
    ]


def _solved(puzzle: Puzzle, reply: Reply) -> Solved:
    first, back, _ = reply.text.partition("BACK")
    return Solved(
        judge(puzzle, reply.text).solved,
        judge(puzzle, first).solved,
        reply.text.endswith("DONE"),
        reply.tokens,
        first,
        len(encode(first)) + bool(back),
    )


def _calculate(expression: str) -> str:
    left, operator, right = encode(expression)
    value = apply(left, operator, right)
    return "not an integer from 0 to 255" if value is None else str(value)


async def solve_with_tool(model: EmbeddedModel, puzzle: Puzzle, sampling: Sampling) -> Solved:
    """One reply in tool mode; each call is answered exactly."""
    reply = await reply_with_tool(model, str(puzzle), _calculate, sampling)
    return _solved(puzzle, reply)


def best_of(samples: Sequence[Sequence[Solved]], count: int) -> float:
    """The share of puzzles that ``count`` samples solve, estimated without bias from all drawn."""
    total = 0.0
    for row in samples:
        wrong = sum(not one.solved for one in row)
        total += 1 - math.comb(wrong, count) / math.comb(len(row), count)
    return total / len(samples)


async def value_quality(model: EmbeddedModel, puzzles: Sequence[Puzzle]) -> float:
    """How well "can ... make ...?" ranks the states one move away: area under the ROC curve.

    0.5 is chance, 1 is perfect.
    """
    states = sorted({(q.target, move.rest) for q in puzzles for move in moves(q.numbers)})

    async def chance(target: int, numbers: State) -> float:
        text = f"can {' '.join(map(str, numbers))} make {target}?"
        request = ModelRequest(
            model=model.name,
            messages=[Message(role="user", content=text)],
            sampling=Sampling(temperature=0.0, logprobs=True),
        )
        reply = await model.generate(request, Allowance())
        sure = math.exp(reply.get("logprobs", [])[0]["logprob"])
        return sure if reply["message"]["content"] == "YES" else 1 - sure

    scores = await asyncio.gather(*(chance(*state) for state in states))
    good = [
        s for s, (target, rest) in zip(scores, states, strict=True) if target in reachable(rest)
    ]
    bad = sorted(
        s for s, (target, rest) in zip(scores, states, strict=True) if target not in reachable(rest)
    )
    wins = sum(bisect.bisect_left(bad, one) + bisect.bisect_right(bad, one) for one in good)
    return wins / (2 * len(good) * len(bad))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


async def _table(
    name: str, puzzles: Sequence[Puzzle], count: int, temperature: float
) -> list[tuple[str, float]]:
    model = EmbeddedModel(name, slots=64)
    greedy = await sample(model, puzzles, 1, temperature=0.0)
    direct = await sample(model, puzzles, 1, temperature=0.0, reasoning_effort="none")
    drawn = await sample(model, puzzles, count, temperature=temperature)
    tool = await asyncio.gather(
        *(
            solve_with_tool(model, puzzle, Sampling(seed=seed, temperature=temperature))
            for puzzle in puzzles
            for seed in range(2)
        )
    )
    quality = await value_quality(model, puzzles)
    await model.aclose()
    sizes = [size for size in (4, 16, 64) if size <= count]
    flat = [one for row in drawn for one in row]
    return [
        ("direct answer, greedy", best_of(direct, 1)),
        ("chain of thought, greedy", best_of(greedy, 1)),
        ("chain of thought, one sample", best_of(drawn, 1)),
        ("  its first attempt alone", _mean([one.at_once for one in flat])),
        ("  ends with DONE", _mean([one.claimed for one in flat])),
        ("  right among those", _mean([one.solved for one in flat if one.claimed])),
        ("  tokens per sample", _mean([one.tokens for one in flat])),
        ("tool mode, one sample", _mean([one.solved for one in tool])),
        ("  its first attempt alone", _mean([one.at_once for one in tool])),
        ("  ends with DONE", _mean([one.claimed for one in tool])),
        ("  right among those", _mean([one.solved for one in tool if one.claimed])),
        *((f"best of {size}, exact verifier", best_of(drawn, size)) for size in sizes),
        *(
            (f"random legal play, best of {size}", _mean([random_chance(p, size) for p in puzzles]))
            for size in (1, *sizes)
        ),
        ("can it be reached? AUC one move in", quality),
    ]


def main(arguments: list[str] | None = None) -> int:
    """Print the table. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="longthought.orchestrator.models.embedded.measure")
    able = [name for name, parts in MODELS.items() if "puzzles" in {w.task.name for w in parts}]
    parser.add_argument("--model", choices=able, default=ALL_TASKS)
    parser.add_argument("--puzzles", type=int, default=200)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0, help="which held-out puzzles are drawn")
    options = parser.parse_args(arguments)
    puzzles = held_out(options.puzzles, options.seed)
    table = asyncio.run(_table(options.model, puzzles, options.samples, options.temperature))
    for label, value in table:
        sys.stdout.write(f"{label:36} {value:8.3f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
