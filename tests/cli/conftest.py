"""The command line, called in this process with a data directory of its own."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from longthought.orchestrator.cli.app import app

PUZZLE = "4 7 8 8 -> 24"


class Cli:
    """Calls the program; ``json`` also reads what it printed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __call__(self, *arguments: str, typed: str | None = None, **env: str) -> Any:
        return CliRunner().invoke(
            app, list(arguments), input=typed, env=env or None, prog_name="longthought"
        )

    def json(self, *arguments: str, code: int = 0) -> Any:
        result = self(*arguments, "--json")
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)

    def damage(self, statement: str, *values: object) -> None:
        """Change the store behind the program's back."""
        with sqlite3.connect(self.directory / "longthought.db") as connection:
            connection.execute(statement, values)
        connection.close()


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    for name in ("LONGTHOUGHT_DATABASE_URL", "LONGTHOUGHT_CONFIG", "LONGTHOUGHT_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LONGTHOUGHT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("LONGTHOUGHT_LOCAL_PORTS", "")  # what runs on this machine is no concern
    monkeypatch.setenv("COLUMNS", "160")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return Cli(tmp_path / "data")


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Writes a module into the working directory."""

    def write(name: str, source: str) -> None:
        monkeypatch.delitem(__import__("sys").modules, name, raising=False)
        (Path.cwd() / f"{name}.py").write_text(source)

    del tmp_path
    return write
