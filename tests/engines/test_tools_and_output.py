"""Tool calls and JSON output: a grammar makes even random weights keep to a schema."""

from __future__ import annotations

import json
from typing import Any

import pytest

from longthought.types import text_of

pytestmark = [pytest.mark.engines, pytest.mark.timeout(3600)]

ADD = {
    "name": "add",
    "description": "Add.",
    "parameters": {
        "type": "object",
        "properties": {
            "a": {"type": "integer", "minimum": 0, "maximum": 99},
            "unit": {"type": "string", "enum": ["é😀", "x"]},
        },
        "required": ["a", "unit"],
        "additionalProperties": False,
    },
}
CALL, END = 260, 258  # the marks that begin a call and end a reply
MUST_CALL = {
    "tool_choice": "required",
    "parallel_tool_calls": False,
    # No call without its mark, no end before a call: the grammar sees to that. And no blanks
    # where it does not ask for them: random weights would write them for ever.
    "logit_bias": {str(CALL): 90, str(END): 100, **{str(ord(one)): -100 for one in " \t\r\n"}},
}
CALLING = {"tools": [ADD], "provider": MUST_CALL}
ANSWER = {
    "title": "Answer",
    "type": "object",
    "properties": {
        "n": {"type": "integer", "minimum": 0, "maximum": 9},
        "word": {"type": "string", "enum": ["é😀", "plain"]},
    },
    "required": ["n", "word"],
    "additionalProperties": False,
}


def calls_of(reply: Any) -> list[tuple[str, Any]]:
    found = reply["message"].get("tool_calls", ())
    return [(call["name"], json.loads(call["arguments"])) for call in found]


@pytest.mark.parametrize("seed", range(3))
async def test_a_tool_is_called_and_both_ways_tell_the_same(ask, seed):
    streamed = await ask("Add.", 150, seed=seed, request=CALLING)
    whole = await ask("Add.", 150, seed=seed, request=CALLING, stream=False)
    assert calls_of(streamed) == calls_of(whole)
    ((name, arguments),) = calls_of(streamed)
    assert name == "add"
    assert 0 <= arguments["a"] <= 99
    assert arguments["unit"] in ("é😀", "x")
    for reply in (streamed, whole):
        assert reply["finish_reason"] == "tool_calls"
        assert not text_of(reply["message"])
        assert reply["message"]["tool_calls"][0]["id"]
    assert streamed["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]


async def test_the_pieces_of_a_call_are_never_more_than_its_tokens(ask):
    deltas: list[Any] = []
    reply = await ask("Add.", 150, seed=1, request=CALLING, emit=deltas.append)
    said = [delta.text for delta in deltas if delta.kind == "tool_call"]
    assert said[0] == "add"
    assert json.loads("".join(said[1:])) == calls_of(reply)[0][1]
    assert sum(delta.tokens for delta in deltas) <= reply["usage"]["completion_tokens"]


@pytest.mark.parametrize("tokens", [1, 12, 30, 45])
async def test_a_call_that_is_cut_is_no_reply_that_we_cut(ask, tokens):
    reply = await ask("Add.", tokens, seed=1, request=CALLING)
    assert reply["finish_reason"] == "length"
    assert reply["usage"]["completion_tokens"] == tokens
    assert not reply["usage"].get("estimated")


async def test_a_conversation_goes_on_after_calls_whole_and_broken(ask):
    called = await ask("Add.", 150, seed=1, request=CALLING)
    broken = await ask("Add.", 40, seed=1, request=CALLING)
    messages: list[Any] = [{"role": "user", "content": "Add."}]
    for message in (called["message"], broken["message"]):
        messages.append(message)
        for call in message.get("tool_calls", ()):
            answer = {"role": "tool", "tool_call_id": call["id"], "content": "3"}
            messages.append(answer)
    for stream in (True, False):
        reply = await ask(messages, 10, seed=1, request={"tools": [ADD]}, stream=stream)
        assert reply["usage"]["completion_tokens"] <= 10
        assert reply["usage"]["prompt_tokens"] > called["usage"]["prompt_tokens"]


@pytest.mark.parametrize("stream", [True, False])
async def test_output_keeps_to_its_schema(ask, stream):
    for seed in range(4):
        reply = await ask("How much?", 150, seed=seed, request={"output": ANSWER}, stream=stream)
        found = json.loads(text_of(reply["message"]))
        assert sorted(found) == ["n", "word"]
        assert 0 <= found["n"] <= 9
        assert found["word"] in ("é😀", "plain")
        assert reply["finish_reason"] == "stop"


async def test_output_that_is_cut_is_told_as_cut(ask):
    reply = await ask("How much?", 6, seed=1, request={"output": ANSWER})
    assert (reply["finish_reason"], reply["usage"]["completion_tokens"]) == ("length", 6)


THINKING = {"chat_template_kwargs": {"enable_thinking": True}}
FIELDS = {"llama.cpp": "reasoning_content", "vllm": "reasoning"}


@pytest.mark.parametrize("stream", [True, False])
async def test_thoughts_are_kept_apart_and_go_back_with_their_message(server, ask, stream):
    request = {"provider": {**THINKING, "logit_bias": {str(END): -100}}}
    reply = await ask("Think.", 20, seed=1, request=request, stream=stream)
    said = reply["message"]
    assert said["reasoning"][0]["provider"] == {"field": FIELDS[server.engine]}
    assert 0 < len(said["reasoning"][0]["text"].encode()) <= 20
    assert not text_of(said)
    assert reply["usage"]["completion_tokens"] == 20
    if server.engine == "vllm":
        assert reply["usage"]["reasoning_tokens"] == 20
    asked = {"role": "user", "content": "Think."}
    further = [asked, {**said, "content": "Done."}, {"role": "user", "content": "More?"}]
    again = await ask(further, 5, seed=1)
    plain = await ask([asked, {"role": "assistant", "content": "Done."}, further[2]], 5, seed=1)
    assert again["usage"]["prompt_tokens"] > plain["usage"]["prompt_tokens"]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_budget_for_thoughts_ends_them_and_the_answer_follows(ask, stream):
    budget = {"reasoning_budget_tokens": 5, "thinking_token_budget": 5}  # each reads its own
    request = {"provider": {**THINKING, **budget}, "output": ANSWER}
    reply = await ask("Think.", 80, seed=1, request=request, stream=stream)
    assert 0 < len(reply["message"]["reasoning"][0]["text"]) <= 5
    assert sorted(json.loads(text_of(reply["message"]))) == ["n", "word"]
