"""Deleting payloads: the words go, the tombstone and the chain stay, the run is sealed.

With the payloads go their salts and the run key, so that no digest can be matched with a guess any
more, and what the run never came to name (left by a crash). A sealed run is read, shown and
audited, but never continued.
"""

from __future__ import annotations

import json
import re
import time

import sqlalchemy as sa

from longthought.errors import InvalidInput
from longthought.storage.digests import canonical, chain_hash
from longthought.storage.recording import Recording, event_text
from longthought.storage.rows import free_row, load_rows
from longthought.storage.tables import events, payloads, runs
from longthought.types import JSON

__all__ = ["NAMES_IN", "delete_payloads"]

NAMES_IN = re.compile(r'"([A-Za-z0-9_-]{43})"')
"""Strings in a JSON text that may be payload ids."""

_CHUNK = 500  # bound parameters per statement


def delete_payloads(
    connection: sa.Connection,
    run_id: str,
    ids: list[str],
    reason: str,
    now: sa.ColumnElement[float],
) -> None:
    """Delete payloads of a run that nobody drives, in the caller's transaction.

    Raises:
        RunNotFound: there is no such run.
        RunBusy: the run is being driven.
        InvalidInput: an id is not a payload of this run.
    """
    row = free_row(connection, run_id, now)
    recording = Recording(run_id, None)
    load_rows(connection, recording)
    unknown = [name for name in ids if not recording.has(name)]
    if unknown or not ids:
        raise InvalidInput("payloads", f"not in run {run_id}: {', '.join(unknown) or 'none given'}")
    body: dict[str, JSON] = {
        "payloads": sorted(set(ids)),
        "reason": reason,
        "links": {name: links for name in sorted(set(ids)) if (links := _links(recording, name))},
        "at": time.time(),
    }
    seq, text = recording.length + 1, canonical(body)
    head = chain_hash(recording.head, event_text(seq, "payload_deleted", "", text))
    connection.execute(
        sa.insert(events).values(
            run_id=run_id, seq=seq, type="payload_deleted", key="", body=text, hash=head
        )
    )
    connection.execute(
        sa.update(runs)
        .where(runs.c.id == run_id)
        .values(
            head=head,
            length=seq,
            status="failed" if row.status == "running" else row.status,
            run_key=None,
            lease_until=0.0,
            wake_at=None,
        )
    )
    gone = sorted({*ids, *(recording.bodies.keys() - _reachable(recording))})
    for start in range(0, len(gone), _CHUNK):
        chunk = gone[start : start + _CHUNK]
        connection.execute(
            sa.delete(payloads).where(payloads.c.run_id == run_id, payloads.c.id.in_(chunk))
        )


def _links(recording: Recording, name: str) -> list[str]:
    """The payloads that a payload names; of a conversation first the one before it."""
    text = recording.bodies[name]
    deleted = recording.deleted
    named = [other for other in NAMES_IN.findall(text) if recording.has(other) or other in deleted]
    value = json.loads(text)
    if isinstance(value, dict) and value.keys() == {"p", "m"} and value["p"]:
        named.insert(0, value["p"])
    return list(dict.fromkeys(named))


def _reachable(recording: Recording) -> set[str]:
    """Every payload that an event names, itself or through others."""
    ahead = {name for event in recording.events for name in NAMES_IN.findall(canonical(event.body))}
    found: set[str] = set()
    while ahead:
        name = ahead.pop()
        if name in recording.bodies and name not in found:
            found.add(name)
            ahead.update(NAMES_IN.findall(recording.bodies[name]))
    return found
