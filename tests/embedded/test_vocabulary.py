"""Tokens and their text: the round trip is exact for anything the model may write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longthought.errors import InvalidInput
from longthought.orchestrator.models.embedded.puzzles import vocabulary as v

anything = st.lists(st.integers(0, v.SIZE - 1), max_size=40)
mostly_marks = st.lists(
    st.one_of(st.integers(0, 12), st.integers(v.NUMBER_MAX + 1, v.SIZE - 1)), max_size=40
)


@given(st.one_of(anything, mostly_marks))
def test_any_sequence_survives_its_text(tokens: list[int]) -> None:
    text = v.decode(tokens)
    assert v.encode(text) == tokens
    assert v.decode(v.encode(text)) == text


@given(mostly_marks, mostly_marks)
def test_text_of_a_beginning_is_the_beginning_of_the_text(
    first: list[int], second: list[int]
) -> None:
    assert v.decode(first + second).startswith(v.decode(first))


def test_the_documented_form() -> None:
    text = "8 / 8 = 1 [1 4 7 left]; 7 - 1 = 6 [4 6 left]; 6 * 4 = 24. DONE"
    tokens = v.encode(text)
    assert len(tokens) == 23
    assert v.decode(tokens) == text
    assert v.decode(v.encode("(7 - (8 / 8)) * 4. DONE")) == "(7 - (8 / 8)) * 4. DONE"


@pytest.mark.parametrize("tail", ["", ";", "; ", " ;"])
def test_a_semicolon_cut_off_as_stop_string_is_still_read(tail: str) -> None:
    assert v.encode("8 / 8 = 1 [1 4 7 left]" + tail)[-1] == v.SEMICOLON


@pytest.mark.parametrize("text", ["hello", "256", "7 - 99999999", "7 ^ 2", "done"])
def test_other_words_are_an_error(text: str) -> None:
    with pytest.raises(InvalidInput):
        v.encode(text)
