"""The audit finds what was changed, dropped, swapped, cut, rewritten or rolled back, and where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sqlalchemy as sa

from longthought.errors import RunNotFound, StorageError
from longthought.storage import Store, canonical
from longthought.storage.audit import audit
from longthought.storage.digests import chain_hash, payload_id
from longthought.storage.recording import event_text
from longthought.storage.tables import events, payloads, runs
from tests.storage.audits import at, found, names_of

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
