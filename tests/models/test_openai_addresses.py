"""How the calls of a model reach its address: query, repeated calls, streams left open, loops."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from longthought.errors import ConfigurationError, QuestionRefused
from longthought.orchestrator.models import OpenAIModel
from longthought.orchestrator.models.backends.addresses import below, root_of
from longthought.orchestrator.models.openai import exchange
from tests.models.strangers import listening

DONE = b"data: [DONE]\n\n"


def asked(text="Add."):
    return {"model": "m", "messages": [{"role": "user", "content": text}]}


def event(**fields):
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


REPLY = (
    event(choices=[{"delta": {"content": "hi"}, "finish_reason": "stop"}])
    + event(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 1})
    + DONE
)


class Server:
    """Streams one reply to every request; ``heads`` are those of the requests."""

    def __init__(self, *, leaves_open=False, cookie=b""):
        self.leaves_open, self.cookie = leaves_open, cookie
        self.heads = []
        self.lost = asyncio.Event()

    async def __call__(self, reader, writer):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head.decode().lower().split("\r\n"))
            (line,) = [line for line in self.heads[-1] if line.startswith("content-length")]
            await reader.readexactly(int(line.partition(":")[2]))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n")
            writer.write(self.cookie + b"transfer-encoding: chunked\r\n\r\n" + chunk(REPLY))
            if self.leaves_open:
                await reader.read()  # until the other side has enough of it
                self.lost.set()
                return
            writer.write(chunk(b""))


async def test_a_query_of_the_address_stands_behind_the_path_of_every_call(granted, caplog):
    caplog.set_level(logging.DEBUG)
    server = Server()
    async with listening(server) as url:
        query = "api-version=1&key=not%20shown"
        model = OpenAIModel("m", base_url=f"{url}/?{query}#there", api_key="sk-1")
        for _ in range(2):
            await model.generate(asked(), granted(9))
        await model.aclose()
    line = "post /v1/chat/completions?api-version=1&key=not+shown http/1.1"
    assert [head[0] for head in server.heads] == [line] * 2
    assert "api-version" in caplog.text
    assert "shown" not in caplog.text


@pytest.mark.parametrize(
    ("base", "models", "own"),
    [
        ("http://h/v1", "http://h/v1/models", "http://h/props"),
        ("http://h:1", "http://h:1/models", "http://h:1/props"),
        ("http://u:p@h/a/v1/?k=1&k=2#x", "http://u:p@h/a/v1/models?k=1&k=2", None),
        ("http://h/v1?version=1", "http://h/v1/models?version=1", "http://h/props?version=1"),
    ],
)
def test_what_is_below_an_address_keeps_its_query(base, models, own):
    assert below(base, "/models") == models
    assert own is None or below(root_of(base), "/props") == own


async def test_a_header_of_the_users_own_replaces_the_key_in_every_call(granted):
    server = Server()
    async with listening(server) as url:
        own = {"authorization": "Bearer mine"}
        model = OpenAIModel("m", base_url=url, api_key="sk-1", extra_headers=own)
        for _ in range(2):
            await model.generate(asked(), granted(9))
        await model.aclose()
    for head in server.heads:
        assert [line for line in head if "authorization" in line] == ["authorization: bearer mine"]


async def test_a_cookie_is_sent_while_it_lasts(granted):
    server = Server(cookie=b"set-cookie: seen=1\r\n")
    async with listening(server) as url:
        model = OpenAIModel("m", base_url=url)
        await model.generate(asked(), granted(9))
        await model.generate(asked(), granted(9))
        server.cookie = b"set-cookie: seen=; max-age=0\r\n"
        for _ in range(3):
            await model.generate(asked(), granted(9))
        await model.aclose()
    sent = [[line for line in head if line.startswith("cookie")] for head in server.heads]
    assert sent == [[], ["cookie: seen=1"], ["cookie: seen=1"], [], []]


async def test_a_stream_left_open_after_its_reply_is_not_waited_for(granted, monkeypatch):
    monkeypatch.setattr(exchange, "_LAST_SECONDS", 0.01)
    server = Server(leaves_open=True)
    async with listening(server) as url:
        model = OpenAIModel("m", base_url=url)
        reply = await model.generate(asked(), granted(9))
        assert reply["finish_reason"] == "stop"
        assert reply["usage"] == {"prompt_tokens": 3, "completion_tokens": 1, "calls": 1}
        await server.lost.wait()
        await model.aclose()


async def test_half_a_character_is_refused_before_anything_is_sent(granted):
    server = Server()
    async with listening(server) as url:
        model = OpenAIModel("m", base_url=url)
        for sent in (0, 1):
            with pytest.raises(QuestionRefused, match="half a character"):
                await model.generate(asked("a\ud800"), granted(9))
            assert len(server.heads) == sent
            await model.generate(asked("a\U0001f600"), granted(9))
        await model.aclose()


def test_clients_of_ended_loops_are_let_go(server, granted):
    model = OpenAIModel("m", base_url=server.address("t0"))
    for _ in range(3):
        asyncio.run(model.generate(asked(), granted(9)))
    assert len(model._clients) == 1


@pytest.mark.parametrize(
    "url",
    ["http://h:99999/v1", "http://h:p/v1", "http://u:hidden-pass@[::1/v1", "http://h/v 1"],
)
def test_an_address_that_cannot_be_parsed_is_refused_without_its_secrets(url):
    with pytest.raises(ConfigurationError, match="no http address") as caught:
        OpenAIModel("m", base_url=url)
    assert "hidden" not in str(caught.value)
