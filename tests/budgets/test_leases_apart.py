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


def test_who_gives_a_permit_back_costs_nobody_a_lease_before_it_is_known_what_it_does() -> None:
    """Somebody waits for that permit, and is served before the tool is told."""
    scheduler = rows(slots=1, search=1, build=100)
    act(scheduler, "a", 500, "search")
    act(scheduler, "b", 500, "search")
    for branch in "cd":
        scheduler.enqueue(branch, resumed=False, now=0, branch=branch, context=400)
    assert scheduler.grant(0) == "c"
    scheduler.release("c", now=0, context=400)
    assert scheduler.grant(0) == "d"
    assert leased(scheduler, "abcd") == "abcd"
    scheduler.acting("c", 0, tool="build")
    assert leased(scheduler, "abcd") == "abd"
    scheduler.release("d", now=0, context=400)
    scheduler.end("d", 0)
    assert leased(scheduler, "abcd") == "ab"


def test_what_does_not_fit_at_all_costs_nobody_else_a_lease() -> None:
    scheduler = rows(search=1, build=100)
    for branch in "abcd":
        act(scheduler, branch, 200, "build")
    act(scheduler, "x", 1100, "search")
    assert leased(scheduler, "abcdx") == "abcd"


def test_what_was_told_to_go_first_is_not_missed_by_anybody() -> None:
    """Its return shows nothing of the size of the memory."""
    scheduler = rows(capacity=100_000, search=1, build=100)
    for number in range(46):
        act(scheduler, f"b{number}", 2100, "search")
    act(scheduler, "x", 8000, "build")
    assert not scheduler.leased("x")
    scheduler.returned("x", 100)
    scheduler.enqueue("x", resumed=True, now=100, branch="x", context=8010)
    assert scheduler.grant(100) == "x"
    scheduler.release("x", now=101, context=8100, cached=0)
    assert (scheduler.capacity, scheduler.leases) == (100_000, 47)


def test_two_calls_of_one_branch_are_charged_when_both_have_ended() -> None:
    scheduler = rows()
    for ticket in ("one", "two"):
        scheduler.enqueue(ticket, resumed=False, now=0, branch="a", context=300)
        assert scheduler.grant(0) == ticket
    scheduler.release("one", now=1, context=350)
    assert scheduler.charged == 0
    scheduler.release("two", now=2, context=320)
    assert scheduler.charged == 320
    scheduler.end("a", 3)
    assert (scheduler.leases, scheduler.charged) == (0, 0)


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
