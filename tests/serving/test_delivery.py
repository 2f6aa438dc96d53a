"""Clients that leave, servers that stop, and pieces that stand for no token."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import httpx
import openai
import pytest

from longthought.orchestrator.models import ScriptedModel, call, says
from longthought.orchestrator.models.embedded import EmbeddedModel
from longthought.orchestrator.serving import ChatServer, chat_server
from longthought.orchestrator.serving.replies import ChoiceStream
from longthought.types import Capabilities, Delta, ModelReply
from tests.serving.conftest import ASKED, Held, client_of

MESSAGES: Any = [{"role": "user", "content": "?"}]


async def stats(server: ChatServer) -> dict[str, Any]:
    async with httpx.AsyncClient() as client:
        found = await client.get(server.url.removesuffix("/v1") + "/stats")
    [one] = found.json()["models"].values()
    return dict(one)


async def test_who_leaves_before_the_reply_ends_it() -> None:
    model = Held()
    with chat_server(model) as server:
        async with client_of(server) as client:
            ask = client.chat.completions.create(model="held", messages=MESSAGES)
            task = asyncio.create_task(ask)
            await asyncio.to_thread(model.entered.wait)
            assert (await stats(server))["in_flight"] == 1
            task.cancel()
            await asyncio.to_thread(model.left.wait)
            with pytest.raises(asyncio.CancelledError):
                await task
        found = await stats(server)
        assert (found["in_flight"], found["cancelled"], found["failed"]) == (0, 1, 0)


async def test_who_leaves_in_mid_stream_ends_it() -> None:
    model = Held()
    with chat_server(model) as server:
        async with client_of(server) as client:
            stream = await client.chat.completions.create(
                model="held", messages=MESSAGES, stream=True
            )
            async for chunk in stream:
                if chunk.choices[0].delta.content == "well":
                    break
            assert not model.left.is_set()
            await stream.close()
            await asyncio.to_thread(model.left.wait)
        assert (await stats(server))["cancelled"] == 1


async def test_the_rows_of_who_has_left_are_not_drawn_to_the_end() -> None:
    model = EmbeddedModel("embedded", slots=1)
    messages: Any = ASKED
    with chat_server(model) as server:
        async with client_of(server) as client:
            stream = await client.chat.completions.create(
                model="embedded", messages=messages, stream=True, n=64
            )
            await anext(stream)
            await stream.close()
            found = await stats(server)
            while found["in_flight"] or found["waiting"]:
                found = await stats(server)
            assert found["cancelled"] > 0
            assert found["replies"] + found["cancelled"] == 64
            # The only slot is free for others, and nothing of the 64 is drawn beside them.
            await client.chat.completions.create(model="embedded", messages=messages)
            before = model.counters.positions
            alone = await client.chat.completions.create(model="embedded", messages=messages)
            assert alone.usage is not None
            assert model.counters.positions - before <= alone.usage.total_tokens
    await model.aclose()


async def test_a_model_is_given_as_many_calls_as_it_has_slots() -> None:
    model = ScriptedModel(lambda request: str(request["sampling"]["seed"]), slots=3)
    with chat_server(model) as server:
        async with client_of(server) as client:
            told = await client.chat.completions.create(
                model="scripted", messages=MESSAGES, n=16, seed=0
            )
        assert [choice.message.content for choice in told.choices] == [str(n) for n in range(16)]
        assert model.peak == 3
        found = await stats(server)
        assert (found["slots"], found["replies"], found["waiting"]) == (3, 16, 0)


async def test_a_server_that_stops_cuts_what_lasts_too_long() -> None:
    model = Held()
    with chat_server(model, grace=0) as server:
        async with client_of(server) as client:
            stream = await client.chat.completions.create(
                model="held", messages=MESSAGES, stream=True
            )
            ask = client.chat.completions.create(model="held", messages=MESSAGES)
            whole = asyncio.create_task(ask)
            said = await anext(stream)
            assert said.choices[0].delta.role == "assistant"
            while (await stats(server))["in_flight"] < 2:
                pass
            server.stop()
            with pytest.raises(openai.APIError, match="stopping"):
                async for _ in stream:
                    pass
            with pytest.raises(openai.InternalServerError, match="stopping") as caught:
                await whole
            assert caught.value.status_code == 503
    assert model.left.is_set()


async def test_a_server_that_stops_lets_what_is_nearly_done_end() -> None:
    async def think(request: Any) -> str:
        asked.set()
        await asyncio.to_thread(stopping.wait)
        return "done"

    asked, stopping = threading.Event(), threading.Event()
    with chat_server(ScriptedModel(think), grace=100) as server:
        async with client_of(server) as client:
            ask = client.chat.completions.create(model="scripted", messages=MESSAGES)
            task = asyncio.create_task(ask)
            await asyncio.to_thread(asked.wait)
            server.stop()
            stopping.set()
            assert (await task).choices[0].message.content == "done"


def reply_of(text: str, **more: Any) -> ModelReply:
    message: Any = {"role": "assistant", "content": text, **more}
    return {"message": message, "finish_reason": "stop", "usage": {}, "model": "m"}


def delta_of(chunk: Any) -> Any:
    return chunk["choices"][0]["delta"]


def test_no_piece_stands_for_less_than_a_token_but_the_last() -> None:
    stream = ChoiceStream({}, 0)
    assert stream.take(Delta("content", "a", tokens=0)) is None
    assert stream.take(Delta("reasoning", "hm", tokens=0)) is None
    assert stream.take(Delta("content", "", tokens=0)) is None
    chunk = stream.take(Delta("content", "b", tokens=2))
    assert delta_of(chunk) == {"content": "ab"}
    assert stream.take(Delta("content", "", tokens=1)) is None
    assert stream.take(Delta("tool_call", "{}", tokens=1)) is None
    assert stream.take(Delta("content", "c", tokens=0)) is None
    part: Any = {"id": "c", "name": "f", "arguments": "{}"}
    last = stream.end(reply_of("abc", reasoning=[{"text": "hm"}], tool_calls=[part]))
    function = {"name": "f", "arguments": "{}"}
    assert delta_of(last) == {
        "reasoning_content": "hm",
        "content": "c",
        "tool_calls": [{"index": 0, "id": "c", "type": "function", "function": function}],
    }


@pytest.mark.parametrize("stream", [False, True])
def test_reasoning_and_several_calls(stream: bool) -> None:
    message = says("so: ", call("f", a=1), call("g", b="é"), reasoning="hm, hm")
    body = {"model": "scripted", "messages": MESSAGES, "stream": stream}
    with chat_server(ScriptedModel([message])) as server:
        response = httpx.post(f"{server.url}/chat/completions", json=body)
    if not stream:
        [choice] = response.json()["choices"]
        said, finish = choice["message"], choice["finish_reason"]
        assert response.json()["usage"]["completion_tokens_details"]["reasoning_tokens"] == 3
    else:
        assert response.headers["content-type"].startswith("text/event-stream")
        *events, done = [line for line in response.text.split("\n") if line]
        assert done == "data: [DONE]"
        deltas = [delta_of(json.loads(event.removeprefix("data: "))) for event in events]
        said = {"content": "".join(delta.get("content", "") for delta in deltas)}
        said["reasoning_content"] = "".join(d.get("reasoning_content", "") for d in deltas)
        said["tool_calls"] = deltas[-1]["tool_calls"]
        finish = json.loads(events[-1].removeprefix("data: "))["choices"][0]["finish_reason"]
    assert (said["content"], said["reasoning_content"], finish) == ("so: ", "hm, hm", "tool_calls")
    assert [call["function"]["name"] for call in said["tool_calls"]] == ["f", "g"]
    assert json.loads(said["tool_calls"][1]["function"]["arguments"]) == {"b": "é"}


def test_a_model_that_does_not_stream_is_streamed_at_its_end() -> None:
    model = ScriptedModel(["all at once"], capabilities=Capabilities(streams=False))
    body = {"model": "scripted", "messages": MESSAGES, "stream": True}
    with chat_server(model) as server:
        response = httpx.post(f"{server.url}/chat/completions", json=body)
    events = [line.removeprefix("data: ") for line in response.text.split("\n") if line][:-1]
    assert [delta_of(json.loads(event)).get("content") for event in events] == ["", "all at once"]


def test_pieces_come_while_the_model_still_thinks() -> None:
    """The client decides when the model may go on, so nothing here hangs on who is faster."""
    model = Held()
    body = {"model": "held", "messages": MESSAGES, "stream": True}
    with (
        chat_server(model) as server,
        httpx.stream("POST", f"{server.url}/chat/completions", json=body) as response,
    ):
        for line in response.iter_lines():
            if line and delta_of(json.loads(line.removeprefix("data: "))).get("content") == "well":
                assert not model.left.is_set()
                return
    pytest.fail("the stream ended before the first piece came")
