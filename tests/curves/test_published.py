"""Figures of published samples, where those are at hand: the same ones come out."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from longthought import Store, strategies
from longthought.orchestrator.curves import Draw, Question, QuestionSet, Setup, measure, simulate
from longthought.orchestrator.models import RecordedModel
from longthought.types import JSONObject
from tests.models.test_recorded import shared_data

Rows = list[dict[str, Any]]


def rows_of(name: str) -> tuple[Path, Rows]:
    path = shared_data() / f"{name}.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return path, [json.loads(line) for line in lines]


def last_line(text: str) -> str:
    """The vote key of the Game of 24 records."""
    return text.strip().splitlines()[-1].lower().replace("answer: ", "") if text.strip() else ""


@pytest.mark.parametrize(
    ("name", "right", "used"),
    [
        ("tot_game24_io_gpt4_100x100", 9, 26.89),
        ("tot_game24_cot_gpt4_100x100", 9, 78.8),
        ("qwen_math_rm_100x8", 93, 4.47),
    ],
)
def test_adaptive_stopping_in_recorded_order(name: str, right: int, used: float) -> None:
    _, rows = rows_of(name)
    solved = asked = 0
    for row in rows:
        samples = row["samples"]
        key = "text" if "game24" in name else "answer"
        draws = [Draw(last_line(one[key] or "") or None) for one in samples]
        policy = strategies.sample(len(draws), wave=1, stop=strategies.beta(0.95))
        done = simulate(policy, draws, range(len(draws)))
        solved += done.picked is not None and samples[done.picked]["correct"]
        asked += done.used
    assert solved == right
    assert asked / len(rows) == pytest.approx(used, abs=0.005)


class Published:
    """Answers as the record read them; the gold is all that it counted as right."""

    name = "published"

    def __init__(self, rows: Rows) -> None:
        self.answers = {one["text"]: one["answer"] for row in rows for one in row["samples"]}

    def spec(self) -> JSONObject:
        return {"kind": self.name}

    def find(self, text: str) -> str | None:
        return self.answers.get(text)

    def equal(self, a: str, b: str) -> bool:
        return a in json.loads(b)


async def test_a_whole_curve_of_recorded_samples(sqlite_store: Store) -> None:
    path, rows = rows_of("qwen_math_rm_100x8")
    rows = [row for row in rows if all(one["answer"] for one in row["samples"])][::3]
    kind = Published(rows)
    asked = tuple(
        Question(
            str(row["pid"]),
            row["problem"],
            json.dumps(sorted({one["answer"] for one in row["samples"] if one["correct"]})),
        )
        for row in rows
    )
    measured = await measure(
        QuestionSet("qwen", asked, kind),
        Setup(RecordedModel(path), kind, options={}),
        sqlite_store,
        samples=8,
        strategies=("single", "majority", "beta:0.95", "pass"),
        resamples=200,
    )
    right = [[one["correct"] for one in row["samples"]] for row in rows]
    mean = sum(map(sum, right)) / (8 * len(rows))
    at = {line.name: line.points for line in measured.lines}
    # of the whole set 91.0, 93.0 and 96.0; these are a third of its rows
    assert at["single"][0].accuracy == pytest.approx(mean)
    assert at["pass"][-1].accuracy == pytest.approx(sum(map(any, right)) / len(rows))
    assert mean <= at["majority"][-1].accuracy <= at["pass"][-1].accuracy
    assert at["beta:0.95"][-1].accuracy == pytest.approx(at["majority"][-1].accuracy, abs=0.03)
    assert at["beta:0.95"][-1].cost.samples < 6
    assert not measured.unanswered
