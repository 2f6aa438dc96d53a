"""What is peculiar to llama.cpp; a newer one that changes it should be noticed here.

Each is told in docs/engines.md, and most have a place in the adapter that deals with it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from typing import Any

import pytest

from longthought import Workflow, strategies
from longthought.errors import BackendError
from longthought.orchestrator.models import OpenAIModel
from longthought.types import text_of
from tests.engines.choice import server_of
from tests.engines.test_tools_and_output import ADD, CALLING, END, calls_of

pytestmark = [pytest.mark.engines, pytest.mark.timeout(3600)]

CHAT = "/v1/chat/completions"
QUESTION = [{"role": "user", "content": "Say something."}]
WIRE_TOOL = {"type": "function", "function": ADD}


async def test_a_stream_closes_the_connection_that_it_said_to_keep(server):
    body = b'{"messages": [{"role": "user", "content": "q"}], "max_tokens": 2, "stream": true}'
    head = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (CHAT.encode(), len(body))
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(head + body)
        reply = b""
        while piece := connection.recv(65536):
            reply += piece
    headers = reply.split(b"\r\n\r\n")[0].lower()
    assert b"keep-alive: timeout=" in headers
    assert b"connection: close" not in headers
    assert reply.endswith(b"0\r\n\r\n")


async def test_calls_one_after_another_do_not_notice(server, model_of, settled, store_url):
    await settled()
    generated = server.generated
    flow = Workflow(
        "one by one",
        model=model_of(),
        strategy=strategies.sample(20, wave=1),
        sampling={"max_tokens": 5},
        store=store_url,
    )
    run = await flow.run("Say something.")
    await settled()
    assert (run.status, run.model_calls, run.error) == ("completed", 20, None)
    assert run.spent["output_tokens"] == server.generated - generated <= 100
    await flow.aclose()


def test_a_tool_choice_by_name_is_taken_for_auto(server):
    named = {"type": "function", "function": {"name": "add"}}
    body = {"messages": QUESTION, "tools": [WIRE_TOOL], "tool_choice": named, "max_tokens": 5}
    reply = server.post(CHAT, body)
    assert "tool_calls" not in reply.json()["choices"][0]["message"]


async def test_log_probabilities_of_a_stream_with_tools_are_refused(ask):
    with pytest.raises(BackendError, match="logprobs is not supported with tools"):
        await ask("Add.", 150, seed=1, request=CALLING, logprobs=True)
    reply = await ask("Add.", 150, seed=1, request=CALLING, logprobs=True, stream=False)
    assert calls_of(reply)
    assert len(reply["logprobs"]) > 20


def test_a_whole_continuation_repeats_what_it_continues(server):
    begun = [QUESTION[0], {"role": "assistant", "content": "one two "}]
    going_on = {"continue_final_message": True, "add_generation_prompt": False}
    reply = server.post(CHAT, {"messages": begun, "max_tokens": 4, **going_on}).json()
    assert reply["choices"][0]["message"]["content"].startswith("one two ")
    assert reply["usage"]["completion_tokens"] <= 4
    assert "timings" in reply  # by which the adapter knows it


def test_the_usage_of_several_choices_is_that_of_the_first(server):
    never_ends = {"logit_bias": {str(END): -100}}
    reply = server.post(CHAT, {"messages": QUESTION, "n": 3, "max_tokens": 4, **never_ends}).json()
    assert len(reply["choices"]) == 3
    assert reply["usage"]["completion_tokens"] == 4
    more = server.post(CHAT, {"messages": QUESTION, "n": server.slots + 1, "max_tokens": 4})
    assert more.status_code == 400


def test_arguments_that_are_no_json_are_its_own_fault(server):
    call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": "{"}}
    said = {"role": "assistant", "content": None, "tool_calls": [call]}
    answer = {"role": "tool", "tool_call_id": "c", "content": "3"}
    body = {"messages": [*QUESTION, said, answer], "tools": [WIRE_TOOL], "max_tokens": 2}
    reply = server.post(CHAT, body)
    assert reply.status_code == 500
    assert "Failed to parse tool call arguments" in reply.json()["error"]["message"]


async def test_seeds_are_taken_modulo_two_to_the_32_and_the_last_is_none(ask):
    async def text(seed: int) -> str:
        return text_of((await ask(tokens=40, seed=seed))["message"])

    assert await text(2**32 + 1) == await text(1)
    assert len({await text(2**32 - 1) for _ in range(3)}) > 1


def test_what_it_says_of_itself(server):
    (entry,) = server.get("/v1/models").json()["data"]
    assert (entry["owned_by"], entry["meta"]["n_ctx"]) == ("llamacpp", server.slot_context)
    props = server.get("/props").json()
    assert props["total_slots"] == server.slots
    assert props["default_generation_settings"]["n_ctx"] == server.slot_context
    assert props["chat_template_caps"]["supports_tools"]


def test_responses_do_not_say_that_they_were_cut(server):
    reply = server.post("/v1/responses", {"input": "q", "max_output_tokens": 3, "temperature": 0})
    said = reply.json()
    assert (said["status"], said["usage"]["output_tokens"]) == ("completed", 3)
    assert "incomplete_details" not in said


async def test_a_run_survives_a_server_that_dies_and_comes_back(tmp_path, store_url):
    made = server_of("llama.cpp", tmp_path)
    with made as doomed:
        model = OpenAIModel("tiny", base_url=doomed.url, slots=2)
        flow = Workflow(
            "survivor",
            model=model,
            strategy=strategies.sample(6),
            max_output_tokens=300,
            sampling={"temperature": 1.0},
            store=store_url,
        )
        killed = False

        async def watched() -> Any:
            nonlocal killed
            last = None
            async for item in flow.stream("Never end."):
                last = item
                if item["event"] == "delta" and not killed:
                    killed = True
                    assert doomed._process is not None
                    os.killpg(doomed._process.pid, signal.SIGKILL)
                    doomed.stop()
                    await asyncio.to_thread(doomed.__enter__)
            return last

        result = await watched()
        assert killed
        assert result["status"] == "completed"
        assert result["support"]["samples"] == 6
        await flow.aclose()
