"""Mazes of wrong turns: going back to the last good state against starting all over again.

At each of the junctions one of four ways leads on; the scripted model takes it half of the time and
cannot tell. Whoever stands in a dead end notices at once, or one or two steps later. No time
passes: what is compared is how many mazes are solved, and the tokens that takes.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

from longthought import Candidate, Store, Workflow, answers, strategies, verifiers
from longthought.orchestrator.models.scripted import ScriptedModel, rng
from longthought.orchestrator.strategies import Policy
from longthought.types import ModelRequest, text_of

MAZES, JUNCTIONS, RIGHT = 24, 7, 0.5


@dataclass(frozen=True)
class Maze:
    """``way[i]`` leads on at junction i; a wrong turn there shows ``lag[i]`` steps later."""

    way: str
    lag: tuple[int, ...]
    exit: str

    def wrong_turn(self, moves: str) -> int | None:
        """Where the first wrong turn was taken."""
        pairs = enumerate(zip(moves, self.way, strict=False))
        return next((at for at, (move, right) in pairs if move != right), None)


@cache
def maze(question: str) -> Maze:
    made = random.Random(question)
    way = "".join(made.choice("abcd") for _ in range(JUNCTIONS))
    lag = tuple(made.choice((0, 0, 1, 2)) for _ in range(JUNCTIONS))
    return Maze(way, lag, str(made.randrange(100, 1000)))


def moves_in(text: str) -> str:
    return "".join(line[3] for line in text.split("\n") if line.startswith("go "))


def wander(request: ModelRequest) -> str:
    """Go on from what was said, turn by turn, to the exit or to where a wrong turn ends."""
    question = text_of(request["messages"][0])
    here = maze(question)
    said = text_of(request["messages"][-1]) if request.get("continue_last") else ""
    while True:
        moves = moves_in(said)
        if len(moves) == JUNCTIONS:
            found = here.exit if here.wrong_turn(moves) is None else "13"
            return f"{said}The exit is {found}"
        draw = rng(request, len(moves))
        right = here.way[len(moves)]
        wrong = [turn for turn in "abcd" if turn != right]
        said += f"go {right if draw.random() < RIGHT else draw.choice(wrong)}\n"


def noticed(candidate: Candidate) -> bool | None:
    """False in a dead end as soon as it shows, True at the exit, None on the way."""
    here, moves = maze(candidate.question), moves_in(candidate.text)
    wrong = here.wrong_turn(moves)
    if candidate.final:
        return wrong is None and candidate.answer == here.exit
    if wrong is not None and len(moves) - 1 - wrong >= here.lag[wrong]:
        return False
    return None


async def solved(store: Store, strategy: Policy) -> tuple[float, float]:
    """The share of mazes that a strategy solves, and its tokens per maze."""
    workflow = Workflow(
        "maze",
        model=ScriptedModel(wander, slots=16),
        answer=answers.number(),
        verifier=verifiers.callable(noticed, partial=True),
        strategy=strategy,
        store=store,
    )
    right = tokens = 0
    for number in range(MAZES):
        question = f"maze {number}"
        result = await workflow.run(question, seed=1000 * number)
        right += result.answer == maze(question).exit
        tokens += result.spent["tokens"]
    return right / MAZES, tokens / MAZES


async def test_backtracking_solves_what_one_sample_cannot(sqlite_store: Store) -> None:
    plans: dict[str, Policy] = {
        "single": strategies.single(),
        "best_of(16)": strategies.best_of(16),
        "best_of(256)": strategies.best_of(256, wave=16),
        "backtrack(width=6)": strategies.backtrack(width=6, steps=512),
        "backtrack(width=1)": strategies.backtrack(width=1, steps=512),
    }
    table = {name: await solved(sqlite_store, plan) for name, plan in plans.items()}
    for name, (accuracy, tokens) in table.items():
        print(f"{name:20} {accuracy:6.1%} {tokens:10,.0f} tokens")
    accuracy, tokens = table["backtrack(width=6)"]
    assert accuracy >= 0.9, table
    assert table["single"][0] <= 0.1, table
    assert table["backtrack(width=1)"][0] <= accuracy - 0.2, table
    # so many samples are not enough for that accuracy, and yet more tokens
    assert table["best_of(16)"][0] < accuracy, table
    assert table["best_of(256)"][0] <= accuracy, table
    assert tokens <= table["best_of(256)"][1], table


async def test_dead_ends_stay_in_the_trace_and_replay(sqlite_store: Store) -> None:
    workflow = Workflow(
        "maze",
        model=ScriptedModel(wander),
        answer=answers.number(),
        verifier=verifiers.callable(noticed, partial=True),
        strategy=strategies.backtrack(width=6, steps=512),
        store=sqlite_store,
    )
    run = await workflow.run("maze 3", seed=3000)
    recording = await sqlite_store.read(run.id)
    verdicts = [
        recording.get(event.body["result"])["passed"]
        for event in recording.events
        if event.type == "effect_finished" and event.body["kind"] == "verify"
    ]
    assert run.answer == maze("maze 3").exit
    assert verdicts.count(False) >= 1
    assert verdicts[-1] is True
    assert run.support["dead_ends"] >= verdicts.count(False)
    again = await workflow.replay(run.id)
    assert (again.answer, again.model_calls, again.effects) == (run.answer, 0, run.effects)
