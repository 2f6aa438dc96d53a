"""Profiles of backends: what is assumed of a kind, what is written, what a mistake is told."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longthought.errors import ConfigurationError, InvalidInput
from longthought.orchestrator.cli.settings import Settings
from longthought.orchestrator.models import BackendSettings, OpenAIModel, resolve_model
from longthought.orchestrator.models.backends import KINDS, ServerFacts
from longthought.orchestrator.models.backends.headers import EnvironmentHeaders
from longthought.orchestrator.models.embedded import EmbeddedModel
from longthought.types import Capabilities


def remote(name: str, **fields: Any) -> OpenAIModel:
    model = resolve_model(f"mine/{name}", backends={"mine": BackendSettings(**fields)})
    assert isinstance(model, OpenAIModel)
    return model


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_kind_is_what_is_assumed(kind):
    known = KINDS[kind]
    model = remote("x", kind=kind, base_url="http://127.0.0.1:1/v1")
    assert model.slots == known.slots
    able = model.capabilities
    assert (able.streams, able.honours_max_tokens) == (True, True)
    if kind != "generic":
        assert able.continues == (known.continues != "never")
        assert (able.seeds, able.logprobs) == (known.seeds, known.logprobs)
        assert able.structured_output == known.structured
        assert known.source
    if known.continues == "streamed":
        whole = remote("x", kind=kind, base_url="http://127.0.0.1:1/v1", stream=False)
        assert not whole.capabilities.continues
    spoken = remote("x", kind=kind, base_url="http://127.0.0.1:1/v1", api="responses")
    assert not spoken.capabilities.continues


def test_without_a_kind_all_is_as_for_any_server():
    plain = OpenAIModel("x", base_url="http://127.0.0.1:1/v1")
    named = resolve_model("openai/x", BackendSettings(base_url="http://127.0.0.1:1/v1"))
    assert named.capabilities == plain.capabilities
    assert named.fingerprint() == plain.fingerprint()


def test_what_is_written_goes_before_what_a_server_said_and_that_before_its_kind():
    facts = ServerFacts(
        kind="vllm", slots=7, context_window=8192, capabilities={"continues": False, "seeds": True}
    )
    told = BackendSettings(base_url="http://h/v1").informed(facts)
    assert (told.kind, told.slots, told.context_window) == ("vllm", 7, 8192)
    assert told.wanted_capabilities()["continues"] is False
    own = BackendSettings(
        kind="sglang", slots=2, context_window=64, capabilities={"continues": True}
    ).informed(facts)
    assert (own.kind, own.slots, own.context_window) == ("sglang", 2, 64)
    wanted = own.wanted_capabilities()
    assert (wanted["continues"], wanted["seeds"], wanted["context_window"]) == (True, True, 64)
    assert own.informed(None) == own


def test_facts_are_recorded_and_read_again():
    facts = ServerFacts(
        kind="llama.cpp", version="b1", slots=2, context_window=9, capabilities={"tools": False}
    )
    assert ServerFacts.from_json(facts.to_json()) == facts
    assert ServerFacts.from_json({}) is None
    later = {**facts.to_json(), "of a later version": 1}
    assert ServerFacts.from_json(later) == facts


@pytest.mark.parametrize(
    ("written", "field", "said"),
    [
        ({"kind": "vlm"}, "kind", "Did you mean 'vllm'?"),
        ({"kind": "x"}, "kind", "There are openai, vllm"),
        ({"base_url": "h:1"}, "base_url", "no http address"),
        ({"base_url": "http://h:x/v1"}, "base_url", "no http address"),
        ({"base_url": "http://h/v1", "base_urls": ["http://g/v1"]}, "base_urls", "Keep one"),
        ({"base_urls": "http://h/v1"}, "base_urls", "Write a list"),
        ({"base_urls": ["http://h/v1", 3]}, "base_urls", "int is no address"),
        ({"base_urls": ["http://h/v1", "http://h/v1/"]}, "base_urls", "twice"),
        ({"api": "grpc"}, "api", "Use chat or responses"),
        ({"slots": 0}, "slots", "Use 1 or more"),
        ({"slots": True}, "slots", "Use 1 or more"),
        ({"context_window": -1}, "context_window", "Use 1 or more"),
        ({"context_capacity": 0}, "context_capacity", "Use 1 or more"),
        ({"timeout": 0}, "timeout", "seconds above 0"),
        ({"first_token_timeout": float("nan")}, "first_token_timeout", "seconds above 0"),
        ({"requests_per_minute": 0.5}, "requests_per_minute", "from 1"),
        ({"max_tokens_field": "most"}, "max_tokens_field", "max_tokens or max_completion"),
        ({"order": "any"}, "order", "recorded or seeded"),
        ({"capabilities": {"continue": True}}, "capabilities.continue", "Did you mean 'continues'"),
        ({"capabilities": {"tools": "no"}}, "capabilities.tools", "true or false"),
        ({"capabilities": {"context_window": 0}}, "capabilities.context_window", "1 or more"),
        ({"capabilities": ["tools"]}, "capabilities", "is no table"),
        ({"price": {"input": 1}}, "price.output", "is missing"),
        ({"price": {"input": -1, "output": 1}}, "price.input", "is no price"),
        ({"price": {"in": 1, "input": 1, "output": 1}}, "price.in", "is unknown"),
        ({"headers": {"a b": "x"}}, "headers", "no name of a header"),
        ({"headers": {"a": 3}}, "headers.a", "is no text"),
        ({"headers": {"a": "x\r\nb: y"}}, "headers.a", "cannot stand in a header"),
        ({"headers": {"a": "π"}}, "headers.a", "Use ASCII"),
    ],
)
def test_a_field_that_cannot_be_used_is_named(written, field, said):
    with pytest.raises(InvalidInput, match=said) as caught:
        BackendSettings(**written)
    assert caught.value.field == field


def test_secrets_of_an_address_are_never_shown():
    secret = "http://me:hunter22@h:1/v1"
    for written in ({"base_url": f"{secret} "}, {"base_urls": [secret, secret]}):
        with pytest.raises(ConfigurationError) as caught:
            BackendSettings(**written)
        assert "hunter22" not in str(caught.value)
    headers = {"authorization": "Bearer hunter22"}
    assert "hunter22" not in repr(BackendSettings(base_url=secret, headers=headers))


def test_headers_name_variables_that_are_read_when_they_are_needed(monkeypatch):
    monkeypatch.delenv("MY_TOKEN", raising=False)
    written = {"authorization": "Bearer ${MY_TOKEN}", "x-price": "$$5, not $5", "x-two": "$A_1$A_1"}
    headers = EnvironmentHeaders(written)
    assert headers.variables == ("MY_TOKEN", "A_1")
    assert headers["x-price"] == "$5, not $5"
    with pytest.raises(ConfigurationError, match=r"headers.authorization: MY_TOKEN is not set"):
        _ = headers["authorization"]
    monkeypatch.setenv("MY_TOKEN", "abc")
    monkeypatch.setenv("A_1", "z")
    assert dict(headers) == {
        "authorization": "Bearer abc",
        "x-price": "$5, not $5",
        "x-two": "zz",
    }
    monkeypatch.setenv("MY_TOKEN", "two\nlines")
    with pytest.raises(ConfigurationError) as caught:
        _ = headers["authorization"]
    assert "two" not in str(caught.value)
    assert "abc" not in repr(headers)


VISIBLE = st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="$")


@given(st.text(VISIBLE, min_size=1))
def test_a_value_without_a_dollar_sign_is_itself(value):
    assert EnvironmentHeaders({"x": value})["x"] == value


def test_a_model_is_made_and_replayed_without_the_variables(monkeypatch):
    monkeypatch.delenv("MY_TOKEN", raising=False)
    model = remote("x", base_url="http://127.0.0.1:1/v1", headers={"a": "$MY_TOKEN"})
    assert "MY_TOKEN" not in str(model.fingerprint())
    with pytest.raises(ConfigurationError, match="MY_TOKEN is not set"):
        model.check()


def test_a_backend_with_a_name_is_sent_no_key_but_its_own(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-official")
    monkeypatch.setenv("MY_KEY", "mine")
    there = BackendSettings(base_url="http://h/v1")
    assert there.addressed(named=True).request_headers() == {}
    assert "official" in there.addressed(named=False).request_headers()["authorization"]
    cloud = BackendSettings(kind="openai").addressed(named=True)
    assert cloud.urls == ("https://api.openai.com/v1",)
    assert "official" in cloud.request_headers()["authorization"]
    own = replace(there, api_key_env="MY_KEY").addressed(named=True)
    assert own.request_headers() == {"authorization": "Bearer mine"}
    login = replace(own, headers={"Authorization": "Basic xyz"})
    assert login.request_headers() == {"Authorization": "Basic xyz"}


def test_an_address_follows_from_the_kind_where_that_has_one(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://elsewhere/v1")
    assert remote("x", kind="ollama").base_url == "http://localhost:11434/v1"
    assert remote("x", kind="openai", api_key_env="K").base_url == "https://api.openai.com/v1"
    with pytest.raises(ConfigurationError, match=r"backends.mine.base_url: is missing. .*vllm"):
        remote("x")
    usual = BackendSettings().addressed(named=False)
    assert usual.urls == ("http://elsewhere/v1",)


@pytest.mark.parametrize(
    ("settings", "asks"),
    [
        ({"base_url": "http://localhost:1/v1"}, True),
        ({"base_url": "http://127.1.2.3/v1"}, True),
        ({"base_url": "http://[::1]:1/v1"}, True),
        ({"base_url": "http://localhost.example.com/v1"}, False),
        ({"base_url": "http://10.0.0.1/v1"}, False),
        ({"base_url": "http://localhost:1/v1", "kind": "ollama"}, False),
        ({"base_url": "http://localhost:1/v1", "kind": "vllm"}, True),
        ({"base_url": "http://localhost:1/v1", "kind": "vllm", "context_capacity": 9}, False),
        ({"base_url": "http://10.0.0.1/v1", "kind": "vllm"}, False),
        ({"base_url": "http://localhost:1/v1", "kind": "longthought"}, True),
        ({"base_urls": ["http://localhost:1/v1", "http://localhost:2/v1"]}, False),
        ({}, False),
    ],
)
def test_only_a_server_of_this_machine_is_asked_unbidden(settings, asks):
    assert BackendSettings(**settings).asks_by_itself is asks


def test_every_capability_that_a_kind_sets_is_one():
    names = {field.name for field in fields(Capabilities)}
    for kind in KINDS.values():
        assert kind.capabilities().keys() <= names


def test_the_page_has_the_table_of_kinds():
    page = (Path(__file__).parents[2] / "docs" / "backends.md").read_text(encoding="utf-8")
    for kind in KINDS.values():
        words = {True: "yes", False: "no"}
        cells = [
            f"`{kind.name}`",
            {"always": "yes", "streamed": "streamed", "never": "no"}[kind.continues],
            words[kind.samples],
            "option" if "seeds need" in kind.notes else words[kind.seeds],
            words[kind.logprobs],
            words[kind.structured],
            words[kind.responses],
            {"yes": "yes", "option": "option", "unknown": "-"}[kind.cached],
            f"`{kind.reasoning}`" if kind.reasoning else "-",
            str(kind.slots),
        ]
        row = f"| {' | '.join(cells)} | {kind.measured} |".replace("|  |", "| |")
        assert row in page, row


def test_the_profiles_of_the_page_can_be_used(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "backends.md").read_text(encoding="utf-8")
    file = tmp_path / "longthought.toml"
    resolved = set()
    for written in re.findall(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        file.write_text(written)
        settings = Settings(config_file=file)
        for backend in tomllib.loads(written)["backends"]:
            name = backend if "/" in backend else f"{backend}/toy"
            assert resolve_model(name, backends=settings.backends(name)).name == name
            resolved.add(backend)
    assert resolved >= {"local", "work", "farm", "farm/qwen3", "shared", "proxied", "hosted"}
    known = set(re.findall(r"`(\w+)`", page.partition("## Profile")[2].partition("## Kinds")[0]))
    recorded = {"order", "seed", "wrap", "source"}
    assert {field.name for field in fields(BackendSettings)} - recorded <= known


@pytest.mark.parametrize("name", ["local/qwen3", "embedded"])
def test_the_memory_of_a_backend_is_that_of_its_models(name):
    one = BackendSettings(base_url="http://h/v1", context_capacity=120_000)
    backends = {"local": one, "embedded": BackendSettings(context_capacity=120_000)}
    assert resolve_model(name, backends=backends).context_capacity == 120_000
    plain = {"local": BackendSettings(base_url="http://h/v1")}
    own = EmbeddedModel().context_capacity if name == "embedded" else None
    assert resolve_model(name, backends=plain).context_capacity == own
    both = BackendSettings(base_urls=["http://g/v1", "http://h/v1"], context_capacity=120_000)
    assert resolve_model("local/q", backends={"local": both}).context_capacity == 240_000
    apart = replace(both, placement="load")  # a branch may go elsewhere with every call
    assert resolve_model("local/q", backends={"local": apart}).context_capacity is None
