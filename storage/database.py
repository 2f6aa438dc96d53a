"""The database behind the store: one interface, SQLite in threads or PostgreSQL by asyncpg.

Work on the database is a function of a SQLAlchemy connection, run inside one transaction. SQLite
has no asynchronous interface; its calls run in a thread of our own, one for writing and one for
reading, which costs the event loop a twentieth of what a call-by-call bridge to a thread costs.
It runs in WAL mode with ``synchronous=FULL`` and begins every write transaction with
``BEGIN IMMEDIATE``: a deferred transaction that reads and then writes loses the chain order when
two processes write one file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import StaticPool

from longthought.errors import ConfigurationError, StoreTooNew

__all__ = ["SCHEMA_VERSION", "Database", "open_database"]

SCHEMA_VERSION = "0001"
"""The newest migration; stores at this version open without loading Alembic."""

_BUSY_TIMEOUT_S = 30.0
_PAGE_BYTES = 8192  # a payload of a few kilobytes fits a page with little waste
_ADVISORY_LOCK = 0x6C6F6E67  # any constant; it keeps two processes from migrating at once

Result = TypeVar("Result")
Work = Callable[[sa.Connection], Result]


class Database(Protocol):
    """Runs functions of a connection, each in one transaction."""

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        ...

    async def write(self, work: Work[Result]) -> Result:
        """Run in a transaction that may write; committed (durable) when this returns."""
        ...

    async def read(self, work: Work[Result]) -> Result:
        """Run in a read transaction: one consistent view."""
        ...

    async def close(self) -> None:
        """Disconnect. May be called more than once."""
        ...


def open_database(url: sa.URL) -> Database:
    """The database of a URL made by ``database_url``; nothing is connected yet."""
    if url.get_backend_name() == "sqlite":
        return _SQLite(url)
    return _PostgreSQL(url)


class _SQLite:
    dialect = "sqlite"

    def __init__(self, url: sa.URL) -> None:
        self._writing = _sqlite_engine(url, "BEGIN IMMEDIATE")
        self._reading = _sqlite_engine(url, "BEGIN")
        self._write_thread = ThreadPoolExecutor(1, "longthought-write")
        self._read_thread = ThreadPoolExecutor(1, "longthought-read")

    async def write(self, work: Work[Result]) -> Result:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._write_thread, _run, self._writing, work)

    async def read(self, work: Work[Result]) -> Result:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._read_thread, _run, self._reading, work)

    async def close(self) -> None:
        threads = ((self._write_thread, self._writing), (self._read_thread, self._reading))
        for thread, engine in threads:
            try:
                closing = asyncio.get_running_loop().run_in_executor(thread, engine.dispose)
            except RuntimeError:  # closed before
                continue
            await closing
            thread.shutdown()


class _PostgreSQL:
    dialect = "postgresql"

    def __init__(self, url: sa.URL) -> None:
        try:
            import asyncpg  # type: ignore[import-untyped] # noqa: F401 - an extra
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                "database URL",
                "PostgreSQL needs the package asyncpg",
                "Install it with: pip install 'longthought[postgres]'",
            ) from error
        self._engine: AsyncEngine = create_async_engine(url, pool_size=2, max_overflow=6)

    async def write(self, work: Work[Result]) -> Result:
        async with self._engine.begin() as connection:
            return await connection.run_sync(work)

    read = write

    async def close(self) -> None:
        await self._engine.dispose()


def _run(engine: sa.Engine, work: Work[Result]) -> Result:
    with engine.begin() as connection:
        return work(connection)


def _sqlite_engine(url: sa.URL, begin: str) -> sa.Engine:
    engine = sa.create_engine(
        url,
        poolclass=StaticPool,
        connect_args={
            "timeout": _BUSY_TIMEOUT_S,
            "isolation_level": None,
            "check_same_thread": False,
        },
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA page_size={_PAGE_BYTES}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


async def migrate(database: Database) -> None:
    """Bring the schema to :data:`SCHEMA_VERSION`; two processes may do so at once.

    Raises:
        StoreTooNew: a newer longthought has written this store.
    """
    if await database.read(_stored_version) != SCHEMA_VERSION:
        await database.write(_upgrade)


def _stored_version(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def _upgrade(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
    version = _stored_version(connection)
    if version == SCHEMA_VERSION:
        return
    if version is not None and version > SCHEMA_VERSION:
        raise StoreTooNew(
            f"the store has schema {version}, this longthought knows {SCHEMA_VERSION}: upgrade it"
        )
    from alembic import command  # slow to import, needed once per store
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
