"""Alembic migrations of the store; `longthought.storage.engine` applies them on opening."""
