from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longthought.budgets import SlotScheduler
from longthought.errors import InvalidInput


def drain(scheduler: SlotScheduler[str], now: float = 0.0) -> list[str]:
    """Everyone in the order in which one slot serves them."""
    order = []
    while (ticket := scheduler.grant(now)) is not None:
        order.append(ticket)
        scheduler.release(ticket)
    return order


def test_resumed_before_new_and_first_come_first_served() -> None:
    scheduler = SlotScheduler[str](1)
    for ticket in ("new 1", "resumed 1", "new 2", "resumed 2"):
        scheduler.enqueue(ticket, resumed=ticket.startswith("resumed"), now=0)
    assert scheduler.waiting == 4
    assert drain(scheduler) == ["resumed 1", "resumed 2", "new 1", "new 2"]


def test_no_more_grants_than_slots_and_slots_may_change() -> None:
    scheduler = SlotScheduler[str](2)
    for ticket in "abcd":
        scheduler.enqueue(ticket, resumed=False, now=0)
    assert [scheduler.grant(0), scheduler.grant(0), scheduler.grant(0)] == ["a", "b", None]
    scheduler.slots = 3
    assert [scheduler.grant(0), scheduler.grant(0)] == ["c", None]
    scheduler.slots = 1
    scheduler.release("a")
    scheduler.release("b")
    assert scheduler.grant(0) is None
    scheduler.release("c")
    assert (scheduler.grant(0), scheduler.in_use) == ("d", 1)


def test_a_withdrawn_ticket_is_never_granted() -> None:
    scheduler = SlotScheduler[str](1)
    scheduler.enqueue("a", resumed=False, now=0)
    assert scheduler.withdraw("a")
    assert not scheduler.withdraw("a")
    assert scheduler.grant(0) is None


def test_new_work_passes_after_so_many_resumed() -> None:
    scheduler = SlotScheduler[str](1, max_passes=3)
    scheduler.enqueue("new", resumed=False, now=0)
    served = []
    for turn in range(5):
        scheduler.enqueue(f"resumed {turn}", resumed=True, now=0)
        ticket = scheduler.grant(0)
        assert ticket is not None
        served.append(ticket)
        scheduler.release(ticket)
    assert served.index("new") == 3


def test_who_waited_too_long_goes_first_oldest_first() -> None:
    scheduler = SlotScheduler[str](1, max_wait=10)
    scheduler.enqueue("new", resumed=False, now=0)
    scheduler.enqueue("resumed", resumed=True, now=1)
    assert scheduler.grant(11) == "new"
    scheduler.release("new")
    scheduler.enqueue("late", resumed=False, now=2)
    assert drain(scheduler, 50) == ["resumed", "late"]


@given(st.integers(0, 10**9), st.integers(1, 6), st.integers(1, 8))
def test_nobody_starves_under_a_stream_of_resumed_work(seed: int, slots: int, passes: int) -> None:
    """Every new ticket is served within (passes + 1) grants for each new one before it."""
    rng = random.Random(seed)
    scheduler = SlotScheduler[tuple[str, int]](slots, max_passes=passes)
    held: list[tuple[str, int]] = []
    ahead: dict[tuple[str, int], int] = {}
    for step in range(200):
        scheduler.enqueue(("resumed", step), resumed=True, now=step)
        if rng.random() < 0.1:
            ahead[("new", step)] = (len(ahead) + 1) * (passes + 1)
            scheduler.enqueue(("new", step), resumed=False, now=step)
        if held and rng.random() < 0.7:
            scheduler.release(held.pop(rng.randrange(len(held))))
        while (ticket := scheduler.grant(step)) is not None:
            held.append(ticket)
            ahead.pop(ticket, None)
            for waiting in ahead:
                ahead[waiting] -= 1
                assert ahead[waiting] >= 0
        assert scheduler.in_use == len(held) <= slots


def test_misuse_is_refused() -> None:
    scheduler = SlotScheduler[str](1)
    scheduler.enqueue("a", resumed=False, now=0)
    with pytest.raises(ValueError, match="already"):
        scheduler.enqueue("a", resumed=True, now=0)
    with pytest.raises(KeyError):
        scheduler.release("a")
    for slots in (0, -1, True, 1.5):
        with pytest.raises(InvalidInput, match="slots"):
            SlotScheduler(slots)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="max_passes"):
        SlotScheduler(1, max_passes=0)
    with pytest.raises(InvalidInput, match="max_wait"):
        SlotScheduler(1, max_wait=float("nan"))
