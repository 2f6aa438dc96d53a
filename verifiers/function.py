"""A verifier made from a user's function."""

from __future__ import annotations

import builtins
import inspect
import math
from collections.abc import Callable
from typing import Any

from longthought.errors import InvalidInput
from longthought.tools.loops import in_thread
from longthought.tools.source import qualified_name, source_version
from longthought.types import Candidate, JSONObject, JudgeContext, Verdict
from longthought.verifiers.protocol import verdict

__all__ = ["FunctionVerifier", "callable"]


def callable(  # noqa: A001 (the public name)
    function: Callable[..., Any], *, threshold: float | None = None, partial: bool = False
) -> FunctionVerifier:
    """A verifier from a function, ``async`` or not, that takes one of

    - ``(question, answer)``: text and canonical answer; not called when no answer was found,
    - ``(candidate)`` or ``(candidate, context)``: the whole :class:`Candidate`; the first argument
      has that name or that annotation, or is the only one.

    and returns True or False, a score in [0, 1], a :class:`Verdict`, or None for "cannot say". A
    score passes when it reaches ``threshold``; without one ``passed`` is None. A function that is
    not ``async`` runs in a thread. Unfinished candidates are shown to it only with ``partial``.

    Raises:
        InvalidInput: it cannot be called with such arguments, or the threshold is outside [0, 1].
    """
    return FunctionVerifier(function, threshold=threshold, partial=partial)


class FunctionVerifier:
    """See :func:`callable`."""

    name = "callable"

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        threshold: float | None = None,
        partial: bool = False,
    ) -> None:
        if not builtins.callable(function):
            raise InvalidInput("verifier function", f"{function!r} cannot be called")
        if threshold is not None and not 0 <= threshold <= 1:
            raise InvalidInput("threshold", f"{threshold!r} is outside [0, 1]")
        self.function, self.threshold, self.partial = function, threshold, partial
        self._arguments = _arguments(function)

    def spec(self) -> JSONObject:
        """The function's qualified name, the hash of its source, and the parameters."""
        pairs: JSONObject = {
            "kind": self.name,
            "function": qualified_name(self.function),
            "version": source_version(self.function),
        }
        if self.threshold is not None:
            pairs["threshold"] = self.threshold
        return {**pairs, "partial": True} if self.partial else pairs

    async def judge(self, candidate: Candidate, context: JudgeContext) -> Verdict:
        """What the function says.

        Raises:
            TypeError: it returned something that is no verdict.
            Exception: whatever the function raises.
        """
        if not candidate.final and not self.partial:
            return verdict(None, "unfinished")
        if self._arguments == "answer" and candidate.answer is None:
            return verdict(False, "no answer found")
        args: tuple[object, ...] = {
            "answer": (candidate.question, candidate.answer),
            "candidate": (candidate,),
            "context": (candidate, context),
        }[self._arguments]
        value: Any
        if inspect.iscoroutinefunction(self.function):
            value = await self.function(*args)
        else:
            value = await in_thread(lambda: self.function(*args))
            value = await value if inspect.isawaitable(value) else value
        return self._verdict(value)

    def _verdict(self, value: object) -> Verdict:
        if isinstance(value, Verdict):
            return value
        if value is None or isinstance(value, bool):
            return verdict(value)
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            kind = type(value).__name__
            raise TypeError(f"{qualified_name(self.function)} returned {value!r} ({kind})")
        passed = None if self.threshold is None else value >= self.threshold
        return verdict(passed, score=float(value))


def _arguments(function: Callable[..., Any]) -> str:
    """Which arguments a function wants: ``answer``, ``candidate`` or ``context``."""
    fix = "Take (question, answer) or (candidate) or (candidate, context)"
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise InvalidInput("verifier function", f"its signature cannot be read: {error}") from error
    wanted = [
        one
        for one in parameters
        if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD) and one.default is one.empty
    ]
    named = [one for one in parameters if one.kind is one.KEYWORD_ONLY and one.default is one.empty]
    if named or not 1 <= len(wanted) <= 2:
        raise InvalidInput("verifier function", "takes other arguments than it will be given", fix)
    first = wanted[0]
    if len(wanted) == 1:
        return "candidate"
    whole = first.name == "candidate" or first.annotation in (Candidate, "Candidate")
    return "context" if whole else "answer"
