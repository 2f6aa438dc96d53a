"""The page docs/cli.md: its help texts are the program's own. ``python -m tests.docs.cli_page``."""

from __future__ import annotations

import re
from pathlib import Path

from typer.testing import CliRunner

from longthought.orchestrator.cli.app import app

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
COMMANDS = (
    "",
    "demo",
    "solve",
    "curve",
    "runs",
    "show",
    "why",
    "budget",
    "raise",
    "resume",
    "wake",
    "replay",
    "audit",
    "signal",
    "models",
    "serve-model",
    "doctor",
)


def help_of(command: str) -> str:
    """What ``longthought COMMAND --help`` prints on 80 columns."""
    arguments = [command, "--help"] if command else ["--help"]
    result = CliRunner().invoke(
        app, arguments, prog_name="longthought", env={"COLUMNS": "80", "NO_COLOR": "1"}
    )
    assert result.exit_code == 0, result.output
    return "\n".join(line.rstrip() for line in result.output.strip().splitlines())


def rendered(page: str) -> str:
    """The page with every help text replaced by the real one."""

    def fresh(found: re.Match[str]) -> str:
        command = found["command"].removeprefix("longthought").removesuffix("--help").strip()
        return f"```text\n$ {found['command']}\n{help_of(command)}\n```\n"

    pattern = r"^```text\n\$ (?P<command>longthought[^\n]*--help)\n.*?^```\n"
    return re.sub(pattern, fresh, page, flags=re.MULTILINE | re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(rendered(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
