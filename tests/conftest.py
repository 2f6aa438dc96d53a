"""Stores to test with: SQLite in a fresh file, PostgreSQL in a fresh database.

PostgreSQL is the server of ``LONGTHOUGHT_TEST_POSTGRES``. Where none answers, the tests that need
one fail if ``CI`` or ``LONGTHOUGHT_REQUIRE_POSTGRES`` is set, and are left out and told of if not.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from sqlalchemy.ext.asyncio import create_async_engine

from longthought.storage import Store
from longthought.storage.tables import metadata

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # `benchmarks` stands beside the tests and is not installed
    sys.path.insert(0, str(ROOT))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background of a shell: programs under test would inherit deafness to Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What an example takes depends on what else the machine does: no figure in seconds is a test.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

SERVER = sa.make_url(
    os.environ.get("LONGTHOUGHT_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/postgres")
).set(drivername="postgresql+asyncpg")
LEFT_OUT = pytest.StashKey[str]()


def on_server(*statements: str, database: str | None = None) -> None:
    """Run statements on the test server, outside any transaction."""
    url = SERVER.set(database=database or SERVER.database)

    async def run() -> None:
        engine = create_async_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        async with engine.connect() as connection:
            for statement in statements:
                await connection.exec_driver_sql(statement)

    asyncio.run(run())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    needing = [item for item in items if item.get_closest_marker("postgres")]
    if not needing or os.environ.get("CI") or os.environ.get("LONGTHOUGHT_REQUIRE_POSTGRES"):
        return
    try:
        on_server("SELECT 1")
    except OSError as error:
        config.hook.pytest_deselected(items=needing)
        items[:] = [item for item in items if item not in needing]
        config.stash[LEFT_OUT] = (
            f"{len(needing)} tests left out: no PostgreSQL server answers at "
            f"{SERVER.host}:{SERVER.port} (LONGTHOUGHT_TEST_POSTGRES): {error}"
        )
        if hasattr(config, "workeroutput"):  # one of several workers: told where the summary is
            config.workeroutput["left_out"] = config.stash[LEFT_OUT]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """What a worker of pytest-xdist has left out is told at the end, once."""
    if reason := getattr(node, "workeroutput", {}).get("left_out"):
        node.config.stash[LEFT_OUT] = reason


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if reason := config.stash.get(LEFT_OUT, ""):
        terminalreporter.write_line(reason, yellow=True)


def _url_of(database: str) -> str:
    return SERVER.set(database=database).render_as_string(hide_password=False)


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """The URL of an empty database that is dropped afterwards."""
    name = f"longthought_test_{uuid.uuid4().hex[:12]}"
    on_server(f"CREATE DATABASE {name}")
    try:
        yield _url_of(name)
    finally:
        on_server(f"DROP DATABASE {name} WITH (FORCE)")


async def fill(url: str | None, directory: Path) -> None:
    """Put the schema into a database."""
    async with Store(url, directory=directory):
        pass


@pytest.fixture(scope="session")
def postgres_shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a database with the schema in it, which tests take turns with."""
    name = f"longthought_test_{uuid.uuid4().hex[:12]}"
    on_server(f"CREATE DATABASE {name}")
    try:
        asyncio.run(fill(_url_of(name), tmp_path_factory.mktemp("shared")))
        yield name
    finally:
        on_server(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the schema in it, to be copied."""
    directory = tmp_path_factory.mktemp("template")
    asyncio.run(fill(None, directory))
    return directory / "longthought.db"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def fresh_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without anything in it, on each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'longthought.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store, on each kind of database in turn."""
    if request.param == "sqlite":
        file = tmp_path / "longthought.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), file)
        return f"sqlite:///{file}"
    name: str = request.getfixturevalue("postgres_shared")
    on_server(f"TRUNCATE {', '.join(metadata.tables)} RESTART IDENTITY", database=name)
    return _url_of(name)


@pytest.fixture
async def store(store_url: str, tmp_path: Path) -> AsyncIterator[Store]:
    """An open, empty store, on each database in turn."""
    async with Store(store_url, directory=tmp_path) as opened:
        yield opened


@pytest.fixture
async def sqlite_store(tmp_path: Path, sqlite_template: Path) -> AsyncIterator[Store]:
    """An open, empty store in a file."""
    shutil.copy(sqlite_template, tmp_path / "longthought.db")
    async with Store(directory=tmp_path) as opened:
        yield opened
