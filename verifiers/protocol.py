"""What an answer kind is, and the small base that the verifiers here share."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from longthought.types import (
    Candidate,
    JSONObject,
    JudgeContext,
    Usage,
    Verdict,
    Verifier,
)

__all__ = [
    "AnswerKind",
    "Candidate",
    "JudgeContext",
    "Verdict",
    "Verifier",
    "concludes",
    "verdict",
]


@runtime_checkable
class AnswerKind(Protocol):
    """How an answer is found in prose, brought to one form, and compared.

    The canonical form is the key by which votes are counted, so ``find`` of a canonical form gives
    that form again.
    """

    @property
    def name(self) -> str:
        """The kind in one word."""
        ...

    def spec(self) -> JSONObject:
        """What identifies this kind and its parameters in a trace."""
        ...

    def find(self, text: str) -> str | None:
        """The final answer of a text in canonical form, or None when it holds none."""
        ...

    def equal(self, a: str, b: str) -> bool:
        """Whether two canonical forms are the same answer."""
        ...


def concludes(kind: AnswerKind, text: str) -> bool:
    """Whether a line of thought ends with this text: its answer is given, not just on the way.

    A kind may say so itself, in a method ``concludes(text)``: numbers do, because every line of a
    calculation holds one. For all others the thought ends as soon as ``find`` finds an answer.
    """
    own = getattr(kind, "concludes", None)
    return bool(own(text)) if own is not None else kind.find(text) is not None


def verdict(
    passed: bool | None, reason: str = "", *, score: float | None = None, usage: Usage | None = None
) -> Verdict:
    """A verdict whose score follows from ``passed`` unless given: 1, 0, or 0.5 for "cannot say"."""
    if score is None:
        score = 0.5 if passed is None else float(passed)
    return Verdict(score, passed, reason, usage or Usage())
