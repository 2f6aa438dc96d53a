"""What branches wait for, since when, and how long a context is worth keeping meanwhile."""

from __future__ import annotations

from collections.abc import Hashable

from longthought.budgets.lease_book import Lease
from longthought.budgets.tool_times import ToolTimes

__all__ = ["ToolWaits"]

_ENOUGH = 3.0
"""Less than the inverse of this share of the memory generating makes idle contexts go sooner."""


class ToolWaits:
    """The tool that each acting branch waits for.

    ``times`` is what is known of tools, shared between backends; None: no prediction.
    """

    __slots__ = ("_begun", "times")

    def __init__(self, times: ToolTimes | None) -> None:
        self.times = times
        self._begun: dict[Hashable, tuple[str, Hashable, float]] = {}

    def begin(self, branch: Hashable, tool: str, shape: Hashable, now: float) -> None:
        """A branch waits for a tool from now on.

        One that waits already goes on waiting since it began: its tool had asked a model itself,
        or others have joined it.
        """
        known = self._begun.get(branch)
        self._begun[branch] = (tool, shape, now if known is None else known[2])

    def end(self, branch: Hashable, now: float, *, completed: bool) -> None:
        """The tool of a branch has returned; one that was cut short teaches nothing."""
        tool, shape, begun = self._begun.pop(branch, ("", None, now))
        if completed and tool and self.times is not None:
            self.times.observe(tool, now - begun, shape)

    def forget(self, branch: Hashable) -> None:
        """A branch has ended while it waited, or did not wait at all."""
        self._begun.pop(branch, None)

    def keeping(self, lease: Lease, now: float, generating: float) -> float:
        """Seconds of further keeping per return to the context of a lease.

        Of a tool that nobody knows: as long as it was; more where little of the memory generates
        (the share ``generating``), for then computing anew holds few up and room for one more
        sequence is worth much.
        """
        age = max(0.0, now - lease.since)
        if self.times is not None and lease.tool:
            price = self.times.price(lease.tool, age, lease.shape)
            if price is not None:
                return price
        return age / max(1e-9, min(1.0, _ENOUGH * generating))
