"""``doctor`` and ``models``."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Cli


def test_all_is_well_here(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "very-secret")
    told = cli.json("doctor")
    names = {check["name"] for check in told["checks"]}
    assert told["ok"]
    assert {"python", "store", "sqlite", "embedded model", "sandbox", "clock", "keys"} <= names
    printed = cli("doctor").stdout
    assert "OPENAI_API_KEY set" in printed
    assert "very-secret" not in printed


def test_a_store_that_cannot_be_opened_is_broken(cli: Cli) -> None:
    result = cli("--store", "sqlite:////nowhere/at/all.db", "doctor")
    assert result.exit_code == 1
    assert "cannot be opened" in result.stdout


def test_models_are_listed_with_prices(cli: Cli) -> None:
    told = cli.json("models")
    by_name = {model["model"]: model for model in told["models"]}
    assert by_name["embedded"]["price"]["input"] == "0"
    assert any(name.startswith("openai/") for name in by_name)
    assert "dollars per million tokens" in cli("models").stdout
