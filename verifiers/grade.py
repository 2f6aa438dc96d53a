"""Grading: the one place where the expected answer enters."""

from __future__ import annotations

from longthought.verifiers.protocol import AnswerKind

__all__ = ["grade"]


def grade(kind: AnswerKind, answer: str | None, gold: str) -> bool:
    """Whether an answer equals the gold answer; either may be prose or in canonical form.

    Only evaluation may call this: batches and curves. A strategy that was shown its outcome is an
    oracle and labelled as one. No answer (None) is never right.
    """
    if answer is None:
        return False
    return kind.equal(_canonical(kind, answer), _canonical(kind, gold))


def _canonical(kind: AnswerKind, text: str) -> str:
    """The canonical form, or the text itself where the kind finds nothing in it."""
    found = kind.find(text)
    return text.strip() if found is None else found
