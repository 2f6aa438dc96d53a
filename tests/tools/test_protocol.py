"""The tool protocol: what a specification accepts, and the JSON forms of calls and results."""

import pytest

from longthought.errors import InvalidInput
from longthought.tools import ToolCall, ToolResult, ToolSpec

SCHEMA = {"type": "object", "properties": {}}


def spec(**changes):
    return ToolSpec(**{"name": "look", "description": "Look.", "parameters": SCHEMA, **changes})


def test_definition_is_what_the_model_sees():
    assert spec().definition() == {
        "name": "look",
        "description": "Look.",
        "parameters": SCHEMA,
    }


def test_unknown_effect_counts_as_write():
    assert spec().effect == "write"
    assert not spec().repeatable
    assert spec(idempotent=True).repeatable
    assert spec(effect="read").repeatable


def test_fingerprint_leaves_out_defaults_and_concurrency():
    plain = spec(max_concurrency=3).fingerprint()
    assert plain == {"name": "look", "description": "Look.", "parameters": SCHEMA}
    assert spec(effect="pure", options={"folder": "notes"}).fingerprint() == {
        **plain,
        "effect": "pure",
        "options": {"folder": "notes"},
    }


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, "tool name"),
        ({"name": "two words"}, "tool name"),
        ({"name": "x" * 65}, "tool name"),
        ({"description": "  "}, "tool 'look'"),
        ({"effect": "harmless"}, "tool 'look' effect"),
        ({"approval": "maybe"}, "tool 'look' approval"),
        ({"timeout_s": 0}, "tool 'look' timeout"),
        ({"timeout_s": float("inf")}, "tool 'look' timeout"),
        ({"timeout_s": float("nan")}, "tool 'look' timeout"),
        ({"max_result_chars": 5}, "tool 'look' max_result_chars"),
        ({"max_concurrency": 0}, "tool 'look' max_concurrency"),
        ({"cost_usd": -1}, "tool 'look' cost_usd"),
        ({"retries": -1}, "tool 'look' retries"),
        ({"retries": 1}, "tool 'look' retries"),
    ],
)
def test_unusable_values_are_refused_by_name(changes, field):
    with pytest.raises(InvalidInput) as caught:
        spec(**changes)
    assert caught.value.field == field


def test_retries_are_for_tools_that_may_be_repeated():
    assert spec(effect="read", retries=2).retries == 2
    assert spec(idempotent=True, retries=2).retries == 2


def test_result_survives_json_and_leaves_out_defaults():
    assert ToolResult("ok", "text").to_json() == {"status": "ok", "content": "text"}
    full = ToolResult(
        "timeout", "slow", {"a": [1]}, True, 9000, 1.5, 0.25, 3, ["monty"], retryable=True
    )
    assert ToolResult.from_json(full.to_json()) == full
    assert not full.ok


def test_call_survives_json():
    call = ToolCall("c1", "look", {"n": 1}, "key")
    assert ToolCall.from_json(call.to_json()) == call
    assert "idempotency_key" not in ToolCall("c1", "look", {}).to_json()
