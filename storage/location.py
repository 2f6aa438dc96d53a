"""Where the store is: the data directory and the database URL."""

from __future__ import annotations

import os
from pathlib import Path

import sqlalchemy as sa
from platformdirs import user_data_path
from sqlalchemy.exc import ArgumentError

from longthought.errors import ConfigurationError

__all__ = ["data_dir", "database_url"]


def data_dir(explicit: str | Path | None = None) -> Path:
    """The data directory: the argument, ``LONGTHOUGHT_DATA_DIR`` or the platform's own; created."""
    chosen = explicit or os.environ.get("LONGTHOUGHT_DATA_DIR")
    path = Path(chosen).expanduser() if chosen else user_data_path("longthought", appauthor=False)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            "data directory", f"{path} cannot be used: {error.strerror}", "Set LONGTHOUGHT_DATA_DIR"
        ) from error
    return path


def database_url(url: str | None = None, directory: str | Path | None = None) -> sa.URL:
    """The store's URL with its driver: argument, ``LONGTHOUGHT_DATABASE_URL``, or SQLite.

    Raises:
        ConfigurationError: the URL is malformed or names a database that is not supported.
    """
    text = url or (None if directory else os.environ.get("LONGTHOUGHT_DATABASE_URL"))
    if not text:
        return sa.URL.create(
            "sqlite+pysqlite", database=str(data_dir(directory) / "longthought.db")
        )
    try:
        parsed = sa.make_url(text)
    except ArgumentError as error:
        raise ConfigurationError(
            "database URL", "cannot be read", "Write postgresql://user@host/name or sqlite:///file"
        ) from error
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        if parsed.database in (None, "", ":memory:"):
            raise ConfigurationError(
                "database URL",
                "an in-memory database does not outlive the process",
                "Write sqlite:///path/to/file.db",
            )
        return parsed.set(drivername="sqlite+pysqlite")
    if backend in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+asyncpg")
    raise ConfigurationError(
        "database URL", f"{backend} is not supported", "Use PostgreSQL or SQLite"
    )
