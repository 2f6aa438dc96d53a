"""Verifiers of form judge without gold, and say nothing of what is unfinished."""

import pytest

from longthought import verifiers
from longthought.errors import InvalidInput
from longthought.types import Candidate


async def judge(verifier, text="", answer=None, final=True):
    return await verifier.judge(Candidate("question", text, answer, final), None)


@pytest.mark.parametrize(
    ("options", "text", "passed", "reason"),
    [
        ({}, "The answer is 4", True, "4 is a number"),
        ({}, "no idea", False, "no number found"),
        ({"minimum": 0}, "-1", False, "-1 is below 0"),
        ({"minimum": 0}, "0", True, ""),
        ({"maximum": 0.1}, "0.1", True, ""),
        ({"maximum": 0.1}, "0.11", False, "0.11 is above 0.1"),
        ({"integer": True}, "1/2", False, "0.5 is not whole"),
        ({"integer": True}, "4/2", True, "2 is"),
    ],
)
async def test_number(options, text, passed, reason):
    verdict = await judge(verifiers.number(**options), text)
    assert (verdict.passed, verdict.score) == (passed, float(passed))
    assert reason in verdict.reason


async def test_number_prefers_the_answer_that_was_found():
    verdict = await judge(verifiers.number(maximum=5), "of 100 there are 4 left, 100", answer="4")
    assert verdict.passed


def test_number_spec_and_checks():
    spec = verifiers.number(minimum=0.1, maximum=5, integer=True).spec()
    assert spec == {"kind": "number", "minimum": "0.1", "maximum": "5", "integer": True}
    assert verifiers.number().spec() == {"kind": "number"}
    for wrong in ({"minimum": 2, "maximum": 1}, {"minimum": float("nan")}, {"maximum": "x"}):
        with pytest.raises(InvalidInput):
            verifiers.number(**wrong)


async def test_choice():
    verifier = verifiers.choice("ABC")
    assert (await judge(verifier, "Answer: B")).passed is True
    assert (await judge(verifier, "whatever", answer="C")).passed is True
    assert (await judge(verifier, "Answer: A or B")).passed is False
    assert verifier.spec() == {"kind": "choice", "options": ["A", "B", "C"]}
    with pytest.raises(InvalidInput):
        verifiers.choice("A")


async def test_exact():
    verifier = verifiers.exact(r"[A-Z]{3}-\d+")
    assert (await judge(verifier, "Answer: ABC-12")).passed is True
    assert (await judge(verifier, "", answer="ABC-12")).passed is True
    assert (await judge(verifier, "Answer: ABC-12 or so")).passed is False
    assert (await judge(verifier, "")).reason == "no answer found"
    assert (await judge(verifiers.exact(), "anything")).passed is True
    assert verifier.spec() == {"kind": "exact", "pattern": r"[A-Z]{3}-\d+"}
    assert verifiers.exact().spec() == {"kind": "exact"}
    for wrong in ("(", 3):
        with pytest.raises(InvalidInput):
            verifiers.exact(wrong)


@pytest.mark.parametrize(
    "verifier", [verifiers.number(), verifiers.choice("AB"), verifiers.exact()]
)
async def test_unfinished_candidates_are_not_judged(verifier):
    verdict = await judge(verifier, "Answer: ", final=False)
    assert (verdict.score, verdict.passed) == (0.5, None)
