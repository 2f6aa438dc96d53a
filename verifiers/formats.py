"""Verifiers of form: has the candidate an answer of this kind, and within these bounds?

They judge without knowing the expected answer, and cannot say anything of an unfinished candidate.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from longthought.errors import InvalidInput
from longthought.tools.calculator import exact_text
from longthought.types import Candidate, JSONObject, JudgeContext, Verdict
from longthought.verifiers import answers
from longthought.verifiers.numerals import find_number, read_number
from longthought.verifiers.protocol import verdict

__all__ = ["ChoiceFormat", "ExactFormat", "NumberFormat", "choice", "exact", "number"]

MAX_MATCHED_CHARS = 10_000  # a user's pattern may backtrack


def number(
    *, minimum: float | None = None, maximum: float | None = None, integer: bool = False
) -> NumberFormat:
    """Passes a candidate that ends in a number within the bounds (both included).

    ``integer``: the number must be whole.

    Raises:
        InvalidInput: a bound is no number, or the bounds leave nothing between them.
    """
    return NumberFormat(minimum=minimum, maximum=maximum, integer=integer)


def choice(options: Sequence[str]) -> ChoiceFormat:
    """Passes a candidate that decides for one of these labels; see ``answers.choice``.

    Raises:
        InvalidInput: the labels cannot be used.
    """
    return ChoiceFormat(options)


def exact(pattern: str | None = None) -> ExactFormat:
    """Passes a candidate whose answer (see ``answers.exact``) the whole regular expression matches.

    Without a pattern any answer that is not empty passes. The pattern is yours: one that
    backtracks without end blocks the run.

    Raises:
        InvalidInput: the pattern is no regular expression.
    """
    return ExactFormat(pattern)


class NumberFormat:
    """See :func:`number`."""

    name = "number"

    def __init__(
        self,
        *,
        minimum: float | None = None,
        maximum: float | None = None,
        integer: bool = False,
    ) -> None:
        self.minimum, self.maximum = _bound("minimum", minimum), _bound("maximum", maximum)
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise InvalidInput("minimum", f"{minimum} is above the maximum {maximum}")
        self.integer = integer

    def spec(self) -> JSONObject:
        """Kind and bounds."""
        pairs: JSONObject = {"kind": self.name}
        if self.minimum is not None:
            pairs["minimum"] = exact_text(self.minimum)
        if self.maximum is not None:
            pairs["maximum"] = exact_text(self.maximum)
        return {**pairs, "integer": True} if self.integer else pairs

    async def judge(self, candidate: Candidate, context: JudgeContext) -> Verdict:
        """Whether the answer is a number within the bounds."""
        if not candidate.final:
            return _unfinished()
        value = read_number(candidate.answer or "") if candidate.answer else None
        value = find_number(candidate.text) if value is None else value
        if value is None:
            return verdict(False, "no number found")
        shown = exact_text(value)
        if self.integer and value.denominator != 1:
            return verdict(False, f"{shown} is not whole")
        if self.minimum is not None and value < self.minimum:
            return verdict(False, f"{shown} is below {exact_text(self.minimum)}")
        if self.maximum is not None and value > self.maximum:
            return verdict(False, f"{shown} is above {exact_text(self.maximum)}")
        return verdict(True, f"{shown} is a number within the bounds")


class ChoiceFormat:
    """See :func:`choice`."""

    name = "choice"

    def __init__(self, options: Sequence[str]) -> None:
        self._kind = answers.choice(options)

    def spec(self) -> JSONObject:
        """Kind and labels."""
        return self._kind.spec()

    async def judge(self, candidate: Candidate, context: JudgeContext) -> Verdict:
        """Whether the candidate decides for one label."""
        if not candidate.final:
            return _unfinished()
        found = self._kind.find(candidate.answer or "") or self._kind.find(candidate.text)
        return verdict(found is not None, f"decides for {found}" if found else "no single choice")


class ExactFormat:
    """See :func:`exact`."""

    name = "exact"

    def __init__(self, pattern: str | None = None) -> None:
        try:
            self._pattern = None if pattern is None else re.compile(pattern)
        except (re.error, TypeError) as error:
            raise InvalidInput("pattern", f"is no regular expression: {error}") from error
        self._kind = answers.exact()

    def spec(self) -> JSONObject:
        """Kind and pattern."""
        pairs: JSONObject = {"kind": self.name}
        return pairs if self._pattern is None else {**pairs, "pattern": self._pattern.pattern}

    async def judge(self, candidate: Candidate, context: JudgeContext) -> Verdict:
        """Whether there is an answer and the pattern matches all of it."""
        if not candidate.final:
            return _unfinished()
        found = candidate.answer or self._kind.find(candidate.text)
        if not found:
            return verdict(False, "no answer found")
        if self._pattern is not None and not self._pattern.fullmatch(found[:MAX_MATCHED_CHARS]):
            return verdict(False, f"the answer does not match {self._pattern.pattern!r}")
        return verdict(True, "the answer has the wanted form")


def _unfinished() -> Verdict:
    return verdict(None, "unfinished: its form cannot be judged yet")


def _bound(field: str, value: float | None) -> Fraction | None:
    try:
        return None if value is None else Fraction(str(value))
    except (ValueError, ZeroDivisionError) as error:
        raise InvalidInput(field, f"{value!r} is no number") from error
