"""Checked by mypy, never run: the types of the face of the curves."""

from pathlib import Path
from typing import assert_type

from longthought import Store, strategies
from longthought.orchestrator.curves import (
    Control,
    Cost,
    Curve,
    Difference,
    Draw,
    Fields,
    Line,
    Live,
    Plan,
    Point,
    Progress,
    Question,
    QuestionSet,
    Sampled,
    Simulated,
    measure,
    read_questions,
    setup_for,
    simulate,
    task_questions,
)
from longthought.orchestrator.curves.output import chart_of, write_curve
from longthought.types import JSONObject, Model
from longthought.verifiers import answers


def told(progress: Progress) -> None:
    assert_type(progress.done, int)


async def main(model: Model, store: Store) -> None:
    own = read_questions("questions.csv", Fields(question="stem", gold="key.0"))
    assert_type(own, tuple[Question, ...])
    luck = Control("a coin", lambda question, tries: 1 - 0.5**tries)
    questions = QuestionSet("own", own, answers.number(), controls=(luck,)).some(10, seed=1)
    assert_type(task_questions("puzzles", 10), QuestionSet)
    curve = await measure(
        questions,
        setup_for(questions, model, system="Be brief."),
        store,
        strategies=(
            "majority",
            Sampled("slow", "slow", lambda n: strategies.sample(n, wave=1)),
            Live("two", "two", Plan("two", strategies.sample(2)), size=2),
        ),
        tell=told,
    )
    assert_type(curve, Curve)
    assert_type(curve.line("majority"), Line)
    assert_type(curve.line("majority").at(8), Point | None)
    for line, point in curve.rows():
        assert_type(line.name, str)
        assert_type(point.cost, Cost)
    for difference in curve.differences_at(8):
        assert_type(difference, Difference)
    assert_type(curve.to_json(), JSONObject)
    assert_type(write_curve(curve, "here"), tuple[Path, Path])
    assert_type(chart_of([curve], "tokens").to_svg(), str)
    assert_type(simulate(strategies.sample(2), [Draw("1"), Draw()], (1, 0)), Simulated)
