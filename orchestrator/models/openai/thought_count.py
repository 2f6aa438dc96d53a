"""Counts a visible thought while it streams, and says when its stream is to be closed."""

from __future__ import annotations

from longthought.orchestrator.models.openai.dialect import CutFor, WireOptions
from longthought.types import ModelRequest

__all__ = ["ThoughtCount", "thought_count"]

_CLOSING = 16
"""Pieces of reasoning by which a server that ends a thought itself may pass its limit."""


class ThoughtCount:
    """The thought of one reply, counted in pieces until something else comes.

    A piece may stand for more than a token, never for less. ``most`` pieces may be thought, None
    for no limit, and ``least`` are to be, unless there is no visible thought at all.
    """

    __slots__ = ("_least", "_most", "_over", "_pieces", "cut_for")

    def __init__(self, most: int | None, least: int = 0) -> None:
        self._most, self._least = most, least
        self._pieces, self._over = 0, False
        self.cut_for: CutFor | None = None

    def thought(self) -> None:
        """Take in a piece of the thought."""
        self._pieces += 1
        if self._most is not None and self._pieces > self._most and not self._over:
            self.cut_for = "thought_cut"

    def said(self, counted: int = 0) -> None:
        """Take in a piece of anything else; ``counted`` are the tokens up to it, if known."""
        if self._over:
            return
        self._over = True
        if self._pieces > 0 and max(self._pieces, counted - 1) < self._least:
            self.cut_for = "thought_short"


def thought_count(request: ModelRequest, options: WireOptions) -> ThoughtCount | None:
    """The count for a request, None where nothing limits the thought.

    A server that is told the limit ends the thought itself; a few pieces more may end it.
    """
    sampling = request.get("sampling", {})
    most, least = sampling.get("thinking_tokens"), sampling.get("min_thinking_tokens", 0)
    if not most and not least:
        return None
    slack = _CLOSING if options.thinking_field else 0
    return ThoughtCount(most + slack if most else None, least)
