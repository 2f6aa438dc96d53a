"""What clients hear when something is wrong: always OpenAI's error object, never an inside."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import openai
import pytest

from longthought.errors import BackendError, InvalidInput
from longthought.orchestrator.models import ScriptedModel
from longthought.orchestrator.serving import ChatApp, ChatServer, chat_server
from tests.serving.conftest import ASKED, Held, client_of

KEY = "sesame-öffne-dich"


@pytest.fixture(scope="module")
def guarded() -> Iterator[ChatServer]:
    with chat_server("embedded", api_key=KEY) as running:
        yield running


def error(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert list(body) == ["error"]
    assert sorted(body["error"]) == ["code", "message", "param", "type"]
    kind = "server_error" if status >= 500 else "invalid_request_error"
    assert body["error"]["type"] == kind
    return dict(body["error"])


def post(server: ChatServer, body: Any, **more: Any) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(f"{server.url}/chat/completions", content=content, **more)


def test_a_body_that_is_no_json(server: ChatServer) -> None:
    assert error(post(server, b"{"), 400)["param"] is None
    assert error(post(server, b""), 400)


def test_a_field_is_named_by_its_path(server: ChatServer) -> None:
    found = error(post(server, {"model": "embedded", "messages": [{"role": "user"}]}), 400)
    assert found["param"] == "messages[0]"
    assert found["message"] == "messages[0]: a user message needs content"
    body = {"model": "embedded", "messages": ASKED, "response_format": {"type": "json_object"}}
    assert error(post(server, body), 400)["param"] == "response_format"


def test_a_model_that_is_not_there(server: ChatServer) -> None:
    found = error(post(server, {"model": "gpt-5", "messages": ASKED}), 404)
    assert (found["param"], found["code"]) == ("model", "model_not_found")
    assert "There are: embedded, embedded/puzzle-small" in found["message"]
    assert error(httpx.get(f"{server.url}/models/made/up"), 404)["code"] == "model_not_found"


def test_addresses_and_methods(server: ChatServer) -> None:
    assert "/v1/nothing" in error(httpx.get(f"{server.url}/nothing"), 404)["message"]
    assert error(httpx.post(f"{server.url}/completions", content=b"{}"), 404)
    response = httpx.get(f"{server.url}/chat/completions")
    assert "GET" in error(response, 405)["message"]
    assert response.headers["allow"] == "POST"
    assert error(httpx.delete(f"{server.url}/models"), 405)


def test_a_body_that_is_too_large(server: ChatServer) -> None:
    huge = b'{"model": "' + b"x" * (4 * 2**20) + b'"}'
    assert "4,194,304" in error(post(server, huge), 413)["message"]
    parts = (b" " * 2**20 for _ in range(6))
    assert error(httpx.post(f"{server.url}/chat/completions", content=parts), 413)
    endless = (b" " * 2**20 for _ in range(10_000))
    with suppress(httpx.TransportError):  # who sends without end may be cut off instead
        error(httpx.post(f"{server.url}/chat/completions", content=endless), 413)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("question", ["Wie groß ist 漢字?", "", "x" * 1_000_000])
async def test_a_question_that_is_refused(
    client: openai.AsyncOpenAI, question: str, stream: bool
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(
            model="embedded", messages=[{"role": "user", "content": question}], stream=stream
        )
    assert caught.value.code == "question_refused"
    assert "4 7 8 8 -> 24" in caught.value.message


async def test_a_conversation_that_the_model_did_not_write(client: openai.AsyncOpenAI) -> None:
    messages: Any = [*ASKED, {"role": "assistant", "content": "8 / 8 = 1"}]
    with pytest.raises(openai.BadRequestError, match="continue_last") as caught:
        await client.chat.completions.create(model="embedded", messages=messages)
    assert caught.value.param == "messages"


async def test_without_the_key_nobody_passes(guarded: ChatServer) -> None:
    for key in (None, "none", "sesame", KEY + "!", KEY.upper()):
        headers = {} if key is None else {"authorization": f"Bearer {key}".encode()}
        for path in ("/v1/models", "/stats", "/nothing"):
            url = guarded.url.removesuffix("/v1") + path
            response = httpx.get(url, headers=headers)
            found = error(response, 401)
            assert found["code"] == "invalid_api_key"
            assert "sesame" not in response.text
        assert error(post(guarded, b"{", headers=headers), 401)
    right = {"authorization": f"Bearer {KEY}".encode()}
    assert httpx.get(f"{guarded.url}/models", headers=right).status_code == 200
    assert httpx.get(f"{guarded.url.removesuffix('/v1')}/health").json() == {"status": "ok"}
    async with client_of(guarded, "wrong") as client:
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()


@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_tells_no_insides(stream: bool, caplog: pytest.LogCaptureFixture) -> None:
    def fail(request: Any, attempt: int) -> Exception:
        secret = request["messages"][0]["content"]
        if secret == "broken":
            return ZeroDivisionError("inside")
        return BackendError("inside", retryable=secret == "busy")

    body = {"model": "scripted", "stream": stream}
    with chat_server(ScriptedModel([], faults=fail)) as server:
        for word, retry in (("busy", "true"), ("dead", "false"), ("broken", None)):
            message = {"role": "user", "content": word}
            response = post(server, {**body, "messages": [message]})
            assert "log" in error(response, 500)["message"]
            assert "inside" not in response.text
            assert response.headers.get("x-should-retry") == retry
        stats = httpx.get(server.url.removesuffix("/v1") + "/stats").json()
        assert stats["models"]["scripted"]["failed"] == 3
    assert "ZeroDivisionError: inside" in caplog.text


async def test_a_failure_in_mid_stream_is_an_error_of_the_stream() -> None:
    with chat_server(Held(ZeroDivisionError("inside"))) as server:
        async with client_of(server) as client:
            stream = await client.chat.completions.create(
                model="held", messages=[{"role": "user", "content": "?"}], stream=True
            )
            first, second = await anext(stream), await anext(stream)
            assert (first.choices[0].delta.role, second.choices[0].delta.content) == (
                "assistant",
                "well",
            )
            with pytest.raises(openai.APIError, match="the model failed") as caught:
                await anext(stream)
            assert "inside" not in str(caught.value.body)


def test_a_reply_that_ended_in_an_error_is_a_failure() -> None:
    reply = {"message": {"role": "assistant", "content": "oh"}, "finish_reason": "error"}
    with chat_server(ScriptedModel(lambda _: {**reply, "usage": {}, "model": "m"})) as server:
        error(post(server, {"model": "scripted", "messages": ASKED}), 500)


def test_models_need_names_of_their_own() -> None:
    with pytest.raises(InvalidInput, match="two are named"):
        ChatApp([ScriptedModel([]), ScriptedModel([])])
    with pytest.raises(InvalidInput, match="none to serve"):
        ChatApp([])


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"host": "0.0.0.0"}, "host"),
        ({"host": "::"}, "host"),
        ({"host": "example.invalid"}, "host"),
        ({"host": "example.invalid", "api_key": "k"}, "host"),
        ({"host": "0.0.0.0", "api_key": ""}, "api_key"),
        ({"api_key": "sesame\n"}, "api_key"),
        ({"api_key": "sesame\udcff"}, "api_key"),
        ({"port": -1}, "port"),
        ({"port": 65536}, "port"),
    ],
)
def test_addresses_that_cannot_be_served(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        ChatServer([ScriptedModel([])], **options)
    assert caught.value.field == field
    assert "same" not in str(caught.value)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2", "::1"])
def test_loopback_has_several_names(host: str) -> None:
    try:
        socket.create_server((host, 0), family=socket.getaddrinfo(host, 0)[0][0]).close()
    except OSError as error:
        pytest.skip(f"this machine has no {host}: {error}")
    with chat_server(ScriptedModel([]), host=host) as server:
        assert httpx.get(f"{server.url}/models").status_code == 200
