"""The demo on few puzzles: every row, the control beside it, a replay and an audit."""

from __future__ import annotations

from tests.cli.conftest import Cli


def test_the_demo_measures_shows_replays_and_audits(cli: Cli) -> None:
    told = cli.json("demo", "--puzzles", "6", "--directory", "here")
    names = [row["name"] for row in told["rows"]]
    assert names[:2] == ["random legal play, 1 try", "random legal play, 16 tries"]
    assert len(names) == 7
    solved = {row["name"]: row["solved"] for row in told["rows"]}
    assert solved["best of 16, verified"] >= solved["random legal play, 1 try"]
    assert told["replay"]["diverged"] is None
    assert (told["replay"]["calls"], told["audit"]["ok"]) == (0, True)


def test_the_demo_in_words_is_honest(cli: Cli) -> None:
    result = cli("demo", "--puzzles", "2")
    assert result.exit_code == 0, result.output
    assert "brute-force program solves all" in result.stdout
    assert "question" in result.stdout
    assert str(cli.directory / "demo") in result.stdout
