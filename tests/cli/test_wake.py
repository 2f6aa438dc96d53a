"""``wake``: parked runs that are due go on, each with the workflow that it came from."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.cli.test_runs import start

SOURCE = """
from typing import TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from longthought import Context, Workflow
from longthought.orchestrator.models import ScriptedModel

class State(TypedDict, total=False):
    question: str
    answer: str

async def wait(state: State, runtime: Runtime[Context]):
    if state["question"] == "sleep":
        await runtime.context.sleep(3600)
        return {"answer": "rested"}
    timeout = 3600 if state["question"] == "an hour" else None
    return {"answer": str(await runtime.context.suspend("review", timeout=timeout))}

def made(name: str) -> Workflow:
    graph = StateGraph(State, context_schema=Context)
    graph.add_node("wait", wait)
    graph.add_edge(START, "wait")
    graph.add_edge("wait", END)
    model = ScriptedModel(["x"])
    return Workflow(name, model=model, graph=graph, source=f"mine:{name}")

mine, other = made("mine"), made("other")
"""


def parked(cli: Cli, source: str, run: str, question: str = "review") -> None:
    start(cli, source, run, question)
    assert cli.json("runs", "--status", "parked")[0]["id"] == run


def test_a_signal_and_wake(cli: Cli, module: Callable[[str, str], None]) -> None:
    module("mine", SOURCE)
    parked(cli, "mine:mine", "r")
    parked(cli, "mine:other", "s")
    nothing = cli("wake")
    assert (nothing.exit_code, nothing.stdout) == (0, "no parked run is due\n")
    cli("signal", "r", "review", "good")
    cli("signal", "s", "review", "better")
    done = cli("wake", "--workflow", "mine:mine")
    assert (done.exit_code, done.stdout) == (0, "r  completed (graph ended)  good\n")
    told = cli.json("wake")
    assert (told["id"], told["answer"], told["status"]) == ("s", "better", "completed")
    assert cli("wake", "--json").stdout == ""


def test_a_sleep_is_shown_and_woken_when_it_is_over(
    cli: Cli, module: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    module("mine", SOURCE)
    parked(cli, "mine:mine", "r", "sleep")
    (wait,) = cli.json("show", "r")["waiting"]
    assert "longthought wake" in cli("show", "r").stdout
    assert "longthought wake" in cli("resume", "r").stdout
    assert cli("wake").stdout == "no parked run is due\n"
    monkeypatch.setattr(time, "time", lambda: wait["until"] + 1)
    assert "rested" in cli("wake").stdout


def test_a_deadline_is_shown_with_what_it_is_for(
    cli: Cli, module: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    module("mine", SOURCE)
    parked(cli, "mine:mine", "r", "an hour")
    (wait,) = cli.json("show", "r")["waiting"]
    shown = cli("show", "r").stdout
    assert "waits     for review" in shown
    assert ", until 20" in shown
    assert "longthought signal r review" in shown
    monkeypatch.setattr(time, "time", lambda: wait["until"] + 1)
    assert "no signal 'review' came within 3600 s" in cli("wake").stdout
    assert "no signal came in time" in cli("show", "r").stdout


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--every", "0"], "every"),
        (["--every", "nan", "--watch"], "every"),
        (["--every", "soon"], "--every"),
        (["--at-once", "0"], "--at-once"),
        (["--limit", "0"], "--limit"),
        (["--workflow", "nowhere"], "workflow"),
        (["--workflow", "no_such_module:it"], "no_such_module"),
        (["--watch=2"], "--watch"),
    ],
)
def test_bad_input_exits_with_2(cli: Cli, arguments: list[str], named: str) -> None:
    result = cli("wake", *arguments)
    assert (result.exit_code, named in result.output) == (2, True), result.output


def test_a_run_without_its_workflow_is_told_and_the_others_go_on(
    cli: Cli, module: Callable[[str, str], None]
) -> None:
    module("mine", SOURCE)
    parked(cli, "mine:mine", "r")
    module("mine", SOURCE.replace("mine:{name}", "gone:{name}"))
    parked(cli, "mine:mine", "lost")
    cli("signal", "lost", "review", "good")
    cli("signal", "r", "review", "good")
    result = cli("wake")
    assert result.exit_code == 1
    assert "lost  parked (not woken)" in result.stdout
    assert "'gone:mine' cannot be loaded" in result.stdout
    assert "r  completed" in result.stdout
    assert cli.json("runs", "--status", "parked")[0]["id"] == "lost"


def test_a_watcher_wakes_what_comes_and_ends_when_told(
    cli: Cli, module: Callable[[str, str], None]
) -> None:
    module("mine", SOURCE)
    for run in ("r", "s"):
        parked(cli, "mine:mine", run)
    command = [sys.executable, "-m", "longthought.orchestrator.cli"]
    watcher = subprocess.Popen(
        [*command, "wake", "--watch", "--every", "0.01", "--json"],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        text=True,
    )
    assert watcher.stdout is not None
    for run in ("r", "s"):
        cli("signal", run, "review", run)
        told = json.loads(watcher.stdout.readline())
        assert (told["id"], told["answer"]) == (run, run)
    watcher.send_signal(signal.SIGTERM)
    assert watcher.communicate()[0] == ""
    assert watcher.returncode == 0
