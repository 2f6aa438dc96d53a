from __future__ import annotations

import math

import pytest

from longthought.budgets.leases import LeaseScheduler
from longthought.budgets.tool_times import ToolTimes
from longthought.errors import InvalidInput


def memory(
    capacity: int | None = 10_000, slots: int = 4, times: ToolTimes | None = None, **more: float
) -> LeaseScheduler[str]:
    """A scheduler in which all of the memory may be leased and tau is 10 s for 10,000 tokens.

    It has seen small branches end, so contexts are not charged for growing.
    """
    scheduler = LeaseScheduler[str](
        slots, capacity=capacity, prefill_rate=1000.0, fill=1.0, tool_times=times, **more
    )
    for index in range(100):
        generate(scheduler, f"old {index}", 10)
        scheduler.end(f"old {index}", 0)
    scheduler.take_events()
    return scheduler


def ask(
    scheduler: LeaseScheduler[str], branch: str, context: int, now: float = 0.0, **more: object
) -> None:
    known = branch == "back" or bool(more.pop("resumed", False))
    scheduler.enqueue(branch, resumed=known, now=now, branch=branch, context=context, **more)  # type: ignore[arg-type]


def generate(scheduler: LeaseScheduler[str], branch: str, context: int, now: float = 0.0) -> None:
    """One call from beginning to end."""
    ask(scheduler, branch, context, now, resumed=scheduler.leased(branch))
    assert scheduler.grant(now) == branch
    scheduler.release(branch, now=now, context=context)


def kinds(scheduler: LeaseScheduler[str]) -> list[tuple[str, object]]:
    return [(event.kind, event.branch) for event in scheduler.take_events()]


# -- leases ----------------------------------------------------------------------------------------


def test_a_lease_is_taken_with_the_first_permit_and_outlives_it() -> None:
    scheduler = memory()
    generate(scheduler, "a", 4000)
    assert (scheduler.in_use, scheduler.leases) == (0, 1)
    assert scheduler.charged >= 4256
    scheduler.end("a", 1.0)
    assert (scheduler.leases, scheduler.charged) == (0, 0)
    assert kinds(scheduler) == [("taken", "a"), ("ended", "a")]


def test_who_does_not_fit_waits_although_a_permit_is_free() -> None:
    scheduler = memory()
    for branch in ("a", "b"):
        ask(scheduler, branch, 6000)
    assert [scheduler.grant(0), scheduler.grant(0)] == ["a", None]
    scheduler.release("a", now=1, context=6000)
    scheduler.end("a", 1)
    assert scheduler.grant(1) == "b"


def test_a_lease_is_kept_over_a_short_wait_and_lost_over_a_long_one() -> None:
    scheduler = memory(slots=3)
    generate(scheduler, "a", 5000)
    ask(scheduler, "busy", 4000)
    assert scheduler.grant(0) == "busy"
    scheduler.acting("a", 0, tool="search")
    ask(scheduler, "b", 3000, 0)
    assert scheduler.grant(9) is None
    assert scheduler.next_look(9) is not None
    assert scheduler.grant(11) == "b"
    assert ("parked", "a") in kinds(scheduler)


def test_a_parked_branch_takes_its_lease_again() -> None:
    scheduler = memory()
    generate(scheduler, "a", 5000)
    scheduler.park("a", 1)
    assert not scheduler.leased("a")
    ask(scheduler, "a", 5100, 2, resumed=True)
    assert scheduler.grant(2) == "a"
    assert kinds(scheduler) == [("taken", "a"), ("parked", "a"), ("resumed", "a")]


def test_a_wait_that_is_known_to_be_long_gives_the_room_at_once() -> None:
    times = ToolTimes()
    for _ in range(20):
        times.observe("tests", 300.0)
        times.observe("read", 0.1)
    for tool, now, granted in (("tests", 0.5, "b"), ("read", 0.05, None)):
        scheduler = memory(times=times)
        generate(scheduler, "a", 5000)
        ask(scheduler, "busy", 4000)
        assert scheduler.grant(0) == "busy"
        scheduler.acting("a", 0, tool=tool)
        ask(scheduler, "b", 3000, 0)
        assert scheduler.grant(now) == granted


@pytest.mark.parametrize("cached", [True, False])
def test_what_the_cache_still_has_goes_first_and_may_have_all_of_the_memory(cached: bool) -> None:
    scheduler = memory(slots=12)
    scheduler.fill = 0.6
    if cached:
        generate(scheduler, "warm", 3000)
        scheduler.park("warm", 0)
    ask(scheduler, "busy", 5000)
    assert scheduler.grant(0) == "busy"
    for index in range(9):  # more than are looked at of each queue
        ask(scheduler, f"cold {index}", 3000, 1, resumed=True)
    ask(scheduler, "warm", 3000, 2, resumed=True)
    assert scheduler.charged + 3256 > scheduler.budget
    assert scheduler.grant(3) == ("warm" if cached else None)
    assert scheduler.charged <= 10_000


def test_the_cache_gives_no_right_to_more_than_all_of_the_memory() -> None:
    scheduler = memory()
    generate(scheduler, "warm", 3000)
    scheduler.park("warm", 0)
    ask(scheduler, "busy", 6800)
    assert scheduler.grant(0) == "busy"
    ask(scheduler, "warm", 3000, 1, resumed=True)
    assert scheduler.charged + 3256 > 10_000
    assert scheduler.grant(1) is None


def test_an_engine_that_does_nothing_takes_room_from_who_waits() -> None:
    scheduler = memory()
    generate(scheduler, "a", 6000)
    scheduler.acting("a", 0, tool="search")
    ask(scheduler, "b", 6000, 0)
    assert scheduler.grant(0.1) == "b"


def test_a_context_larger_than_the_memory_runs_alone() -> None:
    scheduler = memory()
    ask(scheduler, "huge", 50_000)
    assert scheduler.grant(0) == "huge"
    ask(scheduler, "b", 100)
    assert scheduler.grant(0) is None


def test_the_oldest_is_shed_when_contexts_outgrow_the_memory() -> None:
    scheduler = memory(slots=3)
    for now, branch in enumerate(("a", "b")):
        generate(scheduler, branch, 2000, now)
        scheduler.acting(branch, now, tool="search")
    ask(scheduler, "c", 3000, 2)
    assert scheduler.grant(2) == "c"
    scheduler.release("c", now=3, context=7000)
    ask(scheduler, "c", 7000, 3, resumed=True)
    assert scheduler.grant(3) == "c"
    assert ("shed", "a") in kinds(scheduler)
    assert scheduler.leased("b")


def test_contexts_are_charged_what_they_grow_to() -> None:
    scheduler = memory(100_000)
    for index in range(400):
        generate(scheduler, f"{index}", 8000)
        scheduler.end(f"{index}", 0)
    generate(scheduler, "young", 100)
    assert scheduler.charged > 7000


def test_a_shared_start_is_charged_once() -> None:
    scheduler = memory(slots=8)
    for branch in ("a", "b", "c"):
        ask(scheduler, branch, 5000, prefix="question", prefix_tokens=4000)
    assert [scheduler.grant(0) for _ in range(3)] == ["a", "b", "c"]
    assert 7000 <= scheduler.charged <= 10_000
    for branch in ("a", "b", "c"):
        scheduler.release(branch, now=1, context=5000)
        scheduler.end(branch, 1)
    assert scheduler.charged == 0


# -- order -----------------------------------------------------------------------------------------


def test_with_a_lease_before_without_before_new() -> None:
    scheduler = memory(100_000, slots=1)
    generate(scheduler, "leased", 1000)
    ask(scheduler, "new", 1000)
    ask(scheduler, "back", 1000)
    ask(scheduler, "leased", 1000, resumed=True)
    served = []
    for _ in range(3):
        ticket = scheduler.grant(1)
        assert ticket is not None
        served.append(ticket)
        scheduler.release(ticket, now=1)
    assert served == ["leased", "back", "new"]


def test_what_is_due_goes_first_and_what_is_overdue_does_not() -> None:
    scheduler = memory(None, slots=1, urgent=30.0)
    scheduler.enqueue("first", resumed=True, now=0)
    scheduler.enqueue("late", resumed=False, now=0, deadline=5.0)
    scheduler.enqueue("due", resumed=False, now=0, deadline=120.0)
    scheduler.enqueue("sooner", resumed=False, now=0, deadline=110.0)
    served = []
    for _ in range(4):
        ticket = scheduler.grant(100)
        assert ticket is not None
        served.append(ticket)
        scheduler.release(ticket)
    assert served == ["sooner", "due", "first", "late"]


def test_who_waited_too_long_gets_the_next_memory() -> None:
    scheduler = memory(max_wait=100.0, slots=8)
    generate(scheduler, "a", 3000)
    scheduler.acting("a", 0, tool="search")
    ask(scheduler, "busy", 3000)
    assert scheduler.grant(0) == "busy"
    ask(scheduler, "large", 9500, 0)
    ask(scheduler, "small", 1000, 50)
    assert scheduler.grant(50) == "small"
    ask(scheduler, "other", 100, 90)
    assert scheduler.grant(120) is None, "memory is kept for who waits too long"
    for ticket in ("busy", "small"):
        scheduler.release(ticket, now=120)
        scheduler.end(ticket, 120)
    assert scheduler.grant(121) == "large"


def test_a_run_of_many_branches_does_not_starve_one_of_few() -> None:
    scheduler = memory(None, slots=4)
    for index in range(1000):
        scheduler.enqueue(f"many {index}", resumed=True, now=0, run="many")
    scheduler.enqueue("few 0", resumed=False, now=1, run="few")
    scheduler.enqueue("few 1", resumed=False, now=1, run="few")
    served = []
    for _ in range(60):
        ticket = scheduler.grant(1)
        assert ticket is not None
        served.append(ticket)
        scheduler.release(ticket)
    assert {"few 0", "few 1"} <= set(served)


def test_a_tenant_of_double_weight_gets_double() -> None:
    scheduler = memory(None, slots=1)
    scheduler.share(tenant="b", weight=2.0)
    for index in range(2000):
        scheduler.enqueue(f"a {index}", resumed=False, now=0, tenant="a")
        scheduler.enqueue(f"b {index}", resumed=False, now=0, tenant="b")
    served = {"a": 0, "b": 0}
    for _ in range(1500):
        ticket = scheduler.grant(0)
        assert ticket is not None
        served[ticket[0]] += 1
        scheduler.release(ticket)
    assert served["b"] == pytest.approx(2 * served["a"], rel=0.1)


# -- what is learned -------------------------------------------------------------------------------


def test_without_capacity_there_are_permits_only() -> None:
    scheduler = memory(None, slots=2)
    for branch in "abc":
        ask(scheduler, branch, 10**6)
    assert [scheduler.grant(0) for _ in range(3)] == ["a", "b", None]
    assert (scheduler.leases, scheduler.tau) == (0, math.inf)
    assert scheduler.next_look(0) is None


def test_a_cache_that_forgets_tells_its_size() -> None:
    scheduler = memory(None, slots=8)
    for branch in "abcd":
        generate(scheduler, branch, 10_000)
    ask(scheduler, "a", 10_500, 1, resumed=True)
    assert scheduler.grant(1) == "a"
    scheduler.release("a", now=2, context=10_600, cached=0)
    first = scheduler.capacity
    assert first is not None
    assert 20_000 <= first < 40_600
    ask(scheduler, "a", 10_700, 3, resumed=True)
    assert scheduler.grant(3) == "a"
    scheduler.release("a", now=4, context=10_800, cached=10_600)
    assert scheduler.capacity is not None
    assert scheduler.capacity > first


def test_a_given_capacity_is_corrected_once_for_what_was_dispatched_together() -> None:
    scheduler = memory(100_000, slots=8)
    for branch in "abc":
        generate(scheduler, branch, 10_000)
    for branch in "abc":
        ask(scheduler, branch, 10_500, 1, resumed=True)
    for _ in "abc":
        assert scheduler.grant(1)
    for branch in "abc":
        scheduler.release(branch, now=2, context=10_500, cached=0)
    assert scheduler.capacity == 75_000
    for now in range(3, 200):
        ask(scheduler, "a", 10_500, now, resumed=True)
        assert scheduler.grant(now) == "a"
        scheduler.release("a", now=now, context=10_500, cached=10_500)
    assert scheduler.capacity == 100_000


def test_the_prefill_rate_follows_the_fast_answers() -> None:
    scheduler = memory()
    for _ in range(200):
        scheduler.first_token(8000, 1.0)
        scheduler.first_token(8000, 4.0)  # waited inside the engine
        scheduler.first_token(10, 0.001)  # says nothing
    assert 5000 < scheduler.prefill_rate <= 8000
    assert scheduler.tau == pytest.approx(10_000 / scheduler.prefill_rate)


@pytest.mark.parametrize("end_first", [True, False])
def test_nothing_is_left_of_a_branch_that_ends_in_a_queue_or_with_a_permit(end_first: bool) -> None:
    scheduler = memory(slots=1)
    for branch in "ab":
        ask(scheduler, branch, 1000)
    assert scheduler.grant(0) == "a"
    for branch in "ab":
        if end_first:
            scheduler.end(branch, 1)
        if branch == "a":
            scheduler.release("a", now=1)
        else:
            assert scheduler.withdraw("b")
        scheduler.end(branch, 1)
    assert (scheduler.in_use, scheduler.waiting, scheduler.leases, scheduler.charged) == (
        0,
        0,
        0,
        0,
    )


def test_misuse_is_refused() -> None:
    scheduler = memory()
    ask(scheduler, "a", 10)
    with pytest.raises(ValueError, match="already"):
        ask(scheduler, "a", 10)
    with pytest.raises(KeyError):
        scheduler.release("b")
    with pytest.raises(InvalidInput, match="context"):
        ask(scheduler, "b", -1)
    for field, value in (("capacity", 0), ("capacity", 1.5), ("capacity", -1), ("fill", 0.0)):
        with pytest.raises(InvalidInput, match=field):
            LeaseScheduler(1, **{field: value})  # type: ignore[arg-type]
    for field in ("prefill_rate", "max_wait"):
        with pytest.raises(InvalidInput, match=field):
            LeaseScheduler(1, **{field: math.nan})  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="weight"):
        scheduler.share(run="r", weight=0)


def test_of_one_deadline_resumed_work_still_goes_first() -> None:
    """All calls of a run have the deadline of the run."""
    scheduler = memory(None, slots=1, urgent=30.0)
    for name, resumed in (("new", False), ("old", True), ("newer", False), ("older", True)):
        scheduler.enqueue(name, resumed=resumed, now=0, deadline=10.0)
    order = []
    for _ in range(4):
        granted = scheduler.grant(1.0)
        assert granted is not None
        order.append(granted)
        scheduler.release(granted, now=1.0)
    assert order == ["old", "older", "new", "newer"]


def test_tools_side_by_side_are_learned_together() -> None:
    times = ToolTimes()
    scheduler = memory(10_000, times=times)
    scheduler.acting("a", 0.0, tool="read", shape=3)
    scheduler.acting("a", 0.0, tool="read+search", shape="2 at once")
    scheduler.returned("a", 8.0)
    assert times.seen("read") == 0
    assert times.seen("read+search", "2 at once") == 1
    seconds = times.quantile("read+search", 0.5)
    assert seconds is not None
    assert 5 < seconds < 12


def test_a_memory_that_may_be_charged_in_full_sheds_nothing_before_it_is_full() -> None:
    scheduler = memory()
    generate(scheduler, "a", 5000)
    generate(scheduler, "b", 4100)
    ask(scheduler, "c", 50)
    assert scheduler.grant(1) == "c"
    assert kinds(scheduler) == [("taken", "a"), ("taken", "b"), ("taken", "c")]


def test_a_call_that_began_before_the_memory_was_lost_does_not_end_the_lease_after_it() -> None:
    """Two calls of one branch: the second has a lease of its own, and generates still."""
    scheduler = memory()
    for ticket in ("first", "second"):
        scheduler.enqueue(ticket, resumed=False, now=0, branch="a", context=100)
        assert scheduler.grant(0) == ticket
        if ticket == "first":
            scheduler.forget(1)
    scheduler.release("first", now=2)
    scheduler.park("a", 3)
    assert scheduler.leased("a")
    scheduler.release("second", now=4)
    scheduler.park("a", 5)
    assert not scheduler.leased("a")
