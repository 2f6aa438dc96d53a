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
import enum
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    nullcontext,
    suppress,
)
from pathlib import Path
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import StaticPool

from longthought.errors import ConfigurationError, StorageError, StoreTooNew
from longthought.storage.worker import Worker

__all__ = [
    "SCHEMA_VERSION",
    "VERSION_TABLE",
    "Database",
    "Fault",
    "driver_of",
    "fault_of",
    "notify",
    "open_database",
    "storage_error",
]

SCHEMA_VERSION = "0002"
"""The newest migration; stores at this version open without loading Alembic."""

VERSION_TABLE = "longthought_schema"
"""Holds the schema version; a name of our own, for a database that others use Alembic in."""

_BUSY_TIMEOUT_S = 30.0
_RETRY_SECONDS = 0.01
_PAGE_BYTES = 8192  # a payload of a few kilobytes fits a page with little waste
_ADVISORY_LOCK = 0x6C6F6E67  # any constant; it keeps two processes from migrating at once

Result = TypeVar("Result")
Work = Callable[[sa.Connection], Result]
Heard = Callable[[], None]
_CHANNEL = "longthought"


class Database(Protocol):
    """Runs functions of a connection, each in one transaction."""

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        ...

    def write(self, work: Work[Result]) -> Awaitable[Result]:
        """Run in a transaction that may write; committed (durable) when this returns.

        Raises:
            StorageError: it failed; its cause is the database's own error.
        """
        ...

    def read(self, work: Work[Result]) -> Awaitable[Result]:
        """Run in a read transaction: one consistent view."""
        ...

    def survey(self, work: Work[Result]) -> Awaitable[Result]:
        """Like :meth:`read`, for long readings: it holds up nobody and takes any stored bytes."""
        ...

    def listening(self, heard: Heard) -> AbstractAsyncContextManager[None]:
        """Call ``heard`` whenever :func:`notify` was committed, as far as the database can tell.

        What was committed while the connection was lost is not told: look now and then as well.
        """
        ...

    async def scrub(self) -> None:
        """Let go of what was deleted, as far as that is in our hands."""
        ...

    async def close(self) -> None:
        """Disconnect. May be called more than once."""
        ...


def open_database(url: sa.URL) -> Database:
    """The database of a URL made by ``database_url``; nothing is connected yet."""
    if url.get_backend_name() == "sqlite":
        return _SQLite(url)
    return _PostgreSQL(url)


class Fault(enum.Enum):
    """What a failed transaction says about the next one."""

    CONTENT = "content"
    """What was to be written cannot be; others can."""
    STORE = "store"
    """The store cannot be written now: full, locked, unreachable."""
    DISCONNECTED = "disconnected"
    """The connection was lost; whether the transaction was committed is not known."""


def fault_of(error: BaseException) -> Fault:
    """What kind of failure a :class:`StorageError` of a database stands for."""
    cause: object = error.__cause__ or error
    if isinstance(cause, DBAPIError) and cause.connection_invalidated:
        return Fault.DISCONNECTED
    if isinstance(cause, _STORE_FAULTS):
        return Fault.STORE
    return Fault.CONTENT


def storage_error(error: Exception) -> StorageError:
    """A failure of the database in the vocabulary of longthought; its cause is the original."""
    if isinstance(error, StorageError):
        return error
    cause = getattr(error, "orig", None) or error
    told = StorageError(f"the store cannot be used: {str(cause) or type(cause).__name__}")
    told.__cause__ = error
    return told


_MIGRATING = threading.Lock()
"""Alembic keeps what it works on in one place for the whole process."""

_STORE_FAULTS = (
    OperationalError,
    InterfaceError,
    OSError,
    sqlite3.OperationalError,
    sqlite3.InterfaceError,
)
_FAILURES: tuple[type[Exception], ...] = (
    SQLAlchemyError,
    sqlite3.Error,
    OSError,
    UnicodeError,
    OverflowError,
)


@contextmanager
def _translated(more: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    try:
        yield
    except (*_FAILURES, *more) as error:
        raise storage_error(error) from error


class _SQLite:
    dialect = "sqlite"

    def __init__(self, url: sa.URL) -> None:
        self._url = url
        self._writing = _sqlite_engine(url, "BEGIN IMMEDIATE")
        self._reading = _sqlite_engine(url, "BEGIN")
        self._writer = Worker("longthought-write")
        self._reader = Worker("longthought-read")
        self._held: sa.Connection | None = None

    def write(self, work: Work[Result]) -> Awaitable[Result]:
        return self._writer.run(lambda: self._write(work))

    def read(self, work: Work[Result]) -> Awaitable[Result]:
        return self._reader.run(lambda: _run(self._reading, work))

    async def survey(self, work: Work[Result]) -> Result:
        return await asyncio.to_thread(self._survey, work)

    def _survey(self, work: Work[Result]) -> Result:
        engine = _sqlite_engine(self._url, "BEGIN")
        event.listen(engine, "connect", _take_any_bytes)
        try:
            return _run(engine, work)
        finally:
            engine.dispose()

    def _write(self, work: Work[Result]) -> Result:
        """One transaction on a connection that is kept: taking one costs more than a commit."""
        with _translated():
            if self._held is None:
                self._held = self._writing.connect()
            try:
                with self._held.begin():
                    return work(self._held)
            except BaseException:
                self._let_go()
                raise

    def _let_go(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.close()

    def _dispose(self) -> None:
        self._let_go()
        self._writing.dispose()

    def listening(self, heard: Heard) -> AbstractAsyncContextManager[None]:
        """Nothing: other processes cannot be heard of."""
        return nullcontext()

    async def scrub(self) -> None:
        await self._writer.run(self._truncate_log)

    def _truncate_log(self) -> None:
        with _translated(), self._writing.connect() as connection:
            proxied = connection.connection  # outside a transaction, where a checkpoint may run
            proxied.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").close()

    async def close(self) -> None:
        await self._reader.close(self._reading.dispose)
        await self._writer.close(self._dispose)


class _PostgreSQL:
    dialect = "postgresql"

    def __init__(self, url: sa.URL) -> None:
        try:
            import asyncpg  # type: ignore[import-untyped] # an extra
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                "database URL",
                "PostgreSQL needs the package asyncpg",
                "Install it with: pip install 'longthought[postgres]'",
            ) from error
        # errors while connecting come from the driver as they are
        self._errors: tuple[type[Exception], ...] = (
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
        )
        self._engine: AsyncEngine = create_async_engine(url, pool_size=2, max_overflow=6)
        event.listen(self._engine.sync_engine, "connect", _prepare_postgresql)

    async def write(self, work: Work[Result]) -> Result:
        with _translated(self._errors):
            async with self._engine.begin() as connection:
                return await connection.run_sync(work)

    async def read(self, work: Work[Result]) -> Result:
        with _translated(self._errors):
            async with self._engine.connect() as connection:
                await connection.execution_options(
                    isolation_level="REPEATABLE READ", postgresql_readonly=True
                )
                async with connection.begin():
                    return await connection.run_sync(work)

    async def survey(self, work: Work[Result]) -> Result:
        return await self.read(work)

    @asynccontextmanager
    async def listening(self, heard: Heard) -> AsyncIterator[None]:
        def told(*_: object) -> None:
            heard()

        async def forget() -> None:
            with suppress(*lost):
                await driver.remove_listener(_CHANNEL, told)

        lost = (*_FAILURES, *self._errors)
        async with AsyncExitStack() as stack:
            with suppress(
                *lost
            ):  # whoever looks now and then is not told, and finds it all the same
                connection = await stack.enter_async_context(self._engine.connect())
                driver: Any = (await connection.get_raw_connection()).driver_connection
                await driver.add_listener(_CHANNEL, told)
                stack.push_async_callback(forget)
            yield

    async def scrub(self) -> None:
        """Nothing: dead rows are the server's to vacuum."""

    async def close(self) -> None:
        await self._engine.dispose()


def notify(connection: sa.Connection) -> None:
    """Tell whoever listens, when this transaction is committed; see :meth:`Database.listening`."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_notify(_CHANNEL, "")))


def _run(engine: sa.Engine, work: Work[Result]) -> Result:
    with _translated(), engine.begin() as connection:
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
    event.listen(engine, "begin", lambda connection: driver_of(connection).execute(begin))
    return engine


def driver_of(connection: sa.Connection) -> sqlite3.Connection:
    """SQLite's own connection below SQLAlchemy's, for statements that are prepared once."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)  # noqa: S101 - the engine is SQLite's
    return driver


def _prepare_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA page_size={_PAGE_BYTES}")
    _write_ahead(cursor)
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA secure_delete=ON")  # a deleted payload leaves no bytes behind
    cursor.close()


def _write_ahead(cursor: sqlite3.Cursor) -> None:
    """Of several who make one new file, SQLite refuses some at once rather than let them wait."""
    until = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > until:
                raise
            time.sleep(_RETRY_SECONDS)
        else:
            return


def _take_any_bytes(connection: Any, _record: object) -> None:
    """Damaged text must reach the audit as a value, not as an error of the driver."""
    connection.text_factory = lambda raw: raw.decode(errors="surrogateescape")


def _prepare_postgresql(connection: Any, _record: object) -> None:
    """Committed must mean durable, also on a server that is set to acknowledge earlier."""
    cursor = connection.cursor()
    cursor.execute("SHOW synchronous_commit")
    if cursor.fetchone()[0] == "off":
        cursor.execute("SET synchronous_commit TO on")
    cursor.close()
    connection.commit()


async def migrate(database: Database) -> None:
    """Bring the schema to :data:`SCHEMA_VERSION`; two processes may do so at once.

    Raises:
        StoreTooNew: a newer longthought has written this store.
    """
    if await database.read(_stored_version) == SCHEMA_VERSION:
        return
    # Threads and loops are told apart by nothing in Alembic, and waiting must not stop a loop.
    while not _MIGRATING.acquire(blocking=False):  # noqa: ASYNC110 - held by threads
        await asyncio.sleep(_RETRY_SECONDS)
    try:
        await database.write(_upgrade)
    finally:
        _MIGRATING.release()


def _stored_version(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    version = sa.table(VERSION_TABLE, sa.column("version_num", sa.Text))
    return connection.execute(sa.select(version.c.version_num)).scalar()


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
