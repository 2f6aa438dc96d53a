"""Which parked runs are to be woken: by a timer, by a signal, or left behind by a waker."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from longthought.storage.deaths import MOST_DEATHS, died_in_vain, pause_after, vain_starts
from longthought.storage.owner import is_gone
from longthought.storage.rows import LISTED, RunRow
from longthought.storage.tables import runs, signals
from longthought.types import JSONObject

__all__ = ["DueRow", "find_due", "find_next_timer"]


@dataclass(frozen=True, slots=True)
class DueRow(RunRow):
    """A run that is to be woken; ``deaths`` is how many attempts at it in a row died in vain."""

    deaths: int = 0


def find_due(
    connection: sa.Connection,
    clock: sa.ColumnElement[float],
    now: float,
    workflow: str | None,
    limit: int,
) -> list[DueRow]:
    """See :meth:`Store.due`; ``clock`` is the one that leases are measured by."""
    found = {row.id: row for row in _without_a_driver(connection, clock, now, workflow)}
    for query in (_signalled(workflow), _timed(now, workflow)):
        if len(found) < limit:
            # those with a signal and a time are in both
            rows = [DueRow(*row) for row in connection.execute(query.limit(limit))]
            found.update((row.id, row) for row in rows if row.id not in found)
    return list(found.values())[:limit]


def find_next_timer(connection: sa.Connection, after: float, workflow: str | None) -> float | None:
    """See :meth:`Store.next_timer`."""
    later = runs.c.wake_at > sa.literal(after, sa.Double)
    query = sa.select(sa.func.min(runs.c.wake_at)).where(runs.c.status == "parked", later)
    found: float | None = connection.execute(_of(query, workflow)).scalar()
    return found


def _without_a_driver(
    connection: sa.Connection,
    clock: sa.ColumnElement[float],
    now: float,
    workflow: str | None,
) -> list[DueRow]:
    """Runs that wakers have died on or given back, and whose turn has come again."""
    rows = connection.execute(_left_behind(clock, workflow)).all()
    driven = [(DueRow(*row[:-1]), row[-1]) for row in rows]
    left = [row for row, over in driven if over or is_gone(row.owner)]
    starts = _starts(connection, [row.id for row in left])
    found = []
    for row in left:
        vain = starts.get(row.id, [])
        deaths = died_in_vain(vain) + bool(vain and row.lease_until > 0)
        # of one that has died too often the next waker says so
        pause = pause_after(deaths) if deaths < MOST_DEATHS else 0.0
        if not vain or vain[-1]["at"] + pause <= now:
            found.append(replace(row, deaths=deaths))
    return found


def _starts(connection: sa.Connection, ids: Sequence[str]) -> dict[str, list[JSONObject]]:
    starts: dict[str, list[JSONObject]] = {}
    if ids:
        for row in connection.execute(vain_starts(ids)):
            starts.setdefault(row[0], []).append(json.loads(row[1]))
    return starts


def _timed(now: float, workflow: str | None) -> sa.Select[Any]:
    """Parked runs with a timer that is over at ``now``, the one that is longest due first."""
    due = runs.c.wake_at <= sa.literal(now, sa.Double)
    query = sa.select(*LISTED).where(runs.c.status == "parked", due)
    return _of(query, workflow).order_by(runs.c.wake_at, runs.c.id)


def _signalled(workflow: str | None) -> sa.Select[Any]:
    """Parked runs with a signal that is not in their chain yet, the oldest signal first.

    A run whose payloads were deleted cannot be gone on with: it is left out.
    """
    oldest = sa.select(signals.c.run_id, sa.func.min(signals.c.created_at).label("since"))
    sent = oldest.group_by(signals.c.run_id).subquery()
    query = (
        sa.select(*LISTED)
        .join(sent, sent.c.run_id == runs.c.id)
        .where(runs.c.status == "parked", runs.c.run_key.is_not(None))
    )
    return _of(query, workflow).order_by(sent.c.since, runs.c.id)


def _left_behind(clock: sa.ColumnElement[float], workflow: str | None) -> sa.Select[Any]:
    """Runs that were woken and have come to no end; the last column says if their lease is over.

    Every run that is being driven after a parking is among them: as many as wakers have in hand.
    """
    over = (runs.c.lease_until <= clock).label("over")
    query = sa.select(*LISTED, over).where(runs.c.status == "running", runs.c.wake_at.is_not(None))
    return _of(query, workflow).order_by(runs.c.wake_at, runs.c.id)


def _of(query: sa.Select[Any], workflow: str | None) -> sa.Select[Any]:
    return query if workflow is None else query.where(runs.c.workflow == workflow)
