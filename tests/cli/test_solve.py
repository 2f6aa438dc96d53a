"""``solve``: defaults, options, results and refusals."""

from __future__ import annotations

import asyncio
import json

import pytest

from longthought import Store
from tests.cli.conftest import PUZZLE, Cli


def manifest_of(cli: Cli, run: str) -> dict[str, object]:
    async def read() -> dict[str, object]:
        async with Store(directory=cli.directory) as store:
            return (await store.read(run)).manifest()

    return asyncio.run(read())


def test_a_puzzle_is_answered_and_verified(cli: Cli) -> None:
    result = cli("solve", PUZZLE, "--id", "first")
    assert result.exit_code == 0, result.output
    assert "first pass" in result.stdout
    assert "longthought show first" in result.stdout


def test_json_holds_at_least_what_is_promised(cli: Cli) -> None:
    told = cli.json("solve", PUZZLE)
    assert {"id", "answer", "status", "stop_reason", "spent"} <= told.keys()
    assert told["status"] == "completed"


def test_the_question_may_come_from_standard_input(cli: Cli) -> None:
    result = cli("solve", "-", "--json", typed=f"{PUZZLE}\n")
    assert json.loads(result.stdout)["status"] == "completed"


def test_the_options_stand_in_the_manifest_with_every_default(cli: Cli) -> None:
    cli("solve", PUZZLE, "--id", "kept", "--tools", "calculator", "--max-tokens", "50")
    assert manifest_of(cli, "kept")["options"] == {
        "cli": 1,
        "model": "embedded",
        "strategy": "best-of",
        "n": 16,
        "answer": "puzzle",
        "verifier": "puzzle",
        "tools": ["calculator"],
        "max_tokens": 50,
    }


@pytest.mark.parametrize("strategy", ["single", "sample", "best-of", "majority", "backtrack"])
def test_every_strategy_runs_and_replays(cli: Cli, strategy: str) -> None:
    result = cli("solve", PUZZLE, "--strategy", strategy, "-n", "4", "--id", "it", "--json")
    assert json.loads(result.stdout)["status"] in ("completed", "incomplete")
    told = cli.json("replay", "it")
    assert (told["diverged"], told["model_calls"], told["tool_calls"]) == (None, 0, 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["hello"], "question: 'hello' is no question that this model was made for"),
        ([" "], "question: is empty"),
        ([PUZZLE, "--strategy", "best"], "strategy: there is no 'best'. Use single, sample"),
        ([PUZZLE, "--model", "nothing"], "model: there is no model 'nothing'"),
        ([PUZZLE, "--stop", "beta:x"], "stop: 'beta:x' is no rule. Use beta:0.95"),
        ([PUZZLE, "--answer", "choice"], "answer: there is no kind 'choice'. Use number, exact"),
        ([PUZZLE, "--verifier", "judge"], "verifier: there is no 'judge'"),
        ([PUZZLE, "--tools", "search:/nowhere"], "folder: '/nowhere' is no folder"),
        ([PUZZLE, "--tools", "hammer"], "tools: there is no 'hammer'"),
        ([PUZZLE, "--strategy", "backtrack", "--verifier", "none"], "verifier: backtrack has none"),
        ([PUZZLE, "--tokens", "-1"], "budget.tokens: -1 is negative"),
        ([PUZZLE, "-n", "0"], "n: 0 is too few"),
        ([PUZZLE, "--max-tokens", "0"], "max-tokens: 0 is too few"),
        ([PUZZLE, "--usd", "much"], "budget.usd: 'much' is no amount of money"),
        ([PUZZLE, "--id", "a b"], "run: 'a b' is no run id"),
        ([PUZZLE, "--temperature", "nan"], "temperature: nan"),
        ([PUZZLE, "--temperature", "-1"], "temperature: -1.0"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(cli: Cli, arguments: list[str], said: str) -> None:
    result = cli("solve", *arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith(f"longthought: {said}"), result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


@pytest.mark.parametrize(("verifier", "stops"), [("puzzle", [";", "BACK"]), ("equations", ["\n"])])
def test_backtracking_goes_by_the_steps_the_verifier_judges(
    cli: Cli, verifier: str, stops: list[str]
) -> None:
    arguments = ["--strategy", "backtrack", "--verifier", verifier, "-n", "2", "--id", "it"]
    assert cli("solve", PUZZLE, *arguments).exit_code in (0, 1)
    workflow = manifest_of(cli, "it")["workflow"]
    assert isinstance(workflow, dict)
    assert workflow["strategy"]["stop"] == stops


def test_an_id_can_be_used_once(cli: Cli) -> None:
    cli("solve", PUZZLE, "--id", "once")
    again = cli("solve", PUZZLE, "--id", "once")
    assert (again.exit_code, "taken" in again.stderr) == (2, True)


def test_a_budget_ends_the_run_and_resume_raises_it(cli: Cli) -> None:
    arguments = ["--id", "short", "--model-calls", "1", "--wall", "600", "-n", "8", "--json"]
    limited = json.loads(cli("solve", PUZZLE, *arguments).stdout)
    assert (limited["status"], limited["stop_reason"]) == ("incomplete", "model_calls")
    for limit, problem in (("--wall", "A limit is only raised"), ("--tokens", "not limited")):
        refused = cli("resume", "short", limit, "10")
        assert refused.exit_code == 2
        assert problem in refused.stderr
    raised = cli.json("resume", "short", "--model-calls", "50")
    assert raised["status"] == "completed"
    assert raised["spent"]["model_calls"] > 1


def test_an_answer_that_was_turned_down_exits_with_1(cli: Cli) -> None:
    told = cli.json("solve", "1 1 1 1 -> 99", "--strategy", "single", code=1)
    assert told["status"] == "incomplete"


def test_stream_shows_the_thought_as_it_comes(cli: Cli) -> None:
    single = cli("solve", PUZZLE, "--strategy", "single", "--stream")
    assert " = " in single.stdout.splitlines()[0]
    several = cli("solve", PUZZLE, "--stream")
    called = cli("solve", PUZZLE, "--strategy", "single", "--tools", "calculator", "--stream")
    assert '[calculator {"expression": "' in called.stdout
    assert '{"expression"' not in called.stdout.replace('[calculator {"expression"', "")
    assert several.stdout.startswith("s")


def test_stream_with_json_is_one_document_a_line(cli: Cli) -> None:
    lines = cli("solve", PUZZLE, "--stream", "--json").stdout.splitlines()
    events = [json.loads(line)["event"] for line in lines]
    assert events[-1] == "result"
    assert {"branch", "delta", "branch_ended"} <= set(events)
