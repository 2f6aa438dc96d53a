"""A run's stored rows: reading them into a recording, and asking whether the run is free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from longthought.errors import RunBusy, RunNotFound
from longthought.storage.owner import is_gone
from longthought.storage.recording import Recording
from longthought.storage.tables import events, payloads, runs

__all__ = ["LISTED", "RunRow", "free_row", "is_driven", "load_rows"]


@dataclass(frozen=True, slots=True)
class RunRow:
    """One line of a listing. ``created_at`` is in seconds since the epoch."""

    id: str
    workflow: str
    status: str
    created_at: float
    attempt: int
    owner: str
    lease_until: float
    length: int
    head: str


LISTED = (
    runs.c.id,
    runs.c.workflow,
    runs.c.status,
    runs.c.created_at,
    runs.c.attempt,
    runs.c.owner,
    runs.c.lease_until,
    runs.c.length,
    runs.c.head,
)
"""The columns of a :class:`RunRow`."""


def free_row(
    connection: sa.Connection, run_id: str, now: sa.ColumnElement[float], force: bool = False
) -> sa.Row[Any]:
    """The row of a run that nobody drives, locked until the transaction ends.

    Raises:
        RunNotFound: there is no such run.
        RunBusy: another live process holds it and ``force`` is false.
    """
    query = sa.select(runs, now.label("now")).where(runs.c.id == run_id).with_for_update()
    row = connection.execute(query).one_or_none()
    if row is None:
        raise RunNotFound(run_id)
    left = row.lease_until - row.now
    if left > 0 and not force and not is_gone(row.owner):
        raise RunBusy(run_id, row.owner, left)
    return row


def is_driven(connection: sa.Connection, run_id: str, now: sa.ColumnElement[float]) -> bool:
    """Whether a process holds a run, and is not known to have ended.

    Raises:
        RunNotFound: there is no such run.
    """
    query = sa.select(runs.c.owner, runs.c.lease_until - now).where(runs.c.id == run_id)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise RunNotFound(run_id)
    return row[1] > 0 and not is_gone(row.owner)


def load_rows(connection: sa.Connection, recording: Recording) -> bytes | None:
    """Bring a recording up to the stored state, in one step or more; returns the run key.

    Raises:
        RunNotFound: there is no such run.
        TraceError: its chain is broken.
    """
    query = sa.select(runs.c.run_key).where(runs.c.id == recording.run_id)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise RunNotFound(recording.run_id)
    new_events = connection.execute(
        sa.select(events.c.seq, events.c.type, events.c.key, events.c.body, events.c.hash)
        .where(events.c.run_id == recording.run_id, events.c.seq > recording.length)
        .order_by(events.c.seq)
    )
    new_payloads = connection.execute(
        sa.select(payloads.c.n, payloads.c.id, payloads.c.body)
        .where(payloads.c.run_id == recording.run_id, payloads.c.n > recording.last_payload)
        .order_by(payloads.c.n)
    ).all()
    recording.load(
        ((row.seq, row.type, row.key, row.body, row.hash) for row in new_events),
        {row.id: row.body for row in new_payloads},
    )
    if new_payloads:
        recording.last_payload = new_payloads[-1].n
    run_key: bytes | None = row.run_key
    return run_key
