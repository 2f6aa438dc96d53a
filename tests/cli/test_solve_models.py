"""``solve`` with several models, typed answers and pictures."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.protocol_server import FINAL, ProtocolServer, protocol_server
from tests.cli.conftest import PUZZLE, Cli
from tests.executor.test_images import PNG, URL

SCHEMA = {"type": "object", "properties": {"word": {"type": "string"}, "age": {"type": "integer"}}}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ProtocolServer]:
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    with protocol_server() as running:
        yield running


@pytest.fixture
def schema() -> str:
    Path("schema.json").write_text(json.dumps(SCHEMA, indent=2))
    return "schema.json"


def two(server: ProtocolServer, *arguments: str) -> list[str]:
    models = ["--model", "openai/a", "--model", "openai/b", "--base-url", server.address()]
    return ["solve", "Who?", *models, *arguments]


def asked(server: ProtocolServer) -> list[dict[str, Any]]:
    return [body for body in server.received if "messages" in body]


def test_two_models_take_turns(cli: Cli, server: ProtocolServer) -> None:
    result = cli(*two(server, "--id", "both", "--strategy", "majority", "-n", "6"))
    assert result.exit_code == 0, result.output
    assert Counter(body["model"] for body in asked(server)) == {"a": 3, "b": 3}
    assert "a: " in result.stdout
    assert "3 model calls" in result.stdout
    shown = cli("show", "both").stdout
    assert "s0  a" in shown
    assert "s1  b" in shown
    assert shown.count("  picked") == 1  # of equal answers the one that came first
    told = cli.json("show", "both")
    assert [branch["model"] for branch in told["searches"][0]["branches"]] == ["a", "b"] * 3
    assert set(told["spent"]["by_model"]) == {"a", "b"}
    assert cli.json("replay", "both")["diverged"] is None


def test_each_model_is_asked_once_unless_told_otherwise(cli: Cli, server: ProtocolServer) -> None:
    told = cli.json(*two(server))
    assert told["support"]["votes"] == {FINAL: 2}
    assert sorted(body["model"] for body in asked(server)) == ["a", "b"]


def test_the_embedded_models_may_share_a_puzzle(cli: Cli) -> None:
    models = ["-m", "embedded/puzzle-large", "-m", "embedded/puzzle-small"]
    told = cli.json("solve", PUZZLE, *models, "-n", "4", "--id", "it", "--stop", "never")
    calls = {name: one["model_calls"] for name, one in told["spent"]["by_model"].items()}
    assert calls == {"embedded/puzzle-large": 2, "embedded/puzzle-small": 2}
    assert cli.json("replay", "it")["diverged"] is None


def test_a_typed_answer_is_asked_for_and_replayed(
    cli: Cli, server: ProtocolServer, schema: str
) -> None:
    options = ["--model", "openai/a", "--base-url", server.address(), "--schema", schema]
    told = cli.json("solve", "Who?", *options, "--id", "typed", code=1)
    assert (told["answer"], told["error"]) == (None, "output: there is no JSON in it")
    first, second = asked(server)
    assert first["response_format"]["json_schema"]["schema"] == SCHEMA
    assert second["messages"][-1]["content"].startswith("That is no valid answer")
    Path(schema).unlink()  # the run knows it by heart
    assert cli.json("replay", "typed")["diverged"] is None
    assert "there is no JSON in it" in cli("show", "typed").stdout


def test_a_typed_answer_is_shown(cli: Cli, schema: str) -> None:
    said = [{"problem": "Who?", "samples": [{"text": 'It is {"age": 3.0, "word": "ü"}.'}]}]
    Path("samples.jsonl").write_text("\n".join(map(json.dumps, said)))
    told = cli.json("solve", "Who?", "--model", "recorded:samples.jsonl", "--schema", schema)
    assert told["output"] == {"age": 3, "word": "ü"}
    assert told["answer"] == '{"age":3,"word":"ü"}'


def test_a_picture_is_sent(cli: Cli, server: ProtocolServer) -> None:
    Path("photo").write_bytes(PNG)
    options = ["--model", "openai/a", "--base-url", server.address(), "--image", "photo"]
    told = cli.json("solve", "What is it?", *options, "--id", "seen", "--image", "photo")
    assert told["answer"] == FINAL
    [body] = asked(server)
    words, *pictures = body["messages"][0]["content"]
    assert words == {"type": "text", "text": "What is it?"}
    assert [part["image_url"]["url"] for part in pictures] == [URL, URL]
    assert "What is it? [image_url] [image_url]" in cli("show", "seen").stdout
    assert cli.json("replay", "seen")["diverged"] is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-m", "openai/a", "-m", "openai/a"], "model: openai/a is given twice"),
        (["--image", "none.png"], "image: embedded knows no pictures. Give --model"),
        (["--schema", "schema.json"], "schema: embedded knows no JSON. Give --model"),
        (["-m", "openai/a", "--schema", "none.json"], "schema: none.json cannot be read: No such"),
        (["-m", "openai/a", "--schema", "bad.json"], "schema: bad.json is no JSON: Expecting"),
        (["-m", "openai/a", "--schema", "list.json"], "schema: is no JSON object"),
        (["-m", "openai/a", "--schema", "odd.json"], "schema: no JSON schema: type: 'odd'"),
        (["-m", "openai/a", "--schema", "void.json"], "schema: an empty schema says nothing"),
        (["-m", "openai/a", "--schema", "~nobody-is/a.json"], "schema: ~nobody-is/a.json cannot"),
        (["-m", "openai/a", "--image", "~nobody-is/a.png"], "image: ~nobody-is/a.png is no path"),
        (["-m", "openai/a", "--image", "bad.json"], "image: bad.json is no picture"),
        (["-m", "openai/a", "--image", "none.png"], "image: none.png cannot be read: No such"),
        (
            ["-m", "openai/a", "-m", "openai/b", "--strategy", "single"],
            "strategy: single asks one model of several. Use majority",
        ),
    ],
)
def test_what_cannot_be_used_is_told(
    cli: Cli, server: ProtocolServer, schema: str, arguments: list[str], said: str
) -> None:
    for name, text in (("bad", "{"), ("list", "[]"), ("odd", '{"type": "odd"}'), ("void", "{}")):
        Path(f"{name}.json").write_text(text)
    url = ["--base-url", server.address()] if "openai/a" in arguments else []
    result = cli("solve", "Who?", *arguments, *url)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert not asked(server)
