"""``solve`` with a model behind a real local server that speaks Chat Completions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.protocol_server import ProtocolServer, protocol_server
from longthought.orchestrator.serving import chat_server
from tests.cli.conftest import Cli


@pytest.fixture(scope="module")
def server() -> Iterator[ProtocolServer]:
    with protocol_server() as running:
        yield running


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def test_a_server_is_asked_and_the_run_replays_without_it(cli: Cli, server: ProtocolServer) -> None:
    options = ["-m", "openai/toy", "--base-url", server.address(), "-s", "majority", "-n", "3"]
    told = cli.json("solve", "How many?", *options, "--id", "it", "--tokens", "5000")
    assert (told["status"], told["spent"]["model_calls"]) == ("completed", 3)
    before = server.counts["calls"]
    assert cli.json("replay", "it")["diverged"] is None
    assert server.counts["calls"] == before


def test_a_key_that_is_missing_is_named(cli: Cli) -> None:
    result = cli("solve", "How many?", "--model", "openai/gpt-5-mini")
    assert "OPENAI_API_KEY" in result.output
    assert result.exit_code in (1, 2)


def test_an_address_for_the_embedded_model_is_a_mistake(cli: Cli) -> None:
    result = cli("solve", "4 7 8 8 -> 24", "--base-url", "http://localhost:1/v1")
    assert (result.exit_code, "embedded has no server" in result.stderr) == (2, True)


def test_a_server_that_does_not_answer_is_a_failure(cli: Cli) -> None:
    options = ["-m", "openai/toy", "--base-url", "http://127.0.0.1:9/v1", "--wall", "1"]
    result = cli("solve", "How many?", *options, "--id", "it")
    assert result.exit_code == 1, result.output
    assert cli.json("runs")[0]["status"] in ("incomplete", "failed")


def test_a_question_that_the_server_refuses_is_told_with_its_reason(cli: Cli) -> None:
    with chat_server("embedded") as server:
        options = ["-m", "openai/embedded", "--base-url", server.url, "--answer", "number"]
        result = cli("solve", "What is love?", *options, "--id", "it")
        told = cli.json("solve", "What is love?", *options, code=1)
    assert result.exit_code == 1
    assert "no question that this model was made for" in result.stdout
    assert (told["status"], told["stop_reason"]) == ("incomplete", "all_samples")
    assert told["error"].startswith("BackendError: embedded")
    assert "no question that this model was made for" in cli("show", "it").stdout
    assert cli.json("replay", "it")["diverged"] is None
