"""A run as one JSON document, which can be verified without the store it came from.

The document holds what the events and payloads say and the salts that prove them, not the run key:
who has it can verify every digest, but learns nothing about payloads that were deleted.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import sqlalchemy as sa

from longthought.errors import RunNotFound, TraceError
from longthought.storage.chain import Finding
from longthought.storage.digests import canonical
from longthought.storage.events import FORMAT_VERSION
from longthought.storage.tables import events, payloads, runs
from longthought.storage.verification import RunCheck
from longthought.types import JSONObject

if TYPE_CHECKING:
    from longthought.storage.store import Store

__all__ = ["export_run", "verify_export"]

_ROW = (
    runs.c.id,
    runs.c.workflow,
    runs.c.status,
    runs.c.created_at,
    runs.c.attempt,
    runs.c.head,
    runs.c.length,
)


async def export_run(store: Store, run_id: str) -> JSONObject:
    """A run as a document; nothing is verified here.

    Raises:
        RunNotFound: there is no such run.
        TraceError: a row of it is no JSON.
    """

    def work(connection: sa.Connection) -> JSONObject:
        row = connection.execute(sa.select(*_ROW).where(runs.c.id == run_id)).mappings().first()
        if row is None:
            raise RunNotFound(run_id)
        chain = sa.select(events).where(events.c.run_id == run_id).order_by(events.c.seq)
        named = sa.select(payloads).where(payloads.c.run_id == run_id).order_by(payloads.c.n)
        return {
            "format": FORMAT_VERSION,
            "run": dict(row),
            "events": [
                {
                    "seq": event.seq,
                    "type": event.type,
                    "key": event.key,
                    "body": json.loads(event.body),
                    "hash": event.hash,
                }
                for event in connection.execute(chain)
            ],
            "payloads": [
                {"id": found.id, "salt": found.salt.hex(), "value": json.loads(found.body)}
                for found in connection.execute(named)
            ],
        }

    try:
        return await store.database.survey(work)
    except ValueError as error:
        raise TraceError(f"run {run_id} cannot be exported: {error}") from error


def verify_export(document: JSONObject) -> list[Finding]:
    """Verify an exported run as the audit verifies a stored one, checkpoints aside.

    Raises:
        TraceError: the document does not have the form of an export.
    """
    try:
        if document["format"] != FORMAT_VERSION:
            raise TraceError(f"format {document['format']!r} is not known")
        check = RunCheck(document["run"]["id"])
        for event in document["events"]:
            body = canonical(event["body"])
            check.event((event["seq"], event["type"], event["key"], body, event["hash"]))
        for payload in document["payloads"]:
            salt = bytes.fromhex(payload["salt"])
            check.payload(payload["id"], salt, canonical(payload["value"]), None)
        return check.finish(document["run"])
    except (KeyError, TypeError, ValueError) as error:
        raise TraceError(f"no exported run: {type(error).__name__} {error}") from error
