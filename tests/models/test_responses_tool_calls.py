"""That a tool call is told as soon as it is complete, in a stream of Chat Completions."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from longthought.orchestrator.models.openai.chat_stream import ChatStream
from longthought.orchestrator.models.openai.closing_object import ClosingObject
from longthought.types import Delta


class Chat:
    """A stream, and what was emitted."""

    def __init__(self, turn: int = 0) -> None:
        self.deltas: list[Delta] = []
        self.reply = ChatStream(turn, self.deltas.append)

    def take(self, *pieces, finish=None):
        delta = {"tool_calls": list(pieces)} if pieces else {}
        choice = {"delta": delta, "finish_reason": finish}
        self.reply.take("", json.dumps({"choices": [choice]}))
        return [delta.call for delta in self.deltas if delta.call]

    @property
    def message_calls(self):
        return self.reply.answer().message["tool_calls"]


def head(index, name="t", identity="", arguments=""):
    function = {"name": name, "arguments": arguments}
    return {"index": index, "id": identity or f"c{index}", "function": function}


def more(index, arguments):
    return {"index": index, "function": {"arguments": arguments}}


def test_a_call_is_told_when_its_arguments_close():
    chat = Chat()
    assert chat.take(head(0)) == []
    assert chat.take(more(0, '{"a": "}')) == []
    assert chat.take(more(0, '{", "b": {"c": ')) == []
    assert chat.take(more(0, '"\\"}"}')) == []
    told = chat.take(more(0, "}"))
    call = {"id": "c0", "name": "t", "arguments": '{"a": "}{", "b": {"c": "\\"}"}}'}
    assert told == [call]
    assert chat.deltas[-1] == Delta("tool_call", "", tokens=0, index=0, call=call)
    assert chat.take(head(1, arguments="{}")) == [call, {**call, "id": "c1", "arguments": "{}"}]
    assert chat.take(finish="tool_calls") == chat.message_calls


def test_interleaved_calls_are_told_one_by_one():
    chat = Chat()
    chat.take(head(0, "a"), head(1, "b"))
    chat.take(more(1, '{"x"'), more(0, "{"))
    assert [c["name"] for c in chat.take(more(1, ": 1}"))] == ["b"]
    assert [c["name"] for c in chat.take(more(0, "}"))] == ["b", "a"]
    assert len(chat.take(finish="tool_calls")) == 2


@pytest.mark.parametrize("arguments", ["", "null", "[]", '"{}"', "{a}", '{"a": 1', "}{", "{a}{}"])
@pytest.mark.parametrize(
    ("finish", "told"), [("tool_calls", 1), ("stop", 1), ("length", 0), ("content_filter", 0)]
)
def test_what_is_no_object_is_told_at_the_end_unless_it_was_cut_short(arguments, finish, told):
    chat = Chat()
    chat.take(head(0))
    for letter in arguments:
        assert chat.take(more(0, letter)) == []
    assert len(chat.take(finish=finish)) == told
    assert len(chat.take(finish=finish)) == told


def test_done_alone_ends_a_reply_too():
    chat = Chat()
    chat.take(head(0))
    chat.reply.take("", "[DONE]")
    assert [delta.call["arguments"] for delta in chat.deltas if delta.call] == [""]
    cut = Chat()
    cut.take(head(0), finish="length")
    cut.reply.take("", "[DONE]")
    assert not any(delta.call for delta in cut.deltas)


def test_calls_without_ids_are_told_under_the_ids_they_will_have():
    chat = Chat(turn=3)
    chat.take({"index": 0, "function": {"name": "a", "arguments": "{}"}})
    chat.take({"index": 1, "id": "same", "function": {"name": "b", "arguments": "{}"}})
    chat.take({"index": 2, "id": "same", "function": {"name": "c", "arguments": {"x": 1}}})
    told = chat.take(finish="tool_calls")
    assert told == chat.message_calls
    assert [call["id"] for call in told] == ["call_3_0", "same", "call_3_2"]


def test_half_characters_in_arguments_are_whole_in_the_call():
    chat = Chat()
    chat.reply.take("", json.dumps({"choices": [{"delta": {"tool_calls": [head(0)]}}]}))
    for half in ('{"a": "\ud83d', '\ude00"}'):
        chat.take(more(0, half))
    assert [d.call["arguments"] for d in chat.deltas if d.call] == ['{"a": "\U0001f600"}']


def test_nothing_is_told_where_nobody_listens():
    reply = ChatStream()
    chunk = {"choices": [{"delta": {"tool_calls": [head(0, arguments="{}")]}}]}
    reply.take("", json.dumps(chunk))
    assert reply.answer().message["tool_calls"][0]["arguments"] == "{}"


# -- the end of an object -------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.integers() | st.text(st.sampled_from('{}[]"\\,: \né\U0001f600'), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.sampled_from('{}"\\ax'), max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.just("k"), VALUES), st.booleans(), st.data())
def test_an_object_closes_with_its_last_brace(value, escaped, data):
    text = json.dumps(value, ensure_ascii=escaped)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)))
    borders = [0, *cuts, len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(borders) if a < b]
    scan = ClosingObject()
    assert [scan.closes(piece) for piece in pieces] == [*[False] * (len(pieces) - 1), True]
    assert not scan.closes(" ")


@given(st.lists(st.text(st.sampled_from('{}"\\a'), min_size=1, max_size=4), max_size=6))
@example(['{"', "\\", '"', '"}'])
@example(['{"\\', '\\"}'])
def test_an_object_that_parses_was_closed_and_none_before(pieces):
    scan = ClosingObject()
    closed = [scan.closes(piece) for piece in pieces]
    for count in range(1, len(pieces) + 1):
        try:
            whole = isinstance(json.loads("".join(pieces[:count]), strict=False), dict)
        except ValueError:
            whole = False
        assert closed[count - 1] or not whole
    assert sum(closed) <= 1
