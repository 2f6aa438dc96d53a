"""Whose rows stay in the prefix cache while a tool works: those of branches with a lease.

The lease is the controller's to give and to take; nothing is decided here. It is only known which
sequence of which engine belongs to a branch, from its lease's first moment to its last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from longthought.types import LeaseChange

from .engine import Engine

__all__ = ["LeasedRows"]


@dataclass(slots=True)
class _Rows:
    """What was computed last for a branch. ``kept``: its engine was told to keep it."""

    engine: Engine
    tokens: Sequence[int]
    kept: bool = False


class LeasedRows:
    """Tells engines what to keep, and what may go, as the leases of branches change."""

    def __init__(self) -> None:
        self._rows: dict[str, _Rows | None] = {}

    def __len__(self) -> int:
        """How many branches have a lease."""
        return len(self._rows)

    def changed(self, branch: str, change: LeaseChange) -> None:
        """See :meth:`~longthought.types.Leased.lease_changed`."""
        if change in ("taken", "resumed"):
            self._rows[branch] = None
        elif change == "acting":
            rows = self._rows.get(branch)
            if rows is not None:
                rows.kept = True
                rows.engine.keep(rows.tokens)
        else:
            rows = self._rows.pop(branch, None)
            # A step that has ended may be gone on with by others: it is as good as any other then.
            if rows is not None and (rows.kept or change != "ended"):
                rows.engine.release(rows.tokens, first=change != "ended")

    def computed(
        self, branch: str, engine: Engine, tokens: Sequence[int], *, goes_on: bool
    ) -> None:
        """A branch has generated and has these tokens now; ``goes_on``: it may come back longer."""
        if branch not in self._rows:
            return
        before = self._rows[branch]
        if before is not None and before.kept and not _begins(tokens, before.tokens):
            before.engine.release(before.tokens)  # nobody comes back to that
        self._rows[branch] = _Rows(engine, tokens) if goes_on else None


def _begins(tokens: Sequence[int], start: Sequence[int]) -> bool:
    return len(tokens) >= len(start) and all(map(int.__eq__, tokens, start))
