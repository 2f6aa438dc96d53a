"""What llama.cpp and vLLM were seen to send, read without a server; see docs/engines.md."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from longthought.errors import BackendError
from longthought.orchestrator.models import OpenAIModel
from longthought.orchestrator.models.openai import chat_wire as wire
from longthought.orchestrator.models.openai.chat import ChatDialect
from longthought.orchestrator.models.openai.chat_choices import ChatChoices
from longthought.orchestrator.models.openai.chat_stream import ChatStream
from longthought.orchestrator.models.openai.dialect import Answer, ServerFault, WireOptions
from longthought.orchestrator.models.openai.faults import Faults

USER = {"role": "user", "content": "q"}
TIMINGS = {"cache_n": 0, "predicted_n": 4}


def usage(completion):
    return {"prompt_tokens": 21, "completion_tokens": completion}


def chunk(index, text=None, finish=None):
    delta = {"content": text} if text else {}
    return {"choices": [{"index": index, "delta": delta, "finish_reason": finish}]}


def of_llama_cpp(message):
    return {
        "choices": [{"index": 0, "message": message, "finish_reason": "length"}],
        "usage": usage(4),
        "timings": TIMINGS,
    }


@pytest.mark.parametrize(
    ("unfinished", "sent", "left"),
    [
        ({"content": "\n one "}, {"content": "\n one two"}, {"content": "two"}),
        (
            {"content": "one", "reasoning": [{"text": "hm"}]},
            {"content": "one two", "reasoning_content": "hm\n"},
            {"content": " two"},
        ),
        (
            {"content": "", "reasoning": [{"text": "hm"}]},
            {"content": "", "reasoning_content": "hm so"},
            {
                "content": "",
                "reasoning": [{"text": " so", "provider": {"field": "reasoning_content"}}],
            },
        ),
        ({"content": "one"}, {"content": "two"}, {"content": "two"}),
        ({"content": ""}, {"content": "one"}, {"content": "one"}),
    ],
)
def test_a_whole_reply_of_llama_cpp_loses_what_it_repeats(unfinished, sent, left):
    last = {"role": "assistant", **unfinished}
    request = {"model": "m", "messages": [USER, last], "continue_last": True}
    answer = ChatDialect(WireOptions("m")).whole(request, of_llama_cpp(sent))
    assert answer.message == {"role": "assistant", **left}


def test_only_llama_cpp_repeats_what_it_continues():
    request = {
        "model": "m",
        "messages": [USER, {"role": "assistant", "content": "ha"}],
        "continue_last": True,
    }
    dialect = ChatDialect(WireOptions("m"))
    laughing = of_llama_cpp({"content": "ha ha"})
    assert dialect.whole(request, laughing).message["content"] == " ha"
    assert (
        dialect.whole({**request, "continue_last": False}, laughing).message["content"] == "ha ha"
    )
    laughing.pop("timings")
    assert dialect.whole(request, laughing).message["content"] == "ha ha"


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ("{", '{"invalid_arguments": "{"}'),
        ('"é"', '{"invalid_arguments": "\\"é\\""}'),
        ("", "{}"),
        ("[" * 100_000, None),
    ],
)
def test_arguments_of_earlier_calls_are_sent_as_an_object(written, sent):
    call = {"id": "c", "name": "t", "arguments": written}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    request = {"model": "m", "messages": [USER, message]}
    body = wire.request_body(request, WireOptions("m"), 9)
    (made,) = body["messages"][1]["tool_calls"]
    arguments = made["function"]["arguments"]
    assert isinstance(json.loads(arguments), dict)
    assert sent is None or arguments == sent
    assert call["arguments"] == written


def test_the_fingerprint_that_vllm_sends_last_is_kept():
    stream = ChatStream()
    for piece in (chunk(0, "a"), chunk(0, finish="stop")):
        stream.take("", json.dumps({"model": "tiny", **piece}))
    last = {"choices": [], "usage": usage(1), "system_fingerprint": "vllm-0.32.0-a6f9f807"}
    stream.take("", json.dumps(last))
    assert stream.answer().fingerprint == "vllm-0.32.0-a6f9f807"


def test_usage_that_llama_cpp_sends_for_each_choice_is_added_up():
    choices = ChatChoices([None, None], 0)
    for index in (1, 0):
        own = {"choices": [], "usage": usage(3 + index), "timings": TIMINGS}
        for piece in (chunk(index, "a"), chunk(index, finish="stop"), own):
            choices.take("", json.dumps(piece))
    assert choices.usage is not None
    assert (choices.usage.prompt_tokens, choices.usage.completion_tokens) == (21, 7)


def test_a_running_count_of_vllm_is_not_added_up():
    choices = ChatChoices([None, None], 0)
    for count in (1, 2, 5):
        choices.take("", json.dumps({**chunk(0, "a"), "usage": usage(count)}))
    assert choices.usage is not None
    assert choices.usage.completion_tokens == 5


def test_usage_of_one_choice_is_not_taken_for_that_of_all():
    reply = of_llama_cpp({"content": "a"})
    reply["choices"].append({"index": 1, "message": {"content": "b"}, "finish_reason": "stop"})
    choices = ChatChoices([None, None], 0)
    choices.take_whole(reply)
    assert choices.usage is None


def test_the_overlong_prompt_of_either_engine_is_told_as_such():
    said = {
        "code": 400,
        "message": "request (3019 tokens) exceeds the available context size (2048 tokens), "
        "try increasing it",
        "type": "exceed_context_size_error",
    }
    faults = Faults("m")
    for error in (said, {**said, "message": "This model's maximum context length is 2048 tokens."}):
        fault = faults.of(ServerFault("an error", error))
        assert "does not fit the model's context window" in str(fault)
        assert not fault.retryable


def test_alternatives_that_nobody_asked_for_are_left_out():
    tokens = [
        {"token": "a", "logprob": -1.0, "top_logprobs": [{"token": "b", "logprob": -0.5}] * 20},
        {"token": "b", "logprob": -2.0},
    ]
    answer = Answer({"role": "assistant", "content": "ab"}, "stop", logprobs=tokens)
    request = {"model": "m", "messages": [USER], "sampling": {"logprobs": True}}
    address = {"base_url": "http://127.0.0.1:1/v1"}
    plain = OpenAIModel("m", **address)._reply(request, answer, 9)
    assert plain["logprobs"] == [{**tokens[0], "top_logprobs": []}, tokens[1]]
    asked = {**request, "provider": {"top_logprobs": 20}}
    assert OpenAIModel("m", **address)._reply(asked, answer, 9)["logprobs"] == tokens
    always = OpenAIModel("m", **address, extra_body={"top_logprobs": 20})
    assert always._reply(request, answer, 9)["logprobs"] == tokens


async def test_no_more_is_asked_for_than_the_window_holds(server, granted):
    model = OpenAIModel("toy", base_url=server.address("t0"), capabilities={"context_window": 3})
    reply = await model.generate({"model": "toy", "messages": [USER]}, granted(99))
    assert (reply["finish_reason"], reply["usage"]["completion_tokens"]) == ("length", 3)
    await model.aclose()


WHOLE = json.dumps(of_llama_cpp({"content": "hi"})).encode()
REPLY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
ANSWER = REPLY % (len(WHOLE), WHOLE)


class Unsteady:
    """A server whose connections answer as they are told, request by request, and then close."""

    def __init__(self, *connections):
        self.connections = [list(answers) for answers in connections]
        self.opened = self.heard = 0

    async def serve(self, reader, writer):
        answers = self.connections[self.opened]
        self.opened += 1
        for answer in answers:
            head = await reader.readuntil(b"\r\n\r\n")
            (length,) = [line for line in head.lower().split(b"\r\n") if b"content-length" in line]
            await reader.readexactly(int(length.split(b":")[1]))
            self.heard += 1
            writer.write(answer)
            await writer.drain()
        writer.close()

    @asynccontextmanager
    async def model(self):
        listening = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        model = OpenAIModel("m", base_url=f"http://127.0.0.1:{port}/v1", stream=False)
        try:
            yield model
        finally:
            await model.aclose()
            listening.close()
            await listening.wait_closed()


async def test_a_kept_connection_that_was_closed_costs_no_call(granted):
    server = Unsteady([ANSWER, b""], [ANSWER, b""], [ANSWER])
    request = {"model": "m", "messages": [USER]}
    async with server.model() as model:
        for _ in range(3):
            reply = await model.generate(request, granted(9))
            assert reply["message"]["content"] == "hi"
    assert (server.opened, server.heard) == (3, 5)


@pytest.mark.parametrize(
    "connections",
    [
        [[b""]],  # a new connection: whoever closes it has seen the request
        [[ANSWER, b"HTTP/1.1 200 OK\r\n"]],  # the reply had begun
        [[ANSWER, b""], [b""]],
    ],
)
async def test_what_may_have_been_read_is_not_sent_again(granted, connections):
    server = Unsteady(*connections)
    request = {"model": "m", "messages": [USER]}
    async with server.model() as model:
        if len(connections[0]) > 1:
            await model.generate(request, granted(9))
        with pytest.raises(BackendError) as caught:
            await model.generate(request, granted(9))
    assert caught.value.sent
    assert caught.value.retryable
    assert server.opened == len(connections)
