"""Asking and probing servers: what strangers say is found out, and whatever they say is data."""

from __future__ import annotations

import json
import socket
import tomllib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longthought.errors import ConfigurationError
from longthought.orchestrator.models import (
    BackendSettings,
    RecordedModel,
    ask_server,
    probe,
)
from longthought.orchestrator.models.backends.probing import MOST_CALLS, MOST_OUTPUT_TOKENS
from longthought.orchestrator.models.embedded import EmbeddedModel
from longthought.orchestrator.serving import chat_server
from tests.models.strangers import listening, stranger

PATIENT = 30.0  # seconds; a busy machine is no failure


# -- asking -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "version", "window", "slots", "gets"),
    [
        ("vllm", "0.32.0", 8192, None, 3),
        ("sglang", "0.5.23", 4096, 24, 4),
        ("llama.cpp", "b1-0c1e570", 2048, 2, 2),
        ("ollama", "0.40.12", 4096, None, 5),
        ("lmstudio", None, 6000, None, 2),
    ],
)
async def test_a_server_says_what_it_is(kind, version, window, slots, gets):
    with stranger(kind) as server:
        facts = await ask_server(server.url, model="qwen3", timeout=PATIENT)
    assert (facts.kind, facts.version, facts.problem) == (kind, version, None)
    assert (facts.context_window, facts.slots, facts.models) == (window, slots, ("qwen3",))
    assert [method for method, _, _ in server.asked] == ["GET"] * gets


async def test_our_own_server_says_of_each_model_what_it_can(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"problem": "q", "samples": [{"text": "a"}]}))
    models = [EmbeddedModel(slots=5), RecordedModel(str(file))]
    with chat_server(*models) as server:
        embedded = await ask_server(server.url, model="embedded", timeout=PATIENT)
        recorded = await ask_server(server.url, model="rows", timeout=PATIENT)
        unknown = await ask_server(server.url, model="other", timeout=PATIENT)
    assert (embedded.kind, embedded.serves, embedded.slots) == ("longthought", "embedded", 5)
    assert embedded.capabilities["continues"] is True
    assert embedded.capabilities["inline_tools"] is True
    assert embedded.capabilities["structured_output"] is False
    assert (recorded.serves, recorded.capabilities["inline_tools"]) == ("recorded", False)
    assert (unknown.kind, unknown.serves, unknown.slots) == ("longthought", None, None)


async def test_a_key_goes_along_and_a_wrong_one_is_a_status(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sesame")
    settings = BackendSettings(base_url="http://h/v1", api_key_env="MY_KEY")
    with chat_server("embedded", api_key="sesame") as server:
        known = await ask_server(server.url, headers=settings.request_headers(), timeout=PATIENT)
        refused = await ask_server(server.url, timeout=PATIENT)
    assert known.kind == "longthought"
    assert (refused.kind, refused.status) == (None, 401)


@pytest.mark.parametrize(
    "page",
    [
        {},
        [],
        None,
        "text",
        b"<html>",
        {"data": "x"},
        {"data": [3]},
        {"data": [{"id": 7, "owned_by": ["vllm"], "max_model_len": "many"}]},
        (500, {"error": "broken"}),
    ],
)
async def test_a_list_that_makes_no_sense_says_nothing(page):
    with stranger("silent", **{"/v1/models": page}) as server:
        facts = await ask_server(server.url, timeout=PATIENT)
    assert (facts.kind, facts.models, facts.context_window) == (None, (), None)
    assert not facts.silent


async def test_a_server_without_a_model_is_still_of_its_kind():
    empty = {"/v1/models": {"object": "list", "data": None}}
    with stranger("ollama", **empty) as server:
        facts = await ask_server(server.url, timeout=PATIENT)
    assert (facts.kind, facts.models, facts.problem) == ("ollama", (), None)


async def test_who_is_not_there_and_who_says_nothing_are_told_apart():
    gone = await ask_server("http://127.0.0.1:9/v1", timeout=PATIENT)
    with socket.create_server(("127.0.0.1", 0)) as listener:  # takes connections, and no more
        port = listener.getsockname()[1]
        silent = await ask_server(f"http://127.0.0.1:{port}/v1", timeout=0.05)
    assert (gone.silent, gone.kind, gone.status) == (False, None, None)
    assert gone.problem
    assert silent.silent
    assert silent.problem == "no answer within 0.05 s"


async def test_what_is_known_is_kept_when_the_rest_does_not_come():
    async def first_only(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/v1/models" not in head:
            await reader.read()
            return
        body = json.dumps({"data": [{"id": "m", "owned_by": "vllm", "max_model_len": 77}]})
        text = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        writer.write((text + body).encode())
        await writer.drain()

    async with listening(first_only) as url:
        facts = await ask_server(url, timeout=3.0)
    assert (facts.kind, facts.context_window, facts.version) == ("vllm", 77, None)


# -- probing ------------------------------------------------------------------------------------


async def test_a_probe_finds_out_what_a_server_does():
    told = []
    with stranger("vllm") as server:
        server.cached, server.reasoning = 16, "reasoning"
        found = await probe(server.url, tell=lambda trial, calls: told.append((trial, calls)))
    assert {one.name: one.found for one in found.findings} == {
        "answers": True,
        "streams": True,
        "usage in streams": True,
        "honours max_tokens": True,
        "tools": True,
        "structured output": True,
        "continues": True,
        "seeds": True,
        "logprobs": True,
        "n": True,
        "responses": True,
        "priority": True,
        "cached tokens": True,
        "reasoning": True,
    }
    assert (found.calls, server.calls) == (13, 13)
    assert found.calls <= MOST_CALLS
    asked = [body for method, _, body in server.asked if method == "POST"]
    output = sum(
        body.get("n", 1) * body.get("max_tokens", body.get("max_output_tokens", 0))
        for body in asked
    )
    assert output <= MOST_OUTPUT_TOKENS
    assert [calls for _, calls in told] == sorted(calls for _, calls in told)
    assert tomllib.loads(found.to_toml("mine")) == {
        "backends": {
            "mine": {
                "kind": "vllm",
                "base_url": server.url,
                "context_window": 8192,
                "priority": True,
                "price": {"input": 0, "output": 0},
            }
        }
    }


@pytest.mark.parametrize(
    ("lack", "finding", "capability"),
    [
        ("honours max_tokens", "honours max_tokens", {"honours_max_tokens": False}),
        ("structured output", "structured output", {"structured_output": False}),
        ("continues", "continues", {"continues": False}),
        ("seeds", "seeds", {"seeds": False}),
        ("logprobs", "logprobs", {"logprobs": False}),
        ("n", "n", {}),
        ("responses", "responses", {}),
        ("usage in streams", "usage in streams", {}),
    ],
)
async def test_what_a_server_leaves_undone_is_found(lack, finding, capability):
    with stranger("vllm") as server:
        server.cannot = {lack}
        found = await probe(server.url)
    others = {one.name: one.found for one in found.findings if one.name != finding}
    assert found.found(finding) is False
    assert False not in others.values()
    assert found.profile().capabilities == capability


@pytest.mark.parametrize(
    ("field", "finding"),
    [
        ("tools", "tools"),
        ("response_format", "structured output"),
        ("continue_final_message", "continues"),
        ("seed", "seeds"),
        ("logprobs", "logprobs"),
        ("n", "n"),
    ],
)
async def test_what_a_server_turns_down_is_found_with_its_reason(field, finding):
    with stranger("vllm") as server:
        server.refuses = {field}
        found = await probe(server.url)
    [one] = [one for one in found.findings if one.name == finding]
    assert (one.found, one.seen) == (False, f"status 400: unknown field {field}")


async def test_what_cannot_be_told_is_not_guessed():
    with stranger("vllm") as server:
        server.cannot = {"tools"}
        found = await probe(server.url)
    assert (found.found("tools"), found.found("cached tokens")) == (None, None)
    assert found.profile().capabilities == {}


@pytest.mark.parametrize(
    ("said", "finish", "found"),
    [
        ('{"rain": tr', "length", None),
        ('{"rain": "yes"}', "stop", False),
        ("It rains, {", "length", False),
        ("", "length", None),
        ('\n{ "rain" : false }', "stop", True),
    ],
)
async def test_an_answer_that_was_cut_breaks_no_schema(said, finish, found):
    with stranger("vllm") as server:
        server.structured, server.finish = said, finish
        probed = await probe(server.url)
    assert probed.found("structured output") is found


async def test_a_server_that_does_not_stream_is_not_streamed_from():
    with stranger() as server:
        server.cannot = {"streams"}
        found = await probe(server.url)
    assert (found.found("streams"), found.found("continues")) == (False, True)
    assert found.profile().stream is False
    assert not found.profile().wanted_capabilities().get("streams", False)


async def test_the_field_of_the_maximum_is_found():
    with stranger("vllm") as server:
        server.refuses = {"max_tokens"}
        plain = await probe(server.url)
        assert plain.found("answers") is False

        def reply(body, before=server.reply):
            if "max_tokens" in body:
                message = "max_tokens is not supported, use max_completion_tokens"
                return 400, {"error": {"message": message}}
            return before(body)

        server.reply = reply
        found = await probe(server.url)
    assert found.found("answers") is True
    assert found.calls == MOST_CALLS
    assert found.profile().max_tokens_field == "max_completion_tokens"


async def test_what_a_stranger_says_gives_a_terminal_no_orders():
    with stranger() as server:
        server.structured = "\x1b[31mred\x07"
        plain = await probe(server.url)
        server.reply = lambda body: (400, {"error": {"message": "\x1b]0;mine\x07 \u202eno"}})
        refused = await probe(server.url)
    seen = [one.seen for one in (*plain.findings, *refused.findings)]
    assert any("red" in one for one in seen)
    assert all(one.isprintable() for one in seen)


async def test_a_server_that_refuses_everything_is_left_alone(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-secret-1234")
    with stranger() as server:
        server.refusal = (401, {})
        settings = BackendSettings(base_url=server.url, api_key_env="MY_KEY")
        found = await probe(settings)
        assert server.headers[-1]["authorization"] == "Bearer sk-secret-1234"
    assert (found.found("answers"), server.calls) == (False, 1)
    assert {one.seen for one in found.findings[1:11]} == {"not tried: there was no answer"}


async def test_no_secret_is_shown(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-secret-1234")
    monkeypatch.setenv("MY_TOKEN", "token-5678")
    with stranger() as server:

        def reply(body):
            return 400, {"error": {"message": f"bad {server.headers[-1]}"}}

        server.reply = reply
        url = server.url.replace("http://", "http://me:hunter22@")
        settings = BackendSettings(
            base_url=url,
            api_key_env="MY_KEY",
            headers={"x-token": "Token $MY_TOKEN", "x-plain": "plain-9999"},
        )
        found = await probe(settings, "qwen3")
    shown = json.dumps(found.to_json()) + found.to_toml("mine") + repr(found)
    assert "Token $MY_TOKEN" in shown
    assert "MY_KEY" in found.to_toml("mine")
    for secret in ("sk-secret-1234", "token-5678", "hunter22", "plain-9999"):
        assert secret not in shown


async def test_a_server_that_stops_answering_is_not_waited_for_twelve_times():
    answered: list[bool] = []

    async def once(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        body = b'{"data": [{"id": "m"}]}'
        if b"POST" in head:
            if answered:
                await reader.read()
                return
            answered.append(True)
            body = b'{"choices": [{"message": {"content": "hi"}}]}'
        status = b"200 OK" if b"/v1/" in head else b"404 no"
        length = str(len(body)).encode()
        fields = b"content-length: %b\r\nconnection: close" % length
        writer.write(b"HTTP/1.1 %b\r\n%b\r\n\r\n%b" % (status, fields, body))
        await writer.drain()

    async with listening(once) as url:
        found = await probe(url, timeout=1.5)
    assert (found.found("answers"), found.calls) == (True, 3)
    assert found.findings[-3].seen == "not tried: it had stopped answering"


async def test_a_server_that_is_not_there_or_has_no_model_is_sent_no_call():
    gone = await probe("http://127.0.0.1:9/v1", "m")
    assert (gone.calls, gone.findings) == (0, ())
    assert gone.facts.problem
    with stranger("silent", **{"/v1/models": {"data": []}}) as server:
        empty = await probe(server.url)
    assert (empty.model, empty.calls, server.calls) == (None, 0, 0)


async def test_the_other_addresses_of_a_backend_are_asked_and_not_called():
    with stranger("vllm") as first, stranger("vllm") as second:
        urls = [first.url, second.url, "http://127.0.0.1:9/v1"]
        found = await probe(BackendSettings(base_urls=urls))
    assert (first.calls, second.calls) == (13, 0)
    assert found.others is not None
    assert [facts.kind for facts in found.others.values()] == ["vllm", None]
    assert tomllib.loads(found.to_toml("a b"))["backends"]["a b"]["base_urls"] == urls


async def test_our_own_server_is_probed_with_a_question_that_it_takes():
    with chat_server("embedded") as server:
        found = await probe(server.url)
    assert (found.kind, found.found("answers"), found.found("streams")) == (
        "longthought",
        True,
        True,
    )
    assert found.found("structured output") is False
    assert [one.name for one in found.findings if one.seen == "says so itself"] == [
        "tools",
        "continues",
        "seeds",
        "logprobs",
    ]
    assert found.profile().capabilities == {}


async def test_a_variable_that_is_not_set_is_told_before_anything_is_sent(monkeypatch):
    monkeypatch.delenv("MY_TOKEN", raising=False)
    with stranger() as server:
        settings = BackendSettings(base_url=server.url, headers={"x": "$MY_TOKEN"})
        with pytest.raises(ConfigurationError, match="MY_TOKEN is not set"):
            await probe(settings)
        assert server.asked == []


FIELDS = (
    "data",
    "id",
    "choices",
    "message",
    "content",
    "usage",
    "error",
    "tool_calls",
    "models",
    "completion_tokens",
    "logprobs",
    "function",
    "output",
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def anybody():
    with stranger() as server:
        yield server


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(answer=JSON)
async def test_nothing_that_a_stranger_answers_is_raised(anybody, answer):
    anybody.raw = answer if answer is not None else {}
    found = await probe(anybody.url, "m")
    assert found.calls <= MOST_CALLS
    assert tomllib.loads(found.to_toml("mine"))
    assert json.loads(json.dumps(found.to_json())) == found.to_json()
