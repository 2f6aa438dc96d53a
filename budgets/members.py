"""The endpoints of a backend, as whoever runs them says that they stand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from longthought.budgets.lease_book import check_growth
from longthought.types import LeaseChange

__all__ = ["Member", "OnLease"]

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
        growth, prefill_rate: those of its :class:`LeaseScheduler`, None for the fleet's. They stay
            what they were at first.
        on_lease: what there is told of its leases, and not by the fleet. It keeps just those:
            nothing else is in the way of a context there, and all of its memory may be charged.
    """

    name: str
    slots: int
    capacity: int | None = None
    lives: int = 0
    back_in: float | None = None
    growth: int | None = None
    prefill_rate: float | None = None
    on_lease: OnLease | None = None

    def lease_options(self) -> dict[str, float]:
        """What its scheduler is to be made with, in place of what the fleet says.

        Raises:
            InvalidInput: ``growth`` is not a whole number from 1, or more than ``capacity``.
        """
        options: dict[str, float] = {} if self.on_lease is None else {"fill": 1.0}
        if self.growth is not None:
            options["growth"] = check_growth(self.growth, self.capacity)
        if self.prefill_rate is not None:
            options["prefill_rate"] = self.prefill_rate
        return options
