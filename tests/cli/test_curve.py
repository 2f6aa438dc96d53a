"""``longthought curve``: tasks and files, what it prints and writes, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from longthought.errors import RunBusy
from tests.cli.conftest import Cli

PROGRAM = [sys.executable, "-m", "longthought.orchestrator.cli"]
SMALL = ("--task", "puzzles", "--questions", "3", "-n", "4", "--resamples", "200")


def recorded(path: Path, name: str = "samples.jsonl") -> tuple[str, str]:
    """A recorded model and a file of its questions: sums, right three times out of four."""
    rows = [
        {
            "problem": f"What is {n} + 1?",
            "samples": [{"text": f"The answer is {n + (k != 2)}"} for k in range(4)],
        }
        for n in range(8)
    ]
    (path / name).write_text("\n".join(map(json.dumps, rows)))
    asked = [{"problem": f"What is {n} + 1?", "solution": f"#### {n + 1}"} for n in range(8)]
    (path / "sums.jsonl").write_text("\n".join(map(json.dumps, asked)))
    return "sums.jsonl", f"recorded:{name}"


def test_a_task_is_measured_drawn_and_replayable(cli: Cli) -> None:
    told = cli.json("curve", *SMALL)
    lines = {line["name"]: line for line in told["lines"]}
    assert list(lines) == [
        *("majority", "beta:0.95", "best-of", "direct", "greedy", "backtrack"),
        "random legal play",
    ]
    assert [point["size"] for point in lines["majority"]["points"]] == [1, 2, 4]
    assert lines["random legal play"]["kind"] == "control"
    assert told["unanswered"] == []
    data, picture = map(Path, told["files"])
    assert data.parent == cli.directory / "curves" / "puzzles-embedded"
    assert json.loads(data.read_text())["lines"] == told["lines"]
    said = {text.text for text in ET.parse(picture).iter("{http://www.w3.org/2000/svg}text")}
    assert {line["label"] for line in told["lines"]} <= said
    # every run knows how it was made: all of them come to the same end again, without a call
    audit = cli.json("audit")
    assert audit["ok"]
    assert audit["replay"]["runs"] == len(cli.json("runs")) == 3 * 4
    assert cli.json("curve", *SMALL) == told
    assert len(cli.json("runs")) == 3 * 4


def test_live_ways_and_words_replay_too(cli: Cli) -> None:
    words = "direct,tools,backtrack:2,best-of:1@4,weighted,pass@k"
    told = cli.json("curve", *SMALL, "-s", words, "--temperature", "0.8", "--max-tokens", "200")
    assert [line["name"] for line in told["lines"]][:3] == ["direct", "tools", "backtrack:2"]
    assert cli.json("audit")["replay"]["findings"] == []


def test_a_file_on_a_recorded_model(cli: Cli) -> None:
    data, model = recorded(Path.cwd())
    arguments = ("curve", "--data", data, "--model", model, "-n", "4", "--out", "here")
    result = cli(*arguments, "-s", "single,majority,pass")
    assert result.exit_code == 0, result.output
    assert "recorded" not in result.stderr
    assert "samples on sums: 8 questions, 4 samples of each" in result.stdout
    assert "single" in result.stdout
    assert "75.0%" in result.stdout
    assert "pass (oracle)" in result.stdout
    assert "Differences at k = " in result.stdout
    assert sorted(path.name for path in Path("here").iterdir()) == ["curve.json", "curve.svg"]
    told = json.loads(Path("here/curve.json").read_text())
    assert told["set"]["answer"] == {"kind": "number"}
    assert told["model"]["kind"] == "recorded"
    some = cli.json(*arguments, "-s", "majority@4", "--questions", "5", "--x", "samples")
    assert some["set"]["questions"] == 5
    assert len(cli.json("runs")) == 8  # all of them were there


def test_samples_that_are_not_there_are_told(cli: Cli) -> None:
    data, model = recorded(Path.cwd())
    result = cli("curve", "--data", data, "--model", model, "-n", "6", "-s", "majority")
    assert result.exit_code == 0
    assert "16 samples did not come back." in result.stdout


def test_limits_that_leave_nothing(cli: Cli) -> None:
    data, model = recorded(Path.cwd())
    arguments = ("curve", "--data", data, "--model", model, "-s", "majority")
    result = cli(*arguments, "-n", "4", "--question-tokens", "5")
    assert result.exit_code == 1
    assert "8 questions unanswered, counted as wrong (bank): out of tokens" in result.stdout
    shared = ("--tokens", "150", "--at-once", "1")
    told = cli.json(*arguments, "-n", "2", *shared)
    assert 0 < len(told["unanswered"]) < 8
    assert told["spent"]["tokens"] <= 150


def test_choices_and_named_fields(cli: Cli) -> None:
    Path("exam.csv").write_text("\ufeffnr,stem,key\n7,Blau?,B\n9,Grün?,A\n", encoding="utf-8")
    rows = [{"problem": f"{word}?", "samples": [{"text": "(B)"}]} for word in ("Blau", "Grün")]
    Path("said.jsonl").write_text("\n".join(map(json.dumps, rows)))
    arguments = ["--data", "exam.csv", "-m", "recorded:said.jsonl", "-n", "1", "-s", "single"]
    fields = ["--question", "stem", "--gold", "key", "--id", "nr", "--answer", "choice:A,B"]
    told = cli.json("curve", *arguments, *fields)
    assert [question["id"] for question in told["questions"]] == ["7", "9"]
    assert told["lines"][0]["points"][0]["accuracy"] == 0.5


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "Give --data FILE or --task NAME"),
        (["--data", "sums.jsonl", "--task", "puzzles"], "Give --data FILE or --task NAME"),
        (["--task", "riddles"], "there is no 'riddles'"),
        (["--task", "puzzles", "--gold", "x"], "have no fields"),
        (["--task", "puzzles", "--questions", "9999"], "held-out puzzles wanted"),
        (["--task", "puzzles", "-s", "voting"], "there is no 'voting'"),
        (["--task", "puzzles", "--x", "time"], "there is no axis"),
        (["--task", "puzzles", "--answer", "text"], "cannot be compared"),
        (["--data", "missing.csv"], "there is no file 'missing.csv'"),
        (["--data", "sums.jsonl", "--gold", "key"], "has no field 'key'; it has problem, solution"),
        (["--data", "sums.jsonl", "--questions", "9"], "9 are wanted, sums has 8"),
        (["--data", "sums.jsonl", "--answer", "choice:A,B"], "holds no choice"),
        (["--data", "sums.jsonl", "-s", "best-of"], "needs a verifier"),
        (["--data", "sums.jsonl"], "none can be asked: question: 'What is 0"),
    ],
)
def test_what_is_refused(cli: Cli, arguments: list[str], problem: str) -> None:
    recorded(Path.cwd())
    result = cli("curve", *arguments)
    assert result.exit_code == 2, result.output
    assert problem in result.stderr


def test_ctrl_c_leaves_everything_to_go_on_with(cli: Cli) -> None:
    command = [*PROGRAM, "curve", "--task", "puzzles", "--questions", "200", "-n", "64"]
    process = subprocess.Popen(
        [*command, "-s", "majority"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    store = cli.directory / "longthought.db"
    while not _begun(store):
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
            pytest.fail("it came to its end before it could be stopped")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130
    assert said.strip() == "longthought: interrupted. The same command goes on from here"
    assert all(row["status"] != "running" for row in cli.json("runs"))


def _begun(store: Path) -> bool:
    """Whether a run is on record, read without a lock of our own."""
    if not store.exists():
        return False
    try:
        with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as connection:
            [[count]] = connection.execute("SELECT count(*) FROM payloads").fetchall()
        connection.close()
    except sqlite3.OperationalError:
        return False
    return bool(count > 50)


def test_another_process_at_the_same_bank_is_told_plainly(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def busy(*_arguments: object, **_more: object) -> None:
        raise RunBusy("curve-1", "this machine:7", 20)

    monkeypatch.setattr("longthought.orchestrator.curves.measure", busy)
    for command in (("curve", *SMALL), ("demo", "--problems", "2")):
        result = cli(*command)
        assert result.exit_code == 1
        said = "another process measures the same (this machine:7, at curve-1). Wait until"
        assert said in result.stderr
        assert "--force" not in result.stderr  # neither command has it


def test_oracles_and_luck_are_named_wherever_a_figure_stands(cli: Cli) -> None:
    result = cli("curve", "--task", "words", "--questions", "4", "-n", "2", "-s", "majority,pass")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert {line.split("  ")[0] for line in lines if line.startswith("pass")} == {"pass (oracle)"}
    luck = [line for line in lines if line.startswith("the most frequent answer")]
    assert len(luck) == 3  # two sizes, and the groups
    assert all("(control)" in line for line in luck)
    assert "1 step (1)" in result.stdout
    assert "no strategy can reach it" not in result.stdout  # what draws anew may


def test_unicode_in_names_and_a_terminal_that_knows_ascii_only(cli: Cli) -> None:
    data, model = recorded(Path.cwd())
    Path(data).rename("Übung, 1.jsonl")
    done = subprocess.run(
        [*PROGRAM, "curve", "--data", "Übung, 1.jsonl", "-m", model, "-n", "2", "-s", "majority"],
        env={**os.environ, "PYTHONIOENCODING": "ascii:backslashreplace"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (cli.directory / "curves" / "Übung-1-samples" / "curve.svg").is_file()
