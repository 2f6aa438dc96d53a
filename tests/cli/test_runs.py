"""``runs`` and ``signal``; a run that waits, is answered, and goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from longthought import Store
from longthought.orchestrator.cli.options import load_workflow
from tests.cli.conftest import PUZZLE, Cli

WAITING = """
from typing import Any, TypedDict
from langgraph.graph import END, START, StateGraph
from longthought import Context, Workflow
from longthought.orchestrator.models import ScriptedModel

class State(TypedDict, total=False):
    answer: str

async def ask(state: State, runtime: Any) -> State:
    return {"answer": str(await runtime.context.suspend("approval", {"sure": True}))}

graph = StateGraph(State, context_schema=Context)
graph.add_node("ask", ask)
graph.add_edge(START, "ask")
graph.add_edge("ask", END)
workflow = Workflow(
    "waiting", graph=graph, model=ScriptedModel(["hi"]), source="waiting:workflow"
)
"""


def start(cli: Cli, spec: str, run: str, question: str = "Go?") -> None:
    async def begin() -> None:
        async with Store(directory=cli.directory) as store:
            await load_workflow(spec, store).run(question, run_id=run)

    asyncio.run(begin())


def test_an_empty_store_says_how_to_begin(cli: Cli) -> None:
    assert "longthought solve" in cli("runs").stdout
    assert cli.json("runs") == []


def test_runs_are_listed_newest_first_and_filtered(cli: Cli) -> None:
    for name in ("one", "two"):
        cli("solve", PUZZLE, "--id", name)
    assert [row["id"] for row in cli.json("runs")] == ["two", "one"]
    assert [row["id"] for row in cli.json("runs", "--limit", "1")] == ["two"]
    assert cli.json("runs", "--status", "parked") == []
    assert cli.json("runs", "--workflow", "other") == []
    assert "one" in cli("runs").stdout


def test_a_status_that_does_not_exist_is_refused(cli: Cli) -> None:
    result = cli("runs", "--status", "done")
    assert (result.exit_code, "Use running" in result.stderr) == (2, True)


def test_a_parked_run_is_shown_answered_and_goes_on(
    cli: Cli, module: Callable[[str, str], None]
) -> None:
    module("waiting", WAITING)
    start(cli, "waiting:workflow", "w")
    shown = cli("show", "w").stdout
    assert "waits     for approval" in shown
    assert 'asks {"sure": true}' in shown
    assert cli("resume", "w").exit_code == 0  # still parked
    assert cli.json("signal", "w", "approval", "yes")["value"] == "yes"
    told = cli.json("resume", "w")
    assert (told["status"], told["answer"]) == ("completed", "yes")
    assert "graph of your own" in cli("why", "w").stdout


def test_a_signal_for_no_run_is_refused(cli: Cli) -> None:
    assert cli("signal", "none", "go").exit_code == 2


def test_a_signal_that_nobody_can_take_is_refused(
    cli: Cli, module: Callable[[str, str], None]
) -> None:
    module("waiting", WAITING)
    start(cli, "waiting:workflow", "w")
    for name, said in (("", "is no name"), ("a\tb", "control characters")):
        result = cli("signal", "w", name)
        assert (result.exit_code, said in result.stderr) == (2, True)
    cli("signal", "w", "approval", "yes")
    assert cli("resume", "w").exit_code == 0
    result = cli("signal", "w", "approval", "again")
    assert (result.exit_code, "takes no signal" in result.stderr) == (2, True)
