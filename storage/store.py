"""The store: opens the database, creates, claims and reads runs, and carries signals."""

from __future__ import annotations

import json
import re
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from longthought.errors import Fenced, InvalidInput, RunBusy, RunNotFound, StorageError
from longthought.storage.database import Database, migrate, open_database
from longthought.storage.digests import EMPTY_HEAD, canonical, new_run_key
from longthought.storage.events import FORMAT_VERSION
from longthought.storage.journal import Journal
from longthought.storage.location import data_dir, database_url
from longthought.storage.owner import is_gone, process_identity
from longthought.storage.recording import Recording
from longthought.storage.tables import events, payloads, runs, signals
from longthought.storage.writer import GroupWriter
from longthought.types import JSON, JSONObject

__all__ = ["RunRow", "Store"]

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class RunRow:
    """One line of a listing. ``created_at`` is in seconds since the epoch."""

    id: str
    workflow: str
    status: str
    created_at: float
    attempt: int
    owner: str
    lease_until: float
    length: int
    head: str


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
        except (SQLAlchemyError, OSError) as error:
            await database.close()
            shown = self.url.render_as_string(hide_password=True)
            cause = getattr(error, "orig", None) or error
            raise StorageError(f"the store {shown} cannot be opened: {cause}") from error
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
            return sa.cast(sa.func.extract("epoch", sa.func.clock_timestamp()), sa.Double)
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
    ) -> Journal:
        """A new run, owned by this process, with its manifest committed as the first event.

        ``run_key`` is random unless given; equal keys make the digests of two runs comparable.

        Raises:
            InvalidInput: the id is malformed or taken.
        """
        run_id = run_id or f"run-{uuid.uuid4().hex[:16]}"
        if not _RUN_ID.fullmatch(run_id):
            raise InvalidInput(
                "run", f"{run_id!r} is no run id", "Use letters, digits, '.', '_', '-'"
            )
        key = run_key or new_run_key()
        row = {
            "id": run_id,
            "workflow": workflow,
            "status": "running",
            "attempt": 1,
            "owner": self.owner,
            "head": EMPTY_HEAD,
            "length": 0,
            "run_key": key,
        }
        journal = Journal(run_id, key, 1, self.writer)
        first = journal.stage(
            "run_started",
            format=FORMAT_VERSION,
            longthought=version,
            workflow=workflow,
            fingerprint=fingerprint,
            manifest=journal.put(manifest),
        )
        row["created_at"] = first.body["at"]
        try:
            insert = sa.insert(runs).values(**row, lease_until=self._now() + self.lease)
            await self._execute(insert)
        except IntegrityError as error:
            raise InvalidInput("run", f"the id {run_id!r} is taken", "Choose another") from error
        await journal.append("attempt_started", attempt=1, owner=self.owner)
        return journal

    async def claim(self, run_id: str, *, force: bool = False, fingerprint: str = "") -> Journal:
        """Take a run over as its next attempt, with everything recorded so far.

        Raises:
            RunNotFound: there is no such run.
            RunBusy: another live process holds it and ``force`` is false.
            TraceError: its chain is broken.
            StorageError: a deleted payload makes it impossible to continue the run.
        """
        journal = await self.database.write(lambda c: self._take_over(c, run_id, force))
        journal.opened()
        extra = {"fingerprint": fingerprint} if fingerprint else {}
        await journal.append("attempt_started", attempt=journal.attempt, owner=self.owner, **extra)
        return journal

    def _take_over(self, connection: sa.Connection, run_id: str, force: bool) -> Journal:
        query = sa.select(runs, self._now().label("now")).where(runs.c.id == run_id)
        row = connection.execute(query).one_or_none()
        if row is None:
            raise RunNotFound(run_id)
        left = row.lease_until - row.now
        if left > 0 and not force and not is_gone(row.owner):
            raise RunBusy(run_id, row.owner, left)
        if row.run_key is None:
            raise StorageError(f"run {run_id} has deleted payloads and cannot be continued")
        attempt = row.attempt + 1
        changed = connection.execute(
            sa.update(runs)
            .where(runs.c.id == run_id, runs.c.attempt == row.attempt)
            .values(
                attempt=attempt,
                owner=self.owner,
                lease_until=self._now() + self.lease,
                status="running",
            )
        )
        if changed.rowcount != 1:
            raise RunBusy(run_id, "another process", self.lease)
        journal = Journal(run_id, row.run_key, attempt, self.writer)
        _load(connection, journal)
        return journal

    async def read(self, run_id: str) -> Recording:
        """A run as it stands, for replay, show, why and audit. Takes nothing over.

        Raises:
            RunNotFound: there is no such run.
            TraceError: its chain is broken.
        """

        def load(connection: sa.Connection) -> Recording:
            query = sa.select(runs.c.run_key).where(runs.c.id == run_id)
            row = connection.execute(query).one_or_none()
            if row is None:
                raise RunNotFound(run_id)
            recording = Recording(run_id, row.run_key)
            _load(connection, recording)
            return recording

        return await self.database.read(load)

    async def row(self, run_id: str) -> RunRow:
        """The listing line of one run.

        Raises:
            RunNotFound: there is no such run.
        """
        found = await self._rows(sa.select(*_LISTED).where(runs.c.id == run_id))
        if not found:
            raise RunNotFound(run_id)
        return found[0]

    async def list_runs(
        self, *, limit: int = 50, status: str | None = None, workflow: str | None = None
    ) -> list[RunRow]:
        """The newest runs first."""
        query = sa.select(*_LISTED).order_by(runs.c.created_at.desc(), runs.c.id).limit(limit)
        if status is not None:
            query = query.where(runs.c.status == status)
        if workflow is not None:
            query = query.where(runs.c.workflow == workflow)
        return await self._rows(query)

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
        """Extend the lease of a run this process drives.

        Raises:
            Fenced: another attempt has taken it over; the journal refuses everything from then on.
        """
        if await self._lease(journal, self._now() + self.lease) != 1:
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
        """
        identifier = uuid.uuid4().hex
        await self.row(run_id)
        body = canonical({"key": key, "value": value})
        await self._execute(
            sa.insert(signals).values(
                id=identifier, run_id=run_id, name=name, body=body, created_at=self._now()
            )
        )
        return identifier

    async def take_signals(self, journal: Journal) -> int:
        """Bring signals that arrived into the run's chain; returns how many were new."""
        query = (
            sa.select(signals.c.id, signals.c.name, signals.c.body)
            .where(signals.c.run_id == journal.run_id)
            .order_by(signals.c.created_at, signals.c.id)
        )
        rows = await self._fetch(query)
        seen = {event.body["signal"] for event in journal.events if event.type == "signal"}
        fresh = [row for row in rows if row[0] not in seen]
        for identifier, name, text in fresh:
            body = json.loads(text)
            value = journal.put(body["value"])
            journal.stage("signal", body["key"], signal=identifier, name=name, value=value)
        if fresh:
            await journal.flush()
        if rows:
            await self._execute(
                sa.delete(signals).where(signals.c.id.in_([row[0] for row in rows]))
            )
        return len(fresh)

    async def waiting_signals(self, run_id: str) -> int:
        """How many signals wait for the run's next attempt."""
        query = sa.select(sa.func.count()).where(signals.c.run_id == run_id)
        return int((await self._fetch(query))[0][0])

    async def delete_payloads(self, run_id: str, ids: list[str], reason: str) -> None:
        """Delete payloads behind a tombstone; the chain still verifies, the run is sealed.

        Raises:
            RunBusy: the run is being driven.
            InvalidInput: an id is not a payload of this run.
        """
        journal = await self.claim(run_id)
        unknown = [name for name in ids if not journal.has(name)]
        if unknown or not ids:
            await self.release(journal)
            raise InvalidInput(
                "payloads", f"not in run {run_id}: {', '.join(unknown) or 'none given'}"
            )
        previous = [event for event in journal.events if event.type == "run_ended"]
        status = previous[-1].body["status"] if previous else "failed"
        journal.stage("payload_deleted", payloads=sorted(ids), reason=reason)
        await journal.flush(status=status)
        await self._execute(
            sa.delete(payloads).where(payloads.c.run_id == run_id, payloads.c.id.in_(ids)),
            sa.update(runs).where(runs.c.id == run_id).values(run_key=None, lease_until=0.0),
        )


_LISTED = (
    runs.c.id,
    runs.c.workflow,
    runs.c.status,
    runs.c.created_at,
    runs.c.attempt,
    runs.c.owner,
    runs.c.lease_until,
    runs.c.length,
    runs.c.head,
)


def _load(connection: sa.Connection, recording: Recording) -> None:
    rows = connection.execute(
        sa.select(events.c.seq, events.c.type, events.c.key, events.c.body, events.c.hash)
        .where(events.c.run_id == recording.run_id)
        .order_by(events.c.seq)
    )
    bodies = connection.execute(
        sa.select(payloads.c.id, payloads.c.body).where(payloads.c.run_id == recording.run_id)
    )
    recording.load(
        ((row.seq, row.type, row.key, row.body, row.hash) for row in rows),
        {row.id: row.body for row in bodies},
    )
