"""Recorded streams of both protocols, cut anywhere: what is read does not depend on the cuts."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longthought.orchestrator.models.openai.chat_stream import ChatStream
from longthought.orchestrator.models.openai.responses_items import items_of
from longthought.orchestrator.models.openai.responses_stream import ResponsesStream
from longthought.orchestrator.models.openai.sse import ServerEvents

EMOJI = "\U0001f9ea"


def compact(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def chat(*deltas, finish="stop", end="\n\n", last="data: [DONE]"):
    """A chat stream: its deltas, how it ended, its usage."""
    head = {"id": "chatcmpl-7", "object": "chat.completion.chunk", "model": "gpt-5-mini"}

    def event(choices, **more):
        return f"data: {compact({**head, 'choices': choices, **more})}"

    usage = {"prompt_tokens": 19, "completion_tokens": 9, "total_tokens": 28}
    chunks = [event([{"index": 0, "delta": delta, "finish_reason": None}]) for delta in deltas]
    chunks.append(event([{"index": 0, "delta": {}, "finish_reason": finish}]))
    chunks += [": ping", event([], usage=usage), last]
    return (end.join(chunks) + end).encode()


def responses(*events, end="\n"):
    """A stream of Responses, each event under its name."""
    lines = []
    for number, event in enumerate(events):
        numbered = {**event, "sequence_number": number}
        lines += [f"event: {event['type']}", f"data: {compact(numbered)}", ""]
        if number == 1:
            lines += [": keep-alive", ""]
    return (end.join(lines) + end).encode()


def made(kind, **fields):
    return {"type": f"response.{kind}", **fields}


CALL_0 = {"index": 0, "id": "call_a", "type": "function", "function": {"name": "wëather"}}
CALL_1 = {"index": 1, "id": "call_b", "type": "function", "function": {"name": "zeit"}}
USAGE = {"input_tokens": 31, "output_tokens": 11, "output_tokens_details": {"reasoning_tokens": 4}}
REASONING = {
    "id": "rs_68b1",
    "type": "reasoning",
    "summary": [{"type": "summary_text", "text": f"**Wägen** {EMOJI}"}],
    "encrypted_content": "gAAAAABo_x-9=",
}
SEARCH = {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"q": "漢"}}
MESSAGE = {
    "id": "msg_68b2",
    "type": "message",
    "status": "completed",
    "role": "assistant",
    "content": [{"type": "output_text", "annotations": [], "text": f"naïve 漢字 {EMOJI}"}],
}
LYON = {
    "id": "fc_1",
    "type": "function_call",
    "status": "completed",
    "call_id": "call_1",
    "name": "wëather",
    "arguments": '{"city":"Lyon {é"}',
}
ROMA = {**LYON, "id": "fc_2", "call_id": "call_2", "arguments": '{"city":"Roma"}'}


def begun(item, **fields):
    return {**item, "status": "in_progress", **fields}


def said(kind, item, index, delta, **own):
    return made(f"{kind}.delta", item_id=item, output_index=index, delta=delta, **own)


STREAMS = {
    "chat text": (
        ChatStream,
        chat(
            {"role": "assistant", "content": ""},
            {"content": "naïve "},
            {"content": "漢字 "},
            {"content": EMOJI},
            end="\r\n\r\n",
        ),
    ),
    "chat reasoning and interleaved calls": (
        ChatStream,
        chat(
            {"role": "assistant", "reasoning_content": f"Wägen {EMOJI}"},
            {"tool_calls": [CALL_0]},
            {"tool_calls": [CALL_1]},
            {"tool_calls": [{"index": 1, "function": {"arguments": '{"tz": "é"'}}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": '{"city": "Lyon {'}}]},
            {"tool_calls": [{"index": 1, "function": {"arguments": "}"}}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": f'{EMOJI}"' + "}"}}]},
            finish="tool_calls",
        ),
    ),
    "chat characters in halves, line ends alone": (
        ChatStream,
        b"\xef\xbb\xbf"
        + chat({"content": "a"}, end="\r\r").replace(
            b'"content":"a"', b'"content":"a\\ud83e\\udDEa"'
        ),
    ),
    "responses with everything": (
        ResponsesStream,
        responses(
            made("created", response={"model": "gpt-5", "status": "in_progress", "output": []}),
            made("output_item.added", output_index=0, item={**REASONING, "summary": []}),
            said("reasoning_summary_text", "rs_68b1", 0, f"**Wägen** {EMOJI}", summary_index=0),
            made("output_item.done", output_index=0, item=REASONING),
            made("output_item.done", output_index=1, item=SEARCH),
            made("output_item.added", output_index=2, item=begun(MESSAGE, content=[])),
            said("output_text", "msg_68b2", 2, "naïve 漢字 ", content_index=0, logprobs=[]),
            said("output_text", "msg_68b2", 2, EMOJI, content_index=0, logprobs=[]),
            made("output_item.done", output_index=2, item=MESSAGE),
            made("completed", response={"status": "completed", "model": "gpt-5", "usage": USAGE}),
        ),
    ),
    "responses with interleaved calls": (
        ResponsesStream,
        responses(
            made("output_item.added", output_index=0, item=begun(LYON, arguments="")),
            made("output_item.added", output_index=1, item=begun(ROMA, arguments="")),
            said("function_call_arguments", "fc_2", 1, '{"city":'),
            said("function_call_arguments", "fc_1", 0, '{"city":"Lyon {é'),
            said("function_call_arguments", "fc_2", 1, '"Roma"}'),
            made(
                "function_call_arguments.done",
                item_id="fc_2",
                output_index=1,
                arguments=ROMA["arguments"],
            ),
            said("function_call_arguments", "fc_1", 0, '"}'),
            made("output_item.done", output_index=0, item=LYON),
            made("output_item.done", output_index=1, item=ROMA),
            made("completed", response={"status": "completed", "usage": USAGE}),
            end="\r\n",
        ),
    ),
}


@dataclass
class Seen:
    """What one way of cutting a stream came to."""

    answer: object = None
    state: tuple[object, ...] = ()
    texts: dict[tuple[str, int], str] = field(default_factory=dict)
    calls: list[object] = field(default_factory=list)


def read(name, cuts):
    kind, data = STREAMS[name]
    seen, events = Seen(), ServerEvents()

    def emit(delta):
        key = (delta.kind, delta.index)
        seen.texts[key] = seen.texts.get(key, "") + delta.text
        if delta.call:
            seen.calls.append(delta.call)

    reply = kind(1, emit)
    borders = [0, *cuts, len(data)]
    for start, end in itertools.pairwise(borders):
        for event in events.feed(data[start:end]):
            reply.take(*event)
    for event in events.finish():
        reply.take(*event)
    seen.answer = reply.answer()
    seen.state = (reply.tokens, reply.done, reply.ended, reply.complete)
    return seen


WHOLE = {name: read(name, []) for name in STREAMS}


def test_the_streams_say_what_they_should():
    said = {name: seen.answer.message for name, seen in WHOLE.items()}
    assert said["chat text"]["content"] == f"naïve 漢字 {EMOJI}"
    assert said["chat characters in halves, line ends alone"]["content"] == f"a{EMOJI}"
    calls = said["chat reasoning and interleaved calls"]["tool_calls"]
    assert [json.loads(c["arguments"]) for c in calls] == [{"city": f"Lyon {{{EMOJI}"}, {"tz": "é"}]
    assert items_of(said["responses with everything"]) == [REASONING, SEARCH, MESSAGE]
    assert items_of(said["responses with interleaved calls"]) == [LYON, ROMA]
    for name, seen in WHOLE.items():
        assert seen.state[1:] == (True, True, True), name
        assert seen.answer.usage is not None
        assert [c["id"] for c in seen.calls] == [
            c["id"] for c in reversed(seen.answer.message.get("tool_calls", ()))
        ]


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_may_be_cut_at_any_byte(name):
    for cut in range(1, len(STREAMS[name][1])):
        assert read(name, [cut]) == WHOLE[name], cut


@pytest.mark.parametrize("name", STREAMS)
@given(data=st.data())
def test_a_stream_may_be_cut_into_many_pieces(name, data):
    last = len(STREAMS[name][1]) - 1
    cuts = data.draw(st.sets(st.integers(1, last), max_size=64) | st.just(set(range(1, last))))
    assert read(name, sorted(cuts)) == WHOLE[name]
