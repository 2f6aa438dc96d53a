from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longthought.budgets import Budget
from longthought.errors import InvalidInput


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tokens", -1),
        ("tokens", 0),
        ("tokens", 1.5),
        ("tokens", "100"),
        ("tokens", True),
        ("output_tokens", 0),
        ("model_calls", 0),
        ("model_calls", -3),
        ("tool_calls", -1),
        ("tool_calls", None.__class__),
        ("branches", 0),
        ("branches", False),
        ("final_answer", -1),
        ("final_answer", 0.5),
        ("wall", 0),
        ("wall", -1.0),
        ("wall", float("nan")),
        ("wall", float("inf")),
        ("wall", "60"),
        ("wall", True),
        ("thinking", float("-inf")),
        ("usd", -0.01),
        ("usd", float("nan")),
        ("usd", float("inf")),
        ("usd", "five"),
        ("usd", "nan"),
        ("usd", True),
        ("usd", []),
        ("usd", "1e-12"),
        ("usd", 10**12),
        ("tokens", 10**15 + 1),
        pytest.param("tokens", 10**400, id="tokens-huge"),
        ("model_calls", 10**16),
        ("final_answer", 10**16),
        pytest.param("wall", 10**400, id="wall-huge"),
        ("thinking", 1e16),
    ],
)
def test_a_bad_value_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        Budget(**{field: value})
    assert caught.value.field == f"budget.{field}"
    assert caught.value.fix or "too" in str(caught.value) or field == "final_answer"


def test_the_highest_limit_can_be_used() -> None:
    most = Budget(tokens=10**15, wall=10**15)
    assert Budget.from_json(most.to_json()) == most


@pytest.mark.parametrize("value", [0.05, "0.05", " 0.05 ", Decimal("0.05"), Decimal("5e-2")])
def test_dollars_mean_what_was_written(value: Any) -> None:
    assert Budget(usd=value).nanodollars == 50_000_000
    assert Budget(usd=value) == Budget(usd="0.050")


def test_dollars_are_rounded_down_to_nanodollars() -> None:
    assert Budget(usd="0.0000000019").nanodollars == 1


@given(st.integers(0, 10**15))
def test_every_nanodollar_is_exact(nanodollars: int) -> None:
    budget = Budget(usd=Decimal(nanodollars).scaleb(-9))
    assert budget.nanodollars == nanodollars
    assert Budget.from_json(json.loads(json.dumps(budget.to_json()))) == budget


def test_json_keeps_everything_that_is_set_and_nothing_else() -> None:
    budget = Budget(tokens=40_000, usd=20, wall=60, tool_calls=0, final_answer=100)
    assert budget.to_json() == {
        "tokens": 40_000,
        "usd": "20",
        "wall": 60,
        "tool_calls": 0,
        "final_answer": 100,
    }
    assert Budget.from_json(budget.to_json()) == budget
    assert Budget().to_json() == {}


def test_json_with_an_unknown_limit_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"budget\.calls: no such limit"):
        Budget.from_json({"calls": 3})


@pytest.mark.parametrize(
    ("budget", "tokens"),
    [
        (Budget(), 0),
        (Budget(usd=1), 0),
        (Budget(tokens=1000), 50),
        (Budget(tokens=19), 0),
        (Budget(tokens=1_000_000), 512),
        (Budget(tokens=1000, output_tokens=400), 20),
        (Budget(tokens=1000, final_answer=0), 0),
        (Budget(tokens=1000, final_answer=600), 600),
    ],
)
def test_final_answer_tokens(budget: Budget, tokens: int) -> None:
    assert budget.final_answer_tokens == tokens


def test_what_is_kept_back_of_each_kind() -> None:
    budget = Budget(tokens=10_000, usd=1, model_calls=40)
    assert budget.kept_back("tokens") == 500
    assert budget.kept_back("output_tokens") == 0
    assert budget.kept_back("nanodollars") == 50_000_000
    assert budget.kept_back("model_calls") == 0
    assert Budget(usd=1, final_answer=0).kept_back("nanodollars") == 0


def test_the_final_answer_cannot_take_everything() -> None:
    with pytest.raises(InvalidInput, match="keep back less"):
        Budget(tokens=100, final_answer=100)


def test_hard_means_tokens_or_dollars() -> None:
    assert Budget(tokens=1).hard
    assert Budget(output_tokens=1).hard
    assert Budget(usd=0).hard
    assert not Budget(wall=1, model_calls=3).hard
