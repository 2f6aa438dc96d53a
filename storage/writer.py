"""The one writer of a process: group commit under the fence.

Everything that queued while the last transaction ran goes into the next one, then all waiters wake.
Every append is conditional on the run's ``head`` and ``attempt``: when another attempt has taken
the run over, no row changes, and only that run's part of the transaction is left out. An append
whose head is already in place was committed before (the answer to its commit was lost): it is
acknowledged and not written again, which is what makes a retry safe.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from longthought.errors import Fenced, StorageError
from longthought.storage.database import Database, Fault, driver_of, fault_of, storage_error
from longthought.storage.tables import events, payloads, runs
from longthought.types import JSON

__all__ = ["SERVER_CLOCK", "Append", "GroupWriter", "insert_rows"]

_FENCED_UPDATE = (
    sa.update(runs)
    .where(
        runs.c.id == sa.bindparam("run"),
        runs.c.attempt == sa.bindparam("fence_attempt"),
        runs.c.head == sa.bindparam("fence_head"),
    )
    .values(
        head=sa.bindparam("new_head"),
        length=sa.bindparam("new_length"),
        status=sa.bindparam("new_status", type_=sa.Text),
        # a run that rests is nobody's: its next attempt need not wait for the lease to run out
        lease_until=sa.case(
            (
                sa.bindparam("new_status", type_=sa.Text) == sa.literal_column("'running'"),
                runs.c.lease_until,
            ),
            else_=sa.literal_column("0.0"),
        ),
        wake_at=sa.case(
            (
                sa.bindparam("new_status", type_=sa.Text) == sa.literal_column("'running'"),
                runs.c.wake_at,
            ),
            else_=sa.bindparam("new_wake_at", type_=sa.Double),
        ),
    )
)
_STANDING = sa.select(runs.c.attempt, runs.c.head).where(runs.c.id == sa.bindparam("run"))
_INSERT_EVENTS = sa.insert(events)
SERVER_CLOCK = sa.cast(sa.func.extract("epoch", sa.func.clock_timestamp()), sa.Double)
"""What leases are measured by where processes share a server: seconds since the epoch."""
_INSERT_RUN = (
    postgresql.insert(runs)
    .values(lease_until=SERVER_CLOCK + sa.bindparam("lease", type_=sa.Double))
    .on_conflict_do_nothing()
)
_INSERT_PAYLOADS = postgresql.insert(payloads).on_conflict_do_nothing()


def _prepared(statement: sa.UpdateBase, columns: Sequence[str] = ()) -> str:
    """The statement as SQLite's own connection takes it, with a parameter ``:name`` for each."""
    dialect = sqlite.dialect(paramstyle="named")
    return str(statement.compile(dialect=dialect, column_keys=columns or None))


# Written many times a second. Compiled once and run without SQLAlchemy's machinery, which costs
# several times what SQLite itself does.
_EVENT_COLUMNS = ("run_id", "seq", "type", "key", "body", "hash")
_PAYLOAD_COLUMNS = ("run_id", "id", "salt", "body")
_RUN_COLUMNS = tuple(column.name for column in runs.columns)
_SQLITE_UPDATE = _prepared(_FENCED_UPDATE)
_SQLITE_RUN = _prepared(sqlite.insert(runs).on_conflict_do_nothing(), _RUN_COLUMNS)
_SQLITE_EVENTS = _prepared(_INSERT_EVENTS, _EVENT_COLUMNS)
_SQLITE_PAYLOADS = _prepared(sqlite.insert(payloads).on_conflict_do_nothing(), _PAYLOAD_COLUMNS)


@dataclass(slots=True, eq=False)
class Append:
    """A contiguous piece of one run's chain that is committed whole or not at all.

    ``failed`` is told an error whether or not somebody still waits; ``creates`` is the row of a new
    run, which is inserted in place of advancing an old one, with ``lease`` in seconds.
    """

    run_id: str
    attempt: int
    previous: str
    head: str
    length: int
    status: str
    events: list[dict[str, JSON]]
    payloads: list[dict[str, JSON]]
    failed: Callable[[StorageError], None]
    wake_at: float | None = None
    creates: dict[str, JSON] | None = None
    settled: bool = False
    error: StorageError | None = None
    waiters: list[asyncio.Future[None]] = field(default_factory=list)

    def settle(self, error: StorageError | None = None) -> None:
        """Wake the waiters; those that were cancelled meanwhile are left alone."""
        self.settled, self.error = True, error
        if error is not None:
            self.failed(error)
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)


class GroupWriter:
    """Commits appends of many runs, in order, with as few transactions as the load allows."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queue: list[Append] = []
        self._task: asyncio.Task[None] | None = None
        self.transactions = 0

    def submit(self, append: Append) -> None:
        """Queue an append; it is settled when it is committed or has failed."""
        self._queue.append(append)
        if self._task is None:
            # in a context of its own: a connection opened here would keep that of the run for good
            self._task = asyncio.create_task(
                self._drain(), name="longthought-writer", context=Context()
            )

    async def close(self) -> None:
        """Wait until everything that was submitted is settled."""
        while self._task is not None:
            await asyncio.wait((self._task,))

    async def _drain(self) -> None:
        batch: list[Append] = []
        try:
            while self._queue:
                batch, self._queue = self._queue, []
                await self._commit(batch)
        finally:
            self._task = None
            for append in (*batch, *self._queue):
                if not append.settled:
                    append.settle(StorageError("the writer was stopped. Resume the run later"))
            self._queue = []

    async def _commit(self, batch: list[Append]) -> None:
        try:
            try:
                lost = await self._transaction(batch)
            except Exception as error:
                if fault_of(error) is not Fault.DISCONNECTED:
                    raise
                lost = await self._transaction(batch)  # over a new connection
        except Exception as error:
            await self._fail(batch, error)
            return
        for append in batch:
            append.settle(Fenced(append.run_id, append.attempt) if append in lost else None)

    async def _fail(self, batch: list[Append], error: Exception) -> None:
        """Settle what could not be written; one bad append must not fail its neighbours."""
        if len(batch) == 1 or fault_of(error) is not Fault.CONTENT:
            for append in batch:
                append.settle(storage_error(error))
            return
        failed: dict[tuple[str, int], StorageError] = {}
        for append in batch:
            run = (append.run_id, append.attempt)
            if run in failed:  # what follows a lost piece of a chain is lost with it
                append.settle(failed[run])
                continue
            await self._commit([append])
            if append.error is not None:
                failed[run] = append.error

    async def _transaction(self, batch: list[Append]) -> set[Append]:
        self.transactions += 1
        if len(batch) == 1:
            pieces = [batch]
        else:
            pieces = _pieces(batch)
        return await self._database.write(lambda connection: _write(connection, pieces))


def _pieces(batch: list[Append]) -> list[list[Append]]:
    """Appends that follow each other advance their run's head once.

    Runs come in the order of their ids, so that two processes never lock two rows crosswise.
    """
    pieces: list[list[Append]] = []
    for append in sorted(batch, key=lambda append: append.run_id):
        last = pieces[-1][-1] if pieces else None
        follows = (
            last is not None
            and last.run_id == append.run_id
            and last.attempt == append.attempt
            and last.head == append.previous
            and last.creates is None
        )
        if follows:
            pieces[-1].append(append)
        else:
            pieces.append([append])
    return pieces


def _write(connection: sa.Connection, pieces: list[list[Append]]) -> set[Append]:
    """Write what the fence lets through; returns what it did not."""
    lost: set[Append] = set()
    new_events: list[dict[str, JSON]] = []
    new_payloads: list[dict[str, JSON]] = []
    for piece in pieces:
        if _advance(connection, piece):
            for append in piece:
                new_events += append.events
                new_payloads += append.payloads
        elif not _stands(connection, piece[-1]):
            lost.update(piece)
    insert_rows(connection, new_events, new_payloads)
    return lost


def insert_rows(
    connection: sa.Connection,
    new_events: list[dict[str, JSON]],
    new_payloads: list[dict[str, JSON]],
) -> None:
    """Insert rows of a chain whose run row has just been advanced in the same transaction."""
    if connection.dialect.name == "sqlite":
        driver = driver_of(connection)
        driver.executemany(_SQLITE_PAYLOADS, new_payloads)
        driver.executemany(_SQLITE_EVENTS, new_events)
        return
    if new_payloads:
        connection.execute(_INSERT_PAYLOADS, new_payloads)
    if new_events:
        connection.execute(_INSERT_EVENTS, new_events)


def _advance(connection: sa.Connection, piece: list[Append]) -> bool:
    first, last = piece[0], piece[-1]
    if first.creates is not None:
        return _create(connection, first.creates)
    figures = {
        "run": first.run_id,
        "fence_attempt": first.attempt,
        "fence_head": first.previous,
        "new_head": last.head,
        "new_length": last.length,
        "new_status": last.status,
        "new_wake_at": last.wake_at,
    }
    if connection.dialect.name == "sqlite":
        return driver_of(connection).execute(_SQLITE_UPDATE, figures).rowcount == 1
    return connection.execute(_FENCED_UPDATE, figures).rowcount == 1


def _create(connection: sa.Connection, row: dict[str, JSON]) -> bool:
    """Insert the row of a new run; false if its id is taken."""
    if connection.dialect.name == "sqlite":
        timed = {**row, "lease_until": time.time() + row["lease"]}
        return driver_of(connection).execute(_SQLITE_RUN, timed).rowcount == 1
    return connection.execute(_INSERT_RUN, row).rowcount == 1


def _stands(connection: sa.Connection, append: Append) -> bool:
    """Whether an earlier try whose answer was lost has committed this append."""
    row = connection.execute(_STANDING, {"run": append.run_id}).one_or_none()
    return row is not None and row.attempt == append.attempt and row.head == append.head
