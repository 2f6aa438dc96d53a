"""What a model is told of a call beside its request: whose it is, and how urgent.

A request is hashed and recorded, so nothing may stand in it that changes from one try to the next.
This is handed over in a context variable instead, as the turn of a call is: an adapter that wants
none of it pays nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from contextvars import ContextVar
from typing import Final

from longthought.types import Scheduling

__all__ = ["LEAST_URGENT", "scheduling_now", "tell_scheduling", "urgency"]

LEAST_URGENT: Final = 9
"""The last of the levels of :func:`urgency`."""

_AGES = (10.0, 60.0, 300.0, 1800.0)
_OLDEST = len(_AGES)

_SCHEDULING: ContextVar[Scheduling | None] = ContextVar("longthought_scheduling", default=None)
"""That of the call under way in this task."""


def tell_scheduling(scheduling: Scheduling) -> None:
    """Say what is known of the next call of this task."""
    _SCHEDULING.set(scheduling)


def scheduling_now() -> Scheduling | None:
    """What was told of the call under way in this task, None if nothing was."""
    return _SCHEDULING.get()


def urgency(scheduling: Scheduling, now: float) -> int:
    """How soon a call should be served, from 0 (first) to :data:`LEAST_URGENT`.

    Resumed branches have 1 to 5 and go before new ones with 6 to 9; of each, those begun 30, 5 and
    1 minutes and 10 seconds ago go before younger ones. A new branch that has waited for 30 minutes
    has 0, so that nothing waits for ever. ``now`` is in seconds since the epoch.

    The levels are few on purpose. Servers take equal ones in the order of arrival, which is what is
    wanted of branches of about one age; and SGLang throws running requests out for those that are
    more than 10 levels before them (``--priority-scheduling-preemption-threshold``).
    """
    older = bisect_right(_AGES, now - scheduling.since)
    if scheduling.resumed:
        return 1 + _OLDEST - older
    return LEAST_URGENT - older if older < _OLDEST else 0
