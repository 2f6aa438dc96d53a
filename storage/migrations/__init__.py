"""Alembic migrations of the store; `longthought.storage.database` applies them on opening."""
