"""From bodies to requests of our own, and what is refused on the way."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.exceptions import HTTPException

from longthought.errors import InvalidInput
from longthought.orchestrator.models import ScriptedModel
from longthought.orchestrator.serving.requests import model_requests, read_call
from longthought.types import Capabilities, ModelRequest
from tests.serving.conftest import ASKED, CALCULATOR

ABLE = Capabilities(continues=True, inline_tools=True, logprobs=True)
POOR = Capabilities(tools=False)
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def requests(capabilities: Capabilities = ABLE, **body: Any) -> list[ModelRequest]:
    model = ScriptedModel([], name="m", capabilities=capabilities)
    text = json.dumps({"model": "m", "messages": ASKED, **body})
    return model_requests(read_call(text.encode()), model)


def test_the_least_that_can_be_asked() -> None:
    assert requests() == [{"model": "m", "messages": ASKED, "sampling": {}}]


def test_everything_that_can_be_asked() -> None:
    messages: list[Any] = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "hm"},
        {"role": "tool", "tool_call_id": "c1", "content": "é"},
        {"role": "assistant", "content": "so", "tool_calls": None, "audio": None, "name": "x"},
    ]
    [first, second] = requests(
        messages=messages,
        tools=[CALCULATOR, {"type": "function", "function": {"name": "g"}}],
        n=2,
        seed=7,
        temperature=1,
        top_p=0.5,
        stop="x",
        max_tokens=9,
        max_completion_tokens=8,
        logprobs=True,
        reasoning_effort="low",
        continue_final_message=True,
        add_generation_prompt=False,
    )
    reasoning = [{"text": "hm", "provider": {"field": "reasoning_content"}}]
    calls = [{"id": "c1", "name": "f", "arguments": "{}"}]
    called = {"role": "assistant", "content": None, "reasoning": reasoning, "tool_calls": calls}
    assert first["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "ab"},
        called,
        {"role": "tool", "tool_call_id": "c1", "content": "é"},
        {"role": "assistant", "content": "so", "name": "x"},
    ]
    empty = {"type": "object", "properties": {}}
    assert first["tools"][0]["parameters"] == CALCULATOR["function"]["parameters"]
    assert first["tools"][1] == {"name": "g", "description": "", "parameters": empty}
    assert first["continue_last"] is True
    assert first["sampling"] == {
        "temperature": 1,
        "top_p": 0.5,
        "stop": ["x"],
        "max_tokens": 8,
        "reasoning_effort": "low",
        "logprobs": True,
        "seed": 7,
    }
    assert second == {**first, "sampling": {**first["sampling"], "seed": 8}}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"model": None}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "function", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"messages": [*ASKED, {"role": "tool", "content": "1"}]}, "messages[1]"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": [CALL]}]}, "messages[0]"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content[0].type",
        ),
        (
            {"messages": [{"role": "assistant", "content": "", "function_call": {"name": "f"}}]},
            "messages[0].function_call",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{**CALL, "type": "custom"}]}]},
            "messages[0].tool_calls[0].type",
        ),
        ({"tools": [{"type": "custom", "custom": {}}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"n": True}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "4"}, "max_tokens"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
        ({"temperature": -0.1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"seed": 2**63}, "seed"),
        ({"stop": 7}, "stop"),
        ({"stop": [""]}, "stop[0]"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": 5}, "logprobs"),
        ({"stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
        ({"continue_final_message": True}, "continue_final_message"),
        ({"add_generation_prompt": False}, "add_generation_prompt"),
        (
            {"continue_final_message": True, "add_generation_prompt": True},
            "add_generation_prompt",
        ),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format"),
        ({"audio": {"voice": "alloy"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"logit_bias": {"50256": -100}}, "logit_bias"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"top_k": 40}, "top_k"),
        ({"best_of": 4}, "best_of"),
    ],
)
def test_what_cannot_be_used_is_named(body: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        requests(**body)
    assert caught.value.field == field
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"tools": [CALCULATOR]}, "tools"),
        ({"logprobs": True}, "logprobs"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls"),
        (
            {
                "messages": [*ASKED, {"role": "assistant", "content": "so"}],
                "continue_final_message": True,
            },
            "continue_final_message",
        ),
    ],
)
def test_what_this_model_cannot_do_is_named(body: dict[str, Any], field: str) -> None:
    assert requests(ABLE, **body)
    with pytest.raises(InvalidInput, match="^" + field):
        requests(POOR, **body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"\xff\xfe",
        b'{"model": NaN}',
        b'{"model": "\\ud800"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
)
def test_a_body_that_is_no_json_object(body: bytes) -> None:
    with pytest.raises(HTTPException) as caught:
        read_call(body)
    assert caught.value.status_code == 400
    assert len(caught.value.detail) < 200
