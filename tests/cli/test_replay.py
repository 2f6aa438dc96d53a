"""``replay`` and ``resume`` with the workflow found again, and with another one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from longthought import Store
from longthought.orchestrator.cli.options import load_workflow
from tests.cli.conftest import PUZZLE, Cli
from tests.cli.test_runs import start

SOURCE = """
from longthought import Workflow, answers, strategies
from longthought.orchestrator.models import ScriptedModel

def made(system: str) -> Workflow:
    return Workflow(
        "mine", model=ScriptedModel(["The answer is 42."]), system=system,
        answer=answers.number(), strategy=strategies.sample(2), source="mine:workflow",
    )

workflow, other = made("Think."), made("Think twice.")
"""

PAYING = """
import asyncio
from longthought import Workflow, tool
from longthought.orchestrator.models.scripted import ScriptedModel, call, says

reached = asyncio.Event()

@tool(effect="write")
async def pay(amount: int) -> str:
    '''Pay.

    Args:
        amount: how much.
    '''
    reached.set()
    await asyncio.Event().wait()
    return "paid"

workflow = Workflow(
    "pay", model=ScriptedModel([says("paying", call("pay", amount=5)), "done"]), tools=[pay],
    source="paying:workflow",
)
"""


def test_a_replay_makes_no_call(cli: Cli) -> None:
    cli("solve", PUZZLE, "--id", "it")
    told = cli.json("replay", "it")
    assert told == {
        "id": "it",
        "model_calls": 0,
        "tool_calls": 0,
        "effects": told["effects"],
        "diverged": None,
    }
    assert told["effects"] > 0
    assert "replays to the same end" in cli("replay", "it").stdout


def test_a_changed_workflow_diverges_and_exits_with_1(
    cli: Cli, module: Callable[[str, str], None]
) -> None:
    module("mine", SOURCE)
    start(cli, "mine:workflow", "r")
    assert cli.json("replay", "r")["diverged"] is None
    told = cli.json("replay", "r", "--workflow", "mine:other", code=1)
    assert told["diverged"]["key"].endswith("#0:model")
    assert "Think twice." in told["diverged"]["difference"]
    printed = cli("replay", "r", "--workflow", "mine:other")
    assert (printed.exit_code, "goes another way now" in printed.stdout) == (1, True)


def test_an_ended_run_is_replayed_by_resume(cli: Cli) -> None:
    first = cli.json("solve", PUZZLE, "--id", "it")
    again = cli.json("resume", "it")
    assert again["answer"] == first["answer"]


def test_a_run_that_does_not_say_where_its_workflow_is(
    cli: Cli, module: Callable[[str, str], None]
) -> None:
    module("mine", SOURCE.replace('source="mine:workflow",', ""))
    start(cli, "mine:workflow", "r")
    result = cli("replay", "r")
    assert (result.exit_code, "--workflow module:attribute" in result.stderr) == (2, True)


def test_a_workflow_that_cannot_be_loaded(cli: Cli) -> None:
    cli("solve", PUZZLE, "--id", "it")
    for spec, said in (
        ("nothing", "is no module:attribute"),
        ("nothing:at_all", "cannot be loaded"),
        ("json:dumps", "not a Workflow"),
    ):
        result = cli("replay", "it", "--workflow", spec)
        assert (result.exit_code, said in result.stderr) == (2, True)


def test_a_decision_has_to_be_readable(cli: Cli) -> None:
    cli("solve", PUZZLE, "--id", "it")
    result = cli("resume", "it", "--decide", "key=maybe")
    assert (result.exit_code, "Write KEY=done or KEY=again" in result.stderr) == (2, True)


def test_a_decision_has_to_be_about_a_write_of_unknown_outcome(
    cli: Cli, module: Callable[[str, str], None]
) -> None:
    module("paying", PAYING)

    async def die_while_paying() -> None:
        async with Store(directory=cli.directory) as store:
            workflow = load_workflow("paying:workflow", store)
            task = asyncio.create_task(workflow.run("pay", run_id="p"))
            await __import__("paying").reached.wait()
            task.cancel()
            await asyncio.wait([task])

    asyncio.run(die_while_paying())
    key = "/2.explore/search/s0/2.act#0:tool"
    assert cli.json("resume", "p", code=1)["stop_reason"] == "unknown_outcome"
    result = cli("resume", "p", "--decide", f"{key}=done", "--decide", "nope=done")
    assert result.exit_code == 2
    assert "'nope' is no write of unknown outcome" in result.stderr
    assert f"Decide {key}" in result.stderr
    told = cli.json("resume", "p", "--decide", f"{key}=done")
    assert (told["status"], told["answer"]) == ("completed", "done")
    result = cli("resume", "p", "--decide", f"{key}=done")
    assert (result.exit_code, "None is open in this run" in result.stderr) == (2, True)
