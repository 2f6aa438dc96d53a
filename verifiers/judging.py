"""Judging: a verifier's word made safe, so that no verifier can break a branch."""

from __future__ import annotations

import math
from dataclasses import replace

from longthought.errors import (
    BudgetExhausted,
    Diverged,
    StorageError,
    UnknownOutcome,
    UnlabelledConcurrency,
)
from longthought.types import Candidate, JudgeContext, Verdict, Verifier

__all__ = ["judge"]

# What a verifier meets through its context and must not be blamed for: the run has to see these.
# Fenced is a StorageError; cancellation and ControlFlow are no Exceptions and pass by themselves.
_OF_THE_RUN = (BudgetExhausted, Diverged, StorageError, UnknownOutcome, UnlabelledConcurrency)
MAX_REASON_CHARS = 2_000


async def judge(verifier: Verifier, candidate: Candidate, context: JudgeContext) -> Verdict:
    """The verifier's verdict, or one with ``passed=None`` and score 0 that says how it failed.

    Raises:
        BudgetExhausted, Diverged, StorageError, UnknownOutcome, UnlabelledConcurrency: from the
            context; they concern the run, not the verdict.
        asyncio.CancelledError: the calling task was cancelled.
        ControlFlow: what steers the run.
    """
    try:
        verdict = await verifier.judge(candidate, context)
    except _OF_THE_RUN:
        raise
    except Exception as error:
        return _failed(f"{type(error).__name__}: {_message(error)}")
    if not isinstance(verdict, Verdict):
        return _failed(f"it returned {type(verdict).__name__}, not a Verdict")
    problem = _problem(verdict)
    if problem:
        return replace(_failed(problem), usage=verdict.usage)
    return replace(
        verdict, score=float(verdict.score), reason=str(verdict.reason)[:MAX_REASON_CHARS]
    )


def _problem(verdict: Verdict) -> str:
    """What is wrong with the fields of a verdict; verifiers are written by users."""
    score: object = verdict.score
    if not isinstance(score, (int, float)):
        return f"its score is {type(score).__name__}, not a number"
    if not (math.isfinite(score) and 0 <= score <= 1):
        return f"its score {score!r} is outside [0, 1]"
    if verdict.passed is not None and not isinstance(verdict.passed, bool):
        return f"its passed is {type(verdict.passed).__name__}, not True, False or None"
    return ""


def _message(error: Exception) -> str:
    try:
        return str(error)
    except Exception:
        return "(its message cannot be shown)"


def _failed(problem: str) -> Verdict:
    return Verdict(0.0, None, f"verifier failed: {problem}"[:MAX_REASON_CHARS])
