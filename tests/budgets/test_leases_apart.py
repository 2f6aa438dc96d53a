"""Leases where contexts that generate lie apart: the memory is for those that wait, each whole."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from longthought.budgets.leases import LeaseScheduler
from longthought.budgets.tool_times import ToolTimes


def rows(capacity: int = 1000, slots: int = 4, **times: float) -> LeaseScheduler[str]:
    """Of tools it is known how many seconds each took."""
    known = ToolTimes()
    for tool, seconds in times.items():
        for _ in range(20):
            known.observe(tool, seconds)
    return LeaseScheduler[str](slots, capacity=capacity, fill=1.0, apart=True, tool_times=known)


def begin(scheduler: LeaseScheduler[str], branch: str, context: int, now: float = 0.0) -> None:
    resumed = scheduler.leased(branch)
    scheduler.enqueue(branch, resumed=resumed, now=now, branch=branch, context=context)
    assert scheduler.grant(now) == branch


def act(
    scheduler: LeaseScheduler[str], branch: str, context: int, tool: str, now: float = 0.0
) -> None:
    """One call from beginning to end, then a tool."""
    begin(scheduler, branch, context, now)
    scheduler.release(branch, now=now, context=context)
    scheduler.acting(branch, now, tool=tool)


def leased(scheduler: LeaseScheduler[str], branches: str) -> str:
    return "".join(branch for branch in branches if scheduler.leased(branch))


def test_who_generates_is_charged_nothing_and_who_waits_what_it_has() -> None:
    scheduler = rows(capacity=100)
    for branch in "abcd":
        begin(scheduler, branch, 400)  # four times all there is
    assert (scheduler.leases, scheduler.charged) == (4, 0)
    scheduler.release("a", now=1, context=90)
    assert scheduler.charged == 90
    scheduler.end("a", 2)
    assert scheduler.charged == 0


def test_room_is_made_when_a_branch_begins_to_wait_by_whoever_is_back_last() -> None:
    scheduler = rows(search=1, tests=10, build=100)
    act(scheduler, "a", 400, "build")
    act(scheduler, "b", 400, "search")
    begin(scheduler, "c", 400)
    assert leased(scheduler, "abc") == "abc"
    scheduler.release("c", now=0, context=400)
    scheduler.acting("c", 0, tool="tests")
    assert leased(scheduler, "abc") == "bc"
    assert [(one.kind, one.branch) for one in scheduler.take_events()][-1] == ("parked", "a")


def test_who_has_just_begun_to_wait_may_be_the_one_that_is_back_last() -> None:
    scheduler = rows(search=1, build=100)
    act(scheduler, "a", 500, "search")
    act(scheduler, "b", 500, "search")
    act(scheduler, "c", 100, "build")
    assert leased(scheduler, "abc") == "ab"


def test_who_waits_for_a_permit_keeps_its_context() -> None:
    scheduler = rows(slots=1, search=1, build=100)
    act(scheduler, "a", 600, "build")
    begin(scheduler, "b", 600)
    scheduler.returned("a", 1.0)
    scheduler.enqueue("a", resumed=True, now=1.0, branch="a", context=600)
    scheduler.release("b", now=1.0, context=600)
    scheduler.acting("b", 1.0, tool="search")
    assert leased(scheduler, "ab") == "a"


def test_nobody_is_looked_at_again_only_because_time_goes_by() -> None:
    scheduler = rows(slots=1)
    begin(scheduler, "a", 2000)
    scheduler.enqueue("b", resumed=False, now=0, branch="b", context=2000)
    scheduler.release("a", now=0, context=2000)
    assert scheduler.next_look(0) is None
    assert scheduler.fits("b", 2000)
    assert scheduler.grant(0) == "b"


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from("abcdef"),
            st.integers(0, 700),
            st.sampled_from(["search", "build", ""]),
        ),
        max_size=60,
    )
)
def test_no_more_is_kept_of_those_that_wait_than_there_is_room_for(
    steps: list[tuple[str, int, str]],
) -> None:
    scheduler = rows(search=1, build=100)
    for now, (branch, context, tool) in enumerate(steps):
        if not tool:
            scheduler.end(branch, now)
            continue
        scheduler.returned(branch, now)
        act(scheduler, branch, context, tool, now)
        assert scheduler.charged <= 1000
    for branch in "abcdef":
        scheduler.end(branch, len(steps))
    assert (scheduler.leases, scheduler.charged, scheduler.in_use) == (0, 0, 0)
