"""The endpoints of a backend, as whoever runs them says that they stand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from longthought.types import LeaseChange

__all__ = ["Member", "OnLease"]

_FILL_TOLD = 0.95
"""Of the memory of an endpoint that is told whose contexts to keep. What has just been generated is
not among those yet, and must not be lost before it is told."""

OnLease: TypeAlias = Callable[[str, LeaseChange], None]
"""Told of a branch and of what has become of its lease: see :class:`~longthought.types.Leased`."""


@dataclass(frozen=True, slots=True)
class Member:
    """An endpoint as it stands now.

    Attributes:
        name: tells it from the others; empty where there is but one.
        slots: tickets that may hold a permit for it; 0 while it takes no calls.
        capacity: tokens of context memory, None if nobody has said.
        lives: how often it has lost what it held.
        back_in: seconds until it may take calls again, None if nobody knows.
        prefill_rate: that of its :class:`LeaseScheduler`, None for the fleet's.
        on_lease: what there is told of its leases, and keeps just those. The capacity is then what
            is left for contexts that do not generate. Like the rate it stays what it was at first.
    """

    name: str
    slots: int
    capacity: int | None = None
    lives: int = 0
    back_in: float | None = None
    prefill_rate: float | None = None
    on_lease: OnLease | None = None

    def lease_options(self) -> dict[str, float]:
        """What its scheduler is to be made with, in place of what the fleet says."""
        told = {"apart": True, "fill": _FILL_TOLD}
        options: dict[str, float] = {} if self.on_lease is None else told
        if self.prefill_rate is not None:
            options["prefill_rate"] = self.prefill_rate
        return options
