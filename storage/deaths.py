"""Attempts in a row that died before they recorded anything, counted from the events of a run.

An attempt that takes over from one that came to no end, and did not give the run back, says so in
its ``attempt_started`` (``lost``). What an attempt has recorded of the outside world, of a policy
or of its own end is progress: the next one begins further on. A call that was only begun is none,
and neither is a raised limit, which somebody else has sent.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from longthought.storage.recording import Event
from longthought.storage.tables import events
from longthought.types import JSONObject

__all__ = ["MOST_DEATHS", "died_in_vain", "pause_after", "starts_in_vain", "vain_starts"]

MOST_DEATHS = 5
"""Attempts that may die in vain one after the other before nobody wakes the run again."""

_START = "attempt_started"
_PROGRESS = ("run_started", "effect_finished", "fold", "branch_ended", "run_ended")
_FIRST_PAUSE, _GROWS = 10.0, 4.0


def starts_in_vain(chain: Sequence[Event]) -> list[JSONObject]:
    """The bodies of the starts since a run last got further, in order."""
    starts: list[JSONObject] = []
    for event in reversed(chain):
        if event.type in _PROGRESS and (event.type != "fold" or event.key):
            break
        if event.type == _START:
            starts.append(event.body)
    return starts[::-1]


def vain_starts(runs: Collection[str]) -> sa.Select[Any]:
    """The same of several runs, given by their ids, as SQL: run and body as text."""
    known = events.alias("known")
    progress = (
        sa.select(known.c.run_id, sa.func.max(known.c.seq).label("seq"))
        .where(known.c.run_id.in_(runs), known.c.type.in_(_PROGRESS))
        .where(sa.or_(known.c.type != "fold", known.c.key != ""))  # of the run: a raised limit
        .group_by(known.c.run_id)
        .subquery()
    )
    return (
        sa.select(events.c.run_id, events.c.body)
        .join(progress, progress.c.run_id == events.c.run_id)
        .where(events.c.type == _START, events.c.seq > progress.c.seq)
        .order_by(events.c.run_id, events.c.seq)
    )


def died_in_vain(starts: Sequence[JSONObject]) -> int:
    """How many attempts have died in vain before the last of these starts."""
    # the first one followed on an attempt that had got further
    return sum(bool(start.get("lost")) for start in starts[1:])


def pause_after(deaths: int) -> float:
    """Seconds from the beginning of the last attempt to the next: 0, 10, 40, 160 and so on."""
    return 0.0 if deaths < 2 else _FIRST_PAUSE * _GROWS ** (deaths - 2)
