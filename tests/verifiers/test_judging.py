"""Judging never breaks a branch, and lets through what concerns the run."""

import asyncio

import pytest

from longthought.errors import (
    BackendError,
    BudgetExhausted,
    Diverged,
    Fenced,
    StorageError,
    Suspended,
    UnknownOutcome,
    UnlabelledConcurrency,
)
from longthought.types import Candidate, Usage, Verdict
from longthought.verifiers import judge, puzzle

CANDIDATE = Candidate("q", "text", "a")


class Giving:
    """A verifier that returns or raises what it was made with."""

    name = "giving"

    def __init__(self, outcome):
        self.outcome = outcome

    def spec(self):
        return {}

    async def judge(self, candidate, context):
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


async def run(outcome):
    return await judge(Giving(outcome), CANDIDATE, None)


async def test_a_verdict_comes_through():
    assert await run(Verdict(0.5, True, "good")) == Verdict(0.5, True, "good")
    assert (await run(Verdict(1, True))).score == 1.0
    assert (await judge(puzzle(), CANDIDATE, None)).passed is None


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (ValueError("odd"), "verifier failed: ValueError: odd"),
        (BackendError("down"), "verifier failed: BackendError: down"),
        (None, "verifier failed: it returned NoneType, not a Verdict"),
        (True, "verifier failed: it returned bool"),
        (Verdict(1.5), "verifier failed: its score 1.5 is outside [0, 1]"),
        (Verdict(-0.1), "outside [0, 1]"),
        (Verdict(float("nan")), "outside [0, 1]"),
        (Verdict("1"), "its score is str"),  # type: ignore[arg-type]
        (Verdict(1.0, "yes"), "its passed is str"),  # type: ignore[arg-type]
    ],
)
async def test_failures_become_verdicts_that_say_so(outcome, reason):
    verdict = await run(outcome)
    assert (verdict.score, verdict.passed) == (0.0, None)
    assert reason in verdict.reason


async def test_usage_of_a_bad_verdict_is_kept():
    verdict = await run(Verdict(7, usage=Usage(completion_tokens=5, calls=1)))
    assert verdict.usage.completion_tokens == 5


async def test_an_error_that_cannot_be_shown():
    class Spiteful(Exception):
        def __str__(self):
            raise ValueError

    assert "Spiteful" in (await run(Spiteful())).reason


@pytest.mark.parametrize(
    "error",
    [
        BudgetExhausted("tokens", "run", 1, 2),
        Diverged("k", "d"),
        Fenced("r", 1),
        StorageError("disk full"),
        UnknownOutcome("k", "t"),
        UnlabelledConcurrency("p"),
        Suspended("n", "k"),
        asyncio.CancelledError(),
        KeyboardInterrupt(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_concerns_the_run_comes_through(error):
    with pytest.raises(type(error)):
        await run(error)


async def test_long_reasons_are_cut():
    assert len((await run(ValueError("x" * 10**6))).reason) == 2000
    assert len((await run(Verdict(1, True, "x" * 10**6))).reason) == 2000
