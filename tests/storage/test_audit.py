"""The audit finds what was changed, dropped, swapped, cut, rewritten or rolled back, and where."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa

from longthought.errors import RunNotFound, StorageError
from longthought.storage import Store, canonical
from longthought.storage.audit import audit
from longthought.storage.digests import chain_hash, payload_id, salt_of
from longthought.storage.recording import event_text
from longthought.storage.tables import events, payloads, runs

EVENTS = {  # sequence numbers in the run of the fixture
    "run_started": 1,
    "attempt_started": 2,
    "fold": 3,
    "effect_started": 4,
    "effect_topped_up": 5,
    "effect_finished": 6,
    "tool": 7,
    "signal": 8,
    "branch_ended": 9,
    "tell": 10,
    "run_ended": 11,
}


@pytest.fixture
async def filled(store, kit):
    """A store with two runs, of which `run-1` has every type of event."""
    await store.release(await kit.fill(await kit.begin(store, "run-1")))
    await store.release(await kit.begin(store, "run-2"))
    return store


async def found(store, **options) -> list[tuple[str, int | None, str]]:
    report = await audit(store, **options)
    return [(finding.run_id, finding.seq, finding.problem) for finding in report.findings]


def at(findings, run_id: str, seq: int | None, words: str) -> bool:
    return any(f[:2] == (run_id, seq) and words in f[2] for f in findings)


async def test_an_honest_store_has_no_findings(filled):
    report = await audit(filled)
    assert report.ok
    assert (report.runs, report.events, report.deleted) == (2, 13, 0)
    assert report.payloads == len((await filled.read("run-1")).bodies) + 1
    assert report.to_json()["ok"] is True
    assert json.dumps(report.to_json())


async def test_honest_growth_has_no_findings(filled, kit):
    held = await filled.checkpoint()
    journal = await filled.claim("run-2")
    await kit.fill(journal)
    await kit.begin(filled, "run-3")
    await filled.checkpoint()
    report = await audit(filled, checkpoint=held, public_key=held["public_key"])
    assert report.ok, report.findings
    assert (report.checkpoints, report.signers) == (2, [held["public_key"]])


async def test_one_run_alone(filled, kit):
    await kit.tamper(filled, "UPDATE events SET key = 'x' WHERE run_id = 'run-1' AND seq = 9")
    assert (await audit(filled, "run-2")).ok
    assert at(await found(filled, run_id="run-1"), "run-1", 9, "changed")
    with pytest.raises(RunNotFound):
        await audit(filled, "run-9")


@pytest.mark.parametrize("seq", EVENTS.values(), ids=EVENTS.keys())
@pytest.mark.parametrize("column", ["type", "key", "body", "hash"])
async def test_a_changed_byte_of_an_event(filled, kit, seq, column):
    changed = {
        "type": "SET type = type || 'x'",
        "key": "SET key = key || 'x'",
        "body": "SET body = replace(body, '\"at\"', '\"ta\"')",
        "hash": "SET hash = substr(hash, 1, 42) || CASE substr(hash, 43) WHEN 'A' THEN 'E' "
        "ELSE 'A' END",
    }[column]
    await kit.tamper(filled, f"UPDATE events {changed} WHERE run_id = 'run-1' AND seq = {seq}")
    findings = await found(filled)
    assert at(findings, "run-1", seq, "changed")
    assert {f[0] for f in findings} == {"run-1"}


@pytest.mark.parametrize("seq", EVENTS.values(), ids=EVENTS.keys())
async def test_a_dropped_event(filled, kit, seq):
    await kit.tamper(filled, f"DELETE FROM events WHERE run_id = 'run-1' AND seq = {seq}")
    findings = await found(filled)
    if seq == 11:  # the tail: the row still says how long the run was
        assert at(findings, "run-1", None, "length is 11")
    else:
        assert at(findings, "run-1", seq + 1, f"event {seq} before it is missing")


async def test_swapped_events(filled, kit):
    await kit.tamper(
        filled,
        "UPDATE events SET seq = 99 WHERE run_id = 'run-1' AND seq = 6",
        "UPDATE events SET seq = 6 WHERE run_id = 'run-1' AND seq = 7",
        "UPDATE events SET seq = 7 WHERE run_id = 'run-1' AND seq = 99",
    )
    findings = await found(filled)
    assert at(findings, "run-1", 6, "changed")
    assert at(findings, "run-1", 7, "changed")


async def test_an_event_of_another_run(filled, kit):
    await kit.tamper(
        filled,
        "DELETE FROM events WHERE run_id = 'run-2' AND seq = 2",
        "UPDATE events SET run_id = 'run-2' WHERE run_id = 'run-1' AND seq = 2",
    )
    findings = await found(filled)
    assert at(findings, "run-1", 3, "event 2 before it is missing")
    assert at(findings, "run-2", 2, "changed")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("workflow", "'other'"),
        ("status", "'failed'"),
        ("created_at", "created_at + 1"),
        ("attempt", "2"),
        ("head", "'x'"),
        ("length", "10"),
    ],
)
async def test_a_changed_run_row(filled, kit, column, value):
    await kit.tamper(filled, f"UPDATE runs SET {column} = {value} WHERE id = 'run-1'")
    assert at(await found(filled), "run-1", None, f"the row's {column} is")


async def test_owner_and_lease_are_nobodys_word(filled, kit):
    await kit.tamper(filled, "UPDATE runs SET owner = 'x', lease_until = 1.5")
    assert (await audit(filled)).ok


async def test_a_lost_run_key(filled, kit):
    await kit.tamper(filled, "UPDATE runs SET run_key = NULL WHERE id = 'run-1'")
    assert at(await found(filled), "run-1", None, "the run key is gone")


async def test_a_changed_run_key(filled, kit):
    await kit.tamper(filled, "UPDATE runs SET run_key = :key WHERE id = 'run-1'", key=b"k" * 16)
    assert at(await found(filled), "run-1", None, "not that of its payloads")


async def names_of(store) -> dict[str, tuple[str, int]]:
    """Payloads of `run-1` by what they are, with the event that leads to them."""
    read = await store.read("run-1")
    body = {event.seq: event.body for event in read.events}
    outcome = body[11]["outcome"]
    request, result = body[4]["request"], body[6]["result"]
    reply = read.get(result)["conversation"]
    return {
        "manifest": (body[1]["manifest"], 1),
        "model request": (request, 4),
        "tools": (read.get(request)["tools"], 4),
        "model result": (result, 6),
        "tool request": (body[7]["request"], 7),
        "tool result": (body[7]["result"], 7),
        "signal value": (body[8]["value"], 8),
        "outcome": (outcome, 10),
        "last message": (read.get(outcome)["conversation"], 10),
        "reply": (reply, 6),
        "question": (read.get(reply)["p"], 4),
    }


WHAT = [
    "manifest",
    "model request",
    "tools",
    "model result",
    "tool request",
    "tool result",
    "signal value",
    "outcome",
    "last message",
    "reply",
    "question",
]


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("column", ["body", "salt", "id"])
async def test_a_changed_byte_of_a_payload(filled, kit, what, column):
    name, seq = (await names_of(filled))[what]
    row = (await kit.rows(filled, "SELECT salt, body FROM payloads WHERE id = :id", id=name))[0]
    salt = bytes([row[0][0] ^ 1]) + row[0][1:]
    other = ("y" if name[0] == "x" else "x") + name[1:]
    value = {"body": row[1] + " ", "salt": salt, "id": other}[column]
    await kit.tamper(
        filled, f"UPDATE payloads SET {column} = :value WHERE id = :id", value=value, id=name
    )
    findings = await found(filled)
    assert at(findings, "run-1", seq, "missing" if column == "id" else "changed")
    assert {f[0] for f in findings} == {"run-1"}


@pytest.mark.parametrize("what", WHAT)
async def test_a_dropped_payload(filled, kit, what):
    name, seq = (await names_of(filled))[what]
    await kit.tamper(filled, "DELETE FROM payloads WHERE id = :id", id=name)
    assert at(await found(filled), "run-1", seq, f"the payload is missing (payload {name}")


async def test_payloads_swapped_between_ids(filled, kit):
    names = await names_of(filled)
    (one, first), (two, second) = names["tool result"], names["model result"]
    swap = "UPDATE payloads SET id = :new WHERE id = :old"
    for old, new in ((one, "between"), (two, one), ("between", two)):
        await kit.tamper(filled, swap, old=old, new=new)
    findings = await found(filled)
    assert at(findings, "run-1", first, "changed")
    assert at(findings, "run-1", second, "changed")


async def test_a_payload_of_another_run(filled, kit):
    name, seq = (await names_of(filled))["tool result"]
    await kit.tamper(filled, "UPDATE payloads SET run_id = 'run-2' WHERE id = :id", id=name)
    findings = await found(filled)
    assert at(findings, "run-1", seq, "missing")
    assert any(f[0] == "run-2" and "brought from elsewhere" in f[2] for f in findings)


async def test_a_payload_put_back_behind_its_tombstone(filled, kit):
    name, _ = (await names_of(filled))["tool result"]
    row = (await kit.rows(filled, "SELECT salt, body FROM payloads WHERE id = :id", id=name))[0]
    await filled.delete_payloads("run-1", [name], "asked for")
    assert (await audit(filled)).ok
    await _insert_payload(filled, id=name, salt=row[0], body=row[1])
    assert at(await found(filled), "run-1", 7, "was deleted, but is still there")


async def test_a_payload_that_nothing_names_in_a_sealed_run(filled, kit):
    name, _ = (await names_of(filled))["tool result"]
    await filled.delete_payloads("run-1", [name], "asked for")
    await _insert_payload(filled, id=payload_id(b"salt", b'"x"'), salt=b"salt", body='"x"')
    assert at(await found(filled), "run-1", None, "nothing in the run names the payload")


async def test_a_payload_dropped_behind_a_tombstone(filled, kit):
    """The tombstone says what the deleted message followed."""
    names = await names_of(filled)
    await filled.delete_payloads(
        "run-1", [names["reply"][0], names["model request"][0]], "asked for"
    )
    assert (await audit(filled)).ok
    question, seq = names["question"]
    await kit.tamper(filled, "DELETE FROM payloads WHERE id = :id", id=question)
    assert at(await found(filled), "run-1", seq, f"the payload is missing (payload {question}")


async def test_a_run_key_put_back_into_a_sealed_run(filled, kit):
    name, _ = (await names_of(filled))["tool result"]
    await filled.delete_payloads("run-1", [name], "asked for")
    await kit.tamper(filled, "UPDATE runs SET run_key = :key WHERE id = 'run-1'", key=b"k" * 16)
    assert at(await found(filled), "run-1", None, "the run key is still there")


async def _insert_payload(store, **row) -> None:
    await store.database.write(
        lambda c: c.execute(sa.insert(payloads).values(n=10_000, run_id="run-1", **row))
    )


async def test_a_run_without_events_and_events_without_a_run(filled, kit):
    await kit.tamper(
        filled,
        "DELETE FROM events WHERE run_id = 'run-2'",
        "DELETE FROM runs WHERE id = 'run-1'",
    )
    findings = await found(filled)
    assert at(findings, "run-2", None, "no events")
    assert at(findings, "run-1", None, "there are events of a run without a row")
    assert at(findings, "run-1", None, "there are payloads of a run without a row")


async def test_runs_that_changed_places(filled, kit):
    """The chain names its run."""
    for table, column in (("events", "run_id"), ("payloads", "run_id"), ("runs", "id")):
        change = f"UPDATE {table} SET {column} = :new WHERE {column} = :old"
        for old, new in (("run-1", "between"), ("run-2", "run-1"), ("between", "run-2")):
            await kit.tamper(filled, change, old=old, new=new)
    findings = await found(filled)
    assert at(findings, "run-1", 1, "this is the chain of run run-2")
    assert at(findings, "run-2", 1, "this is the chain of run run-1")


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


async def test_a_deleted_run(checked, kit):
    store, options = checked
    await kit.tamper(
        store,
        "DELETE FROM events WHERE run_id = 'run-1'",
        "DELETE FROM payloads WHERE run_id = 'run-1'",
        "DELETE FROM runs WHERE id = 'run-1'",
    )
    findings = await found(store, **options)
    assert [(f[0], f[1]) for f in findings] == [("run-1", None)]
    assert "the run is gone" in findings[0][2]
    assert await found(store, run_id="run-1", **options) == findings


async def test_a_run_replaced_by_another(checked, kit):
    store, options = checked
    await kit.tamper(
        store,
        "DELETE FROM events WHERE run_id = 'run-1'",
        "DELETE FROM payloads WHERE run_id = 'run-1'",
        "DELETE FROM runs WHERE id = 'run-1'",
    )
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


# Events that fit the chain and still cannot be.


@pytest.mark.parametrize(
    ("type_", "key", "body", "words"),
    [
        ("unheard_of", "", {}, "no event of the format"),
        ("branch_ended", "b", {}, "how: Field required"),
        ("branch_ended", "b", {"how": "finished", "more": 1}, "more: Extra inputs"),
        ("branch_ended", "b", {"how": "finished", "seq": 4}, "without seq, type and key"),
        ("run_ended", "", {"status": "completed", "stop_reason": 5}, "valid string"),
        ("attempt_started", "", {"attempt": 3, "owner": "x"}, "attempt 3 follows attempt 1"),
        ("effect_topped_up", "e", {"reserved": {}}, "never started"),
        ("effect_finished", "f", {"attempt": 1}, "finished before"),
        ("effect_finished", "s", {"attempt": 2}, "attempt 2 was never started"),
        ("effect_finished", "s", {"kind": "tool"}, "another request"),
        ("effect_started", "s", {"attempt": 1}, "started again as attempt 1"),
        ("run_started", "", None, "a run starts once"),
    ],
)
async def test_impossible_events(store, kit, type_, key, body, words):
    journal = await kit.begin(store, "run-1")
    value = journal.put(1)
    journal.stage("effect_finished", "f", kind="signal", request=value, result=value)
    journal.stage("effect_started", "s", kind="signal", request=value)
    await journal.flush()
    if body is None:
        body = {k: v for k, v in journal.events[0].body.items() if k != "at"}
    elif type_ in ("effect_finished", "effect_started"):
        body = {"kind": "signal", "request": value, "result": value} | body
        if type_ == "effect_started":
            del body["result"]
    seq = journal.length + 1
    journal.stage("branch_ended", key)  # a place in the chain
    text = canonical(body | {"at": 1.5})
    event = journal._staged_events[-1]
    journal.head = chain_hash(journal.events[-2].hash, event_text(seq, type_, key, text))
    event |= {"type": type_, "body": text, "hash": journal.head}
    await journal.flush()
    assert at(await found(store), "run-1", seq, words)


async def test_effects_that_are_tried_again_are_no_findings(store, kit):
    journal = await kit.begin(store, "run-1")
    value = journal.put(1)
    for attempt in (1, 2, 3):
        journal.stage("effect_started", "k", kind="model", request=value, attempt=attempt)
    journal.stage("effect_topped_up", "k", reserved={})
    for attempt in (1, 3):
        journal.stage(
            "effect_finished", "k", kind="model", request=value, result=value, attempt=attempt
        )
    await journal.flush()
    report = await audit(store)
    assert report.ok, report.findings


@pytest.mark.parametrize(
    "message",
    [
        {"role": "robot", "content": "x"},
        {"role": "user"},
        {"role": "user", "content": 5},
        {"role": "user", "content": "x", "colour": "red"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "x"}]},
        "text",
    ],
)
async def test_messages_that_are_none(store, kit, message):
    journal = await kit.begin(store, "run-1")
    conversation = journal.extend("", message)
    request = journal.put({"model": "m", "conversation": conversation})
    await journal.append("effect_started", "k", kind="model", request=request)
    assert at(await found(store), "run-1", 3, "no message of the format")


async def test_values_that_look_like_messages_are_left_alone(store, kit):
    """A signal may carry what it likes."""
    journal = await kit.begin(store, "run-1")
    value = journal.put({"p": "A" * 43, "m": "not a message"})
    await journal.append("signal", "", signal="s", name="n", value=value)
    assert (await audit(store)).ok


# The file itself.


async def test_any_damaged_byte_of_the_file_is_found_or_harmless(tmp_path, kit):
    """Flip bytes all over the file: a finding, an error, or the same rows as before."""
    home = tmp_path / "home"
    async with Store(directory=home) as store:
        await store.release(await kit.fill(await kit.begin(store, "run-1")))
        await store.checkpoint()
        sound = await dump(store)
    original = (home / "longthought.db").read_bytes()
    used = [index for index, byte in enumerate(original) if byte]
    silent = []
    for index in used[:: len(used) // 150]:
        damaged = bytearray(original)
        damaged[index] ^= 0x81
        if await is_silent(tmp_path / f"d{index}", bytes(damaged), sound):
            silent.append(index)
    assert not silent


async def is_silent(directory: Path, content: bytes, sound: object) -> bool:
    directory.mkdir()
    (directory / "longthought.db").write_bytes(content)
    try:
        async with Store(directory=directory) as store:
            return (await audit(store)).ok and await dump(store) != sound
    except StorageError:
        return False


async def dump(store) -> object:
    def work(connection: sa.Connection) -> list[object]:
        row = [column for column in runs.c if column.name not in ("owner", "lease_until")]
        queries = (sa.select(*row), sa.select(events), sa.select(payloads))
        return [sorted(map(repr, connection.execute(query).all())) for query in queries]

    return await store.database.survey(work)
