"""Alembic environment: runs on the connection that the store hands over, never on its own."""

from __future__ import annotations

from alembic import context

from longthought.storage.database import VERSION_TABLE
from longthought.storage.tables import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    transactional_ddl=False,
    version_table=VERSION_TABLE,
)
context.run_migrations()
