"""``show`` and ``why`` as they are printed; what they compute is tested in tests/traces."""

from __future__ import annotations

import json

import pytest

from longthought.orchestrator.cli.output import moment
from tests.cli.conftest import PUZZLE, Cli


@pytest.fixture
def backtracked(cli: Cli) -> str:
    """A run that went back at least once."""
    for seed in range(20):
        run = f"back-{seed}"
        told = cli.json(
            "solve", PUZZLE, "-s", "backtrack", "--seed", str(seed), "--id", run, "--stop", "never"
        )
        if told["support"]["dead_ends"]:
            return run
    raise AssertionError("twenty searches without a dead end")


def test_the_tree_has_thoughts_verdicts_dead_ends_tokens_and_clocks(
    cli: Cli, backtracked: str
) -> None:
    shown = cli("show", backtracked).stdout
    for part in ("question", "model", "verify", "dead end", "picked", "tokens", " s", "answer"):
        assert part in shown
    assert " at 0." in cli("show", backtracked, "--clocks").stdout


def test_the_json_tree_holds_every_effect(cli: Cli, backtracked: str) -> None:
    tree = cli.json("show", backtracked)
    [search] = tree["searches"]
    todo, steps = list(search["branches"]), []
    while todo:
        branch = todo.pop()
        steps += branch["steps"]
        todo += branch.get("children", [])
    assert len(steps) == cli.json("replay", backtracked)["effects"]
    assert all(step["clock"] for step in steps)


@pytest.mark.parametrize("columns", ["20", "40", "300"])
def test_narrow_and_wide_terminals(cli: Cli, backtracked: str, columns: str) -> None:
    result = cli("show", backtracked, COLUMNS=columns)
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= int(columns)


def test_no_colour_codes_in_a_pipe(cli: Cli, backtracked: str) -> None:
    assert "\x1b" not in cli("show", backtracked, "--full", NO_COLOR="1").stdout


def test_why_names_the_chain(cli: Cli, backtracked: str) -> None:
    told = cli.json("why", backtracked)
    assert told["basis"] == "chain"
    assert [effect["kind"] for effect in told["rests_on"]][-1] == "verify"
    assert "a chain of steps" in cli("why", backtracked).stdout


def test_why_names_the_verdict_of_a_verified_pick(cli: Cli) -> None:
    cli("solve", PUZZLE, "--id", "best")
    printed = cli("why", "best").stdout
    assert "a sample that the verifier passed" in printed
    assert "verdict    passed" in printed


def test_votes_are_counted(cli: Cli) -> None:
    cli("solve", PUZZLE, "--id", "vote", "-s", "majority", "-n", "8", "--verifier", "none")
    told = cli.json("why", "vote")
    assert sum(told["votes"].values()) <= 8
    assert "margin" in cli("why", "vote").stdout


@pytest.mark.parametrize("command", ["show", "why", "replay", "resume"])
def test_a_run_that_is_not_there(cli: Cli, command: str) -> None:
    result = cli(command, "nothing")
    assert result.exit_code == 2
    assert result.stderr.startswith("longthought: run: no run 'nothing' in this store.")


def test_why_of_a_run_without_an_answer_says_so(cli: Cli) -> None:
    cli("solve", "hello", "--id", "refused")
    result = cli("why", "refused")
    assert (result.exit_code, "has no answer" in result.stderr) == (2, True)
    assert "hello" in json.dumps(cli.json("show", "refused"))


def test_clocks_tell_what_slots_did(cli: Cli, backtracked: str) -> None:
    use = cli.json("show", backtracked, "--clocks")["utilisation"]
    [backend] = use["backends"].values()
    assert backend["permits"] >= 1
    assert backend["busy_seconds"] > 0
    assert use["permit_seconds_during_tools"] == use["tool_seconds_in_generation"] == 0
    assert "utilisation" not in cli.json("show", backtracked)
    shown = cli("show", backtracked, "--clocks").stdout
    assert "slots" in shown
    assert "overlap" in shown
    assert "runs      " not in shown


def test_several_runs_are_shown_with_what_they_used_together(cli: Cli) -> None:
    for seed in ("1", "2"):
        cli("solve", PUZZLE, "--id", f"run-{seed}", "--seed", seed)
    alone = [cli.json("show", f"run-{n}", "--clocks")["utilisation"] for n in (1, 2)]
    shown = cli.json("show", "run-1", "run-2", "run-1", "--clocks")
    assert [tree["id"] for tree in shown["runs"]] == ["run-1", "run-2"]
    both = shown["utilisation"]
    for figure in ("calls", "permits", "prompt_tokens", "output_tokens"):
        one, other = (next(iter(use["backends"].values()))[figure] for use in alone)
        assert next(iter(both["backends"].values()))[figure] == one + other > 0
    assert (both["runs"], both["ended"]) == (2, 2)
    printed = cli("show", "run-1", "run-2", "--clocks").stdout
    assert printed.count("question") == 2
    assert "runs      2 in " in printed
    assert cli.json("runs", "--clocks") == both
    assert "runs      2 in " in cli("runs", "--clocks", "--since", "1h").stdout
    assert cli.json("runs", "--clocks", "--limit", "1")["runs"] == 1


def test_runs_of_a_period(cli: Cli) -> None:
    cli("solve", PUZZLE, "--id", "now")
    assert [row["id"] for row in cli.json("runs", "--since", "30min")] == ["now"]
    assert [row["id"] for row in cli.json("runs", "--since", "2020-01-31T12:00+01:00")] == ["now"]
    assert cli.json("runs", "--since", "2999-01-31") == []
    assert cli.json("runs", "--since", "2999-01-31", "--clocks")["backends"] == {}
    assert cli("runs", "--since", "2999-01-31", "--clocks").exit_code == 0
    result = cli("runs", "--since", "yesterday")
    assert result.exit_code == 2
    assert result.stderr.startswith("longthought: since: 'yesterday' is no time.")


def test_a_wait_beyond_what_clocks_can_tell_is_shown() -> None:
    assert moment(0.0) == "1970-01-01 00:00:00 UTC"
    assert moment(1e308) == "the end of time"
