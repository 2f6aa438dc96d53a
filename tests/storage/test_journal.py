"""What a journal promises: acknowledged is durable, in order, and refused is refused for good."""

from __future__ import annotations

import asyncio

import pytest

from longthought.errors import Fenced, InvalidInput, StorageError
from longthought.storage import Store, canonical


async def test_everything_comes_back_as_it_was_put(store, kit):
    journal = await kit.fill(await kit.begin(store))
    read = await store.read(journal.run_id)
    assert [(e.seq, e.type, e.key, e.hash) for e in read.events] == [
        (e.seq, e.type, e.key, e.hash) for e in journal.events
    ]
    assert read.head == journal.head
    assert read.manifest() == {"question": "1+1"}
    outcome = read.get(read.ended().body["outcome"])
    assert [m["role"] for m in read.messages(outcome["conversation"])] == [
        "user",
        "assistant",
        "tool",
    ]


@pytest.mark.parametrize(
    "value",
    [
        "lone \ud800 surrogate",
        "a pair of them \ud83d\ude00",
        "NUL \x00 and \x1f controls",
        "\u2028 Ünïcödé 漢字 🜁",
        {"\x00": {"\udfff": [1.5, -0.0, 10**40, None, True]}},
        "x" * 5_000_000,
        "",
        [],
    ],
    ids=["surrogate", "pair", "controls", "unicode", "keys", "five-megabytes", "empty", "list"],
)
async def test_any_json_value_can_be_recorded(store, kit, value):
    journal = await kit.begin(store)
    name = journal.put(value)
    await journal.append("effect_finished", "k", kind="signal", request=name, result=name)
    recorded = (await store.read(journal.run_id)).get(name)
    assert canonical(recorded) == canonical(value)
    assert journal.put(recorded) == name, "what is read back has the same name"


async def test_the_same_value_is_stored_once(store, kit):
    journal = await kit.begin(store)
    assert journal.put({"a": 1, "b": 2}) == journal.put({"b": 2, "a": 1})
    assert journal.address({"a": 1, "b": 2}) == journal.put({"a": 1, "b": 2})
    await journal.append("branch_ended", "b", how="finished")
    journal.put({"a": 1, "b": 2})
    await journal.append("branch_ended", "c", how="finished")
    (count,) = (await kit.rows(store, "SELECT count(*) FROM payloads"))[0]
    assert count == 2  # the manifest and this one


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, b"bytes", object()])
async def test_what_is_no_json_is_refused(sqlite_store, kit, value):
    journal = await kit.begin(sqlite_store)
    with pytest.raises(InvalidInput):
        journal.put({"value": value})
    with pytest.raises(InvalidInput):
        journal.stage("fold", "k", input="ask", data={"value": value})
    await journal.append("branch_ended", "b", how="finished")
    assert len((await sqlite_store.read(journal.run_id)).events) == 3


async def test_a_value_that_holds_itself_is_refused(sqlite_store, kit):
    journal = await kit.begin(sqlite_store)
    loop: list = []
    loop.append(loop)
    with pytest.raises(InvalidInput):
        journal.put(loop)


@pytest.mark.parametrize("key", ["a\nb", "a\x00b", "a\ud800b"])
async def test_a_key_that_could_be_misread_is_refused(store, kit, key):
    journal = await kit.begin(store)
    head = journal.head
    with pytest.raises(InvalidInput):
        journal.stage("branch_ended", key, how="finished")
    assert (journal.head, journal.staged) == (head, False)


async def test_keys_may_hold_any_other_text(store, kit):
    journal = await kit.begin(store)
    key = "explore:1/Größe 漢字 🜁\t'\";--#0:tool"
    await journal.append("branch_ended", key, how="finished")
    assert (await store.read(journal.run_id)).events[-1].key == key


async def test_a_flush_waits_for_what_another_flush_has_taken(store, kit):
    """Two branches share a journal: the second's flush carries the first's event."""
    journal = await kit.begin(store)
    journal.stage("branch_ended", "a", how="finished")
    carrying = asyncio.create_task(journal.flush())
    await asyncio.sleep(0)
    assert not journal.staged
    await journal.flush()
    assert len((await store.read(journal.run_id)).events) == 3
    await carrying


async def test_a_cancelled_flush_withdraws_nothing(store, kit):
    journal = await kit.begin(store)
    journal.stage("branch_ended", "a", how="finished")
    flushing = asyncio.create_task(journal.flush())
    await asyncio.sleep(0)
    flushing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await flushing
    await journal.append("branch_ended", "b", how="finished")
    assert [e.key for e in (await store.read(journal.run_id)).events[2:]] == ["a", "b"]


async def test_a_cancelled_flush_does_not_wake_its_neighbour_too_early(store, kit):
    journal = await kit.begin(store)
    journal.stage("branch_ended", "a", how="finished")
    first = asyncio.create_task(journal.flush())
    await asyncio.sleep(0)
    second = asyncio.create_task(journal.flush())
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert first.cancelled()
    assert len((await store.read(journal.run_id)).events) == 3


async def test_a_failure_behind_a_cancelled_flush_is_not_forgotten(store, kit):
    journal = await kit.begin(store)
    other = await store.claim(journal.run_id, force=True)
    journal.stage("branch_ended", "a", how="finished")
    flushing = asyncio.create_task(journal.flush())
    await asyncio.sleep(0)
    flushing.cancel()
    await store.writer.close()
    with pytest.raises(Fenced):
        journal.stage("branch_ended", "b", how="finished")
    with pytest.raises(Fenced):
        await journal.flush()
    await other.append("branch_ended", "c", how="finished")


async def test_a_failed_journal_stays_failed(sqlite_store, kit):
    journal = await kit.begin(sqlite_store)
    journal.fail(StorageError("the disk is on fire"))
    for _ in range(2):
        with pytest.raises(StorageError, match="on fire"):
            journal.stage("branch_ended", "b", how="finished")
        with pytest.raises(StorageError, match="on fire"):
            await journal.flush()


async def test_the_row_follows_the_events(store, kit):
    journal = await kit.begin(store)
    assert (await store.row(journal.run_id)).status == "running"
    await journal.append("run_ended", status="parked", stop_reason="waits")
    row = await store.row(journal.run_id)
    assert (row.status, row.length, row.head) == ("parked", 3, journal.head)
    await store.release(journal)
    await store.claim(journal.run_id)
    assert (await store.row(journal.run_id)).status == "running"


async def test_ten_thousand_events(store, kit):
    journal = await kit.begin(store)
    for number in range(10_000):
        journal.stage("fold", f"f{number}", input="ask", data={"room": number, "asks": []})
        if number % 2500 == 0:
            await journal.flush()
    await journal.flush()
    read = await store.read(journal.run_id)
    assert read.length == 10_002
    assert read.head == journal.head


async def test_closing_the_loop_amid_a_commit_loses_nothing_acknowledged(tmp_path, kit):
    """`asyncio.run` cancels the writer; the store opens again and the chain is whole."""
    acknowledged = []

    async def run() -> None:
        store = Store(directory=tmp_path)
        await store.open()
        journal = await kit.begin(store, "run-1")

        async def drive() -> None:
            for number in range(1000):
                await journal.append("branch_ended", f"{number}", how="finished")
                acknowledged.append(number)

        driving = asyncio.create_task(drive())
        while len(acknowledged) < 3:
            await asyncio.sleep(0)
        del driving

    await asyncio.to_thread(asyncio.run, run())
    async with Store(directory=tmp_path) as store:
        events = (await store.read("run-1")).events
    assert [int(e.key) for e in events[2:]][: len(acknowledged)] == acknowledged
