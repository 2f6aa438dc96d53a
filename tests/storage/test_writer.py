"""The group writer: few transactions, a fence that holds, neighbours that do not suffer."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from longthought.errors import Fenced, StorageError
from longthought.storage import Store, database, digests
from longthought.storage.audit import audit


async def test_appends_of_many_runs_share_transactions(store, kit):
    journals = [await kit.begin(store) for _ in range(16)]
    before = store.writer.transactions

    async def drive(journal) -> None:
        for number in range(10):
            await journal.append("branch_ended", f"b{number}", how="finished")

    await asyncio.gather(*map(drive, journals))
    assert store.writer.transactions - before <= 20, "160 appends"
    for journal in journals:
        assert (await store.read(journal.run_id)).head == journal.head


async def test_new_runs_share_transactions_too(store, kit):
    before = store.writer.transactions
    journals = await asyncio.gather(*(kit.begin(store) for _ in range(20)))
    assert store.writer.transactions - before <= 3
    assert len({journal.run_id for journal in journals}) == 20
    assert (await audit(store)).ok


async def test_of_two_journals_on_one_run_the_later_wins(store, kit):
    old = await kit.begin(store)
    new = await store.claim(old.run_id, force=True)
    with pytest.raises(Fenced):
        await old.append("branch_ended", "old", how="finished")
    assert old.fenced
    await new.append("branch_ended", "new", how="finished")
    assert [e.key for e in (await store.read(old.run_id)).events if e.key] == ["new"]
    assert (await audit(store)).ok


async def test_both_attempts_in_one_group(store, kit):
    """The stale one is told so, although its neighbour of the same run went through."""
    old = await kit.begin(store)
    new = await store.claim(old.run_id, force=True)
    results = await asyncio.gather(
        old.append("branch_ended", "old", how="finished"),
        new.append("branch_ended", "new", how="finished"),
        old.append("branch_ended", "old again", how="finished"),
        new.append("branch_ended", "new again", how="finished"),
        return_exceptions=True,
    )
    assert [isinstance(result, Fenced) for result in results] == [True, False, True, False]
    keys = [e.key for e in (await store.read(old.run_id)).events if e.key]
    assert keys == ["new", "new again"]
    assert (await audit(store)).ok


async def test_two_stores_on_one_database(store, store_url, kit, tmp_path):
    async with Store(store_url, directory=tmp_path) as other:
        old = await kit.begin(store)
        new = await other.claim(old.run_id, force=True)
        results = await asyncio.gather(
            *(j.append("branch_ended", "x", how="finished") for j in (old, new) for _ in range(5)),
            return_exceptions=True,
        )
        assert [isinstance(r, Fenced) for r in results] == [True] * 5 + [False] * 5
        with pytest.raises(Fenced):
            await store.renew(old)
        await other.renew(new)
        assert (await audit(other)).ok


async def test_one_bad_append_does_not_fail_its_neighbours(store, kit):
    journals = [await kit.begin(store, f"run-{number}") for number in range(5)]
    bad = journals[2]
    bad.stage("branch_ended", "bad", how="finished")
    bad._staged_events[0]["key"] = "\ud800"  # what `stage` would have refused
    results = await asyncio.gather(
        *(
            j.flush() if j is bad else j.append("branch_ended", "good", how="finished")
            for j in journals
        ),
        return_exceptions=True,
    )
    assert [isinstance(result, StorageError) for result in results] == [False] * 2 + [True] + [
        False
    ] * 2
    with pytest.raises(StorageError):
        bad.stage("branch_ended", "after", how="finished")
    assert (await audit(store)).ok


async def test_what_follows_a_bad_append_is_lost_with_it(store, kit):
    journal, other = await kit.begin(store), await kit.begin(store)
    journal.stage("branch_ended", "bad", how="finished")
    journal._staged_events[0]["key"] = "\ud800"
    first = asyncio.create_task(journal.flush())
    await asyncio.sleep(0)
    results = await asyncio.gather(
        first,
        journal.append("branch_ended", "after", how="finished"),
        other.append("branch_ended", "good", how="finished"),
        return_exceptions=True,
    )
    assert isinstance(results[0], StorageError)
    assert not isinstance(results[1], Fenced), "nobody took the run over"
    assert isinstance(results[1], StorageError)
    assert (await store.read(journal.run_id)).length == 2
    assert (await store.read(other.run_id)).length == 3


async def test_a_full_disk_loses_nothing_acknowledged(sqlite_store, kit):
    journal = await kit.begin(sqlite_store, "run-1")
    with sqlite_store.database._writing.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=30")
    acknowledged = 0

    async def go_on() -> None:
        nonlocal acknowledged
        for number in range(100):
            name = journal.put(f"{number}" * 4000)
            ids = {"request": name, "result": name}
            await journal.append("effect_finished", f"k{number}", kind="signal", **ids)
            acknowledged += 1

    with pytest.raises(StorageError, match="full"):
        await go_on()
    with pytest.raises(StorageError):
        await journal.append("branch_ended", "after", how="finished")
    assert acknowledged > 0
    assert (await sqlite_store.read("run-1")).length == 2 + acknowledged
    assert (await audit(sqlite_store)).ok
    with sqlite_store.database._writing.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=100000")
    again = await sqlite_store.claim("run-1", force=True)
    await again.append("branch_ended", "room again", how="finished")
    assert (await audit(sqlite_store)).ok


LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.readline()
connection.execute("COMMIT")
print("released", flush=True)
"""


async def test_a_database_locked_by_another_process(tmp_path, kit, monkeypatch):
    monkeypatch.setattr(database, "_BUSY_TIMEOUT_S", 0.05)
    async with Store(directory=tmp_path) as store:
        journals = [await kit.begin(store, f"run-{number}") for number in range(3)]
        command = [sys.executable, "-c", LOCK, str(tmp_path / "longthought.db")]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as other:
            assert other.stdout.readline() == "locked\n"
            results = await asyncio.gather(
                *(j.append("branch_ended", "x", how="finished") for j in journals),
                return_exceptions=True,
            )
            assert all(isinstance(r, StorageError) and "locked" in str(r) for r in results)
            assert (await store.read("run-0")).length == 2, "reading goes on"
            other.stdin.write("\n")
            other.stdin.flush()
            assert other.stdout.readline() == "released\n"
        again = await store.claim("run-0", force=True)
        await again.append("branch_ended", "x", how="finished")
        assert (await audit(store)).ok


async def test_a_commit_whose_answer_was_lost_is_not_written_twice(store, kit, monkeypatch):
    journal = await kit.begin(store)
    write, calls = store.database.write, []

    async def lose_the_answer(work):
        calls.append(work)
        result = await write(work)
        if len(calls) > 1:
            return result
        raise StorageError("lost") from OperationalError(
            "COMMIT", None, OSError("gone"), connection_invalidated=True
        )

    monkeypatch.setattr(store.database, "write", lose_the_answer)
    journal.stage("branch_ended", "a", how="finished")
    await journal.append("branch_ended", "b", how="finished")
    assert len(calls) == 2
    assert (await store.read(journal.run_id)).head == journal.head
    assert (await audit(store)).ok


@pytest.mark.postgres
async def test_a_lost_connection_is_replaced(postgres_url, kit, tmp_path):
    async with Store(postgres_url, directory=tmp_path) as store:
        journal = await kit.begin(store)
        await _disconnect_all(postgres_url)
        await journal.append("branch_ended", "a", how="finished")
        assert (await store.read(journal.run_id)).head == journal.head


@pytest.mark.postgres
async def test_a_server_that_is_gone_is_a_storage_error(postgres_url, kit, tmp_path):
    async with Store(postgres_url, directory=tmp_path) as store:
        journal, other = await kit.begin(store), await kit.begin(store)
        await _disconnect_all(postgres_url, allow=False)
        results = await asyncio.gather(
            journal.append("branch_ended", "a", how="finished"),
            other.append("branch_ended", "a", how="finished"),
            store.read(journal.run_id),
            store.list_runs(),
            store.claim(journal.run_id),
            store.send_signal(journal.run_id, "x"),
            audit(store),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [StorageError] * 7
        await _disconnect_all(postgres_url)
        again = await store.claim(journal.run_id, force=True)
        await again.append("branch_ended", "a", how="finished")


async def _disconnect_all(url: str, allow: bool = True) -> None:
    target = sa.make_url(url)
    admin = sa.ext.asyncio.create_async_engine(
        target.set(database="template1"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool
    )
    async with admin.connect() as connection:
        await connection.exec_driver_sql(
            f"ALTER DATABASE {target.database} WITH ALLOW_CONNECTIONS {allow}"
        )
        await connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE datname = '{target.database}'"
        )


@pytest.mark.postgres
async def test_committed_means_durable_on_a_server_set_otherwise(postgres_url, kit, tmp_path):
    name = sa.make_url(postgres_url).database
    async with Store(postgres_url, directory=tmp_path) as store:
        await kit.begin(store)
        await store.database.write(
            lambda c: c.exec_driver_sql(f"ALTER DATABASE {name} SET synchronous_commit TO off")
        )
    async with Store(postgres_url, directory=tmp_path) as store:
        assert await kit.rows(store, "SHOW synchronous_commit") == [("on",)]
        shown = await store.database.write(
            lambda c: c.exec_driver_sql("SHOW synchronous_commit").scalar()
        )
        assert shown == "on"


async def test_processes_with_crosswise_runs_do_not_deadlock(store, store_url, kit, tmp_path):
    """Two writers whose groups hold the same runs in opposite order lock them in one order."""
    async with Store(store_url, directory=tmp_path) as other:
        mine = [await kit.begin(store, f"run-{n}") for n in range(8)]
        theirs = [await other.claim(j.run_id, force=True) for j in mine]
        for _ in range(10):
            results = await asyncio.gather(
                *(j.append("branch_ended", "x", how="finished") for j in theirs),
                *(_quietly(j) for j in reversed(mine)),
                return_exceptions=True,
            )
            assert not [r for r in results if isinstance(r, BaseException)]
        assert (await audit(other)).ok


async def _quietly(journal) -> None:
    if journal.fenced:
        return
    with pytest.raises(Fenced):
        await journal.append("branch_ended", "x", how="finished")


def test_a_fault_tells_whether_to_try_again():
    lost = OperationalError("x", None, OSError(), connection_invalidated=True)
    assert database.fault_of(lost) is database.Fault.DISCONNECTED
    assert database.fault_of(OperationalError("x", None, OSError())) is database.Fault.STORE
    assert database.fault_of(database.storage_error(OSError("x"))) is database.Fault.STORE
    assert database.fault_of(ValueError("x")) is database.Fault.CONTENT
    assert digests.EMPTY_HEAD == ""
