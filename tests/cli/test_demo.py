"""The demo on few problems: rows and bands, what is said of them, files, replay, audit, kill -9."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from longthought.errors import InvalidInput
from longthought.orchestrator.curves import TASKS
from tests.cli.conftest import Cli

PROGRAM = [sys.executable, "-m", "longthought.orchestrator.cli"]
CONTROLS = {"puzzles": "random legal play", "words": "the most frequent answer"}
CONTROLS["letters"] = CONTROLS["words"]
WAYS = {
    "puzzles": ["direct", "greedy", "single", "tools", "majority", "best-of", "backtrack"],
    "words": ["direct", "greedy", "single", "tools", "majority", "checked", "backtrack:4"],
    "letters": ["direct", "greedy", "single", "majority"],
}
LIVE = {"direct", "greedy", "tools", "backtrack", "backtrack:4"}
SMALL = ("demo", "--problems", "2", "--directory", "here")


def recorded(folder: Path) -> dict[str, tuple[int, str]]:
    """The runs at their end in a store that may be in use: id -> attempts and head of the chain."""
    store = folder / "longthought.db"
    if not store.exists():
        return {}
    with suppress(sqlite3.OperationalError):
        with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as connection:
            rows = connection.execute(
                "SELECT id, attempt, head FROM runs WHERE status IN ('completed', 'incomplete')"
            ).fetchall()
        return {id_: (attempt, head) for id_, attempt, head in rows}
    return {}


def calls(folder: Path) -> int:
    """The model calls that came back, in all runs."""
    with closing(sqlite3.connect(folder / "longthought.db")) as connection:
        query = "SELECT body FROM events WHERE type = 'effect_finished'"
        bodies = [json.loads(body) for (body,) in connection.execute(query)]
    return sum(body["kind"] == "model" for body in bodies)


def figures(told: dict[str, Any]) -> dict[str, Any]:
    """What must not depend on when it was measured; a new process begins with an empty cache."""
    rows = [
        {name: value for name, value in row.items() if name != "cached_tokens"}
        for row in told["rows"]
    ]
    return {"problems": told["problems"], "seed": told["seed"], "rows": rows}


def test_every_row_of_every_task_and_a_second_start(cli: Cli) -> None:
    told = cli.json(*SMALL)
    keys = {"problems", "seed", "rows", "shown", "replay", "audit", "files", "seconds"}
    assert set(told) == keys
    for task, ways in WAYS.items():
        rows = [row for row in told["rows"] if row["task"] == task]
        luck = [row for row in rows if row["kind"] == "control"]
        assert rows[: len(luck)] == luck  # first, and once where more tries change nothing
        assert {row["strategy"] for row in luck} == {CONTROLS[task]}
        assert [row["size"] for row in luck] == ([1, 16] if task == "puzzles" else [16])
        assert [row["tokens"] for row in luck] == [0] * len(luck)
        oracle = [] if task == "letters" else ["pass"]
        assert [row["strategy"] for row in rows[len(luck) :]] == ways + oracle
        kinds = {row["strategy"]: row["kind"] for row in rows[len(luck) :]}
        wanted = {way: "live" if way in LIVE else "sampled" for way in ways}
        assert kinds == wanted | dict.fromkeys(oracle, "oracle")
        right = {row["strategy"]: row["accuracy"] for row in rows}
        if oracle:
            assert rows[-1]["name"] == "oracle: pass@16"
            assert right["pass"] >= max(right[way] for way in ways if way not in LIVE)
    for row in told["rows"]:
        assert 0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1
        assert row["samples"] <= row["size"]
    # the trace that is shown is replayed from its record alone, and nothing stored has changed
    assert told["replay"]["id"] == told["shown"]
    assert (told["replay"]["calls"], told["replay"]["diverged"]) == (0, None)
    assert told["audit"]["ok"]
    assert told["audit"]["runs"] == len(recorded(Path("here"))) == 2 * (5 + 5 + 3)

    data, picture = map(Path, told["files"])
    assert (data, picture) == (Path("here/demo.json"), Path("here/demo.svg"))
    curves = json.loads(data.read_text(encoding="utf-8"))
    assert list(curves) == list(WAYS)
    points = [p for curve in curves.values() for line in curve["lines"] for p in line["points"]]
    for row in told["rows"]:
        assert {name: row[name] for name in points[0]} in points
    said = [text.text for text in ET.parse(picture).iter("{http://www.w3.org/2000/svg}text")]
    assert [said.count(name) for name in WAYS] == [1, 1, 1]

    before, made = recorded(Path("here")), calls(Path("here"))
    assert figures(cli.json(*SMALL)) == figures(told)
    assert (recorded(Path("here")), calls(Path("here"))) == (before, made)
    replay = cli.json("--data-dir", "here", "replay", told["shown"])
    assert (replay["model_calls"], replay["tool_calls"], replay["diverged"]) == (0, 0, None)


@pytest.mark.parametrize("columns", [80, 120])
def test_the_text_is_honest_and_fits(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    result = cli("demo", "--problems", "2", "--task", "words", "--task", "puzzles")
    assert result.exit_code == 0, result.output
    text, lines = " ".join(result.stdout.split()), result.stdout.splitlines()
    for sentence in (
        "2 held-out problems of each of 2 tasks",
        "A brute-force program solves all puzzles",
        "control: luck alone, without a model",
        "oracle: was shown the answers",
        "with few problems it is too narrow",
    ):
        assert sentence in text
    order = ["Make a target", "  control: random legal play, 1 try ", "  best of 16, verified "]
    order += ["  oracle: pass@16 ", "Word problems", "  control: the most frequent answer "]
    order += ["  majority of 16, checked ", "How to read this", "replay ", "audit "]
    places = []
    for begin in order:
        after = places[-1] if places else -1
        places.append(next(n for n, x in enumerate(lines) if n > after and x.startswith(begin)))
    assert "Letters" not in lines
    # all but paths, which are to be copied
    assert max(len(line) for line in lines if str(cli.directory) not in line) <= columns
    assert "0 calls made" in text
    assert "0 findings" in text
    assert str(cli.directory / "demo" / "demo.svg") in text


def test_what_the_last_task_lacks_is_said_before_the_first_is_run(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def few(_count: int, _seed: int) -> None:
        raise InvalidInput("count", "there are no 3", "Ask for fewer")

    monkeypatch.setitem(TASKS, "letters", few)
    result = cli("demo", "--problems", "3")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Ask for fewer" in result.stderr
    assert not recorded(cli.directory / "demo")


def test_what_is_refused(cli: Cli) -> None:
    for arguments, problem in [
        (("--task", "riddles"), "there is no 'riddles'. Use puzzles, words, letters"),
        # the last task has not so many: said before anything of the first is run
        (("--problems", "99999"), "exist"),
        (("--problems", "1"), "greater than or equal to 2"),
    ]:
        result = cli("demo", *arguments)
        assert result.exit_code == 2, result.output
        assert problem in result.stderr
        assert result.stdout == ""
    assert not recorded(cli.directory / "demo")


def test_a_killed_demo_goes_on_and_makes_no_run_twice(cli: Cli) -> None:
    tasks = ("--problems", "3", "--task", "words", "--task", "letters")
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    killed, runs = Path("killed"), 3 * (5 + 3)
    done: dict[str, tuple[int, str]] = {}
    for wanted in (1, 7, 17):  # within the bank, within a live way, within the second task
        process = subprocess.Popen(
            [*PROGRAM, "demo", *tasks, "--directory", str(killed), "--json"],
            env=environment,
            stdout=subprocess.PIPE,
        )
        while len(recorded(killed)) < wanted:
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.01)
                pytest.fail("it came to its end before it could be killed")
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        now = recorded(killed)
        assert wanted <= len(now) <= runs
        assert now.items() >= done.items()
        done = now
    told = cli.json("demo", *tasks, "--directory", str(killed))
    final = recorded(killed)
    assert len(final) == runs
    # a run that was at its end was not touched again: same attempt, same last event
    assert final.items() >= done.items()
    whole = cli.json("demo", *tasks, "--directory", "whole")
    assert figures(whole) == figures(told)
    assert set(final) == set(recorded(Path("whole")))
    # what a kill lost was in flight: its tries are more, the replies on record are the same
    assert calls(killed) == calls(Path("whole"))
    assert told["audit"]["ok"]
    assert told["replay"]["calls"] == 0
