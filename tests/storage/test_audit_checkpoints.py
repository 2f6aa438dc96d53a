"""What the audit finds by checkpoints alone, and what it finds of them."""

from __future__ import annotations

import json
import shutil

import pytest
import sqlalchemy as sa

from longthought.storage import Store, canonical
from longthought.storage.audit import audit
from longthought.storage.digests import chain_hash, payload_id, salt_of
from longthought.storage.recording import event_text
from longthought.storage.tables import events, runs
from tests.storage.audits import at, found, names_of

# What only a checkpoint shows: the database was rewritten so that it fits itself.


async def rewrite(store, change=None, cut: int | None = None, run_id: str = "run-1") -> None:
    """Change or cut a run as one can who may write everything: chain, salts and row fit again."""

    def work(connection: sa.Connection) -> None:
        query = sa.select(events).where(events.c.run_id == run_id).order_by(events.c.seq)
        rows = [dict(row) for row in connection.execute(query).mappings()][:cut]
        connection.execute(sa.delete(events).where(events.c.run_id == run_id))
        head = ""
        for row in rows:
            if change is not None:
                change(row)
            head = chain_hash(head, event_text(row["seq"], row["type"], row["key"], row["body"]))
            connection.execute(sa.insert(events).values(**{**row, "hash": head}))
        values = {"head": head, "length": len(rows)}
        if cut is not None:
            values["status"] = "running"
        connection.execute(sa.update(runs).where(runs.c.id == run_id).values(**values))

    await store.database.write(work)


def change_at(seq: int):
    def change(row) -> None:
        if row["seq"] == seq:
            row["body"] = canonical({**json.loads(row["body"]), "at": 1.5})

    return change


@pytest.fixture(params=["in the store", "held elsewhere"])
async def checked(request, filled):
    """A filled store with a checkpoint; the options that hand it to the audit."""
    held = await filled.checkpoint()
    return filled, {"checkpoint": held} if request.param == "held elsewhere" else {}


async def test_a_recomputed_chain(checked):
    store, options = checked
    await rewrite(store, change_at(6))
    findings = await found(store, **options)
    assert [(f[0], f[1]) for f in findings] == [("run-1", 11)]
    assert "an event from 1 to 11 is not what it was" in findings[0][2]


async def test_a_recomputed_chain_between_two_checkpoints(store, kit):
    journal = await kit.begin(store, "run-1")
    await store.checkpoint()
    await kit.fill(journal)
    await store.checkpoint()
    await rewrite(store, change_at(5))
    findings = await found(store)
    assert [(f[0], f[1]) for f in findings] == [("run-1", 11)]
    assert "an event from 3 to 11 is not what it was" in findings[0][2]


async def test_a_cut_tail(checked, kit):
    store, options = checked
    outcome = (await store.read("run-1")).ended().body["outcome"]
    await rewrite(store, cut=10)
    findings = await found(store, **options)
    assert [(f[0], f[1]) for f in findings] == [("run-1", 11)], outcome
    assert "events 11 to 11 are gone" in findings[0][2]


async def test_a_cut_tail_that_was_written_anew(checked, kit):
    store, options = checked
    await rewrite(store, cut=3)
    journal = await store.claim("run-1")
    for number in range(10):
        await journal.append("branch_ended", f"b{number}", how="finished")
    assert at(await found(store, **options), "run-1", 11, "rewritten")


async def test_a_changed_payload_with_everything_recomputed(checked, kit):
    store, options = checked
    name, _ = (await names_of(store))["tool result"]
    key = (await kit.rows(store, "SELECT run_key FROM runs WHERE id = 'run-1'"))[0][0]
    body = canonical({"status": "ok", "content": "3"})
    salt = salt_of(key, body.encode())
    new = payload_id(salt, body.encode())
    await kit.tamper(
        store,
        "UPDATE payloads SET id = :new, salt = :salt, body = :body WHERE id = :old",
        new=new,
        salt=salt,
        body=body,
        old=name,
    )

    def change(row) -> None:
        row["body"] = row["body"].replace(name, new)

    await rewrite(store, change)
    assert at(await found(store, **options), "run-1", 11, "rewritten")


async def delete_run(store, kit) -> None:
    """Take every trace of `run-1` out of the tables."""
    await kit.tamper(
        store,
        "DELETE FROM events WHERE run_id = 'run-1'",
        "DELETE FROM payloads WHERE run_id = 'run-1'",
        "DELETE FROM runs WHERE id = 'run-1'",
    )


async def test_a_deleted_run(checked, kit):
    store, options = checked
    await delete_run(store, kit)
    findings = await found(store, **options)
    assert [(f[0], f[1]) for f in findings] == [("run-1", None)]
    assert "the run is gone" in findings[0][2]
    assert await found(store, run_id="run-1", **options) == findings


async def test_a_run_replaced_by_another(checked, kit):
    store, options = checked
    await delete_run(store, kit)
    await kit.fill(await kit.begin(store, "run-1"))
    findings = await found(store, **options)
    assert [(f[0], f[1]) for f in findings] == [("run-1", 11)]


async def test_a_rolled_back_database(sqlite_store, kit, tmp_path):
    """An older copy is sound in itself; the checkpoint held elsewhere knows better."""
    journal = await kit.begin(sqlite_store, "run-1")
    await sqlite_store.checkpoint()
    await sqlite_store.database.scrub()
    shutil.copy(tmp_path / "longthought.db", tmp_path / "older.db")
    await kit.fill(journal)
    held = await sqlite_store.checkpoint()
    async with Store(f"sqlite:///{tmp_path / 'older.db'}", directory=tmp_path) as older:
        assert (await audit(older)).ok
        findings = await found(older, checkpoint=held)
    assert at(findings, "run-1", 3, "events 3 to 11 are gone")
    assert at(findings, "", None, "not in this store: it was rolled back")


async def test_rows_restored_from_an_earlier_time(filled, kit):
    """The same on both databases: all tables as they were before the checkpoint."""
    journal = await filled.claim("run-2")
    held = await filled.checkpoint()
    assert journal.length == 3
    await rewrite(filled, cut=2, run_id="run-2")
    await kit.tamper(
        filled,
        "DELETE FROM checkpoints",
        "UPDATE runs SET attempt = 1 WHERE id = 'run-2'",
    )
    assert (await audit(filled)).ok
    findings = await found(filled, checkpoint=held)
    assert at(findings, "run-2", 3, "events 3 to 3 are gone")


# Checkpoints themselves.


@pytest.mark.parametrize(
    "change",
    [
        "number = number + 5",
        "id = 'x'",
        "created_at = created_at + 1",
        "body = replace(body, 'run-1', 'run-3')",
        "body = 'x'",
        "body = body || ' '",
    ],
)
async def test_a_changed_checkpoint(filled, kit, change):
    for _ in range(3):
        await filled.checkpoint()
    await kit.tamper(filled, f"UPDATE checkpoints SET {change} WHERE number = 2")
    findings = await found(filled)
    assert findings
    assert {f[0] for f in findings} == {""}


async def test_a_dropped_checkpoint(filled, kit):
    for _ in range(3):
        await filled.checkpoint()
    await kit.tamper(filled, "DELETE FROM checkpoints WHERE number = 2")
    assert at(await found(filled), "", None, "checkpoint 2 before it is missing")


async def test_a_checkpoint_replaced_by_an_older_one(filled, kit):
    for _ in range(3):
        await filled.checkpoint()
    await kit.tamper(
        filled,
        "UPDATE checkpoints SET id = (SELECT id FROM checkpoints WHERE number = 1), "
        "created_at = (SELECT created_at FROM checkpoints WHERE number = 1), "
        "body = (SELECT body FROM checkpoints WHERE number = 1) WHERE number = 2",
    )
    assert await found(filled)


async def test_a_changed_checkpoint_held_elsewhere(filled):
    held = await filled.checkpoint()
    held["runs"][0][1] = 5
    assert at(await found(filled, checkpoint=held), "", None, "held elsewhere: its root")
    assert at(await found(filled, checkpoint={}), "", None, "held elsewhere: it does not")


async def test_checkpoints_signed_with_another_key(filled, kit, tmp_path, store_url):
    held = await filled.checkpoint()
    other = tmp_path / "other"
    async with Store(store_url, directory=other) as elsewhere:
        await elsewhere.checkpoint()
    assert (await audit(filled)).ok, "two machines with a key each"
    assert len((await audit(filled)).signers) == 2
    findings = await found(filled, public_key=held["public_key"])
    assert [f[2][:27] for f in findings] == ["it is signed by another key"]
