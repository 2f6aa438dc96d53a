"""``replay`` and ``resume`` with the workflow found again, and with another one."""

from __future__ import annotations

from collections.abc import Callable

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
