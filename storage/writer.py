"""The one writer of a process: group commit under the fence.

Everything that queued while the last transaction ran goes into the next one, then all waiters wake.
Every append is conditional on the run's ``head`` and ``attempt``: when another attempt has taken
the run over, no row changes, and only that run's part of the transaction is left out.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from longthought.errors import Fenced, LongthoughtError, StorageError
from longthought.storage.database import Database
from longthought.storage.tables import events, payloads, runs
from longthought.types import JSON

__all__ = ["Append", "GroupWriter"]

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
        status=sa.bindparam("new_status"),
    )
)
_INSERT_EVENTS = sa.insert(events)


@dataclass(slots=True)
class Append:
    """A contiguous piece of one run's chain that is committed whole or not at all."""

    run_id: str
    attempt: int
    previous: str
    head: str
    length: int
    status: str
    events: list[dict[str, JSON]]
    payloads: list[dict[str, JSON]]
    done: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def settle(self, error: Exception | None = None) -> None:
        """Wake the waiter; one that was cancelled meanwhile is left alone."""
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
            self.done.exception()  # a waiter that never looks is not an unretrieved error


class GroupWriter:
    """Commits appends of many runs, in order, with as few transactions as the load allows."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queue: list[Append] = []
        self._task: asyncio.Task[None] | None = None
        dialect = sqlite if database.dialect == "sqlite" else postgresql
        self._insert_payloads = dialect.insert(payloads).on_conflict_do_nothing()
        self.transactions = 0

    def submit(self, append: Append) -> asyncio.Future[None]:
        """Queue an append; the future is done when it is committed (or has failed)."""
        self._queue.append(append)
        if self._task is None:
            self._task = asyncio.create_task(self._drain(), name="longthought-writer")
        return append.done

    async def close(self) -> None:
        """Wait until everything that was submitted is settled."""
        while self._task is not None:
            await asyncio.shield(self._task)

    async def _drain(self) -> None:
        try:
            while self._queue:
                batch, self._queue = self._queue, []
                await self._commit(batch)
        finally:
            self._task = None
            for append in self._queue:
                append.settle(StorageError("the writer was stopped"))
            self._queue = []

    async def _commit(self, batch: list[Append]) -> None:
        try:
            fenced = await self._transaction(batch)
        except asyncio.CancelledError:
            for append in batch:
                append.settle(StorageError("the writer was stopped"))
            raise
        except Exception as error:  # one bad append must not fail its neighbours
            if len(batch) == 1:
                batch[0].settle(_storage_error(error))
                return
            for append in batch:
                await self._commit([append])
            return
        for append in batch:
            lost = append.run_id in fenced
            append.settle(Fenced(append.run_id, append.attempt) if lost else None)

    async def _transaction(self, batch: list[Append]) -> set[str]:
        self.transactions += 1
        merged = _merge(batch)
        return await self._database.write(lambda connection: self._write(connection, merged))

    def _write(self, connection: sa.Connection, appends: list[Append]) -> set[str]:
        fenced: set[str] = set()
        new_events: list[dict[str, JSON]] = []
        new_payloads: list[dict[str, JSON]] = []
        for append in appends:
            if _advance(connection, append):
                new_events += append.events
                new_payloads += append.payloads
            else:
                fenced.add(append.run_id)
        if new_payloads:
            connection.execute(self._insert_payloads, new_payloads)
        if new_events:
            connection.execute(_INSERT_EVENTS, new_events)
        return fenced


def _merge(batch: list[Append]) -> list[Append]:
    """Appends of one run follow each other; together they advance its head once."""
    merged: dict[str, Append] = {}
    for append in batch:
        first = merged.get(append.run_id)
        if first is None or first.attempt != append.attempt:
            merged[append.run_id] = Append(
                append.run_id,
                append.attempt,
                append.previous,
                append.head,
                append.length,
                append.status,
                list(append.events),
                list(append.payloads),
                append.done,
            )
            continue
        first.head, first.length, first.status = append.head, append.length, append.status
        first.events += append.events
        first.payloads += append.payloads
    return list(merged.values())


def _advance(connection: sa.Connection, append: Append) -> bool:
    result = connection.execute(
        _FENCED_UPDATE,
        {
            "run": append.run_id,
            "fence_attempt": append.attempt,
            "fence_head": append.previous,
            "new_head": append.head,
            "new_length": append.length,
            "new_status": append.status,
        },
    )
    return result.rowcount == 1


def _storage_error(error: Exception) -> Exception:
    if isinstance(error, LongthoughtError):
        return error
    if isinstance(error, SQLAlchemyError):
        cause = getattr(error, "orig", None) or error
        return StorageError(f"the store could not be written: {cause}. Resume the run later")
    return StorageError(f"the store could not be written: {type(error).__name__}: {error}")
