"""Signed checkpoints: the heads of all runs at one moment, under one root and one signature.

Whoever can write the database can rewrite events and heads together. A checkpoint held elsewhere
cannot be rewritten with them: a run may grow after it, but what it saw must still be there. Each
checkpoint also holds the digest of the one before it, so that none can be left out between two.
"""

from __future__ import annotations

import time
import uuid
from pathlib import Path

import sqlalchemy as sa

from longthought.errors import RunNotFound
from longthought.storage.database import Database
from longthought.storage.digests import canonical, digest_of
from longthought.storage.merkle import inclusion_path, merkle_root, root_from_path
from longthought.storage.signing import public_text, sign, signature_holds, signing_key
from longthought.storage.tables import checkpoints, runs
from longthought.types import JSON, JSONObject

__all__ = ["CHECKPOINT_FORMAT", "create", "inclusion_proof", "problem_with", "proof_holds"]

CHECKPOINT_FORMAT = 1

_ADVISORY_LOCK = 0x6C6F6E68  # any constant; it lets one checkpoint be made at a time
_FIELDS = {
    "format": int,
    "id": str,
    "number": int,
    "created_at": float,
    "previous": str,
    "runs": list,
    "root": str,
    "public_key": str,
    "signature": str,
}


async def create(database: Database, directory: Path) -> JSONObject:
    """Sign the heads of all runs as they are now and save the checkpoint.

    Raises:
        ConfigurationError: the signing key cannot be used.
    """
    key = signing_key(directory)

    def work(connection: sa.Connection) -> JSONObject:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
        newest = sa.select(checkpoints.c.number, checkpoints.c.body)
        last = connection.execute(newest.order_by(checkpoints.c.number.desc()).limit(1)).first()
        heads = connection.execute(sa.select(runs.c.id, runs.c.length, runs.c.head))
        entries = sorted([row.id, row.length, row.head] for row in heads)
        body: JSONObject = {
            "format": CHECKPOINT_FORMAT,
            "id": uuid.uuid4().hex,
            "number": last.number + 1 if last else 1,
            "created_at": round(time.time(), 6),
            "previous": digest_of(last.body.encode()) if last else "",
            "runs": entries,
            "root": merkle_root([canonical(entry) for entry in entries]),
            "public_key": public_text(key),
        }
        body["signature"] = sign(key, canonical(body))
        connection.execute(
            sa.insert(checkpoints).values(
                number=body["number"],
                id=body["id"],
                created_at=body["created_at"],
                body=canonical(body),
            )
        )
        return body

    return await database.write(work)


def problem_with(checkpoint: JSON, public_key: str | None = None) -> str | None:
    """What is wrong with a checkpoint in itself, or None: form, root, signature, pinned key."""
    if not isinstance(checkpoint, dict) or checkpoint.keys() != _FIELDS.keys():
        return "it does not have the fields of a checkpoint"
    if any(type(checkpoint[name]) is not kind for name, kind in _FIELDS.items()):
        return "it does not have the form of a checkpoint"
    if checkpoint["format"] != CHECKPOINT_FORMAT:
        return f"its format {checkpoint['format']!r} is not known"
    entries = checkpoint["runs"]
    if not all(_is_entry(entry) for entry in entries) or sorted(entries) != entries:
        return "its list of runs is malformed"
    if checkpoint["root"] != merkle_root([canonical(entry) for entry in entries]):
        return "its root does not fit its list of runs"
    signed = {name: value for name, value in checkpoint.items() if name != "signature"}
    if not signature_holds(checkpoint["public_key"], checkpoint["signature"], canonical(signed)):
        return "its signature does not hold"
    if public_key is not None and checkpoint["public_key"] != public_key:
        return f"it is signed by another key ({checkpoint['public_key']})"
    return None


def _is_entry(entry: JSON) -> bool:
    return (
        isinstance(entry, list)
        and [type(part) for part in entry] == [str, int, str]
        and entry[1] >= 0
    )


def inclusion_proof(checkpoint: JSONObject, run_id: str) -> JSONObject:
    """Shows that one run was in a checkpoint without showing the others.

    Raises:
        RunNotFound: the run is not in the checkpoint.
    """
    entries = checkpoint["runs"]
    index = next((i for i, entry in enumerate(entries) if entry[0] == run_id), None)
    if index is None:
        raise RunNotFound(run_id)
    return {
        "checkpoint": checkpoint["id"],
        "root": checkpoint["root"],
        "run": entries[index],
        "index": index,
        "size": len(entries),
        "path": inclusion_path([canonical(entry) for entry in entries], index),
    }


def proof_holds(proof: JSONObject, root: str) -> bool:
    """Whether a proof of :func:`inclusion_proof` leads to the root of a signed checkpoint."""
    try:
        leaf = canonical(proof["run"])
        return root_from_path(leaf, proof["index"], proof["size"], proof["path"]) == root
    except (KeyError, TypeError, ValueError):
        return False
