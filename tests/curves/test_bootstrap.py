"""The paired bootstrap: known cases, and what has to hold whatever the figures are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from longthought.errors import InvalidInput
from longthought.orchestrator.curves import Band, Bootstrap

SHARES = st.floats(0, 1, width=32)


def names(count: int) -> list[str]:
    return [f"q{number}" for number in range(count)]


def test_a_coin_has_the_band_of_the_binomial() -> None:
    """100 questions, half of them right: 1.96 standard errors are 9.8 points."""
    values = np.array([0.0, 1.0] * 50)
    band = Bootstrap(names(100), resamples=20_000).bands({"a": values})["a"]
    assert band.mean == 0.5
    assert band.low == pytest.approx(0.402, abs=0.011)
    assert band.high == pytest.approx(0.598, abs=0.011)
    assert band.excludes_zero


def test_a_constant_has_no_width() -> None:
    assert Bootstrap(names(3)).bands({"a": np.ones(3)})["a"] == Band(1.0, 1.0, 1.0)


def test_pairs_share_their_luck() -> None:
    """One is right on all the other is right on, and on ten more: that is certain."""
    generator = np.random.default_rng(0)
    b = (generator.random(200) < 0.5).astype(float)
    a = b.copy()
    a[np.flatnonzero(b == 0)[:10]] = 1.0
    bands = Bootstrap(names(200)).bands({"a": a, "b": b, "a-b": a - b})
    assert bands["a-b"].mean == pytest.approx(0.05)
    assert bands["a-b"].excludes_zero
    assert bands["a"].low < bands["b"].high  # though the bands of the two overlap


@given(
    values=arrays.arrays(np.float64, st.integers(1, 40), elements=SHARES),
    seed=st.integers(0, 5),
)
@settings(max_examples=50, deadline=None)
def test_a_band_holds_its_mean_and_no_order_of_questions_matters(
    values: np.ndarray, seed: int
) -> None:
    ids = names(len(values))
    other = np.sqrt(values)
    bands = Bootstrap(ids, resamples=200, seed=seed).bands({"a": values, "b": other})
    for band, figure in ((bands["a"], values), (bands["b"], other)):
        assert band.low <= band.mean <= band.high
        assert band.mean == pytest.approx(figure.mean())
        assert figure.min() - 1e-12 <= band.low
        assert band.high <= figure.max() + 1e-12
    shuffled = np.random.default_rng(seed).permutation(len(values))
    again = Bootstrap([ids[place] for place in shuffled], resamples=200, seed=seed)
    assert again.bands({"a": values[shuffled], "b": other[shuffled]}) == bands


@given(values=arrays.arrays(np.float64, st.integers(1, 40), elements=SHARES))
@settings(max_examples=30, deadline=None)
def test_two_that_are_the_same_differ_by_exactly_nothing(values: np.ndarray) -> None:
    figures = {"a": values, "difference": values - values.copy()}
    band = Bootstrap(names(len(values)), resamples=200).bands(figures)["difference"]
    assert band == Band(0.0, 0.0, 0.0)
    assert not band.excludes_zero


def test_many_questions_are_resampled_in_blocks() -> None:
    values = np.arange(30_000) % 2.0
    band = Bootstrap(names(30_000), resamples=300).bands({"a": values})["a"]
    assert band.high - band.low == pytest.approx(2 * 1.96 * 0.5 / np.sqrt(30_000), rel=0.2)


def test_what_cannot_be_resampled() -> None:
    with pytest.raises(InvalidInput, match="none to resample"):
        Bootstrap([])
    with pytest.raises(InvalidInput, match="0 is too few"):
        Bootstrap(["a"], resamples=0)
    assert Bootstrap(["a"]).bands({}) == {}
    with pytest.raises(ValueError, match="b has not one value"):
        Bootstrap(names(2)).bands({"a": np.ones(2), "b": np.ones(3)})
