"""``models``: backends of the configuration, probing one, and asking a server of this machine."""

from __future__ import annotations

import asyncio
import socket
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from longthought.errors import ConfigurationError
from longthought.orchestrator.cli.config import load_config
from longthought.orchestrator.cli.local import asked_server
from longthought.orchestrator.cli.settings import Settings
from longthought.orchestrator.models.backends import server as asking
from longthought.orchestrator.serving import ChatServer, chat_server
from longthought.types import JSONObject
from tests.cli.conftest import PUZZLE, Cli
from tests.models.strangers import stranger


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "ASK_SECONDS", 30.0)  # a busy machine is no failure
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "MY_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def own() -> Iterator[ChatServer]:
    with chat_server("embedded") as server:
        yield server


def configured(text: str) -> Path:
    path = Path.cwd() / "longthought.toml"
    path.write_text(text)
    return path


# -- the configuration --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[backends.local]\nkind = "vlm"', "backends.local.kind: there is no kind 'vlm'. Did you"),
        ('[backends.local]\nbase_urls = ["h"]', "backends.local.base_urls: 'h' is no http"),
        ('[backends.local]\nbase_urls = "http://h"', "base_urls: 'http://h' cannot be used. Wri"),
        ("[backends.local]\nkinds = 1", "backends.local.kinds: is no key"),
        ("[backends.local]\nslots = 0", "backends.local.slots: 0 cannot be used. Use 1 or more"),
        ("[backends.local]\nprice = { input = 1 }", "backends.local.price.output: is missing"),
        ('[backends."local/x"]\ntimeout = -1', 'backends."local/x".timeout: -1 is no time'),
        ("[backends.local]\nheaders = { a = 1 }", "backends.local.headers.a: int is no text"),
        ("[backends.local.capabilities]\ntool = true", "capabilities.tool: is no capability"),
        ('[backends."my local"]\nslots = 1', "backends.\"my local\": 'my local' is no name"),
    ],
)
def test_a_mistake_is_named_with_file_key_and_fix(cli: Cli, text: str, said: str) -> None:
    path = configured(text)
    with pytest.raises(ConfigurationError) as caught:
        load_config()
    assert str(caught.value).startswith(f"{path}: backends.")
    assert said in str(caught.value)
    assert cli("models").exit_code == 2


def test_settings_of_a_model_go_over_those_of_its_backend(cli: Cli) -> None:
    configured(
        """
        [backends.local]
        kind = "vllm"
        base_urls = ["http://a/v1", "http://b/v1"]
        slots = 4
        headers = { x-a = "$MY_KEY" }
        price = { input = 0.5, output = 1 }
        [backends."local/big"]
        base_url = "http://c/v1"
        first_token_timeout = 9
        """
    )
    general, big = Settings().backend("local/small"), Settings().backend("local/big")
    assert (general.urls, general.slots) == (("http://a/v1", "http://b/v1"), 4)
    assert (big.urls, big.slots, big.first_token_timeout) == (("http://c/v1",), 4, 9)
    assert big.price == {"input": 0.5, "output": 1}
    own = Settings().backend("local/small", "http://d/v1")
    assert (own.urls, own.kind) == (("http://d/v1",), "vllm")
    assert set(Settings().backends("local/small")) == {"local", "local/big", "local/small"}
    assert set(Settings().backends("lokal/small")) == {"local", "local/big"}


def test_doctor_looks_for_every_variable(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    configured('[backends.a]\napi_key_env = "MY_KEY"\n[backends.b]\nheaders = { x = "$MY_TOKEN" }')
    monkeypatch.setenv("MY_TOKEN", "sesame-open")
    checks = {one["name"]: one["found"] for one in cli.json("doctor")["checks"]}
    assert checks["keys"] == "MY_KEY not set, MY_TOKEN set, OPENAI_API_KEY not set"


# -- the list -----------------------------------------------------------------------------------


def test_the_list_names_backends_and_their_prices(cli: Cli) -> None:
    configured(
        """
        [backends.farm]
        kind = "vllm"
        base_urls = ["http://me:hunter22@a/v1", "http://b/v1"]
        price = { input = 0.5, output = 1 }
        [backends."farm/qwen3"]
        slots = 2
        [backends."openai/gpt-5-mini"]
        price = { input = 9, output = 9 }
        [backends.home]
        kind = "ollama"
        [backends.nowhere]
        """
    )
    printed = cli("models").stdout
    assert "farm/NAME  vllm at http://a/v1, http://b/v1\n" in printed
    assert "home/NAME  ollama at http://localhost:11434/v1\n" in printed
    assert "nowhere/NAME  any kind at nowhere: base_url is missing\n" in printed
    told = cli.json("models")
    assert [one["name"] for one in told["backends"]] == ["farm", "home", "nowhere"]
    assert "hunter22" not in printed + str(told)
    prices = {one["model"]: (one["price"], one["note"]) for one in told["models"]}
    half = {"input": "0.5", "cached": "0.5", "output": "1"}
    assert prices["farm/qwen3"] == (half, "configured")
    assert prices["openai/gpt-5-mini"][0]["input"] == "9"
    assert len(prices) == len(told["models"])


def test_options_of_the_probe_need_a_probe(cli: Cli) -> None:
    for option in (["--base-url", "http://h/v1"], ["--yes"]):
        result = cli("models", *option)
        assert (result.exit_code, "goes with --probe" in result.stderr) == (2, True)


# -- the probe ----------------------------------------------------------------------------------


def test_a_probe_is_told_before_and_shows_what_was_seen(cli: Cli) -> None:
    with stranger("llama.cpp") as server:
        server.cannot = {"n"}
        result = cli("models", "--probe", "openai/qwen3", "--base-url", server.url)
    assert result.exit_code == 0, result.output
    assert f"{server.url}: sends up to 14 small calls, at most 541 tokens" in result.stderr
    head = f"qwen3 at {server.url}: llama.cpp b1-0c1e570, 2,048 tokens of context, 2 slots"
    assert result.stdout.startswith(f"{head}, memory for 4,096 tokens\n")
    assert "✗  n" in result.stdout
    assert "asked for 2, 1 came" in result.stdout
    profile = result.stdout.partition("the model is then local/qwen3\n")[2]
    assert tomllib.loads(profile)["backends"]["local"] == {
        "kind": "llama.cpp",
        "base_url": server.url,
        "slots": 2,
        "context_window": 2048,
        "context_capacity": 4096,
        "price": {"input": 0, "output": 0},
    }


def test_the_profile_can_be_used_as_it_is(cli: Cli, own: ChatServer) -> None:
    told = cli.json("models", "--probe", "embedded", "--base-url", own.url)
    configured(told["profile"])
    options = ["-m", "local/embedded", "--answer", "puzzle", "--verifier", "puzzle", "--id", "it"]
    run = cli.json("solve", PUZZLE, *options, "-s", "backtrack", "--usd", "0.01")
    assert run["status"] == "completed"
    made = cli.json("models", "--probe", "local/embedded")
    assert tomllib.loads(made["profile"]) == tomllib.loads(told["profile"])
    assert cli.json("replay", "it")["diverged"] is None


def test_a_backend_is_probed_by_its_name(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret-1234")
    with stranger("vllm") as first, stranger("vllm") as second:
        configured(
            f"""
            [backends.farm]
            base_urls = ["{first.url}", "{second.url}"]
            api_key_env = "MY_KEY"
            """
        )
        result = cli("models", "--probe", "farm")
        assert (first.calls, second.calls) == (13, 0)
        assert first.headers[-1]["authorization"] == "Bearer sk-secret-1234"
    assert result.exit_code == 0, result.output
    assert f"  {second.url}: vllm, 0.32.0\n" in result.stdout
    assert 'api_key_env = "MY_KEY"' in result.stdout
    assert "sk-secret" not in result.output


def test_a_server_elsewhere_is_sent_nothing_without_a_word(cli: Cli) -> None:
    result = cli("models", "--probe", "openai/gpt-5-mini")
    assert result.exit_code == 2
    assert "https://api.openai.com/v1: sends up to 14 small calls" in result.stderr
    assert "may cost money. Add --yes" in result.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("embedded", "embedded has no server"),
        ("recorded:x", "recorded:x has no server"),
        ("qwen3", "no backend for 'qwen3'. Give --base-url too, or name openai/NAME or a backend"),
    ],
)
def test_what_has_no_server_is_not_probed(cli: Cli, name: str, said: str) -> None:
    result = cli("models", "--probe", name)
    assert (result.exit_code, said in result.stderr) == (2, True), result.stderr


def test_why_a_server_cannot_be_probed_is_told_with_what_to_do(cli: Cli, own: ChatServer) -> None:
    gone = cli("models", "--probe", "openai/x", "--base-url", "http://127.0.0.1:9/v1")
    assert gone.exit_code == 2
    assert "http://127.0.0.1:9/v1: cannot be reached: " in gone.stderr
    assert "Start the server or correct the address" in gone.stderr
    with chat_server("embedded", api_key="sesame") as server:
        refused = cli("models", "--probe", "openai/embedded", "--base-url", server.url)
    assert (refused.exit_code, "refused the key (status 401)" in refused.stderr) == (2, True)
    assert "OPENAI_API_KEY" in refused.stderr
    with stranger("silent", **{"/v1/models": {"data": []}}) as empty:
        configured(f'[backends.local]\nbase_url = "{empty.url}"')
        none = cli("models", "--probe", "local")
    assert (none.exit_code, "lists no model. Name one" in none.stderr) == (2, True)
    wrong = cli("models", "--probe", "openai/other", "--base-url", own.url)
    assert (wrong.exit_code, "status 404: there is no model" in wrong.stdout) == (1, True)


# -- asking a server before the first call ------------------------------------------------------


def test_a_served_embedded_model_works_as_the_one_in_process(cli: Cli, own: ChatServer) -> None:
    served = ["-m", "openai/embedded", "--base-url", own.url]
    for options in (["-s", "backtrack"], []):
        there = cli.json("solve", PUZZLE, *served, *options)
        here = cli.json("solve", PUZZLE, *options)
        assert (there["answer"], there["stop_reason"]) == (here["answer"], here["stop_reason"])
        if options:  # step by step both say the same words
            assert there["spent"]["output_tokens"] == here["spent"]["output_tokens"]


def test_what_a_server_said_is_recorded_and_needed_no_more(cli: Cli) -> None:
    with chat_server("embedded") as server:
        served = ["-m", "openai/embedded", "--base-url", server.url, "-s", "backtrack"]
        cli.json("solve", PUZZLE, *served, "--id", "it")
        cli.json("solve", PUZZLE, *served, "--id", "short", "--model-calls", "1", code=1)

    async def manifest() -> JSONObject:
        async with Settings().store() as store:
            return (await store.read("it")).manifest()

    recorded = asyncio.run(manifest())
    told = recorded["options"]["server"]
    assert (told["kind"], told["serves"]) == ("longthought", "embedded")
    assert told["capabilities"]["inline_tools"] is True
    [made] = recorded["workflow"]["models"]
    assert made["capabilities"] == ["continues", "inline_tools"]
    assert cli.json("replay", "it")["diverged"] is None
    assert cli.json("replay", "short")["diverged"] is None


def test_only_a_server_of_this_machine_is_asked(cli: Cli) -> None:
    with stranger("vllm") as server:
        here = asked_server("openai/qwen3", server.url, Settings())
        assert (here["kind"], here["context_window"]) == ("vllm", 8192)
        assert server.calls == 0
        configured(
            f'''
            [backends.local]
            kind = "vllm"
            base_url = "{server.url}"
            context_capacity = 9
            '''
        )
        before = len(server.asked)
        assert asked_server("local/qwen3", None, Settings()) == {}
        assert asked_server("embedded", None, Settings()) == {}
        assert asked_server("recorded:x", None, Settings()) == {}
        assert asked_server("openai/gpt-5-mini", None, Settings()) == {}
        assert asked_server("nobody/x", None, Settings()) == {}
        assert len(server.asked) == before


def test_a_server_that_does_not_say_what_it_is_is_named(
    cli: Cli, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "ASK_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://me:hunter22@127.0.0.1:{listener.getsockname()[1]}/v1"
        assert asked_server("openai/x", url, Settings()) == {}
    said = capsys.readouterr().err
    assert "did not say what it is (no answer within 0.05 s). Name its kind" in said
    assert "hunter22" not in said
