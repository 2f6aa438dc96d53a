"""Word problems: the second task of the embedded model."""

from __future__ import annotations

from .problems import (
    RULES,
    Kind,
    Problem,
    Step,
    apply,
    held_out,
    is_reserved,
    kept_back,
    random_problem,
)
from .task import WordTask
from .traces import Judgement, judge

__all__ = [
    "RULES",
    "Judgement",
    "Kind",
    "Problem",
    "Step",
    "WordTask",
    "apply",
    "held_out",
    "is_reserved",
    "judge",
    "kept_back",
    "random_problem",
]
