"""Checked by mypy, never run: the types of the public names of ``longthought.verifiers``."""

from typing import assert_type

from longthought import verifiers
from longthought.types import Candidate, JudgeContext, Verdict, Verifier
from longthought.verifiers import AnswerKind, answers


def shout(text: str) -> str | None:
    return text.upper()


def right(question: str, answer: str) -> bool:
    return question == answer


async def check(candidate: Candidate, context: JudgeContext) -> None:
    kinds: list[AnswerKind] = [
        answers.number(),
        answers.number(tolerance=0.1),
        answers.exact(strip=True, case=False),
        answers.choice("ABCD"),
        answers.choice(["yes", "no"]),
        answers.callable(shout),
        answers.puzzle(),
        answers.json({"type": "object"}),
    ]
    for kind in kinds:
        assert_type(kind.find("text"), str | None)
        assert_type(verifiers.grade(kind, None, "gold"), bool)
    every: list[Verifier] = [
        verifiers.number(minimum=0, maximum=1, integer=True),
        verifiers.exact(r"\d+"),
        verifiers.choice("AB"),
        verifiers.callable(right, threshold=0.5),
        verifiers.puzzle(oracle=True),
        verifiers.equations(),
    ]
    for verifier in every:
        assert_type(await verifiers.judge(verifier, candidate, context), Verdict)
    assert_type(verifiers.verdict(True, "reason"), Verdict)
    answers.number("0.1")  # type: ignore[arg-type]
