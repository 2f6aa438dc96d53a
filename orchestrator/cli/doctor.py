"""``doctor``: is everything here that longthought needs?"""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from longthought.errors import LongthoughtError
from longthought.orchestrator.cli.failures import reported
from longthought.orchestrator.cli.output import mark, one_line, print_json, progress
from longthought.orchestrator.cli.settings import Settings, settings_of
from longthought.types import JSONObject

__all__ = ["Check", "checks", "doctor"]

_LEAST_FREE = 200 * 2**20
_EARLIEST = 1_767_225_600  # 2026: a clock before that was never set
_FOLDERS = ("budgets", "orchestrator", "storage", "tools", "verifiers")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; ``ok`` is None for what may be missing."""

    name: str
    ok: bool | None
    found: str

    def to_json(self) -> JSONObject:
        """All fields."""
        return {"name": self.name, "ok": self.ok, "found": self.found}


@reported
def doctor(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check Python, store, disk, clock, model, sandbox and configuration.

    Exits with 1 if something that is needed is broken. Keys are only looked for, never shown.

    \b
    Examples:
      longthought doctor
      longthought --store postgresql://me@host/runs doctor --json
    """
    settings = settings_of(context)
    with progress("looking around", quiet=as_json):
        made = checks(settings)
    healthy = all(check.ok is not False for check in made)
    if as_json:
        print_json({"ok": healthy, "checks": [check.to_json() for check in made]})
    else:
        signs = {True: mark("passed"), False: mark("failed"), None: mark("dot")}
        for check in made:
            typer.echo(f"{signs[check.ok]} {check.name:<14} {check.found}")
    raise typer.Exit(0 if healthy else 1)


def checks(settings: Settings) -> list[Check]:
    """Every check, in order; one that fails says why and stops no other."""
    todo: list[tuple[str, Callable[[Settings], Check]]] = [
        ("python", _python),
        ("platform", _platform),
        ("package", _package),
        ("configuration", _configuration),
        ("sqlite", _sqlite),
        ("store", _store),
        ("data directory", _directory),
        ("disk", _disk),
        ("clock", _clock),
        ("embedded model", _embedded),
        ("local models", _local_models),
        ("sandbox", _sandbox),
        ("postgresql", _postgres),
        ("keys", _keys),
    ]
    made = []
    for name, check in todo:
        try:
            made.append(check(settings))
        except LongthoughtError as error:
            made.append(Check(name, False, one_line(str(error), 300)))
        except Exception as error:  # whatever is broken is what is asked for here
            made.append(Check(name, False, one_line(f"{type(error).__name__}: {error}", 300)))
    return made


def _python(settings: Settings) -> Check:
    good = sys.version_info >= (3, 11)
    found = platform.python_version()
    return Check("python", good, found if good else f"{found}; 3.11 or newer is needed")


def _platform(settings: Settings) -> Check:
    good = os.name == "posix"
    found = f"{platform.system()} {platform.machine()}"
    return Check("platform", good, found if good else f"{found}; Linux or macOS is needed")


def _package(settings: Settings) -> Check:
    from longthought import __file__ as face
    from longthought import __version__

    folder = Path(face or "").parent
    missing = [name for name in _FOLDERS if not (folder / name).is_dir()]
    if missing:
        fix = "git config core.symlinks true && git checkout -- longthought"
        return Check("package", False, f"{folder / missing[0]} is no link to its folder; {fix}")
    return Check("package", True, f"longthought {__version__} in {folder}")


def _configuration(settings: Settings) -> Check:
    path = settings.config.path
    return Check("configuration", True if path else None, str(path) if path else "no file")


def _sqlite(settings: Settings) -> Check:
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute("CREATE VIRTUAL TABLE t USING fts5(x)")
        return Check("sqlite", True, f"{sqlite3.sqlite_version} with FTS5")
    except sqlite3.OperationalError:
        found = f"{sqlite3.sqlite_version} without FTS5; the search tool needs it"
        return Check("sqlite", False, found)
    finally:
        connection.close()


def _store(settings: Settings) -> Check:
    from longthought.storage.database import SCHEMA_VERSION

    async def look() -> tuple[str, int]:
        async with settings.store() as store:
            runs = await store.list_runs(limit=1_000_000)
            return store.url.render_as_string(hide_password=True), len(runs)

    url, runs = asyncio.run(look())
    return Check("store", True, f"{url}, schema {SCHEMA_VERSION}, {runs:,} runs")


def _directory(settings: Settings) -> Check:
    folder = settings.store().directory
    probe = folder / f".probe-{os.getpid()}"
    try:
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        return Check("data directory", False, f"{folder} cannot be written: {error.strerror}")
    return Check("data directory", True, str(folder))


def _disk(settings: Settings) -> Check:
    free = shutil.disk_usage(settings.store().directory).free
    return Check("disk", free >= _LEAST_FREE, f"{free / 2**30:.1f} GiB free")


def _clock(settings: Settings) -> Check:
    now = time.time()
    found = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < _EARLIEST:
        return Check("clock", False, f"{found} is in the past: events would be misdated")
    return Check("clock", True, found)


def _embedded(settings: Settings) -> Check:
    from longthought.orchestrator.models.embedded import EmbeddedModel

    model = EmbeddedModel()
    for task in model.tasks:
        model.engine_of(task)  # loads its weights
    made = model.fingerprint()
    found = f"{', '.join(model.tasks)}; {made['parameters']:,} parameters, {made['weights'][:19]}"
    return Check("embedded model", True, found)


def _local_models(settings: Settings) -> Check:
    from longthought.orchestrator.cli.local import found_here, nothing_found, summary

    servers = found_here()
    told = f"{summary(servers)}; longthought models" if servers else nothing_found()
    return Check("local models", True if servers else None, one_line(told, 300))


def _sandbox(settings: Settings) -> Check:
    from longthought import tools
    from longthought.tools import ToolCall, run_tool

    async def line() -> str:
        python = tools.python()
        try:
            call = ToolCall("doctor", "python", {"code": "6 * 7"}, "")
            result = await run_tool(python, call, deps=None)
            return result.content if result.status == "ok" else f"{result.status} {result.content}"
        finally:
            await python.aclose()

    found = asyncio.run(line())
    return Check("sandbox", "42" in found, f"Monty says 6 * 7 is {one_line(found, 60)}")


def _postgres(settings: Settings) -> Check:
    try:
        import asyncpg  # type: ignore[import-untyped]
    except ModuleNotFoundError:
        return Check("postgresql", None, "no driver; pip install 'longthought[postgres]' adds it")
    url, _ = settings.location()
    used = bool(url) and str(url).startswith("postgres")
    told = "in use: see store" if used else "not configured"
    return Check("postgresql", True if used else None, f"asyncpg {asyncpg.__version__}, {told}")


def _keys(settings: Settings) -> Check:
    names = {"OPENAI_API_KEY"}
    for backend in settings.config.backends:
        names.update(settings.backend(backend).variables)
    found = [f"{name} {'set' if os.environ.get(name) else 'not set'}" for name in sorted(names)]
    return Check("keys", None, ", ".join(found))
