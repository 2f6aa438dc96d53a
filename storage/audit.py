"""The audit of what is stored: is every run still what was written?

It reads the raw rows of one consistent view, one run at a time, and names the event at which
something is not as it was. Against one who can write the database only a checkpoint held elsewhere
helps (``checkpoints.py``); those in the store are used as well. This is the *chain* half; whether a
run replays to the same end is the orchestrator's half.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError, OperationalError

from longthought.errors import RunNotFound
from longthought.storage.chain import Expectation, Finding
from longthought.storage.checkpoints import problem_with
from longthought.storage.digests import canonical, digest_of
from longthought.storage.tables import checkpoints, events, payloads, runs
from longthought.storage.verification import RunCheck
from longthought.types import JSON, JSONObject

if TYPE_CHECKING:
    from longthought.storage.store import Store

__all__ = ["AuditReport", "Finding", "audit"]

_STREAM = {"yield_per": 200}
_PAGE = 500


@dataclass(slots=True)
class AuditReport:
    """What an audit read and what it found; ``ok`` if it found nothing.

    ``loose``: payloads that a crash left behind before an event named them. ``checkpoints``: how
    many were sound and held against the runs; ``signers``: the public keys they are signed with,
    to be compared with what you know.
    """

    findings: list[Finding] = field(default_factory=list)
    runs: int = 0
    events: int = 0
    payloads: int = 0
    deleted: int = 0
    loose: int = 0
    checkpoints: int = 0
    signers: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def to_json(self) -> JSONObject:
        """All fields and ``ok`` as JSON."""
        return {"ok": self.ok, **asdict(self)}


async def audit(
    store: Store,
    run_id: str | None = None,
    checkpoint: JSONObject | None = None,
    public_key: str | None = None,
) -> AuditReport:
    """Verify one run, or all of them, against the chain and every checkpoint at hand.

    ``checkpoint`` is one that was held elsewhere; ``public_key`` pins the key that every checkpoint
    must be signed with.

    Raises:
        RunNotFound: neither the store nor a checkpoint knows the run.
        StorageError: the store cannot be reached.
    """
    return await store.database.survey(
        lambda connection: _Audit(connection, public_key).check(run_id, checkpoint)
    )


class _Audit:
    def __init__(self, connection: sa.Connection, public_key: str | None) -> None:
        self.connection = connection
        self.public_key = public_key
        self.report = AuditReport()
        self.expected: dict[str, set[Expectation]] = {}
        self.saved: set[str] = set()

    def check(self, run_id: str | None, checkpoint: JSON) -> AuditReport:
        try:
            self._check(run_id, checkpoint)
        except OperationalError:
            raise
        except DatabaseError as error:
            self._report(run_id, "file", "", f"the database cannot be read further: {error.orig}")
        return self.report

    def _check(self, run_id: str | None, checkpoint: JSON) -> None:
        if run_id is None:
            self._check_file()
        self._take_saved()
        if checkpoint is not None:
            self._take_held(checkpoint)
        known: set[str] = set()
        for row in self._rows(run_id):
            known.add(row["id"])
            self._check_run(row)
        self._check_absent(run_id, known)

    def _check_file(self) -> None:
        """Damage that no row shows, such as an index that leads nowhere."""
        if self.connection.dialect.name != "sqlite":
            return
        for (line,) in self.connection.exec_driver_sql("PRAGMA integrity_check(20)"):
            if line != "ok":
                self._report(None, "file", "", f"the database file is damaged: {line}")

    def _take_saved(self) -> None:
        query = sa.select(checkpoints).order_by(checkpoints.c.number)
        number, previous = 0, ""
        for row in self._stream(query):
            number += 1
            problem = None
            body = _parsed(row.body)
            if row.number != number:
                problem = f"checkpoint {number} before it is missing"
                number = row.number if isinstance(row.number, int) else number
            problem = problem or problem_with(body, self.public_key)
            if problem is None and (row.number, row.id, row.created_at, row.body) != (
                body["number"],
                body["id"],
                body["created_at"],
                canonical(body),
            ):
                problem = "its row is not what was signed"
            if problem is None and body["previous"] != previous:
                problem = "the checkpoint before it is not the one it was made after"
            previous = digest_of(str(row.body).encode(errors="surrogateescape"))
            if problem is not None:
                self._report(None, "checkpoint", str(row.id), problem)
            else:
                self.saved.add(row.body)
                self._expect(body)

    def _take_held(self, checkpoint: JSON) -> None:
        problem = problem_with(checkpoint, self.public_key)
        if problem is not None:
            name = checkpoint.get("id") if isinstance(checkpoint, dict) else None
            self._report(None, "checkpoint", str(name or ""), f"held elsewhere: {problem}")
            return
        if canonical(checkpoint) not in self.saved:
            self._report(
                None,
                "checkpoint",
                checkpoint["id"],
                "held elsewhere, but not in this store: it was rolled back, or is another store",
            )
            self._expect(checkpoint)

    def _expect(self, checkpoint: JSONObject) -> None:
        self.report.checkpoints += 1
        if checkpoint["public_key"] not in self.report.signers:
            self.report.signers.append(checkpoint["public_key"])
        for run_id, length, head in checkpoint["runs"]:
            seen = self.expected.setdefault(run_id, set())
            if not any((other.length, other.head) == (length, head) for other in seen):
                seen.add(Expectation(length, head, checkpoint["id"]))

    def _rows(self, run_id: str | None) -> Iterator[JSONObject]:
        """The rows of the runs to check, a page at a time."""
        last = None
        while True:
            query = sa.select(runs).order_by(runs.c.id).limit(_PAGE)
            if run_id is not None:
                query = query.where(runs.c.id == run_id)
            if last is not None:
                query = query.where(runs.c.id > last)
            page = self.connection.execute(query).mappings().all()
            if not page:
                return
            for row in page:
                yield dict(row)
            last = page[-1]["id"]

    def _check_run(self, row: JSONObject) -> None:
        run_id, report = row["id"], self.report
        check = RunCheck(run_id, self.expected.get(run_id, ()))
        columns = (events.c.seq, events.c.type, events.c.key, events.c.body, events.c.hash)
        chain = sa.select(*columns).where(events.c.run_id == run_id).order_by(events.c.seq)
        for raw in self._stream(chain):
            check.event((raw.seq, raw.type, raw.key, raw.body, raw.hash))
        stored = sa.select(payloads.c.id, payloads.c.salt, payloads.c.body)
        for raw in self._stream(stored.where(payloads.c.run_id == run_id)):
            check.payload(raw.id, raw.salt, raw.body, row["run_key"])
        report.findings += check.finish(row)
        report.runs += 1
        report.events += check.events
        report.payloads += check.payloads
        report.deleted += check.deleted
        report.loose += check.loose

    def _check_absent(self, run_id: str | None, known: set[str]) -> None:
        """Runs that a checkpoint saw, or that left rows, but that are no more."""
        gone = sorted(self.expected.keys() - known)
        if run_id is not None:
            if run_id not in known and run_id not in gone:
                raise RunNotFound(run_id)
            gone = [name for name in gone if name == run_id]
        for name in gone:
            seen = max(self.expected[name], key=lambda expected: expected.length)
            self._report(
                name,
                "run",
                "",
                f"the run is gone: checkpoint {seen.checkpoint} saw {seen.length} events of it",
            )
        if run_id is not None:
            return
        for table in (events, payloads):
            orphans = sa.select(table.c.run_id).distinct()
            orphans = orphans.where(table.c.run_id.not_in(sa.select(runs.c.id)))
            for (name,) in self.connection.execute(orphans):
                self._report(str(name), "run", "", f"there are {table.name} of a run without a row")

    def _stream(self, query: sa.Executable) -> sa.CursorResult[Any]:
        return self.connection.execute(query, execution_options=_STREAM)

    def _report(self, run_id: str | None, type_: str, key: str, problem: str) -> None:
        self.report.findings.append(Finding(run_id or "", None, type_, key, problem))


def _parsed(body: JSON) -> JSON:
    try:
        return json.loads(body)
    except (TypeError, ValueError, RecursionError):
        return None
