"""``audit``: chain and replay apart, exit 1 on a finding, checkpoints held elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import PUZZLE, Cli


def test_a_sound_store(cli: Cli) -> None:
    cli("solve", PUZZLE, "--id", "it")
    told = cli.json("audit")
    assert (told["ok"], told["chain"]["runs"], told["replay"]["runs"]) == (True, 1, 1)
    assert "sound" in cli("audit", "it").stdout


def test_a_changed_event_is_named_and_not_replayed(cli: Cli) -> None:
    cli("solve", PUZZLE, "--id", "it")
    cli.damage("UPDATE events SET body = replace(body, 'model', 'modem') WHERE seq = 4")
    told = cli.json("audit", code=1)
    assert told["chain"]["findings"][0]["seq"] == 4
    assert told["replay"]["left_out"][0]["reason"] == "its chain is broken"
    assert "it event 4" in cli("audit").stdout


def test_a_deleted_run_is_missed_by_a_checkpoint_held_elsewhere(cli: Cli, tmp_path: Path) -> None:
    held = tmp_path / "heads.json"
    cli("solve", PUZZLE, "--id", "gone")
    told = cli.json("audit", "--write-checkpoint", str(held))
    assert told["written"]["runs"] == len(json.loads(held.read_text())["runs"]) == 1
    assert cli("audit", "--checkpoint", str(held)).exit_code == 0
    for table, column in (("runs", "id"), ("events", "run_id"), ("payloads", "run_id")):
        cli.damage(f"DELETE FROM {table} WHERE {column} = 'gone'")
    cli.damage("DELETE FROM checkpoints")
    found = cli("audit", "--checkpoint", str(held))
    assert (found.exit_code, "the run is gone" in found.stdout) == (1, True)


def test_a_run_that_would_go_another_way_is_a_finding_of_the_replay(cli: Cli) -> None:
    cli("solve", PUZZLE, "--id", "it")
    told = cli.json("audit", "--no-replay")
    assert "replay" not in told


def test_a_checkpoint_that_cannot_be_read(cli: Cli, tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text("no")
    for path, said in ((bad, "is no JSON"), (tmp_path / "none", "cannot be read")):
        result = cli("audit", "--checkpoint", str(path))
        assert (result.exit_code, said in result.stderr) == (2, True)
