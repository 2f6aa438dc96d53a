"""A grant without a budget behind it, for calls that no run makes."""

from __future__ import annotations

from dataclasses import dataclass

from longthought.types import UNBOUNDED_TOKENS

__all__ = ["Allowance"]


@dataclass(frozen=True, slots=True)
class Allowance:
    """A fixed number of output tokens, as many as there can be unless given."""

    tokens: int = UNBOUNDED_TOKENS

    async def top_up(self, wanted: int) -> int:
        """Nothing more is to be had."""
        del wanted
        return self.tokens
