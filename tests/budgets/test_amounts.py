from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longthought.budgets import KINDS, Amount
from longthought.errors import InvalidInput

amounts = st.builds(Amount, *(st.integers(0, 10**12) for _ in KINDS))


@given(amounts, amounts)
def test_sum_and_difference_undo_each_other(a: Amount, b: Amount) -> None:
    assert a + b - b == a
    assert a.fits(a + b)
    assert (a + b).fits(a) == (not b)


@given(amounts)
def test_json_round_trip_omits_zeros(amount: Amount) -> None:
    written = amount.to_json()
    assert 0 not in written.values()
    assert Amount.from_json(written) == amount


def test_fits_looks_at_every_kind() -> None:
    assert Amount(tokens=1).fits(Amount(tokens=1, branches=1))
    assert not Amount(tokens=1, tool_calls=1).fits(Amount(tokens=5))


def test_money_in_dollars_is_exact() -> None:
    assert Amount(nanodollars=1).usd == Decimal("0.000000001")


def test_nothing_is_false() -> None:
    assert not Amount()
    assert not Amount.from_json(None)
    assert Amount(branches=1)


@pytest.mark.parametrize("value", [{"calls": 1}, {"tokens": 1.0}, {"tokens": True}])
def test_bad_json_is_refused(value: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match="amount"):
        Amount.from_json(value)
