"""Which parked runs are to be woken, as SQL: by a timer, by a signal, or left behind by a waker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from longthought.storage.tables import runs, signals

__all__ = ["left_behind", "signalled", "timed"]

Columns = Sequence[sa.Column[Any]]


def timed(columns: Columns, now: float, workflow: str | None) -> sa.Select[Any]:
    """Parked runs with a timer that is over at ``now``, the one that is longest due first."""
    due = runs.c.wake_at <= sa.literal(now, sa.Double)
    query = sa.select(*columns).where(runs.c.status == "parked", due)
    return _of(query, workflow).order_by(runs.c.wake_at, runs.c.id)


def signalled(columns: Columns, workflow: str | None) -> sa.Select[Any]:
    """Parked runs with a signal that is not in their chain yet, the oldest signal first.

    A run whose payloads were deleted cannot be gone on with: it is left out.
    """
    oldest = sa.select(signals.c.run_id, sa.func.min(signals.c.created_at).label("since"))
    sent = oldest.group_by(signals.c.run_id).subquery()
    query = (
        sa.select(*columns)
        .join(sent, sent.c.run_id == runs.c.id)
        .where(runs.c.status == "parked", runs.c.run_key.is_not(None))
    )
    return _of(query, workflow).order_by(sent.c.since, runs.c.id)


def left_behind(
    columns: Columns, clock: sa.ColumnElement[float], workflow: str | None
) -> sa.Select[Any]:
    """Runs that were woken and have come to no end; the last column says if their lease is over.

    Every run that is being driven after a parking is among them: as many as wakers have in hand.
    """
    over = (runs.c.lease_until <= clock).label("over")
    query = sa.select(*columns, over).where(runs.c.status == "running", runs.c.wake_at.is_not(None))
    return _of(query, workflow).order_by(runs.c.wake_at, runs.c.id)


def _of(query: sa.Select[Any], workflow: str | None) -> sa.Select[Any]:
    return query if workflow is None else query.where(runs.c.workflow == workflow)
