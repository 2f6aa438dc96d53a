"""Canonical JSON and digests, as properties."""

from __future__ import annotations

import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longthought.storage import canonical
from longthought.storage.difference import describe_change
from longthought.storage.digests import chain_hash, digest_of, new_run_key, payload_id, salt_of
from longthought.storage.messages import CanonicalMessage, CanonicalReasoning, CanonicalToolCall
from longthought.storage.recording import event_text
from longthought.types import Message, ReasoningItem, ToolCallPart

TEXT = st.text(st.characters(), max_size=8)  # lone surrogates included
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT
VALUES = st.recursive(
    SCALARS.filter(lambda value: value not in (float("inf"), float("-inf"))),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
KEYS = st.text(st.characters(blacklist_characters="\n", blacklist_categories=["Cs"]), max_size=8)


@given(VALUES)
def test_canonical_text_is_utf8_and_stays_what_it_is(value):
    text = canonical(value)
    assert text.encode().decode() == text
    assert canonical(json.loads(text)) == text


@given(st.dictionaries(TEXT, VALUES, max_size=6))
def test_the_order_of_keys_does_not_matter(value):
    assert canonical(dict(reversed(value.items()))) == canonical(value)


@given(VALUES, VALUES)
def test_different_values_have_different_texts(one, two):
    if canonical(one) == canonical(two):
        assert json.loads(canonical(one)) == json.loads(canonical(two))
    else:
        assert canonical(json.loads(canonical(one))) != canonical(json.loads(canonical(two)))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_json_has_no_word_for_is_refused(value):
    with pytest.raises(ValueError):
        canonical([value])


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_a_payload_id_proves_its_body(one, two):
    key = new_run_key()
    assert payload_id(salt_of(key, one), one) == payload_id(salt_of(key, one), one)
    if one != two:
        assert payload_id(salt_of(key, one), one) != payload_id(salt_of(key, two), two)
        assert payload_id(salt_of(key, one), one) != payload_id(salt_of(key, one), two)
    assert payload_id(salt_of(new_run_key(), one), one) != payload_id(salt_of(key, one), one)


@given(st.tuples(st.integers(1), KEYS, KEYS, TEXT), st.tuples(st.integers(1), KEYS, KEYS, TEXT))
def test_no_two_events_have_one_text(one, two):
    """Types and keys hold no line break, so the fields cannot run into each other."""
    assert (event_text(*one) == event_text(*two)) == (one == two)


def test_digests_are_what_the_contract_says():
    assert digest_of(b"") == "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"
    assert chain_hash("", "x") == digest_of(b"\nx")
    assert len(chain_hash("a" * 43, "x")) == 43


def test_the_classes_of_messages_have_the_fields_of_the_types():
    for model, type_ in (
        (CanonicalMessage, Message),
        (CanonicalReasoning, ReasoningItem),
        (CanonicalToolCall, ToolCallPart),
    ):
        assert model.model_fields.keys() == type_.__annotations__.keys()


@given(st.dictionaries(KEYS, VALUES, max_size=4), st.dictionaries(KEYS, VALUES, max_size=4))
def test_a_difference_is_told_exactly_where_there_is_one(one, two):
    assert bool(describe_change(one, two)) == (canonical(one) != canonical(two))


@pytest.mark.parametrize(
    ("recorded", "now", "told"),
    [
        ({"a": 1}, {"a": 1.0}, "a: recorded 1, now 1.0"),
        ({"a": 1}, {"a": True}, "a: recorded 1, now true"),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, "a.b: recorded 1, now 2"),
        ({"a": [{"b": 1}]}, {"a": [{"b": 2}]}, "a[0].b: recorded 1, now 2"),
        ({"a": [1, 2]}, {"a": [1]}, "a: recorded 2 items, now 1"),
        ({"a": 1}, {}, "a: recorded 1, now nothing"),
        ({"a": "x" * 900}, {"a": ""}, "(902 characters), now"),
        ({"a": 1}, {"a": 1}, ""),
    ],
)
def test_differences_are_readable(recorded, now, told):
    assert told in describe_change(recorded, now)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_a_salt_is_the_first_half_of_an_hmac(key: bytes, body: bytes) -> None:
    assert salt_of(key, body) == hmac.digest(key, body, "sha256")[:16]
