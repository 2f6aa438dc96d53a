"""The SQL tables. Alembic migrations build them; a test holds the two together."""

from __future__ import annotations

import sqlalchemy as sa

__all__ = ["checkpoints", "events", "metadata", "payloads", "runs", "signals"]

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# One row per run: the fence (attempt, head, length), the lease, and what listings need. `workflow`,
# `status` and `created_at` repeat what the events say; the audit compares them. `wake_at` is when
# a parked run is due by its own timers (seconds since the epoch); while an attempt that ended a
# parking is under way it says since when, so that a crash of that attempt leaves the run due.
runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("workflow", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("lease_until", sa.Double, nullable=False),
    sa.Column("head", sa.Text, nullable=False),
    sa.Column("length", sa.Integer, nullable=False),
    sa.Column("run_key", sa.LargeBinary, nullable=True),
    sa.Column("wake_at", sa.Double, nullable=True),
)
sa.Index("ix_runs_created", runs.c.created_at, runs.c.id)
_TIMED = runs.c.wake_at.is_not(None)
sa.Index("ix_runs_wake_at", runs.c.wake_at, sqlite_where=_TIMED, postgresql_where=_TIMED)

# The trace. `body` is canonical JSON without seq, type and key, which stand in their own columns.
events = sa.Table(
    "events",
    metadata,
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
    sqlite_with_rowid=False,
)

# Content-addressed within a run: requests, results, conversations, answers. A deleted payload
# leaves no row; the event `payload_deleted` is its tombstone.
payloads = sa.Table(
    "payloads",
    metadata,
    # in order of arrival: rows of kilobytes keyed by a random id would leave half-empty pages
    sa.Column("n", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("salt", sa.LargeBinary, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.UniqueConstraint("run_id", "id"),
)

# Signals wait here, written by anybody, until the run's next attempt takes them into its chain.
signals = sa.Table(
    "signals",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("run_id", sa.Text, nullable=False, index=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
)

# Signed heads of all runs, numbered from 1; `body` is canonical JSON (checkpoints.py).
checkpoints = sa.Table(
    "checkpoints",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)
