"""Deleting payloads: the words are gone, the chain is whole, the run is sealed."""

from __future__ import annotations

import pytest

from longthought.errors import InvalidInput, RunBusy, RunNotFound, StorageError, TraceError
from longthought.storage import deletion
from longthought.storage.audit import audit

GAP = {"role": "system", "content": "[deleted]"}


async def finished(store, kit):
    journal = await kit.fill(await kit.begin(store, "run-1"))
    await store.release(journal)
    return await store.read("run-1")


def conversation_of(recording) -> str:
    return recording.get(recording.ended().body["outcome"])["conversation"]


async def test_a_deleted_payload_leaves_a_tombstone(store, kit):
    before = await finished(store, kit)
    name = before.events[0].body["manifest"]
    await store.delete_payloads("run-1", [name], "asked for")
    after = await store.read("run-1")
    assert after.events[-1].type == "payload_deleted"
    assert after.events[-1].body["payloads"] == [name]
    assert not after.replayable
    assert after.head == (await store.row("run-1")).head
    with pytest.raises(TraceError, match="deleted"):
        after.get(name)
    report = await audit(store)
    assert (report.ok, report.deleted) == (True, 1), report.findings
    with pytest.raises(StorageError, match="cannot be continued"):
        await store.claim("run-1")


async def test_a_message_in_the_middle_of_a_conversation(store, kit):
    """Those before it stay, although no other payload leads to them any more."""
    before = await finished(store, kit)
    last = conversation_of(before)
    middle = before.get(last)["p"]
    await store.delete_payloads("run-1", [middle], "asked for")
    after = await store.read("run-1")
    with pytest.raises(TraceError):
        after.messages(last)
    assert [m["content"] for m in after.messages(last, gap=GAP)] == [
        "What is 1+1?",
        "[deleted]",
        "2",
    ]
    assert (await audit(store)).ok


async def test_every_payload_one_after_the_other(store, kit):
    before = await finished(store, kit)
    for count, name in enumerate(sorted(before.bodies), 1):
        await store.delete_payloads("run-1", [name], "asked for")
        report = await audit(store)
        assert (report.ok, report.deleted) == (True, count), report.findings
    after = await store.read("run-1")
    assert not after.bodies
    roles = [m["content"] for m in after.messages(conversation_of(before), gap=GAP)]
    assert roles == ["[deleted]"] * 3


async def test_all_payloads_at_once(store, kit):
    before = await finished(store, kit)
    await store.delete_payloads("run-1", list(before.bodies), "all of it")
    assert (await audit(store)).ok
    assert await kit.rows(store, "SELECT count(*) FROM payloads") == [(0,)]


async def test_what_a_crash_left_behind_goes_too(store, kit):
    journal = await kit.begin(store, "run-1")
    lone = journal.extend(journal.extend("", {"role": "user", "content": "secret"}), GAP)
    await journal.append("run_ended", status="cancelled", stop_reason="crash")
    await store.release(journal)
    report = await audit(store)
    assert (report.ok, report.loose) == (True, 1)
    manifest = journal.events[0].body["manifest"]
    await store.delete_payloads("run-1", [manifest], "asked for")
    report = await audit(store)
    assert (report.ok, report.loose, report.payloads) == (True, 0, 0)
    assert not (await store.read("run-1")).has(lone)


async def test_nothing_of_the_words_stays_in_the_file(sqlite_store, kit, tmp_path):
    journal = await kit.begin(sqlite_store, "run-1")
    secret = "the-words-that-must-go"
    name = journal.put({"secret": [secret] * 2000})
    await journal.append("effect_finished", "k", kind="signal", request=name, result=name)
    await sqlite_store.release(journal)

    def stands() -> bool:
        return any(secret.encode() in file.read_bytes() for file in tmp_path.glob("longthought*"))

    assert stands()
    await sqlite_store.delete_payloads("run-1", [name], "asked for")
    assert not stands()


async def test_a_crash_amid_a_deletion_changes_nothing(store, kit, monkeypatch):
    await finished(store, kit)
    row = await store.row("run-1")
    name = (await store.read("run-1")).events[0].body["manifest"]

    def crash(*_arguments):
        raise RuntimeError("crash")

    with monkeypatch.context() as patched:
        patched.setattr(deletion, "_reachable", crash)
        with pytest.raises(RuntimeError):
            await store.delete_payloads("run-1", [name], "asked for")
    assert await store.row("run-1") == row
    assert (await store.read("run-1")).has(name)
    assert (await audit(store)).ok


async def test_a_stale_attempt_cannot_write_behind_a_tombstone(store, kit):
    journal = await kit.begin(store, "run-1")
    await store.release(journal)
    await store.delete_payloads("run-1", [journal.events[0].body["manifest"]], "asked for")
    with pytest.raises(StorageError):
        await journal.append("branch_ended", "late", how="finished")
    assert (await store.row("run-1")).status == "failed"
    assert (await audit(store)).ok


async def test_what_cannot_be_deleted(store, kit):
    journal = await kit.begin(store, "run-1")
    name = journal.events[0].body["manifest"]
    with pytest.raises(RunBusy):
        await store.delete_payloads("run-1", [name], "")
    await store.release(journal)
    with pytest.raises(InvalidInput):
        await store.delete_payloads("run-1", [], "")
    with pytest.raises(InvalidInput, match="unheard-of"):
        await store.delete_payloads("run-1", [name, "unheard-of"], "")
    with pytest.raises(RunNotFound):
        await store.delete_payloads("run-2", [name], "")
    assert (await store.read("run-1")).length == 2
