"""What judges a candidate or a step, how answers are found and compared, and grading."""

from longthought.verifiers import answers
from longthought.verifiers.equations import equations
from longthought.verifiers.formats import choice, exact, number
from longthought.verifiers.function import (
    callable,  # noqa: A004 (the public name is verifiers.callable)
)
from longthought.verifiers.grade import grade
from longthought.verifiers.judging import judge
from longthought.verifiers.protocol import AnswerKind, concludes, verdict
from longthought.verifiers.puzzle import puzzle

__all__ = [
    "AnswerKind",
    "answers",
    "callable",
    "choice",
    "concludes",
    "equations",
    "exact",
    "grade",
    "judge",
    "number",
    "puzzle",
    "verdict",
]
