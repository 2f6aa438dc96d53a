"""The parser of server-sent events, cut at every place."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longthought.orchestrator.models.openai.sse import ServerEvent, ServerEvents

LINE = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=20)
EVENT = st.tuples(LINE, st.lists(LINE, min_size=1, max_size=3))


def parsed(chunks: list[bytes]) -> list[ServerEvent]:
    parser = ServerEvents()
    return [event for chunk in chunks for event in parser.feed(chunk)] + parser.finish()


@given(
    events=st.lists(EVENT, max_size=6),
    eol=st.sampled_from(["\n", "\r\n", "\r"]),
    noise=st.lists(st.sampled_from([": hello", "id: 7", "retry: 10", ":", "odd"]), max_size=3),
    bom=st.booleans(),
    cuts=st.lists(st.integers(0, 400), max_size=12),
)
def test_events_survive_any_cut(events, eol, noise, bom, cuts):
    text = "\ufeff" if bom else ""
    for kind, data in events:
        lines = [*noise, f"event: {kind}", *(f"data: {line}" for line in data), ""]
        text += "".join(line + eol for line in lines)
    raw = text.encode()
    places = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    chunks = [raw[a:b] for a, b in pairwise(places)]
    expected = [ServerEvent(kind, "\n".join(data)) for kind, data in events]
    assert parsed(chunks) == expected
    assert parsed([raw[i : i + 1] for i in range(len(raw))]) == expected


@given(st.binary(max_size=200), st.integers(1, 50))
def test_garbage_never_raises_and_cuts_do_not_matter(raw, size):
    chunks = [raw[i : i + size] for i in range(0, len(raw), size)]
    assert parsed(chunks) == parsed([raw])


@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\r\n\r\n"])
def test_the_last_event_may_lack_its_blank_line(end):
    assert parsed([f"data: [DONE]{end}".encode()]) == [ServerEvent("", "[DONE]")]


def test_a_field_without_a_space_and_an_event_without_data():
    assert parsed([b"data:x\n\nevent: ping\n\ndata\n\n"]) == [
        ServerEvent("", "x"),
        ServerEvent("", ""),
    ]


def test_events_come_as_soon_as_they_are_complete():
    parser = ServerEvents()
    assert parser.feed(b"data: 1\r\n") == []
    assert parser.feed(b"\r") == [ServerEvent("", "1")]
    assert parser.feed(b"\ndata: 2\r\n\r\ndata: 3") == [ServerEvent("", "2")]
