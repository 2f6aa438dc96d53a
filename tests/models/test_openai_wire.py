"""The canonical form and the wire form of Chat Completions, without a server."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longthought.errors import InvalidInput
from longthought.orchestrator.models.openai import chat_wire as wire
from longthought.orchestrator.models.openai import usage
from longthought.orchestrator.models.openai.chat_stream import ChatStream
from longthought.orchestrator.models.openai.dialect import ServerFault, WireOptions
from longthought.types import Usage

USER = {"role": "user", "content": "q"}
CLOSED = {
    "type": "object",
    "title": "My answer!",
    "properties": {"type": {"type": "string"}},
    "required": ["type"],
    "additionalProperties": False,
}
OPEN = {"type": "object", "properties": {"a": {}}}


def body(**fields):
    options = fields.pop("options", {})
    request = {"model": "m", "messages": [USER], **fields}
    return wire.request_body(request, WireOptions("m", **{"stream": False, **options}), 9)


def test_a_plain_request():
    assert body() == {"model": "m", "messages": [USER], "max_tokens": 9}
    assert body(options={"max_tokens_field": "max_completion_tokens"}) == {
        "model": "m",
        "messages": [USER],
        "max_completion_tokens": 9,
    }


def test_sampling_tools_and_output():
    sampling = {"temperature": 0.5, "top_p": 0.9, "seed": 3, "stop": ["x"], "logprobs": True}
    tool = {"name": "t", "description": "d", "parameters": CLOSED}
    made = body(sampling={**sampling, "max_tokens": 5}, tools=[tool], output=CLOSED)
    assert sampling.items() <= made.items()
    assert made["max_tokens"] == 9
    assert made["tools"] == [{"type": "function", "function": tool}]
    assert made["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "My_answer_", "schema": CLOSED, "strict": True},
    }
    assert body(output=OPEN)["response_format"]["json_schema"]["name"] == "output"


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        (CLOSED, True),
        (OPEN, False),
        ({**CLOSED, "required": []}, False),
        ({**CLOSED, "properties": {"type": OPEN}}, False),
        ({**CLOSED, "$defs": {"x": [OPEN]}}, False),
    ],
)
def test_strict_tools_where_the_schema_is_closed(schema, strict):
    tool = {"name": "t", "description": "d", "parameters": schema}
    function = body(tools=[tool], options={"strict_tools": True})["tools"][0]["function"]
    assert function.get("strict", False) is strict


def test_streaming_and_continuing():
    made = body(continue_last=True, options={"stream": True})
    assert made["stream"] is True
    assert made["stream_options"] == {"include_usage": True}
    assert (made["continue_final_message"], made["add_generation_prompt"]) == (True, False)
    assert "stream_options" not in body(options={"stream": True, "include_usage": False})


def test_extra_parameters_replace_nothing_and_cannot_multiply_the_price():
    made = body(provider={"top_k": 4, "max_tokens": 999}, options={"extra": {"top_k": 3, "a": 1}})
    assert (made["top_k"], made["a"], made["max_tokens"]) == (4, 1, 9)
    for name in ("n", "best_of"):
        with pytest.raises(InvalidInput, match=name):
            body(provider={name: 2})


@pytest.mark.parametrize(
    ("name", "modern"),
    [
        ("o3-mini", True),
        ("gpt-5", True),
        ("openai/gpt-5.2", True),
        ("gpt-4o", False),
        ("oX", False),
    ],
)
def test_which_names_want_max_completion_tokens(name, modern):
    assert wire.takes_completion_tokens(name) is modern


def test_a_message_with_everything_comes_back_as_it_came():
    sent = {
        "role": "assistant",
        "content": "text",
        "reasoning": "thought",
        "reasoning_details": [{"index": 0, "data": "s"}],
        "tool_calls": [
            {
                "id": "c1",
                "type": "function",
                "function": {"name": "t", "arguments": "{}"},
                "extra_content": {"signature": "s"},
            }
        ],
    }
    nulls = {"refusal": None, "annotations": [], "audio": None, "function_call": None}
    message = wire.assistant_message({**sent, **nulls}, 0)
    before = json.dumps(message)
    assert body(messages=[message])["messages"] == [sent]
    assert json.dumps(message) == before
    without = body(messages=[message], options={"send_reasoning": False})["messages"][0]
    assert "reasoning" not in without
    named = {**USER, "name": "ann", "provider": {"weight": 1}}
    assert body(messages=[named])["messages"] == [{**USER, "name": "ann", "weight": 1}]
    result = {"role": "tool", "content": "4", "tool_call_id": "c1", "provider": {"x": 1}}
    assert body(messages=[result])["messages"][0]["tool_call_id"] == "c1"


def test_two_reasoning_fields_are_one_thought():
    message = wire.assistant_message(
        {"content": None, "reasoning": "a", "reasoning_content": "a"}, 0
    )
    assert message["reasoning"] == [{"text": "a", "provider": {"field": "reasoning_content"}}]
    assert message["content"] == ""
    assert "provider" not in message


def test_tool_calls_get_ids_and_texts_whatever_the_server_sends():
    calls = [
        {"function": {"name": "a", "arguments": {"x": "é"}}},
        {"id": "same", "function": {"name": "b", "arguments": "{"}},
        {"id": "same", "function": None},
    ]
    made = wire.assistant_message({"content": "", "tool_calls": calls}, 3)
    assert made["tool_calls"] == [
        {"id": "call_3_0", "name": "a", "arguments": '{"x": "é"}'},
        {"id": "same", "name": "b", "arguments": "{"},
        {"id": "call_3_2", "name": "", "arguments": "{}"},
    ]
    assert made["content"] is None
    parts = wire.assistant_message({"content": [{"type": "text", "text": "hi"}, "odd"]}, 0)
    assert parts["content"] == "hi"


@pytest.mark.parametrize(
    ("said", "calls", "refused", "reason"),
    [
        ("stop", True, False, "tool_calls"),
        ("tool_calls", False, False, "stop"),
        (None, True, False, "tool_calls"),
        ("length", True, False, "length"),
        ("content_filter", False, False, "refusal"),
        ("stop", False, True, "refusal"),
        ("abort", False, False, "error"),
        (7, False, False, "stop"),
    ],
)
def test_the_finish_reason_follows_what_is_there(said, calls, refused, reason):
    message = {"role": "assistant", "content": ""}
    if calls:
        message["tool_calls"] = [{"id": "c", "name": "t", "arguments": ""}]
    assert wire.finish_reason(said, message, refused) == reason


def test_usage_reported_and_estimated():
    full = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    assert wire.reported_usage(full) == Usage(10, 5, 4, 2, 1)
    sparse = {"prompt_tokens": 1, "completion_tokens": 2, "prompt_tokens_details": None}
    assert wire.reported_usage({**sparse, "prompt_cache_hit_tokens": 1}) == Usage(1, 2, 1, 0, 1)
    for nothing in (None, {}, {"prompt_tokens": 1, "completion_tokens": None}, []):
        assert wire.reported_usage(nothing) is None
    request = {"model": "m", "messages": [{"role": "user", "content": [{"text": "é"}]}]}
    request |= {"tools": [{"name": "t"}], "output": {}}
    said = {"role": "assistant", "content": "éé", "reasoning": [{"text": "abc"}]}
    assert usage.output_bytes(said) == 7
    assert usage.estimated_usage(request, said, 5, 1) == Usage(37, 5, calls=1, estimated=True)
    assert usage.estimated_usage(request, said, 99, 1).completion_tokens == 7
    assert usage.estimated_usage(request, said, 5, 6).completion_tokens == 6


def streamed(*deltas, **fields):
    reply = ChatStream()
    for delta in deltas:
        reply.take("", json.dumps({"choices": [{"delta": delta}], **fields}))
    return reply


def test_calls_of_servers_that_number_them_alike_or_not_at_all():
    one = {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}
    two = {"index": 0, "id": "b", "function": {"name": "g", "arguments": '{"x"'}}
    rest = {"index": 0, "function": {"arguments": ":1}"}}
    for pieces in ([one, two, rest], [{**p, "index": None} for p in (one, two, rest)]):
        calls = streamed(*({"tool_calls": [piece]} for piece in pieces)).assembled()["tool_calls"]
        functions = [call["function"] for call in calls]
        assert functions == [
            {"name": "f", "arguments": "{}"},
            {"name": "g", "arguments": '{"x":1}'},
        ]


def test_opaque_data_grows_piece_by_piece():
    reply = streamed(
        {"reasoning_details": [{"index": 0, "type": "t", "data": "a"}], "mark": {"s": "x", "n": 1}},
        {"reasoning_details": [{"index": 0, "type": "t", "data": "b"}], "mark": {"s": "y", "n": 2}},
        {"reasoning_details": [{"index": 1, "data": "c"}, "loose"]},
    )
    assert reply.assembled() == {
        "role": "assistant",
        "reasoning_details": [
            {"index": 0, "type": "t", "data": "ab"},
            {"index": 1, "data": "c"},
            "loose",
        ],
        "mark": {"s": "xy", "n": 2},
    }


def test_both_reasoning_fields_in_a_stream_are_counted_once():
    reply = streamed({"reasoning": "a", "reasoning_content": "a"}, {"reasoning_content": "b"})
    assert reply.assembled() == {"role": "assistant", "reasoning_content": "ab"}
    assert reply.tokens == 2


def test_a_character_cut_between_two_pieces_is_whole_again():
    deltas = []
    reply = ChatStream(emit=deltas.append)
    for half in ("\\ud83d", "\\ude00"):
        reply.take("", '{"choices": [{"delta": {"content": "' + half + '"}}]}')
    assert wire.assistant_message(reply.assembled(), 0)["content"] == "\U0001f600"
    assert [delta.text for delta in deltas] == ["?", "?"]
    assert wire.assistant_message({"content": "a\ud83d"}, 0)["content"] == "a\ufffd"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "delta",
                    "content",
                    "tool_calls",
                    "function",
                    "index",
                    "id",
                    "name",
                    "arguments",
                    "usage",
                    "logprobs",
                    "finish_reason",
                    "reasoning",
                    "reasoning_details",
                    "prompt_tokens",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.lists(st.builds(lambda choice: {"choices": [choice]}, JSON) | JSON, max_size=4))
def test_whatever_a_stream_holds_is_a_message_or_a_fault(chunks):
    reply = ChatStream(emit=lambda _: None)
    with contextlib.suppress(ServerFault):
        for chunk in chunks:
            reply.take("", json.dumps(chunk))


@pytest.mark.parametrize("data", ["{", "7", '{"error": "x"}', '{"error": {"message": "x"}}'])
def test_an_error_or_garbage_in_a_stream(data):
    with pytest.raises(ServerFault):
        ChatStream().take("", data)


def test_logprobs_are_collected_and_a_stream_without_an_end_is_not_complete():
    reply = ChatStream()
    for word in "ab":
        one = {"delta": {"content": word}, "logprobs": {"content": [{"token": word}]}}
        reply.take("", json.dumps({"choices": [one]}))
    assert [item["token"] for item in reply.logprobs] == ["a", "b"]
    assert not reply.complete
    reply.take("", "[DONE]")
    assert reply.complete
