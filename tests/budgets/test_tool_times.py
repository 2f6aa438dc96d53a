from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longthought.budgets.tool_times import ToolTimes


def learned(tool: str, seconds: list[float]) -> ToolTimes:
    times = ToolTimes()
    for one in seconds:
        times.observe(tool, one)
    return times


def test_nothing_is_known_before_anything_was_seen() -> None:
    times = ToolTimes()
    assert times.price("search", 1.0) is None
    assert times.quantile("search", 0.5) is None
    assert times.seen("search") == 0


def test_a_tool_that_is_always_as_fast_costs_its_time() -> None:
    times = learned("read", [1.0] * 50)
    price = times.price("read", 0.0)
    assert price is not None
    assert 0.5 < price < 2
    assert times.price("read", 100.0) == math.inf
    assert times.quantile("read", 0.5) == pytest.approx(1.0, rel=0.5)


def test_a_heavy_tail_raises_the_price_with_age_and_not_at_once() -> None:
    rng = random.Random(0)
    times = learned("tests", [rng.lognormvariate(0.0, 1.5) for _ in range(400)])
    prices = [times.price("tests", age) for age in (0.0, 2.0, 8.0, 20.0)]
    assert None not in prices
    assert 2 * prices[0] < min(prices[1:])  # type: ignore[operator]


def test_mostly_fast_and_sometimes_endless_is_kept_first_and_given_up_soon() -> None:
    times = learned("fetch", ([0.1] * 9 + [600.0]) * 20)
    early, late = times.price("fetch", 0.0), times.price("fetch", 1.0)
    assert early is not None
    assert late is not None
    assert early < 1
    assert late > 100


def test_the_shape_of_arguments_tells_calls_of_one_tool_apart() -> None:
    times = ToolTimes()
    for _ in range(30):
        times.observe("run", 0.1, "ls")
        times.observe("run", 200.0, "make")
    assert (times.price("run", 0.0, "ls") or 0) < 1
    assert (times.price("run", 1.0, "make") or 0) > 50
    assert times.price("run", 0.0, "never seen") == times.price("run", 0.0)


def test_an_unknown_tool_is_taken_for_one_like_all() -> None:
    times = learned("known", [2.0] * 40)
    assert times.price("unknown", 0.0) == pytest.approx(2.0, rel=0.6)


def test_old_times_fade() -> None:
    times = learned("build", [100.0] * 200 + [1.0] * 400)
    quantile = times.quantile("build", 0.9)
    assert quantile is not None
    assert quantile < 2


def test_memory_is_bounded_and_nonsense_is_ignored() -> None:
    times = ToolTimes(most=10)
    for index in range(1000):
        times.observe(f"tool {index}", 1.0, index)
    for nonsense in (-1.0, math.nan, math.inf):
        times.observe("tool 999", nonsense)
    assert times.seen("tool 999") == 1
    assert times.seen("tool 0") == 0


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=30), st.floats(0, 1e9))
def test_a_price_is_never_negative_and_times_of_any_size_are_taken(
    seconds: list[float], age: float
) -> None:
    times = learned("any", seconds)
    price = times.price("any", age)
    assert price is not None
    assert price >= 0
    assert not math.isnan(price)
