"""What README and docs/ show runs as it stands; links lead somewhere; help is the program's own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from longthought import Workflow
from tests.docs import cli_page

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def having(language: str) -> list[object]:
    return [
        pytest.param(page, id=name)
        for page, name in zip(PAGES, NAMES, strict=True)
        if blocks(page, language)
    ]


@pytest.mark.parametrize("page", having("python"))
def test_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGTHOUGHT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("LONGTHOUGHT_DATABASE_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    for number, code in enumerate(blocks(page, "python"), 1):
        where = f"{page.name}, block {number}"
        exec(compile(code, where, "exec", dont_inherit=True), names)  # as it stands, no __future__


@pytest.mark.parametrize("page", having("bash"))
def test_commands_run(page: Path, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "LONGTHOUGHT_DATA_DIR": str(tmp_path / "data"),
    }
    environment.pop("LONGTHOUGHT_DATABASE_URL", None)
    for code in blocks(page, "bash"):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", code],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_help_is_the_programs_own() -> None:
    page = cli_page.PAGE.read_text(encoding="utf-8")
    assert page == cli_page.rendered(page), "write it anew: python -m tests.docs.cli_page"


def test_every_command_is_on_the_page() -> None:
    commands = cli_page.help_of("").partition("Commands:")[2]
    listed = re.findall(r"^  ([\w-]+)  ", commands, re.MULTILINE)
    assert sorted(listed) == sorted(command for command in cli_page.COMMANDS if command)
    page = cli_page.PAGE.read_text(encoding="utf-8")
    for command in listed:
        assert f"$ longthought {command} --help" in page


def test_picture_is_the_graphs_own() -> None:
    drawn = Workflow().graph.get_graph().draw_mermaid()
    [shown] = blocks(ROOT / "README.md", "mermaid")
    assert sorted(shown.splitlines()) == sorted(drawn.splitlines())


@pytest.mark.parametrize("name", ["puzzles", "graph"])
def test_examples_run(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / f"{name}.py")],
        cwd=tmp_path,
        env={**os.environ, "LONGTHOUGHT_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "4 7 8 8" in done.stdout or "completed" in done.stdout
