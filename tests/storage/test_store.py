"""Opening, creating, claiming, listing, signalling."""

from __future__ import annotations

import asyncio
import gc
import warnings

import pytest

from longthought.errors import (
    ConfigurationError,
    InvalidInput,
    RunBusy,
    RunNotFound,
    StorageError,
    TraceError,
)
from longthought.storage import Store
from longthought.storage.audit import audit
from longthought.storage.owner import is_gone, process_identity


async def test_a_run_is_created_whole(store, kit):
    journal = await kit.begin(store, "run-1", parent={"run": "run-0", "event": 3})
    assert [e.type for e in journal.events] == ["run_started", "attempt_started"]
    read = await store.read("run-1")
    assert read.events[0].body["parent"] == {"run": "run-0", "event": 3}
    assert read.events[0].body["run"] == "run-1"
    row = await store.row("run-1")
    assert (row.workflow, row.status, row.attempt, row.length) == ("sums", "running", 1, 2)
    assert row.created_at == read.events[0].body["at"]


@pytest.mark.parametrize("run_id", ["", " ", "a b", "a/b", "ä", "-a", "a\n", "x" * 129])
async def test_a_malformed_run_id_is_refused(sqlite_store, kit, run_id):
    with pytest.raises(InvalidInput, match="no run id"):
        await kit.begin(sqlite_store, run_id)
    with pytest.raises(RunNotFound):
        await sqlite_store.read(run_id)


async def test_a_taken_id_is_refused_and_the_run_left_alone(store, kit):
    first = await kit.begin(store, "run-1")
    with pytest.raises(InvalidInput, match="taken"):
        await kit.begin(store, "run-1")
    await first.append("branch_ended", "a", how="finished")
    assert (await audit(store)).ok


async def test_one_of_many_wins_an_id(store, kit):
    results = await asyncio.gather(
        *(kit.begin(store, "run-1") for _ in range(8)), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == ["InvalidInput"] * 7 + ["Journal"]
    assert (await audit(store)).ok


@pytest.mark.parametrize("name", ["Größe", "漢字 🜁", "a\nb", ""])
async def test_workflow_names_may_be_any_text(store, name):
    journal = await store.create_run(name, {}, fingerprint="", version="1")
    assert (await store.row(journal.run_id)).workflow == name
    assert (await store.list_runs(workflow=name))[0].id == journal.run_id


@pytest.mark.parametrize("name", ["a\x00b", "a\ud800b"])
async def test_names_that_no_column_holds_are_refused(store, kit, name):
    with pytest.raises(InvalidInput):
        await store.create_run(name, {}, fingerprint="", version="1")
    journal = await kit.begin(store)
    with pytest.raises(InvalidInput):
        await store.send_signal(journal.run_id, name)


async def test_a_claim_waits_for_the_lease(store, kit):
    journal = await kit.begin(store)
    with pytest.raises(RunBusy):
        await store.claim(journal.run_id)
    await store.release(journal)
    again = await store.claim(journal.run_id)
    assert (again.attempt, again.recorded) == (2, 2)
    assert again.events[-1].type == "attempt_started"
    assert (await store.row(journal.run_id)).length == 3


async def test_a_lease_that_ran_out_is_free(store_url, kit, tmp_path):
    async with Store(store_url, directory=tmp_path, lease=0.0) as store:
        journal = await kit.begin(store)
        assert (await store.claim(journal.run_id)).attempt == 2


async def test_of_many_claims_one_wins(store, kit):
    journal = await kit.begin(store)
    await store.release(journal)
    results = await asyncio.gather(
        *(store.claim(journal.run_id) for _ in range(6)), return_exceptions=True
    )
    assert sorted(type(r).__name__ for r in results) == ["Journal"] + ["RunBusy"] * 5
    assert (await audit(store)).ok


async def test_a_claim_reads_what_came_while_it_read(store, kit, monkeypatch):
    """The long reading is done before the transaction; what was added since is read in it."""
    journal = await kit.begin(store)
    read = store.database.read

    async def read_then_append(work):
        result = await read(work)
        monkeypatch.setattr(store.database, "read", read)
        value = journal.put("late")
        await journal.append("effect_finished", "k", kind="signal", request=value, result=value)
        return result

    monkeypatch.setattr(store.database, "read", read_then_append)
    claimed = await store.claim(journal.run_id, force=True)
    assert [e.type for e in claimed.events][2:] == ["effect_finished", "attempt_started"]
    assert claimed.get(claimed.events[2].body["result"]) == "late"
    assert (await audit(store)).ok


async def test_a_broken_chain_is_not_continued(store, kit):
    journal = await kit.begin(store, "run-1")
    await store.release(journal)
    await kit.tamper(store, "UPDATE events SET body = replace(body, 'f', 'g') WHERE seq = 1")
    for use in (store.claim, store.read):
        with pytest.raises(TraceError, match="event 1"):
            await use("run-1")
    assert (await store.row("run-1")).attempt == 1


async def test_listings_are_newest_first(store, kit):
    for number in range(5):
        await kit.begin(store, f"run-{number}")
    assert [row.id for row in await store.list_runs(limit=3)] == ["run-4", "run-3", "run-2"]
    assert await store.list_runs(status="parked") == []
    assert len(await store.list_runs(status="running", workflow="sums")) == 5


async def test_signals_enter_the_chain_once_and_in_order(store, kit):
    journal = await kit.begin(store)
    assert await store.take_signals(journal) == 0
    for number in range(3):
        await store.send_signal(journal.run_id, "approve", {"n": number}, key="a\tplace")
    assert await store.waiting_signals(journal.run_id) == 3
    assert await store.take_signals(journal) == 3
    assert await store.take_signals(journal) == 0
    assert await store.waiting_signals(journal.run_id) == 0
    read = await store.read(journal.run_id)
    values = [read.get(e.body["value"]) for e in read.events if e.type == "signal"]
    assert values == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert (await audit(store)).ok


async def test_signals_of_one_name_are_taken_alone_or_refused(store, kit):
    journal = await kit.begin(store)
    for name, value in (("approve", 1), ("raise_limit", 2), ("approve", 3)):
        await store.send_signal(journal.run_id, name, value)
    seen = []
    refused = await store.take_signals(
        journal, "raise_limit", staged=lambda values: bool(seen.extend(values))
    )
    assert (refused, seen) == (0, [2])
    assert await store.waiting_signals(journal.run_id, "raise_limit") == 1
    assert await store.take_signals(journal, "raise_limit", staged=lambda values: True) == 1
    assert await store.waiting_signals(journal.run_id) == 2
    assert [e.body["name"] for e in journal.events if e.type == "signal"] == ["raise_limit"]
    assert await store.take_signals(journal) == 2


async def test_a_run_read_before_is_read_on_from_there(store, kit):
    journal = await kit.begin(store)
    known = await store.read(journal.run_id)
    first = list(known.events)
    await kit.fill(journal)
    again = await store.read(journal.run_id, known)
    assert again is known
    assert known.events[: len(first)] == first
    whole = await store.read(journal.run_id)
    assert (known.head, known.events, known.bodies) == (whole.head, whole.events, whole.bodies)


async def test_a_signal_survives_a_crash_between_chain_and_table(store, kit, monkeypatch):
    journal = await kit.begin(store)
    await store.send_signal(journal.run_id, "approve")

    async def crash(*_statements):
        raise StorageError("crash")

    with monkeypatch.context() as patched:
        patched.setattr(store, "_execute", crash)
        with pytest.raises(StorageError):
            await store.take_signals(journal)
    again = await store.claim(journal.run_id, force=True)
    assert await store.take_signals(again) == 0
    assert await store.waiting_signals(journal.run_id) == 0
    assert [e.type for e in again.events].count("signal") == 1


async def test_a_signal_taken_by_a_stale_attempt_stays_for_the_next(store, kit):
    old = await kit.begin(store)
    await store.send_signal(old.run_id, "approve", 7)
    new = await store.claim(old.run_id, force=True)
    with pytest.raises(StorageError):
        await store.take_signals(old)
    assert await store.take_signals(new) == 1


async def test_signals_to_nobody_and_of_no_json_are_refused(store, kit):
    with pytest.raises(RunNotFound):
        await store.send_signal("nobody", "approve")
    journal = await kit.begin(store)
    with pytest.raises(InvalidInput):
        await store.send_signal(journal.run_id, "approve", float("nan"))
    with pytest.raises(InvalidInput):
        await store.send_signal(journal.run_id, "approve", 1, key="a\nb")


async def test_a_closed_store_says_so(tmp_path, kit):
    store = Store(directory=tmp_path)
    with pytest.raises(StorageError, match="not open"):
        await kit.begin(store)
    await store.open()
    await store.open()
    journal = await kit.begin(store)
    await store.close()
    await store.close()
    with pytest.raises(StorageError):
        await store.read(journal.run_id)
    with pytest.raises(StorageError):
        await journal.append("branch_ended", "a", how="finished")
    async with store:
        assert (await store.read(journal.run_id)).length == 2


async def test_opening_and_closing_leaves_nothing_open(store_url, kit, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        for _ in range(3):
            async with Store(store_url, directory=tmp_path) as store:
                await kit.begin(store)
                await audit(store)
        gc.collect()


async def test_what_is_no_store_cannot_be_opened(tmp_path):
    (tmp_path / "longthought.db").write_bytes(b"no database at all" * 999)
    with pytest.raises(StorageError, match="cannot be opened"):
        await Store(directory=tmp_path).open()
    with pytest.raises(StorageError, match="cannot be opened"):
        await Store(f"sqlite:///{tmp_path}/nowhere/x.db").open()
    with pytest.raises(StorageError, match="cannot be opened"):
        await Store("postgresql://postgres@127.0.0.1:1/postgres", directory=tmp_path).open()


@pytest.mark.postgres
async def test_a_database_that_is_not_there_cannot_be_opened(postgres_url, tmp_path):
    with pytest.raises(StorageError, match="cannot be opened") as caught:
        await Store(f"{postgres_url}_not", directory=tmp_path).open()
    assert "does not exist" in str(caught.value)


@pytest.mark.parametrize("url", ["sqlite://", "mysql://x/y", "nonsense", "sqlite:///:memory:"])
def test_urls_that_cannot_be_stores(url, tmp_path):
    with pytest.raises(ConfigurationError):
        Store(url, directory=tmp_path)


def test_this_process_is_not_gone_and_others_are_judged_with_care():
    mine = process_identity()
    host, pid, start = mine.rsplit(":", 2)
    assert not is_gone(mine)
    assert is_gone(f"{host}:{pid}:{int(start) - 1}"), "the pid was used again"
    assert is_gone(f"{host}:{2**22 + 1}:1")
    assert not is_gone(f"elsewhere:{pid}:1")
    assert not is_gone("")
    assert not is_gone("garbage")
