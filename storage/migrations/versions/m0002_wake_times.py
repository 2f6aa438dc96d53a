"""When a parked run is due."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column and an index over the few runs that have one."""
    op.add_column("runs", sa.Column("wake_at", sa.Double, nullable=True))
    timed = sa.text("wake_at IS NOT NULL")
    op.create_index(
        "ix_runs_wake_at", "runs", ["wake_at"], sqlite_where=timed, postgresql_where=timed
    )
