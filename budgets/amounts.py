"""Amounts: what a call may cost or has cost, in whole numbers of every limited kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, TypeAlias, get_args

from longthought.errors import InvalidInput
from longthought.types import JSON, JSONObject

__all__ = ["KINDS", "NANODOLLARS_PER_DOLLAR", "Amount", "Kind", "Vector", "dollars"]

Kind: TypeAlias = Literal[
    "tokens",
    "output_tokens",
    "nanodollars",
    "model_calls",
    "tool_calls",
    "branches",
    "thinking_tokens",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""The kinds a ledger counts, in the order in which every vector holds them."""

NANODOLLARS_PER_DOLLAR = 1_000_000_000

Vector: TypeAlias = tuple[int, ...]
"""One figure for each of :data:`KINDS`."""


def dollars(nanodollars: int) -> Decimal:
    """Nano-dollars as exact dollars."""
    return Decimal(nanodollars).scaleb(-9)


@dataclass(frozen=True, slots=True)
class Amount:
    """So much of every kind; money in nano-dollars, all else counted in pieces.

    ``tokens`` are prompt and output together; ``output_tokens`` are a part of them, and
    ``thinking_tokens`` a part of those.
    """

    tokens: int = 0
    output_tokens: int = 0
    nanodollars: int = 0
    model_calls: int = 0
    tool_calls: int = 0
    branches: int = 0
    thinking_tokens: int = 0

    @property
    def vector(self) -> Vector:
        """The figures in the order of :data:`KINDS`."""
        return (
            self.tokens,
            self.output_tokens,
            self.nanodollars,
            self.model_calls,
            self.tool_calls,
            self.branches,
            self.thinking_tokens,
        )

    @property
    def usd(self) -> Decimal:
        """The money in exact dollars, for people to read."""
        return dollars(self.nanodollars)

    def __add__(self, other: Amount) -> Amount:
        return Amount(*(a + b for a, b in zip(self.vector, other.vector, strict=True)))

    def __sub__(self, other: Amount) -> Amount:
        """The difference; negative figures are left to the caller, the ledger refuses them."""
        return Amount(*(a - b for a, b in zip(self.vector, other.vector, strict=True)))

    def __bool__(self) -> bool:
        return any(self.vector)

    def fits(self, other: Amount) -> bool:
        """Whether no figure is larger than the same figure of ``other``."""
        return all(a <= b for a, b in zip(self.vector, other.vector, strict=True))

    def to_json(self) -> JSONObject:
        """A JSON object with every figure that is not zero."""
        return {kind: value for kind, value in zip(KINDS, self.vector, strict=True) if value}

    @classmethod
    def from_json(cls, value: Mapping[str, JSON] | None) -> Amount:
        """The amount written by :meth:`to_json`; absent figures are zero.

        Raises:
            InvalidInput: a name is not a kind, or a figure is no whole number.
        """
        for name, figure in (value or {}).items():
            if name not in KINDS:
                raise InvalidInput(f"amount.{name}", "no such kind", f"use one of {KINDS}")
            if isinstance(figure, bool) or not isinstance(figure, int):
                raise InvalidInput(f"amount.{name}", f"{figure!r} is no whole number")
        return cls(**value) if value else cls()
