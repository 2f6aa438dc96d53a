from __future__ import annotations

from contextlib import ExitStack
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longthought.budgets import Budget, Clocks, union_seconds
from longthought.budgets.clocks import (
    ENDING_S,
    MOST_EARLY,
    MOST_EARLY_S,
    STOPPING_S,
    ClockKind,
)
from longthought.errors import InvalidInput

pairs = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12)


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@given(pairs)
def test_union_is_what_counting_seconds_gives(intervals: list[tuple[int, int]]) -> None:
    covered = {second for start, end in intervals for second in range(start, end)}
    assert union_seconds(intervals) == len(covered)


@given(st.lists(st.tuples(st.sampled_from(["begin", "end", "wait"]), st.integers(0, 9))))
def test_a_clock_is_the_union_of_its_contexts(steps: list[tuple[str, int]]) -> None:
    time, intervals, open_since = Time(), [], []
    clocks = Clocks(time)
    for step, figure in steps:
        if step == "begin":
            clocks.begin("tool")
            open_since.append(time.now)
        elif step == "end" and open_since:
            clocks.finish("tool")
            intervals.append((open_since.pop(figure % len(open_since)), time.now))
        elif step == "wait":
            time.now += float(Fraction(figure, 4))
        live = [(start, time.now) for start in open_since]
        assert clocks.seconds("tool") == union_seconds(intervals + live)
    assert clocks.seconds("model") == 0


def test_two_waits_at_once_count_once() -> None:
    time = Time()
    clocks = Clocks(time)
    with clocks.running("approval"):
        time.now += 5
        with clocks.running("approval"), clocks.running("wall"):
            time.now += 5
    assert clocks.seconds("approval") == 10
    assert clocks.view() == {"approval": 10, "wall": 5}


def test_an_error_stops_the_clock() -> None:
    time = Time()
    clocks = Clocks(time)

    def work() -> None:
        with clocks.running("model"):
            time.now += 1
            raise KeyError

    with pytest.raises(KeyError):
        work()
    time.now += 7
    assert clocks.seconds("model") == 1


def test_attempts_are_restored_one_by_one() -> None:
    time = Time()
    clocks = Clocks(time)
    clocks.restore("model", [[0, 4], [2, 6]])
    clocks.restore("model", [[0, 1]])  # another process, another zero
    with clocks.running("model"):
        time.now += 2
        assert clocks.seconds("model") == 9


def test_a_clock_set_back_takes_nothing_away() -> None:
    time = Time()
    clocks = Clocks(time)
    with clocks.running("wall"):
        time.now -= 50
        assert clocks.seconds("wall") == 0
    assert clocks.seconds("wall") == 0
    assert union_seconds([(5, 1), (0, 2)]) == 2


def test_thinking_is_model_time_alone() -> None:
    time = Time()
    clocks = Clocks(time)
    budget = Budget(thinking=10, wall=100)
    with clocks.running("wall"), clocks.running("tool"):
        time.now += 50
        assert clocks.passed(budget) is None
        assert clocks.left(budget) == 10
        with clocks.running("model"):
            time.now += 10
        assert clocks.passed(budget) == "thinking"
        assert clocks.left(budget) == 0
        assert clocks.passed(Budget(wall=60)) == "wall"
    assert clocks.left(Budget(tokens=5)) is None


@pytest.mark.parametrize("kind", ["model", "tool", "verify"])
def test_much_under_way_is_stopped_so_much_sooner(kind: ClockKind) -> None:
    time, budget = Time(), Budget(wall=100)
    clocks, end = Clocks(time), time.now + 100
    with ExitStack() as stack:
        stack.enter_context(clocks.running("wall"))
        assert clocks.head_start(100) == ENDING_S
        assert clocks.look_in(budget) == pytest.approx(100 - MOST_EARLY_S), "more may be by then"
        for _ in range(48):
            stack.enter_context(clocks.running(kind))
        early = ENDING_S + 48 * STOPPING_S
        time.now = end - 2 * early
        assert (clocks.passed(budget), clocks.look_in(budget)) == (None, pytest.approx(early))
        time.now = end - 0.9 * early
        assert (clocks.passed(budget), clocks.look_in(budget)) == ("wall", 0)
        assert clocks.left(budget) == pytest.approx(0.9 * early), "the limit is where it was"
        assert clocks.view()["wall"] == pytest.approx(100 - 0.9 * early)


def test_a_head_start_is_never_long() -> None:
    clocks = Clocks(Time())
    with ExitStack() as stack:
        for _ in range(10_000):
            stack.enter_context(clocks.running("model"))
        assert clocks.head_start(3_600) == MOST_EARLY_S
        assert clocks.head_start(0.5) == MOST_EARLY * 0.5
    assert clocks.head_start(3_600) == ENDING_S
    assert clocks.head_start(0.05) == MOST_EARLY * 0.05


def test_an_unknown_clock_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no clock called 'lunch'"):
        Clocks(Time()).running("lunch")  # type: ignore[arg-type]
