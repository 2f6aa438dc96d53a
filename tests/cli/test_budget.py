"""``budget`` and ``raise``: every scope from the record, and more room for a run."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from longthought import Budget, Store
from longthought.errors import RunNotFound
from longthought.orchestrator.traces import run_budget
from tests.cli.conftest import PUZZLE, Cli
from tests.executor.copies import copy_prefix
from tests.executor.workflows import looking


def test_every_scope_of_a_run_is_shown(cli: Cli) -> None:
    cli("solve", PUZZLE, "--id", "r", "-s", "sample", "-n", "3", "--tokens", "4000")
    told = cli.json("budget", "r")
    (run,) = told["runs"]
    shown = cli.json("show", "r")
    scopes = run["scopes"]
    assert (run["id"], run["status"]) == ("r", shown["status"])
    assert scopes["spent"]["tokens"] == shown["spent"]["tokens"]
    assert scopes["left"]["tokens"] == 4000 - 200 - scopes["spent"]["tokens"]
    assert scopes["kept_back"] == {"tokens": 200}
    (search,) = scopes["children"]
    assert [branch["name"] for branch in search["children"]] == ["s0", "s1", "s2"]
    parts = [branch["spent"]["tokens"] for branch in search["children"]]
    assert sum(parts) == scopes["spent"]["tokens"]
    assert run["clocks"]["wall"] > 0
    text = cli("budget", "r").stdout
    assert "/ 4,000" in text
    assert "s2" in text


def test_nothing_runs(cli: Cli) -> None:
    assert "no run is under way" in cli("budget").stdout
    assert cli.json("budget")["total"]["runs"] == 0


def test_a_run_that_ended_is_told_how_to_go_on(cli: Cli) -> None:
    cli("solve", PUZZLE, "--id", "r")
    result = cli("raise", "r", "--tokens", "900000")
    assert result.exit_code == 2
    assert "longthought resume r" in result.stderr
    assert cli("raise", "r").exit_code == 2
    assert cli("raise", "nobody", "--tokens", "1").exit_code == 2


def test_a_run_under_way_is_watched_and_raised_from_other_processes(cli: Cli) -> None:
    """The run waits inside its first call; two other processes look at it and give it more."""

    async def program(*arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "longthought.orchestrator.cli",
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        out, _ = await process.communicate()
        assert process.returncode == 0
        return out.decode()

    async def scene() -> None:
        reached, go = asyncio.Event(), asyncio.Event()

        async def script(request: object) -> str:
            reached.set()
            await go.wait()
            return "The answer is 7"

        async with Store(directory=cli.directory, lease=0.3) as store:
            workflow = looking(store, script=script, tools=[], budget=Budget(tokens=500))
            run = await workflow.start("q", run_id="live")
            await reached.wait()
            (told,) = json.loads(await program("budget", "--json"))["runs"]
            view = run.view()["scopes"]
            assert told["scopes"]["reserved"] == view["reserved"]  # what is on its way
            assert told["scopes"]["limits"] == view["limits"]
            watching = asyncio.create_task(
                program("budget", "live", "--watch", "--every", "0.1", "--json")
            )
            await program("raise", "live", "--tokens", "2000")
            while run.view()["scopes"]["limits"]["tokens"] != 2000:
                await asyncio.sleep(0.01)
            go.set()
            result = await run.result()
            assert result.answer == "7"
            lines = [json.loads(line) for line in (await watching).splitlines()]
            last = lines[-1]["runs"][0]
            assert (last["status"], last["scopes"]["limits"]["tokens"]) == ("completed", 2000)
            assert last["scopes"]["spent"]["tokens"] == result.spent["tokens"]
            known = await store.read("live")
            assert run_budget(known).scopes == last["scopes"]

    asyncio.run(scene())


async def _left_behind(cli: Cli) -> int:
    """A run whose process has died inside a call; returns how many tokens the call held."""
    reached = asyncio.Event()

    async def script(request: object) -> str:
        reached.set()
        await asyncio.Event().wait()
        return "never"

    async with Store(directory=cli.directory) as store:
        workflow = looking(store, script=script, tools=[], budget=Budget(tokens=500))
        run = await workflow.start("q", run_id="whole")
        await reached.wait()
        held: int = run.view()["scopes"]["reserved"]["tokens"]
        recording = await store.read("whole")
        await copy_prefix(store, recording, recording.length)
        run.cancel()
        while not run.done:
            await asyncio.sleep(0)
        return held


def test_a_run_whose_process_has_died_is_said_to_be_nobodys(cli: Cli) -> None:
    held = asyncio.run(_left_behind(cli))
    (run,) = cli.json("budget")["runs"]
    assert (run["status"], run["driven"]) == ("running", False)
    assert run["scopes"]["spent"]["tokens"] >= held > 0
    assert "reserved" not in run["scopes"]
    again = json.loads(cli("budget", run["id"], "--watch", "--every", "0.05", "--json").stdout)
    assert again["runs"][0]["clocks"] == run["clocks"]  # it does not go on, and nor does the watch
    assert cli("budget", "--watch", "--json").exit_code == 0
    assert "running, nobody works on it" in cli("budget", run["id"]).stdout


async def test_whether_a_run_is_driven(store: Store) -> None:
    manifest = {"question": "q"}
    journal = await store.create_run("w", manifest, fingerprint="f", version="0", run_id="r")
    assert await store.is_driven("r")
    await store.release(journal)
    assert not await store.is_driven("r")
    with pytest.raises(RunNotFound):
        await store.is_driven("nobody")


def test_a_limit_beyond_all_use_is_refused_before_anything_is_asked(cli: Cli) -> None:
    result = cli("solve", PUZZLE, "--id", "r", "--tokens", "9" * 400)
    assert (result.exit_code, "budget.tokens: is above" in result.stderr) == (2, True)
    assert cli.json("runs") == []
    cli("solve", PUZZLE, "--id", "r", "--tokens", str(10**15))
    assert "1,000,000,000,000,000" in cli("budget", "r").stdout
