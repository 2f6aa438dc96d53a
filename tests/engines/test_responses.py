"""The same engines over Responses, which both of them speak."""

from __future__ import annotations

import json
from typing import Any

import pytest

from longthought.types import text_of
from tests.engines.test_tools_and_output import ADD, ANSWER, CALLING, calls_of
from tests.engines.worker import NEVER_ENDS

pytestmark = [pytest.mark.engines, pytest.mark.timeout(3600)]

OVER_RESPONSES = {"api": "responses", "capabilities": {"continues": False}}


@pytest.fixture
def respond(ask):
    """Asks over Responses."""

    async def reply(*arguments: Any, **options: Any) -> Any:
        return await ask(*arguments, settings=OVER_RESPONSES, **options)

    return reply


@pytest.mark.parametrize("stream", [True, False])
async def test_usage_and_text_are_those_of_chat_completions(server, ask, respond, settled, stream):
    chat = await ask(tokens=12, stream=stream, temperature=0.0)
    await settled()
    generated = server.generated
    reply = await respond(tokens=12, stream=stream, temperature=0.0)
    await settled()
    assert text_of(reply["message"]) == text_of(chat["message"])
    assert reply["finish_reason"] == chat["finish_reason"]
    for name in ("prompt_tokens", "completion_tokens"):
        assert reply["usage"][name] == chat["usage"][name]
    assert server.generated - generated == reply["usage"]["completion_tokens"]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_reply_that_was_cut_is_told_as_cut(respond, stream):
    reply = await respond(tokens=3, stream=stream, request={"provider": NEVER_ENDS})
    assert (reply["finish_reason"], reply["usage"]["completion_tokens"]) == ("length", 3)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_conversation_with_a_tool_goes_on(respond, stream):
    reply = await respond("Add.", 200, stream=stream, request=CALLING)
    assert reply["finish_reason"] == "tool_calls"
    ((name, arguments),) = calls_of(reply)
    assert (name, sorted(arguments)) == ("add", ["a", "unit"])
    messages: list[Any] = [{"role": "user", "content": "Add."}, reply["message"]]
    answered = [call["id"] for call in reply["message"]["tool_calls"]]
    messages += [{"role": "tool", "tool_call_id": one, "content": "3"} for one in answered]
    further = await respond(messages, 5, stream=stream, request={"tools": [ADD]})
    assert further["usage"]["prompt_tokens"] > reply["usage"]["prompt_tokens"]


@pytest.mark.parametrize("stream", [True, False])
async def test_output_keeps_to_its_schema_where_the_engine_does(server, respond, stream):
    reply = await respond("How much?", 150, stream=stream, request={"output": ANSWER})
    if server.engine == "vllm":
        assert sorted(json.loads(text_of(reply["message"]))) == ["n", "word"]
    else:  # llama.cpp takes no schema over Responses, and does not say so
        assert not text_of(reply["message"]).startswith("{")
