"""The store: opens the database, creates, claims and reads runs, and carries signals."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import sqlalchemy as sa

from longthought.errors import (
    Fenced,
    InvalidInput,
    RunEnded,
    RunMoved,
    RunNotFound,
    StorageError,
    StoreTooNew,
)
from longthought.storage import checkpoints, deletion
from longthought.storage.database import Database, migrate, notify, open_database
from longthought.storage.digests import canonical, new_run_key
from longthought.storage.due import DueRow, find_due, find_next_timer
from longthought.storage.events import FORMAT_VERSION
from longthought.storage.journal import Journal
from longthought.storage.location import data_dir, database_url
from longthought.storage.names import check_signal_name, check_text
from longthought.storage.owner import process_identity
from longthought.storage.recording import Recording
from longthought.storage.rows import LISTED, RunRow, free_row, is_driven, load_rows
from longthought.storage.tables import runs, signals
from longthought.storage.tool_runs import ToolRun, find_tool_runs
from longthought.storage.writer import SERVER_CLOCK, GroupWriter, insert_rows
from longthought.types import JSON, JSONObject

__all__ = ["Store"]

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Store:
    """A SQL database with runs in it. Open one per process and share it between runs.

    ``async with Store(url)`` opens and closes it; ``lease`` is how long (seconds) a run stays with
    a process that no longer renews it.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        directory: str | Path | None = None,
        lease: float = 15.0,
    ) -> None:
        self.url = database_url(url, directory)
        self.directory = data_dir(directory)
        self.lease = lease
        self.owner = process_identity()
        self._database: Database | None = None
        self._writer: GroupWriter | None = None
        self._listeners: list[Callable[[], None]] = []

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def writer(self) -> GroupWriter:
        """The group writer of this process.

        Raises:
            StorageError: the store is not open.
        """
        if self._writer is None:
            raise StorageError("the store is not open: use `async with Store(...)`")
        return self._writer

    async def open(self) -> None:
        """Connect, and bring the schema up to date.

        Raises:
            StorageError: the database cannot be reached; StoreTooNew: it is of a later version.
        """
        if self._writer is not None:
            return
        database = open_database(self.url)
        try:
            await migrate(database)
        except StoreTooNew:
            await database.close()
            raise
        except StorageError as error:
            await database.close()
            shown = self.url.render_as_string(hide_password=True)
            raise StorageError(f"the store {shown} cannot be opened: {error}") from error
        except BaseException:
            await database.close()
            raise
        self._database, self._writer = database, GroupWriter(database)

    async def close(self) -> None:
        """Commit what is queued and disconnect. May be called more than once."""
        if self._writer is not None:
            await self._writer.close()
            self._writer = None
        if self._database is not None:
            await self._database.close()
            self._database = None

    @property
    def database(self) -> Database:
        """The open database.

        Raises:
            StorageError: the store is not open.
        """
        if self._database is None:
            raise StorageError("the store is not open: use `async with Store(...)`")
        return self._database

    def _now(self) -> sa.ColumnElement[float]:
        """The clock that leases are measured by: the database's own where processes share one."""
        if self.url.get_backend_name() == "postgresql":
            return SERVER_CLOCK
        return sa.literal(time.time(), sa.Double)

    async def create_run(
        self,
        workflow: str,
        manifest: JSONObject,
        *,
        fingerprint: str,
        version: str,
        run_id: str | None = None,
        run_key: bytes | None = None,
        parent: JSONObject | None = None,
    ) -> Journal:
        """A new run, owned by this process, with its manifest committed as the first event.

        ``run_key`` is random unless given; equal keys make the digests of two runs comparable.
        ``parent`` says which run, and which of its events, a fork starts from.

        Raises:
            InvalidInput: the id is malformed or taken.
        """
        run_id = f"run-{uuid.uuid4().hex[:16]}" if run_id is None else run_id
        if not _RUN_ID.fullmatch(run_id):
            raise InvalidInput(
                "run", f"{run_id!r} is no run id", "Use letters, digits, '.', '_', '-'"
            )
        check_text("workflow", workflow)
        extra: JSONObject = {"parent": parent} if parent else {}
        journal = Journal(run_id, run_key or new_run_key(), 1, self.writer)
        first = journal.stage(
            "run_started",
            format=FORMAT_VERSION,
            run=run_id,
            longthought=version,
            workflow=workflow,
            fingerprint=fingerprint,
            manifest=journal.put(manifest),
            **extra,
        )
        journal.stage("attempt_started", attempt=1, owner=self.owner)
        row: JSONObject = {
            "id": run_id,
            "workflow": workflow,
            "status": journal.status,
            "created_at": first.body["at"],
            "attempt": 1,
            "owner": self.owner,
            "lease": self.lease,
            "head": journal.head,
            "length": journal.length,
            "run_key": journal.run_key,
            "wake_at": None,
        }
        try:
            await journal.create(row)
        except Fenced as error:
            raise InvalidInput("run", f"the id {run_id!r} is taken", "Choose another") from error
        return journal

    async def claim(
        self,
        run_id: str,
        *,
        force: bool = False,
        fingerprint: str = "",
        unless: Sequence[str] = (),
        after: int | None = None,
        stays_due: bool = False,
    ) -> Journal:
        """Take a run over as its next attempt, with everything recorded so far.

        A run with a status in ``unless`` is left alone, and one whose last attempt is not the one
        numbered ``after``: of all who saw that attempt end one alone begins the next. A parked run
        is due until an attempt has come to an end; so is any that ``stays_due``.

        Raises:
            RunNotFound: there is no such run.
            RunBusy: another live process holds it and ``force`` is false.
            RunEnded: its status is in ``unless``.
            RunMoved: it is past the attempt ``after``.
            TraceError: its chain is broken.
            StorageError: a deleted payload makes it impossible to continue the run.
        """
        journal = Journal(run_id, b"", 1, self.writer)
        # what is long is read before the transaction that locks
        await self.database.read(lambda connection: load_rows(connection, journal))
        wanted = (unless, after, stays_due)
        await self.database.write(lambda c: self._take_over(c, journal, force, fingerprint, wanted))
        return journal

    def _take_over(
        self,
        connection: sa.Connection,
        journal: Journal,
        force: bool,
        fingerprint: str,
        wanted: tuple[Sequence[str], int | None, bool],
    ) -> None:
        unless, after, stays_due = wanted
        row = free_row(connection, journal.run_id, self._now(), force)
        if after is not None and row.attempt != after:
            raise RunMoved(journal.run_id, row.attempt)
        if row.status in unless:
            raise RunEnded(journal.run_id, row.status)
        if row.run_key is None:
            raise StorageError(f"run {journal.run_id} has deleted payloads and cannot be continued")
        load_rows(connection, journal)
        journal.opened(row.run_key, row.attempt + 1)
        extra: JSONObject = {"fingerprint": fingerprint} if fingerprint else {}
        if row.status == "running" and row.lease_until > 0:  # it neither ended nor was given back
            extra["lost"] = True
        journal.stage("attempt_started", attempt=journal.attempt, owner=self.owner, **extra)
        piece = journal.take()
        piece.settle()
        connection.execute(
            sa.update(runs)
            .where(runs.c.id == journal.run_id)
            .values(
                attempt=journal.attempt,
                owner=self.owner,
                lease_until=self._now() + self.lease,
                status=journal.status,
                head=journal.head,
                length=journal.length,
                # once woken it stays due until an attempt has come to an end
                wake_at=time.time() if row.status == "parked" or stays_due else row.wake_at,
            )
        )
        insert_rows(connection, piece.events, piece.payloads)

    async def read(self, run_id: str, known: Recording | None = None) -> Recording:
        """A run as it stands, for replay, show, why and audit. Takes nothing over.

        With ``known``, which was read before, only what has come since is read, into the same.

        Raises:
            RunNotFound: there is no such run.
            TraceError: its chain is broken.
        """

        def load(connection: sa.Connection) -> Recording:
            recording = Recording(run_id, None) if known is None else known
            recording.run_key = load_rows(connection, recording)
            return recording

        return await self.database.read(load)

    async def row(self, run_id: str) -> RunRow:
        """The listing line of one run.

        Raises:
            RunNotFound: there is no such run.
        """
        found = await self._rows(sa.select(*LISTED).where(runs.c.id == run_id))
        if not found:
            raise RunNotFound(run_id)
        return found[0]

    async def is_driven(self, run_id: str) -> bool:
        """Whether a process that may be alive holds a run, which there has to be."""
        return await self.database.read(lambda c: is_driven(c, run_id, self._now()))

    async def list_runs(
        self,
        *,
        limit: int | None = 50,
        status: str | None = None,
        workflow: str | None = None,
        since: float | None = None,
    ) -> list[RunRow]:
        """The newest runs first.

        ``limit`` of them at most, None for all; ``since`` leaves out those that began earlier, in
        seconds since the epoch.
        """
        query = sa.select(*LISTED).order_by(runs.c.created_at.desc(), runs.c.id).limit(limit)
        if status is not None:
            query = query.where(runs.c.status == status)
        if workflow is not None:
            query = query.where(runs.c.workflow == workflow)
        if since is not None:
            query = query.where(runs.c.created_at >= since)
        return await self._rows(query)

    async def due(
        self, *, workflow: str | None = None, limit: int = 1000, now: float | None = None
    ) -> list[DueRow]:
        """Parked runs that are to be woken, ``limit`` of them at most.

        Those that a waker died on come first, then those with a signal, then those whose timer is
        over at ``now`` (seconds since the epoch, by the clock of this process, which also says how
        long they have left to sleep). A run that wakers have died on again and again is left out
        for longer each time. Claim them with ``after=row.attempt``.
        """
        at, clock = time.time() if now is None else now, self._now()
        return await self.database.read(lambda c: find_due(c, clock, at, workflow, limit))

    async def next_timer(self, *, after: float, workflow: str | None = None) -> float | None:
        """When the next timer of a parked run is over (seconds since the epoch), None without."""
        return await self.database.read(lambda c: find_next_timer(c, after, workflow))

    async def tool_runs(self, workflow: str, tools: Collection[str]) -> list[ToolRun]:
        """How long these tools took when a workflow called them last, the oldest call first."""
        return await self.database.read(lambda c: find_tool_runs(c, workflow, tools))

    async def _rows(self, query: sa.Executable) -> list[RunRow]:
        return [RunRow(*row) for row in await self._fetch(query)]

    async def _fetch(self, query: sa.Executable) -> list[tuple[JSON, ...]]:
        return await self.database.read(
            lambda connection: [tuple(row) for row in connection.execute(query)]
        )

    async def _execute(self, *statements: sa.UpdateBase) -> int:
        """Run statements in one transaction; returns the rows the first one changed."""

        def work(connection: sa.Connection) -> int:
            results = [connection.execute(statement) for statement in statements]
            return int(results[0].rowcount)

        return await self.database.write(work)

    async def renew(self, journal: Journal) -> None:
        """Extend the lease of a run this process drives; one that has come to rest has none.

        Raises:
            Fenced: another attempt has taken it over; the journal refuses everything from then on.
        """
        # the end of the attempt may have been committed while this was on its way
        longer = sa.case(
            (runs.c.status == "running", self._now() + self.lease), else_=runs.c.lease_until
        )
        if await self._lease(journal, longer) != 1:
            error = Fenced(journal.run_id, journal.attempt)
            journal.fail(error)
            raise error

    async def release(self, journal: Journal) -> None:
        """Give the lease back, so that the next attempt need not wait for it to run out."""
        await self._lease(journal, sa.literal(0.0, sa.Double))

    async def _lease(self, journal: Journal, until: sa.ColumnElement[float]) -> int:
        return await self._execute(
            sa.update(runs)
            .where(runs.c.id == journal.run_id, runs.c.attempt == journal.attempt)
            .values(lease_until=until)
        )

    async def send_signal(self, run_id: str, name: str, value: JSON = None, key: str = "") -> str:
        """Leave a signal for a run; its current or next attempt takes it in. Returns its id.

        ``key`` is the waiting place it answers; empty answers the first that waits for ``name``.

        Raises:
            RunNotFound: there is no such run.
            InvalidInput: the name is empty or holds control characters, the value is not JSON, or
                the key is no place.
        """
        check_signal_name("signal", name)
        identifier = uuid.uuid4().hex
        await self.row(run_id)
        try:
            body = canonical({"key": key, "value": value})
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidInput("signal", f"cannot be recorded as JSON: {error}") from error
        if "\n" in key:
            raise InvalidInput("key", f"{key!r} is no place", "Copy it from `longthought show`")
        row = {"id": identifier, "run_id": run_id, "name": name, "body": body}
        statement = sa.insert(signals).values(**row, created_at=self._now())

        def send(connection: sa.Connection) -> None:
            connection.execute(statement)
            notify(connection)

        await self.database.write(send)
        for heard in self._listeners:
            heard()
        return identifier

    @asynccontextmanager
    async def listening(self, heard: Callable[[], None]) -> AsyncIterator[None]:
        """Call ``heard`` when a signal was sent: by this store, on PostgreSQL by any other, too.

        It may be called for nothing, and not be called: it makes looking quicker, not needless.
        """
        self._listeners.append(heard)
        try:
            async with self.database.listening(heard):
                yield
        finally:
            self._listeners.remove(heard)

    async def take_signals(
        self,
        journal: Journal,
        name: str | None = None,
        *,
        staged: Callable[[list[JSON]], bool] | None = None,
    ) -> int:
        """Bring signals that arrived into the run's chain; returns how many were new.

        Those of one ``name`` alone if it is given. ``staged`` is called with the values of the new
        ones before they are staged, and may refuse them by False: they then wait on.
        """
        query = (
            sa.select(signals.c.id, signals.c.name, signals.c.body)
            .where(signals.c.run_id == journal.run_id)
            .order_by(signals.c.created_at, signals.c.id)
        )
        rows = await self._fetch(query if name is None else query.where(signals.c.name == name))
        if not rows:
            return 0
        seen = {event.body["signal"] for event in journal.events if event.type == "signal"}
        fresh = [(*row[:2], json.loads(row[2])) for row in rows if row[0] not in seen]
        values = [body["value"] for _, _, body in fresh]
        if staged is not None and not staged(values):
            return 0
        for identifier, named, body in fresh:
            value = journal.put(body["value"])
            journal.stage("signal", body["key"], signal=identifier, name=named, value=value)
        if fresh:
            try:
                await journal.flush()
            finally:  # on record even if the caller is cancelled
                for value in values:  # this attempt is about to read them
                    journal.keep(value)
        await self._execute(sa.delete(signals).where(signals.c.id.in_([row[0] for row in rows])))
        return len(fresh)

    async def waiting_signals(self, run_id: str, name: str | None = None) -> int:
        """How many signals, of one ``name`` or of any, wait for the run's next attempt."""
        query = sa.select(sa.func.count()).where(signals.c.run_id == run_id)
        query = query if name is None else query.where(signals.c.name == name)
        return int((await self._fetch(query))[0][0])

    async def waiting_values(self, run_id: str, name: str) -> list[JSON]:
        """The values of the signals of one ``name`` that wait for the run's next attempt."""
        query = sa.select(signals.c.body).where(signals.c.run_id == run_id, signals.c.name == name)
        return [json.loads(row[0])["value"] for row in await self._fetch(query)]

    async def delete_payloads(self, run_id: str, ids: list[str], reason: str) -> None:
        """Delete payloads behind a tombstone; the chain still verifies, the run is sealed.

        Tombstone, deletion and the end of the run key are one transaction.

        Raises:
            RunNotFound: there is no such run.
            RunBusy: the run is being driven.
            InvalidInput: an id is not a payload of this run.
        """
        await self.database.write(
            lambda c: deletion.delete_payloads(c, run_id, ids, reason, self._now())
        )
        await self.database.scrub()

    async def checkpoint(self) -> JSONObject:
        """Sign the heads of all runs and keep the result; hold a copy where nobody can change it.

        Raises:
            ConfigurationError: the signing key in the data directory cannot be used.
        """
        return await checkpoints.create(self.database, self.directory)
