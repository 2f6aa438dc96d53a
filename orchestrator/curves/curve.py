"""A curve: what each way of answering reaches at what cost, and what is certain about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from longthought.orchestrator.curves.bootstrap import Band
from longthought.orchestrator.curves.costs import Cost
from longthought.types import JSONObject

__all__ = [
    "Curve",
    "Difference",
    "GroupShares",
    "Kind",
    "Line",
    "Point",
    "QuestionResult",
    "Unanswered",
]

FORMAT = 1

Kind: TypeAlias = Literal["sampled", "live", "oracle", "control"]
"""``sampled``: computed from the bank. ``live``: run. ``oracle``: was shown the gold answers, no
strategy can do that. ``control``: luck alone, without any model."""


@dataclass(frozen=True, slots=True)
class Point:
    """One way at one size. ``accuracy`` and its 95 % band are shares in [0, 1].

    ``cost`` is the mean over questions. A control costs no tokens; ``at`` is then the cost of as
    many samples of the model, which is where it is drawn.
    """

    size: int
    accuracy: float
    low: float
    high: float
    cost: Cost
    at: Cost

    def to_json(self) -> JSONObject:
        """Size, accuracy, band and mean cost."""
        return {
            "size": self.size,
            "accuracy": round(self.accuracy, 6),
            "low": round(self.low, 6),
            "high": round(self.high, 6),
            **self.cost.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Line:
    """One way with all its points, in the order of their sizes."""

    name: str
    label: str
    kind: Kind
    points: tuple[Point, ...]

    def at(self, size: int) -> Point | None:
        """The point of a size, None if there is none."""
        return next((point for point in self.points if point.size == size), None)

    def to_json(self) -> JSONObject:
        """Name, label, kind and points."""
        return {
            "name": self.name,
            "label": self.label,
            "kind": self.kind,
            "points": [point.to_json() for point in self.points],
        }


@dataclass(frozen=True, slots=True)
class Difference:
    """By how much ``a`` is more accurate than ``b`` at one size, on the same questions."""

    a: str
    b: str
    size: int
    band: Band

    def to_json(self) -> JSONObject:
        """The two, the size, the difference with its 95 % band, and whether that excludes 0."""
        return {
            "a": self.a,
            "b": self.b,
            "size": self.size,
            "difference": round(self.band.mean, 6),
            "low": round(self.band.low, 6),
            "high": round(self.band.high, 6),
            "excludes_zero": self.band.excludes_zero,
        }


@dataclass(frozen=True, slots=True)
class GroupShares:
    """One way at its largest size: the share that is right in each group of questions."""

    name: str
    size: int
    shares: dict[str, float]

    def to_json(self) -> JSONObject:
        """Name, size and a share for each group."""
        shares = {group: round(share, 6) for group, share in self.shares.items()}
        return {"name": self.name, "size": self.size, "shares": shares}


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A question that counts as wrong because its run failed or ran out."""

    question: str
    way: str
    run: str
    problem: str

    def to_json(self) -> JSONObject:
        """All fields."""
        return {
            "question": self.question,
            "way": self.way,
            "run": self.run,
            "problem": self.problem,
        }


@dataclass(frozen=True, slots=True)
class QuestionResult:
    """One question: how many of its samples were right, and its run under each plan."""

    id: str
    group: str
    right: int
    samples: int
    runs: dict[str, str]

    def to_json(self) -> JSONObject:
        """All fields; ``group`` if there is one."""
        value: JSONObject = {"id": self.id, "right": self.right, "samples": self.samples}
        if self.group:
            value["group"] = self.group
        return {**value, "runs": self.runs}


@dataclass(frozen=True, slots=True)
class Curve:
    """A measurement: the lines, what is certain about them, and all that is needed to repeat it.

    ``about`` says what was measured: set, model, sampling, samples, seed. ``spent`` is what all
    its runs have cost, in whatever attempt. ``failed_samples`` did not come back. ``groups`` is
    empty where the questions are not grouped.
    """

    about: JSONObject
    lines: tuple[Line, ...]
    differences: tuple[Difference, ...]
    questions: tuple[QuestionResult, ...]
    unanswered: tuple[Unanswered, ...] = ()
    failed_samples: int = 0
    spent: JSONObject = field(default_factory=dict)
    groups: tuple[GroupShares, ...] = ()

    def line(self, name: str) -> Line:
        """The line of a way by its name.

        Raises:
            KeyError: it was not measured.
        """
        for line in self.lines:
            if line.name == name:
                return line
        raise KeyError(name)

    def rows(self) -> Iterator[tuple[Line, Point]]:
        """Every point with its line, as a table shows them."""
        for line in self.lines:
            for point in line.points:
                yield line, point

    def differences_at(self, size: int) -> Sequence[Difference]:
        """The differences between ways of one size."""
        return [difference for difference in self.differences if difference.size == size]

    def to_json(self) -> JSONObject:
        """Everything; see docs/curves.md for the fields."""
        return {
            "format": FORMAT,
            **self.about,
            "lines": [line.to_json() for line in self.lines],
            "groups": [group.to_json() for group in self.groups],
            "differences": [difference.to_json() for difference in self.differences],
            "unanswered": [one.to_json() for one in self.unanswered],
            "failed_samples": self.failed_samples,
            "spent": self.spent,
            "questions": [question.to_json() for question in self.questions],
        }
