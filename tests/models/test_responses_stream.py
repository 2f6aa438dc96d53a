"""Streamed responses, event by event, as real servers send them and as none should."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longthought.orchestrator.models.openai.dialect import ServerFault
from longthought.orchestrator.models.openai.responses_items import items_of
from longthought.orchestrator.models.openai.responses_stream import ResponsesStream

CREATED = {"type": "response.created", "response": {"model": "m-1", "status": "in_progress"}}


def streamed(*events, emit=None, turn=0):
    reply = ResponsesStream(turn, emit)
    for event in events:
        reply.take("", json.dumps(event))
    return reply


def added(index, item, **own):
    return {"type": "response.output_item.added", "output_index": index, "item": item, **own}


def finished(index, item, **own):
    return {"type": "response.output_item.done", "output_index": index, "item": item, **own}


def piece(kind, item, index, text, **own):
    event = {"type": f"response.{kind}.delta", "delta": text, **own}
    return {**event, "item_id": item, "output_index": index, "content_index": 0}


def completed(*output, status="completed", **own):
    response = {"model": "m-1", "status": status, "output": list(output), **own}
    return {"type": f"response.{status}", "response": response}


def message(identity, text):
    part = {"type": "output_text", "text": text, "annotations": []}
    own = {"type": "message", "role": "assistant", "status": "completed"}
    return {"id": identity, **own, "content": [part]}


def call(number, arguments="", status="completed"):
    own = {"type": "function_call", "call_id": f"call_{number}", "name": f"t{number}"}
    return {"id": f"fc_{number}", **own, "arguments": arguments, "status": status}


def told(deltas):
    return [delta.call for delta in deltas if delta.call]


def text(deltas, kind, index=0):
    return "".join(d.text for d in deltas if d.kind == kind and d.index == index)


def test_the_finished_items_count_and_the_end_has_the_usage():
    usage = {"input_tokens": 7, "output_tokens": 3}
    thought = {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "whole"}
    reply = streamed(
        CREATED,
        added(0, {**thought, "encrypted_content": "wh"}),
        finished(0, thought),
        added(1, {**message("msg", ""), "content": []}),
        piece("output_text", "msg", 1, "Hel"),
        piece("output_text", "msg", 1, "lo"),
        finished(1, message("msg", "Hello")),
        completed({"type": "reasoning", "id": "rs", "summary": []}, message("x", "?"), usage=usage),
    )
    answer = reply.answer()
    assert items_of(answer.message) == [thought, message("msg", "Hello")]
    assert (answer.finish_reason, answer.model) == ("stop", "m-1")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 3)
    assert (reply.tokens, reply.done, reply.ended, reply.complete) == (2, True, True, True)


def test_interleaved_calls_are_told_apart():
    deltas = []
    reply = streamed(
        added(0, call(0, status="in_progress")),
        added(1, call(1, status="in_progress")),
        piece("function_call_arguments", "fc_1", 1, '{"b"'),
        piece("function_call_arguments", "fc_0", 0, '{"a"'),
        piece("function_call_arguments", "fc_1", 1, ":2}"),
        piece("function_call_arguments", "fc_0", 0, ":1}"),
        finished(1, call(1, '{"b":2}')),
        finished(0, call(0, '{"a":1}')),
        completed(),
        emit=deltas.append,
    )
    answer = reply.answer()
    assert answer.finish_reason == "tool_calls"
    assert [part["arguments"] for part in answer.message["tool_calls"]] == ['{"a":1}', '{"b":2}']
    assert (text(deltas, "tool_call", 0), text(deltas, "tool_call", 1)) == (
        't0{"a":1}',
        't1{"b":2}',
    )
    assert [c["id"] for c in told(deltas)] == ["call_1", "call_0"]
    assert sum(delta.tokens for delta in deltas) == reply.tokens == 6


def test_announcements_that_come_twice_or_are_no_item_we_know():
    deltas = []
    reply = streamed(
        added(0, call(0)),
        added(0, call(0)),
        finished(0, {"type": "message", "role": "assistant", "content": None}),
        finished(1, {**call(0), "arguments": {"x": "é"}}),
        completed(),
        emit=deltas.append,
    )
    message = reply.answer().message
    assert message["tool_calls"] == [{"id": "call_0", "name": "t0", "arguments": '{"x": "é"}'}]
    assert told(deltas) == message["tool_calls"]
    assert reply.tokens == 1
    assert items_of(message)[1] == {"type": "message", "role": "assistant", "content": None}


def test_items_announced_out_of_order_stand_in_order():
    reply = streamed(
        added(1, message("b", "")),
        piece("output_text", "b", 1, "world"),
        added(0, message("a", "")),
        piece("output_text", "a", 0, "Hello "),
        finished(1, message("b", "world")),
        finished(0, message("a", "Hello ")),
        completed(),
    )
    assert reply.answer().message["content"] == "Hello world"


def test_a_server_without_indexes_or_done_events_in_time():
    """As llama.cpp does it: ids of calls are their call ids, and all items are done at the end."""
    parts = [{"type": "reasoning_text", "text": "Hm."}]
    thought = {"type": "reasoning", "id": "rs", "summary": [], "content": parts}
    one = {"type": "function_call", "call_id": "fc_a", "name": "t", "arguments": '{"x":1}'}
    two = {**one, "call_id": "fc_b", "arguments": "{}"}
    deltas = []
    reply = streamed(
        {"type": "response.output_item.added", "item": {**thought, "content": []}},
        {"type": "response.reasoning_text.delta", "item_id": "rs", "delta": "Hm."},
        {"type": "response.output_item.added", "item": {**one, "arguments": ""}},
        {
            "type": "response.function_call_arguments.delta",
            "item_id": "fc_a",
            "delta": '{"x":1}',
        },
        {"type": "response.output_item.added", "item": {**two, "arguments": ""}},
        {"type": "response.function_call_arguments.delta", "item_id": "fc_b", "delta": "{}"},
        *({"type": "response.output_item.done", "item": item} for item in (thought, one, two)),
        completed(thought, one, two),
        emit=deltas.append,
    )
    assert items_of(reply.answer().message) == [thought, one, two]
    assert [c["id"] for c in told(deltas)] == ["fc_a", "fc_b"]
    assert text(deltas, "reasoning") == "Hm."


def test_a_server_whose_last_event_has_other_ids():
    """As vLLM does it: and the first piece of the arguments stands in the announcement, too."""
    reply = streamed(
        added(0, call(0, '{"x"', "in_progress")),
        piece("function_call_arguments", "fc_0", 0, '{"x"'),
        piece("function_call_arguments", "fc_0", 0, ":1}"),
        finished(0, call(0, '{"x":1}')),
        completed({**call(9, '{"x":1}')}),
    )
    assert items_of(reply.answer().message) == [call(0, '{"x":1}')]
    reply = streamed(
        added(0, message("a", "")),
        finished(0, message("a", "Hi")),
        added(1, call(0)),
        completed(message("b", "Hi"), call(9, "{}")),
    )
    assert items_of(reply.answer().message) == [message("a", "Hi"), call(9, "{}")]


def test_a_server_that_gives_every_item_the_same_index():
    reply = streamed(
        added(0, call(0)),
        piece("function_call_arguments", "fc_0", 0, '{"x":0}'),
        finished(0, call(0, '{"x":0}')),
        added(0, call(1)),
        piece("function_call_arguments", "fc_1", 0, '{"x":1}'),
        finished(0, call(1, '{"x":1}')),
        completed(),
    )
    assert items_of(reply.answer().message) == [call(0, '{"x":0}'), call(1, '{"x":1}')]


def test_pieces_of_items_that_nobody_announced():
    deltas = []
    reply = streamed(
        piece("output_text", "msg", 0, "Hi"),
        piece("function_call_arguments", "fc", 1, "{}"),
        completed(message("msg", "Hi"), {**call(0, "{}"), "id": "fc"}),
        emit=deltas.append,
    )
    assert items_of(reply.answer().message) == [message("msg", "Hi"), {**call(0, "{}"), "id": "fc"}]
    assert text(deltas, "content") == "Hi"
    assert reply.tokens == 3
    bare = streamed({"type": "response.output_text.delta", "delta": "Hi"}, completed())
    assert bare.answer().message["content"] == "Hi"


def test_items_without_events_come_with_the_last():
    search = {"type": "web_search_call", "id": "ws", "status": "completed"}
    reply = streamed(
        added(1, message("msg", "")),
        piece("output_text", "msg", 1, "Hi"),
        finished(1, message("msg", "Hi")),
        completed(search, message("msg", "?")),
    )
    assert items_of(reply.answer().message) == [search, message("msg", "Hi")]
    whole = streamed(completed(message("msg", "Hi")))
    assert whole.answer().message["content"] == "Hi"
    assert whole.complete


def test_what_a_part_says_at_its_end_counts():
    reply = streamed(
        added(0, message("msg", "")),
        piece("output_text", "msg", 0, "He"),
        {"type": "response.output_text.done", "item_id": "msg", "text": "Hello"},
    )
    assert reply.answer().message["content"] == "Hello"


def test_a_reply_that_was_cut_off_can_be_sent_back():
    search = {"type": "web_search_call", "id": "ws", "status": "completed"}
    deltas = []
    reply = streamed(
        CREATED,
        added(0, search),
        finished(0, search),
        added(1, {"type": "web_search_call", "id": "ws_2", "status": "in_progress"}),
        added(2, {"type": "reasoning", "id": "rs", "summary": []}),
        piece("reasoning_text", "rs", 2, "Hm"),
        added(3, message("msg", "")),
        piece("output_text", "msg", 3, "Hel"),
        added(4, call(0, status="in_progress")),
        piece("function_call_arguments", "fc_0", 4, '{"x": '),
        emit=deltas.append,
    )
    answer = reply.answer()
    assert not reply.complete
    assert answer.message["content"] == "Hel"
    assert answer.message["reasoning"] == [{"text": "Hm"}]
    assert answer.message["tool_calls"] == [{"id": "call_0", "name": "t0", "arguments": '{"x": '}]
    assert answer.model == "m-1"
    assert answer.usage is None
    assert told(deltas) == []
    sent = items_of(answer.message)
    assert [item["type"] for item in sent] == ["web_search_call", "message", "function_call"]
    assert [item.get("id") for item in sent] == ["ws", None, None]
    assert not any("status" in item for item in sent[1:])


def test_a_refusal_is_one_even_if_it_was_cut_off():
    refused = piece("refusal", "msg", 0, "I cannot")
    reply = streamed(added(0, message("msg", "")), refused, completed(status="incomplete"))
    assert reply.answer().message["content"] == "I cannot"
    assert streamed(refused, completed()).answer().finish_reason == "refusal"


def test_one_kind_of_reasoning_is_shown_and_summaries_count_nothing():
    deltas = []

    def summary(index, words):
        event = {"type": "response.reasoning_summary_text.delta", "delta": words}
        return {**event, "item_id": "rs", "output_index": 0, "summary_index": index}

    parts = [{"type": "summary_text", "text": words} for words in ("One, two.", "Three.")]
    thought = {"type": "reasoning", "id": "rs", "summary": parts}
    reply = streamed(
        added(0, {**thought, "summary": []}),
        summary(0, "One, "),
        summary(0, "two."),
        summary(1, "Three."),
        piece("reasoning_text", "rs", 0, "raw"),
        finished(0, thought),
        completed(),
        emit=deltas.append,
    )
    assert text(deltas, "reasoning") == reply.answer().message["reasoning"][0]["text"]
    assert text(deltas, "reasoning") == "One, two.\n\nThree."
    assert reply.tokens == 1


def test_what_runs_at_the_provider_counts():
    reply = streamed(
        {"type": "response.code_interpreter_call_code.delta", "delta": "1+"},
        {"type": "response.custom_tool_call_input.delta", "delta": "x"},
        {"type": "response.keepalive"},
        {"type": "response.output_text.delta", "delta": ""},
    )
    assert reply.tokens == 2


@pytest.mark.parametrize(
    ("arguments", "status", "calls"),
    [
        ('{"x": 1}', "completed", 1),
        ('{"x": 1}', "incomplete", 1),
        ("", "completed", 1),
        ("", "incomplete", 0),
        ('{"x"', "completed", 1),
        ('{"x"', "incomplete", 0),
        ("[]", "incomplete", 0),
    ],
)
def test_a_call_is_told_once_and_not_if_it_was_cut_short(arguments, status, calls):
    deltas = []
    done = {"type": "response.function_call_arguments.done", "arguments": arguments}
    reply = streamed(
        added(0, call(0)),
        {**done, "item_id": "fc_0", "output_index": 0},
        finished(0, call(0, arguments, status)),
        completed(call(0, arguments, status), status=status),
        emit=deltas.append,
    )
    assert len(told(deltas)) == calls
    if calls:
        assert told(deltas) == reply.answer().message["tool_calls"]


def test_calls_are_told_when_the_server_says_nothing_but_that_it_is_done():
    deltas = []
    reply = streamed(added(0, call(0)), emit=deltas.append)
    assert told(deltas) == []
    reply.take("", "[DONE]")
    assert told(deltas) == [{"id": "call_0", "name": "t0", "arguments": ""}]
    assert reply.complete
    deltas.clear()
    cut = streamed(added(0, call(0)), completed(status="incomplete"), emit=deltas.append)
    cut.take("", "[DONE]")
    assert told(deltas) == []


@pytest.mark.parametrize("numbered", [True, False])
def test_calls_without_ids_are_told_under_the_ids_they_will_have(numbered):
    deltas = []
    wires = [{"type": "function_call", "name": n, "arguments": "{}"} for n in "ab"]
    wires[1:1] = [{"type": "function_call", "call_id": "x", "name": "x", "arguments": "{}"}] * 2
    events = [finished(place, wire) for place, wire in enumerate(wires)]
    for event in [] if numbered else events:
        del event["output_index"]
    reply = streamed(*events, completed(*wires), emit=deltas.append, turn=2)
    calls = reply.answer().message["tool_calls"]
    assert [part["id"] for part in calls] == ["call_2_0", "x", "call_2_2", "call_2_3"]
    assert told(deltas) == calls
    silent = streamed(*events, completed(*wires), turn=2)
    assert silent.answer().message == reply.answer().message


def test_half_characters_in_pieces():
    deltas = []
    reply = ResponsesStream(emit=deltas.append)
    for half in ("\\ud83d", "\\ude00"):
        reply.take("", '{"type": "response.output_text.delta", "delta": "' + half + '"}')
    assert reply.answer().message["content"] == "\U0001f600"
    assert [delta.text for delta in deltas] == ["?", "?"]


@pytest.mark.parametrize(
    ("event", "says", "error"),
    [
        ({"type": "error", "code": "server_error", "message": "m"}, "mid-reply", "server_error"),
        ({"type": "error", "error": {"message": "m", "code": "x"}}, "mid-reply", "x"),
        ({"error": {"message": "m", "code": 500}}, "mid-reply", 500),
        (completed(status="failed", error={"code": "x", "message": "m"}), "the reply failed", "x"),
        (completed(status="failed"), "the reply failed", None),
        ({"type": "response.output_item.added", "item": [7]}, "no known form", None),
        ({"type": "response.output_text.delta"}, "no known form", None),
        ({"type": ["x"]}, "no known form", None),
        (7, "not JSON", None),
    ],
)
def test_errors_and_garbage(event, says, error):
    first = piece("output_text", "msg", 0, "Hi")
    with pytest.raises(ServerFault, match=says) as info:
        streamed(first, event)
    if error is not None:
        assert info.value.error["code"] == error
        assert "type" not in info.value.error
        assert info.value.begun
    with pytest.raises(ServerFault, match=r"not JSON"):
        ResponsesStream().take("", "{")
    with pytest.raises(ServerFault, match=r"not JSON"):
        ResponsesStream().take("", "[" * 200_000)


def test_a_stream_that_just_stops_is_not_complete():
    done = finished(0, message("msg", "Hello"))
    reply = streamed(added(0, message("msg", "")), piece("output_text", "msg", 0, "Hello"), done)
    assert not reply.complete
    reply.take("", "[DONE]")
    assert reply.complete
    empty = ResponsesStream()
    empty.take("", "[DONE]")
    assert not empty.complete
    odd = streamed({"type": "response.completed", "response": {"status": "in_progress"}})
    assert odd.answer().finish_reason == "stop"


def test_logprobs_of_a_reply_that_was_cut_off_are_those_of_its_pieces():
    entry = {"token": "Hi", "logprob": -0.1}
    cut = streamed(piece("output_text", "msg", 0, "Hi", logprobs=[entry]))
    assert cut.answer().logprobs == [entry]
    item = message("msg", "Hi")
    item["content"][0]["logprobs"] = [{**entry, "bytes": [72, 105]}]
    whole = streamed(piece("output_text", "msg", 0, "Hi", logprobs=[entry]), finished(0, item))
    assert whole.answer().logprobs[0]["bytes"] == [72, 105]


KINDS = [
    "created",
    "completed",
    "incomplete",
    "failed",
    "output_text.delta",
    "reasoning_text.delta",
    "refusal.delta",
    "reasoning_summary_text.delta",
    "function_call_arguments.delta",
    "function_call_arguments.done",
    "output_text.done",
    "output_item.added",
    "output_item.done",
]
FIELDS = ["item", "item_id", "output_index", "content_index", "delta", "text", "arguments"]
FIELDS += ["response", "output", "id", "call_id", "name", "content", "summary", "usage", "status"]
FIELDS += ["logprobs", "error"]
ITEM_TYPES = st.sampled_from(["message", "function_call", "reasoning", "output_text", "x"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | ITEM_TYPES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", *FIELDS]), inner, max_size=5)
    ),
    max_leaves=12,
)
EVENTS = st.builds(
    lambda kind, fields, item: {"type": f"response.{kind}", **fields, **item},
    st.sampled_from(KINDS),
    st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6),
    st.just({})
    | st.builds(
        lambda kind, own: {"item": {"type": kind, **own}},
        ITEM_TYPES,
        st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4),
    ),
)


@given(st.lists(EVENTS | JSON, max_size=5))
def test_whatever_a_stream_holds_is_a_message_or_a_fault(events):
    reply = ResponsesStream(emit=lambda _: None)
    with contextlib.suppress(ServerFault):
        for event in events:
            reply.take("", json.dumps(event))
        reply.answer()
