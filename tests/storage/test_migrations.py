"""Migrations build what ``tables.py`` says, once, whoever opens the store first."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from longthought.errors import StoreTooNew
from longthought.storage import Store, database, migrations, tables
from longthought.storage.audit import audit


@pytest.fixture
async def fresh_store(fresh_url, tmp_path):
    async with Store(fresh_url, directory=tmp_path) as opened:
        yield opened


async def test_migrations_build_the_tables(fresh_store):
    def compare(connection):
        context = MigrationContext.configure(
            connection,
            opts={
                "version_table": database.VERSION_TABLE,
                "compare_type": True,
                "compare_server_default": True,
            },
        )
        return compare_metadata(context, tables.metadata)

    assert await fresh_store.database.read(compare) == []


async def test_the_newest_migration_is_the_schema_version():
    script = ScriptDirectory(migrations.__path__[0])
    assert script.get_current_head() == database.SCHEMA_VERSION
    assert script.get_bases() == ["0001"]


async def test_a_store_of_a_later_version_is_left_alone(fresh_store, fresh_url, kit, tmp_path):
    await kit.tamper(fresh_store, f"UPDATE {database.VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(StoreTooNew, match="9999"):
        await Store(fresh_url, directory=tmp_path).open()


async def test_others_may_use_alembic_in_the_same_database(fresh_store, fresh_url, kit, tmp_path):
    await fresh_store.database.write(
        lambda c: c.exec_driver_sql("CREATE TABLE alembic_version (version_num TEXT)")
    )
    await kit.tamper(fresh_store, "INSERT INTO alembic_version VALUES ('zzzz')")
    async with Store(fresh_url, directory=tmp_path):
        pass


OPEN = """
import asyncio, sys
from longthought.storage import Store

async def main():
    store = Store(sys.argv[1], directory=sys.argv[2])
    import alembic.command
    print("ready", flush=True)
    sys.stdin.readline()
    async with store:
        await store.create_run("w", {}, fingerprint="", version="1", run_id=sys.argv[3])
    print("done", flush=True)

asyncio.run(main())
"""


async def test_many_processes_may_open_a_fresh_store_at_once(fresh_url, tmp_path):
    arguments = [sys.executable, "-W", "error", "-c", OPEN, fresh_url, str(tmp_path)]
    processes = [
        subprocess.Popen(
            [*arguments, f"run-{number}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for number in range(4)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        output, _ = await asyncio.to_thread(process.communicate)
        assert (output, process.returncode) == ("done\n", 0)
    async with Store(fresh_url, directory=tmp_path) as store:
        assert len(await store.list_runs()) == 4
        assert (await audit(store)).ok


def test_stores_are_made_side_by_side_in_many_threads(tmp_path: Path) -> None:
    async def make(name: str) -> int:
        async with Store(directory=tmp_path / name) as store:
            return len(await store.list_runs())

    def in_a_loop_of_its_own(name: str) -> int:
        return asyncio.run(make(name))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(in_a_loop_of_its_own, [f"store{n}" for n in range(8)])) == [0] * 8


async def test_stores_are_made_side_by_side_in_one_loop(tmp_path: Path) -> None:
    async def make(name: str) -> int:
        async with Store(directory=tmp_path / name) as store:
            return len(await store.list_runs())

    assert await asyncio.gather(*(make(f"store{n}") for n in range(8))) == [0] * 8


def test_a_new_file_may_be_opened_by_many_at_once(tmp_path: Path) -> None:
    """Changing to a write-ahead log, SQLite refuses some at once instead of letting them wait."""
    together = Barrier(6)

    def open_it(name: str) -> str:
        connection = sqlite3.connect(
            tmp_path / name, timeout=30, isolation_level=None, check_same_thread=False
        )
        together.wait()
        database._prepare_sqlite(connection, None)
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        connection.close()
        return str(mode)

    with ThreadPoolExecutor(6) as pool:
        for number in range(100):
            assert list(pool.map(open_it, [f"store{number}.db"] * 6)) == ["wal"] * 6
