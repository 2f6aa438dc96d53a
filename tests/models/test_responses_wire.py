"""The canonical form and the wire form of Responses, without a server."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longthought.errors import InvalidInput, QuestionRefused
from longthought.orchestrator.models.openai import chat_wire
from longthought.orchestrator.models.openai import responses_wire as wire
from longthought.orchestrator.models.openai.dialect import ServerFault, WireOptions
from longthought.orchestrator.models.openai.responses import ResponsesDialect
from longthought.orchestrator.models.openai.responses_items import items_of, message_of
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
DEFAULTS = {"store": False, "include": ["reasoning.encrypted_content"], "stream": False}


def body(**fields):
    options = fields.pop("options", {})
    request = {"model": "m", "messages": [USER], **fields}
    options = WireOptions(**{"name": "m", "stream": False, **options})
    return wire.request_body(request, options, 99)


def items(*messages, **options):
    return body(messages=list(messages), options=options)["input"]


def test_a_plain_request_keeps_nothing_at_the_provider():
    assert body() == {**DEFAULTS, "model": "m", "input": [USER], "max_output_tokens": 99}
    unbounded = wire.request_body({"model": "m", "messages": [USER]}, WireOptions("m"), None)
    assert "max_output_tokens" not in unbounded
    assert unbounded["stream"] is True


def test_sampling_tools_and_output_under_their_names_of_this_protocol():
    sampling = {"temperature": 0.5, "top_p": 0.9, "seed": 3, "reasoning_effort": "low"}
    tool = {"name": "t", "description": "d", "parameters": CLOSED}
    made = body(sampling={**sampling, "max_tokens": 5}, tools=[tool], output=CLOSED)
    assert (made["temperature"], made["top_p"]) == (0.5, 0.9)
    assert made["reasoning"] == {"effort": "low"}
    assert made["tools"] == [{"type": "function", **tool, "strict": False}]
    assert made["text"] == {
        "format": {"type": "json_schema", "name": "My_answer_", "schema": CLOSED, "strict": True}
    }
    assert "seed" not in made
    assert made["max_output_tokens"] == 99
    seeded = body(sampling=sampling, options={"seeds": True})
    assert seeded["seed"] == 3


@pytest.mark.parametrize(("schema", "strict"), [(CLOSED, True), (OPEN, False)])
def test_strict_tools_where_the_schema_is_closed(schema, strict):
    tool = {"name": "t", "description": "d", "parameters": schema}
    made = body(tools=[tool], options={"strict_tools": True})["tools"][0]
    assert made["strict"] is strict  # it has to be said: left out it would mean true


def test_what_the_protocol_cannot_do_is_refused_by_name():
    with pytest.raises(QuestionRefused, match="stop: m is asked by the Responses protocol"):
        body(sampling={"stop": ["x"]})
    with pytest.raises(QuestionRefused, match="continue_last"):
        body(continue_last=True)
    assert "stop" not in body(sampling={"stop": []})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("background", True),
        ("conversation", "conv_1"),
        ("previous_response_id", "resp_1"),
        ("prompt", {"id": "p"}),
    ],
)
def test_what_is_kept_at_the_provider_is_refused(field, value):
    with pytest.raises(InvalidInput, match=field):
        body(provider={field: value})
    assert body(provider={field: None if value is not True else False})["model"] == "m"


def test_extra_parameters_stand_beside_ours():
    search = {"type": "web_search"}
    tool = {"name": "t", "description": "d", "parameters": OPEN}
    made = body(
        tools=[tool],
        output=OPEN,
        sampling={"reasoning_effort": "high", "logprobs": True},
        provider={
            "store": True,
            "tools": [search],
            "text": {"verbosity": "low"},
            "reasoning": {"summary": "auto", "effort": "low"},
            "include": ["web_search_call.results"],
            "max_output_tokens": 10**6,
            "stream": True,
        },
        options={"extra": {"service_tier": "flex", "store": False}},
    )
    assert [tool["type"] for tool in made["tools"]] == ["function", "web_search"]
    assert made["text"]["verbosity"] == "low"
    assert made["text"]["format"]["name"] == "output"
    assert made["reasoning"] == {"summary": "auto", "effort": "high"}
    assert made["include"] == ["web_search_call.results", "message.output_text.logprobs"]
    assert (made["store"], made["service_tier"]) == (True, "flex")
    assert (made["max_output_tokens"], made["stream"]) == (99, False)


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("gpt-5-mini", True),
        ("openai/o4-mini", True),
        ("gpt-oss-120b", True),
        ("gpt-4.1", False),
        ("openai/gpt-4o", False),
        ("ft:gpt-4o-mini:me", False),
        ("gpt-5-chat-latest", False),
        ("gpt-5.2-chat-latest", False),
    ],
)
def test_models_that_do_not_reason_are_not_asked_for_their_reasoning(name, asked):
    assert ("include" in body(options={"name": name})) is asked


def test_who_speaks_and_in_which_parts():
    image = {"type": "image_url", "image_url": {"url": "data:x", "detail": "low"}}
    bare = {"type": "image_url", "image_url": "http://x/y.png"}
    file = {"type": "file", "file": {"file_id": "f"}}
    ready = {"type": "input_image", "image_url": "u", "detail": "high"}
    made = items(
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "é"}, image, bare, file, ready]},
        {"role": "user", "content": None, "name": "ann", "provider": {"weight": 1}},
    )
    assert made == [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "é"},
                {"type": "input_image", "image_url": "data:x", "detail": "low"},
                {"type": "input_image", "image_url": "http://x/y.png", "detail": "auto"},
                {"type": "input_file", "file_id": "f"},
                ready,
            ],
        },
        {"role": "user", "content": "", "weight": 1},
    ]


def test_tool_results_go_to_their_calls():
    call = {"id": "c1", "name": "t", "arguments": '{"x": 1}'}
    result = {"role": "tool", "tool_call_id": "c1", "content": "4"}
    parts = {**result, "content": [{"type": "text", "text": "4"}]}
    made = items({"role": "assistant", "content": "So:", "tool_calls": [call]}, result, parts)
    assert made == [
        {"type": "message", "role": "assistant", "content": "So:"},
        {"type": "function_call", "call_id": "c1", "name": "t", "arguments": '{"x": 1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "4"},
        {
            "type": "function_call_output",
            "call_id": "c1",
            "output": [{"type": "input_text", "text": "4"}],
        },
    ]


def test_a_message_from_elsewhere_is_a_text_and_calls():
    chat = {
        "role": "assistant",
        "content": [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "b"}],
        "reasoning": [{"text": "thought", "provider": {"field": "reasoning"}}],
        "provider": {"reasoning_details": [1], "tool_calls": {}},
    }
    parts = [{"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "b"}]
    assert items(chat) == [{"type": "message", "role": "assistant", "content": parts}]
    assert items({"role": "assistant", "content": ""}) == []
    encrypted = {"id": "rs_1", "encrypted": "gAAAA"}
    assert items({"role": "assistant", "content": "a", "reasoning": [encrypted]}) == [
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAA"},
        {"type": "message", "role": "assistant", "content": "a"},
    ]


# -- items and messages ---------------------------------------------------------------------------

TEXT = st.text(max_size=6)
ID = st.integers(0, 10**6).map(str)
STATUS = st.sampled_from(["completed", "incomplete", None])


def _part(kind, field="text", **own):
    return st.fixed_dictionaries({"type": st.just(kind), field: TEXT}, optional=own)


MESSAGES = st.fixed_dictionaries(
    {
        "type": st.just("message"),
        "id": ID,
        "role": st.just("assistant"),
        "status": STATUS,
        "content": st.lists(
            _part(
                "output_text",
                annotations=st.just([{"type": "url_citation", "title": "é"}]),
                logprobs=st.just([]),
            )
            | _part("refusal", "refusal"),
            max_size=3,
        ),
    },
    optional={"phase": st.sampled_from(["commentary", None])},
)
CALLS = st.fixed_dictionaries(
    {
        "type": st.just("function_call"),
        "name": TEXT,
        "arguments": st.dictionaries(TEXT, TEXT, max_size=2).map(json.dumps),
    },
    optional={"id": ID, "status": STATUS, "caller": st.none()},
)
REASONING = st.fixed_dictionaries(
    {"type": st.just("reasoning"), "summary": st.lists(_part("summary_text"), max_size=3)},
    optional={
        "id": ID,
        "status": STATUS,
        "content": st.none() | st.lists(_part("reasoning_text"), max_size=3),
        "encrypted_content": st.none() | TEXT,
    },
)
OTHERS = st.just({"type": "web_search_call", "id": "ws", "action": {"query": "é"}})


@st.composite
def outputs(draw):
    """The output items of a reply, reasoning always followed by something."""
    output = draw(st.lists(MESSAGES | CALLS | REASONING | OTHERS, max_size=6))
    output.append(draw(MESSAGES | CALLS | OTHERS))
    for place, item in enumerate(output):
        if item["type"] == "function_call":
            item["call_id"] = f"call_{place}"
    return output


@given(outputs())
def test_items_come_back_as_they_came(output):
    before = copy.deepcopy(output)
    message = json.loads(json.dumps(message_of(output, 0)))
    again = copy.deepcopy(message)
    assert items_of(message) == before
    assert items_of(message) == before
    assert (message, output) == (again, before)


@given(outputs())
def test_a_changed_message_is_sent_as_it_was_changed(output):
    message = message_of(output, 0)
    changed = {**message, "content": f"{message['content'] or ''}!"}
    plain = items_of(changed)
    assert plain[0] == {"type": "message", "role": "assistant", "content": changed["content"]}
    assert [i["type"] for i in plain[1:]] == ["function_call"] * len(message.get("tool_calls", ()))
    assert not any("id" in item for item in plain)


def test_the_fields_of_a_message_hold_what_its_items_say():
    output = [
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": t} for t in ("First.", "Then.")],
            "encrypted_content": "gAAAA",
        },
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [
                {"type": "output_text", "text": "Hello ", "annotations": [], "logprobs": [{}]},
                {"type": "output_text", "text": "wörld", "annotations": []},
            ],
        },
        {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "t", "arguments": "{}"},
    ]
    message = message_of(output, 0)
    assert message["content"] == "Hello wörld"
    assert message["tool_calls"] == [{"id": "c", "name": "t", "arguments": "{}"}]
    [thought] = message["reasoning"]
    assert thought["text"] == "First.\n\nThen."
    assert (thought["id"], thought["encrypted"]) == ("rs_1", "gAAAA")
    text = json.dumps(message)
    assert all(text.count(part) == 1 for part in ("First.", "Hello", "gAAAA"))  # stored once
    sent = copy.deepcopy(output)
    sent[1]["content"][0]["logprobs"] = []
    assert items_of(message) == sent


@pytest.mark.parametrize(
    "change",
    [
        {"tool_calls": []},
        {"tool_calls": [{"id": "other", "name": "t", "arguments": "{}"}]},
        {"reasoning": []},
        {"reasoning": [{"id": "rs_2", "provider": {"type": "reasoning", "summary": []}}]},
        {"reasoning": [{"id": "rs_1", "text": "more", "provider": {"type": "reasoning"}}]},
        {"content": [{"type": "text", "text": "a"}]},
        {"provider": {"responses": [7]}},
        {"provider": {"responses": [{"type": "message", "content": 1}] * 2}},
    ],
)
def test_reasoning_and_ids_hold_for_the_very_items_they_came_with(change):
    output = [
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "e"},
        {"type": "function_call", "id": "fc", "call_id": "c", "name": "t", "arguments": "{}"},
    ]
    message = message_of(output, 0)
    assert items_of(message) == output
    sent = items_of({**message, **change})
    assert not any("id" in item or item["type"] == "reasoning" for item in sent)


def test_reasoning_that_nothing_follows_is_not_sent():
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "e"}
    message = message_of([thought], 0)
    assert message["content"] == ""
    assert message["reasoning"][0]["encrypted"] == "e"
    assert items_of(message) == []


def test_without_its_reasoning_a_reply_goes_back_without_ids():
    output = [
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "web_search_call", "id": "ws_1"},
        {"type": "function_call", "id": "fc", "call_id": "c", "name": "t", "arguments": "{}"},
    ]
    call = {"type": "function_call", "call_id": "c", "name": "t", "arguments": "{}"}
    assert items(message_of(output, 0), send_reasoning=False) == [call]
    assert "include" not in body(options={"send_reasoning": False})


def test_calls_get_ids_and_texts_whatever_the_server_sends():
    output = [
        {"type": "function_call", "name": "a", "arguments": {"x": "é"}},
        {"type": "function_call", "call_id": "same", "name": "b", "arguments": "{"},
        {"type": "function_call", "call_id": "same"},
    ]
    message = message_of(output, 3)
    assert message["tool_calls"] == [
        {"id": "call_3_0", "name": "a", "arguments": '{"x": "é"}'},
        {"id": "same", "name": "b", "arguments": "{"},
        {"id": "call_3_2", "name": "", "arguments": "{}"},
    ]
    assert message["content"] is None
    sent = items_of(message)
    assert [item["call_id"] for item in sent] == ["call_3_0", "same", "call_3_2"]
    # Servers that read the arguments fail over the whole conversation if they cannot.
    assert all(isinstance(json.loads(item["arguments"]), dict) for item in sent)


def test_half_characters_are_replaced_everywhere():
    output = [
        {"type": "message", "content": [{"type": "output_text", "text": "a\ud83d"}]},
        {"type": "web_search_call", "query": "\ud83d\ude00"},
    ]
    message = message_of(output, 0)
    assert message["content"] == "a\ufffd"
    assert json.dumps(items_of(message), ensure_ascii=False).encode()
    assert items_of(message)[1]["query"] == "\U0001f600"


def test_items_of_one_protocol_do_not_leak_into_the_other():
    message = message_of(
        [
            {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "x"}]},
            {"type": "message", "id": "m", "content": [{"type": "output_text", "text": "a"}]},
        ],
        0,
    )
    sent = chat_wire.request_body(
        {"model": "m", "messages": [message]}, WireOptions("m", stream=False), 9
    )
    assert sent["messages"] == [{"role": "assistant", "content": "a"}]


# -- the end of a reply ---------------------------------------------------------------------------


def whole(**fields):
    request = {"model": "m", "messages": [USER]}
    return ResponsesDialect(WireOptions("m")).whole(request, {"output": [], **fields})


CALL = {"type": "function_call", "call_id": "c", "name": "t", "arguments": "{}"}
REFUSED = {"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"status": "completed"}, "stop"),
        ({}, "stop"),
        ({"status": "completed", "output": [CALL]}, "tool_calls"),
        ({"output": [CALL]}, "tool_calls"),
        ({"status": "completed", "output": [REFUSED]}, "refusal"),
        ({"status": "incomplete"}, "length"),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ({"incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "refusal"),
        ({"status": "incomplete", "output": [CALL]}, "length"),
        ({"status": "cancelled"}, "error"),
    ],
)
def test_how_a_reply_ended(fields, reason):
    assert whole(**fields).finish_reason == reason


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        ({"status": "failed", "error": {"code": "server_error", "message": "m"}}, "failed"),
        ({"status": "failed"}, "failed"),
        ({"status": "in_progress"}, "not there yet: it is in_progress"),
        ({"status": "queued"}, "not there yet"),
        ({"output": None}, "no output"),
        ({"output": [7]}, "no known form"),
        ({"output": [{"type": "message", "content": 7}]}, "no known form"),
    ],
)
def test_a_reply_that_cannot_be_used(reply, says):
    with pytest.raises(ServerFault, match=says):
        whole(**reply)


def test_usage_as_it_was_told():
    full = {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 6},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 15,
    }
    assert whole(usage=full).usage == Usage(10, 5, 4, 2, 1)
    sparse = {"input_tokens": 1, "output_tokens": 2, "input_tokens_details": None}
    assert whole(usage=sparse).usage == Usage(1, 2, calls=1)
    for nothing in (None, {}, {"input_tokens": 1, "output_tokens": None}, []):
        assert whole(usage=nothing).usage is None


def test_logprobs_are_in_the_reply_and_not_in_its_message():
    part = {"type": "output_text", "text": "ab", "logprobs": [{"token": "a"}, {"token": "b"}]}
    answer = whole(output=[{"type": "message", "content": [part]}], model="m-2")
    assert [entry["token"] for entry in answer.logprobs] == ["a", "b"]
    assert "token" not in json.dumps(answer.message)
    assert answer.model == "m-2"
    assert whole().logprobs is None
