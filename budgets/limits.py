"""Budgets: the limits a user sets, checked once and kept in exact units."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from decimal import Decimal, InvalidOperation
from typing import Any

from longthought.budgets.amounts import NANODOLLARS_PER_DOLLAR, Kind, dollars
from longthought.errors import InvalidInput
from longthought.types import JSON, JSONObject

__all__ = ["FINAL_ANSWER_TOKENS", "Budget", "check_budget"]

FINAL_ANSWER_TOKENS = 512
"""Most tokens kept back for the final answer unless the user says otherwise."""

_FINAL_ANSWER_SHARE = 20  # one twentieth, 5 %
_COUNTS = ("tokens", "output_tokens", "thinking_tokens", "model_calls", "tool_calls", "branches")
_SECONDS = ("wall", "thinking")
_LIMITS = (*_COUNTS, "usd", *_SECONDS)
# No tool calls, or nothing but free models, is a sensible wish. Zero of anything else is a run that
# cannot begin, and more often a mistake for "no limit".
_MAY_BE_ZERO = ("usd", "tool_calls", "final_answer")
_MOST = 10**15
"""No limit is higher: nothing uses so much, and every figure below it is exact as a float, too."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits on one scope; what is left out has no limit.

    Attributes:
        tokens: prompt and output tokens of all model calls together.
        output_tokens: output tokens alone, hidden reasoning included.
        thinking_tokens: tokens of thought alone, a part of the output tokens; hidden ones included.
        usd: dollars. Given as int, float, text or Decimal, kept as an exact Decimal; a float counts
            as the number it prints as. Zero admits free models only.
        wall: seconds from start to end, waiting included.
        thinking: seconds in which at least one model call was in flight.
        model_calls: number of model calls, failed and repeated ones included.
        tool_calls: number of tool calls. Zero admits none.
        branches: number of branches ever started.
        final_answer: tokens kept back for a last answer when all else is used up; unset, 5 % of the
            smaller token limit and at most 512. Zero keeps nothing back.

    Raises:
        InvalidInput: a value has the wrong type, is not finite, negative, zero without sense, or
            above 10**15.
    """

    tokens: int | None = None
    output_tokens: int | None = None
    usd: Decimal | float | str | None = None
    wall: float | None = None
    thinking: float | None = None
    model_calls: int | None = None
    tool_calls: int | None = None
    branches: int | None = None
    final_answer: int | None = None
    thinking_tokens: int | None = None

    def __post_init__(self) -> None:
        for name in (*_COUNTS, "final_answer"):
            _check_count(name, getattr(self, name))
        for name in _SECONDS:
            _check_seconds(name, getattr(self, name))
        if self.usd is not None:
            object.__setattr__(self, "usd", _exact_dollars(self.usd))
        room = self._smaller_token_limit
        if self.final_answer is not None and room is not None and self.final_answer >= room:
            raise InvalidInput(
                "budget.final_answer",
                f"keeps back {self.final_answer} of {room} tokens, nothing is left to work with",
                "keep back less",
            )

    @property
    def nanodollars(self) -> int | None:
        """The dollar limit in whole nano-dollars, None without one."""
        return None if self.usd is None else int(Decimal(self.usd).scaleb(9))

    @property
    def hard(self) -> bool:
        """Whether tokens, output tokens or dollars are limited.

        Under a hard limit nothing is sent whose size or price is not bounded beforehand.
        """
        return not self.tokens is self.output_tokens is self.usd is None

    @property
    def final_answer_tokens(self) -> int:
        """Tokens kept back for the final answer; 0 without a limit on tokens."""
        room = self._smaller_token_limit
        if room is None:
            return 0
        if self.final_answer is not None:
            return self.final_answer
        return min(room // _FINAL_ANSWER_SHARE, FINAL_ANSWER_TOKENS)

    def limit(self, kind: Kind) -> int | None:
        """The limit on one counted kind, money in nano-dollars; None without one."""
        value: int | None = getattr(self, kind)
        return value

    def kept_back(self, kind: Kind) -> int:
        """How much of a limit only the final answer may use.

        Tokens as in :attr:`final_answer_tokens`. Of dollars 5 %, because what a token costs is not
        known here; none when ``final_answer`` is 0. Calls and branches are not kept back.
        """
        if kind in ("tokens", "output_tokens"):
            return self.final_answer_tokens if self.limit(kind) is not None else 0
        if kind == "nanodollars" and self.final_answer != 0:
            return (self.nanodollars or 0) // _FINAL_ANSWER_SHARE
        return 0

    def to_json(self) -> JSONObject:
        """A JSON object of the limits that are set; dollars as text, so that they stay exact."""
        pairs = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {
            name: format(value.normalize(), "f") if isinstance(value, Decimal) else value
            for name, value in pairs
            if value is not None
        }

    @classmethod
    def from_json(cls, value: Mapping[str, JSON]) -> Budget:
        """The budget written by :meth:`to_json`.

        Raises:
            InvalidInput: a name is no limit, or a value cannot be used.
        """
        known = [field.name for field in fields(cls)]
        for name in value:
            if name not in known:
                raise InvalidInput(f"budget.{name}", "no such limit", f"use {', '.join(known)}")
        return cls(**value)

    def raised(self, to: Budget) -> Budget:
        """These limits, and in place of each the one of ``to`` where that is higher.

        What has no limit here keeps none.
        """
        higher = {}
        for name in _LIMITS:
            mine, theirs = getattr(self, name), getattr(to, name)
            if mine is not None and theirs is not None and theirs > mine:
                higher[name] = theirs
        return replace(self, **higher)

    def check_raise(self, to: Budget) -> None:
        """See that ``to`` lowers none of these limits, and adds none.

        Raises:
            InvalidInput: it does; names the limit.
        """
        check_budget("budget", to)
        for name in _LIMITS:
            mine, theirs = getattr(self, name), getattr(to, name)
            if theirs is None or (mine is not None and theirs >= mine):
                continue
            if mine is None:
                raise InvalidInput(f"budget.{name}", "is not limited", "There is nothing to raise")
            problem = f"{theirs} is lower than the limit in force, {mine}"
            raise InvalidInput(f"budget.{name}", problem, "A limit is only raised")

    @property
    def _smaller_token_limit(self) -> int | None:
        set_limits = [n for n in (self.tokens, self.output_tokens) if n is not None]
        return min(set_limits, default=None)


def check_budget(field: str, value: object) -> None:
    """Refuse what is no budget; None passes."""
    if value is not None and not isinstance(value, Budget):
        raise InvalidInput(field, f"{value!r} is no budget", "Write Budget(tokens=20_000)")


def _check_count(name: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInput(f"budget.{name}", f"{value!r} is no whole number", "write an int")
    _check_sign(name, value)
    _check_size(name, value)


def _check_seconds(name: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInput(f"budget.{name}", f"{value!r} is no number", "write seconds")
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidInput(
            f"budget.{name}", f"{value!r} is not finite", "leave it out for no limit"
        )
    _check_sign(name, value)
    _check_size(name, value)


def _check_size(name: str, value: float) -> None:
    if value > _MOST:
        raise InvalidInput(
            f"budget.{name}", f"is above {_MOST:,}", "write less, or leave it out for no limit"
        )


def _check_sign(name: str, value: float | Decimal) -> None:
    if value < 0:
        raise InvalidInput(
            f"budget.{name}", f"{value} is negative", "write a positive number, or leave it out"
        )
    if value == 0 and name not in _MAY_BE_ZERO:
        raise InvalidInput(
            f"budget.{name}", "zero allows nothing at all", "leave it out for no limit"
        )


def _exact_dollars(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise InvalidInput("budget.usd", f"{value!r} is no amount of money", "write dollars: 0.05")
    try:
        # repr of a float is the shortest text that means it, which is what the user wrote.
        exact = value if isinstance(value, Decimal) else Decimal(str(value).strip())
    except InvalidOperation:
        raise InvalidInput(
            "budget.usd", f"{value!r} is no amount of money", "write dollars: 0.05"
        ) from None
    if not exact.is_finite():
        raise InvalidInput("budget.usd", f"{value} is not finite", "leave it out for no limit")
    _check_sign("usd", exact)
    if exact >= 10**12:
        raise InvalidInput("budget.usd", f"{value} is more money than there is", "write dollars")
    nanodollars = int(exact * NANODOLLARS_PER_DOLLAR)  # towards zero: never more than was allowed
    if exact and not nanodollars:
        raise InvalidInput("budget.usd", f"{value} is below a nano-dollar", "write dollars: 0.05")
    return dollars(nanodollars)
