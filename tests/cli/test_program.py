"""The program as a process: help, failures, pipes, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import PUZZLE, Cli
from tests.docs.cli_page import COMMANDS, help_of

PROGRAM = [sys.executable, "-m", "longthought.orchestrator.cli"]


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
    )


@pytest.mark.parametrize("command", [command for command in COMMANDS if command])
def test_help_has_examples_and_json(command: str) -> None:
    text = help_of(command)
    assert "Examples:" in text
    assert "--json" in text


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from longthought.orchestrator.cli import main\n"
        "sys.argv = ['longthought', 'solve', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = ['langgraph', 'sqlalchemy', 'openai', 'numpy', 'pydantic_monty', 'starlette']\n"
        "print('LOADED', [name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("LOADED []\n")


def test_version(cli: Cli) -> None:
    assert cli("--version").stdout.startswith("longthought 0.")


def test_a_traceback_only_on_demand(cli: Cli) -> None:
    plain = run("show", "nothing")
    assert (plain.returncode, "Traceback" in plain.stderr) == (2, False)
    assert "Traceback" in run("show", "nothing", LONGTHOUGHT_DEBUG="1").stderr


@pytest.mark.parametrize("command", ["show it --json", f"solve '{PUZZLE}' --stream"])
def test_a_reader_that_leaves_early_is_no_failure(cli: Cli, command: str) -> None:
    cli("solve", PUZZLE, "--id", "it")
    command = " ".join([*PROGRAM, command])
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{command} | head -c 1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr


def test_a_terminal_that_knows_ascii_only(cli: Cli) -> None:
    cli("solve", PUZZLE, "--id", "it")
    done = run("show", "it", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()


def test_unicode_goes_through(cli: Cli) -> None:
    done = run("solve", "Wie groß ist π? → 24")
    assert done.returncode == 2
    assert "groß" in done.stderr


def test_ctrl_c_leaves_a_run_that_can_be_resumed(cli: Cli) -> None:
    arguments = [PUZZLE, "--id", "long", "-s", "majority", "-n", "400", "--stream", "--json"]
    process = subprocess.Popen(
        [*PROGRAM, "solve", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:  # until some work is done
        if json.loads(line)["event"] == "branch_ended":
            break
    process.send_signal(signal.SIGINT)
    shown, said = process.communicate()
    assert process.returncode == 130
    assert said.strip() == "longthought: interrupted. Go on with: longthought resume long"
    before = cli.json("show", "long")
    assert before["status"] == "cancelled"
    last = json.loads(shown.splitlines()[-1])
    assert (last["event"], last["status"]) == ("result", "cancelled")
    assert last["answer"] == before.get("best", {}).get("answer")
    (row,) = cli.json("runs", "--answers")
    assert row.get("best") == before.get("best")
    told = cli.json("resume", "long")
    assert told["support"]["of"] == 400
    assert told["spent"]["model_calls"] >= 400


def test_the_store_is_found_from_any_directory(cli: Cli, tmp_path: Path) -> None:
    cli("solve", PUZZLE, "--id", "it")
    os.chdir(tmp_path)
    assert json.loads(run("runs", "--json").stdout)[0]["id"] == "it"
