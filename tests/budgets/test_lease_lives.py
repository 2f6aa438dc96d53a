"""Random lives of branches under the lease scheduler: every call, cancelled in every state."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longthought.budgets.lease_book import LeaseEvent
from longthought.budgets.leases import LeaseScheduler
from longthought.budgets.tool_times import ToolTimes

TOOLS = ("read", "search", "tests")


class Lives:
    """Branches that do whatever is allowed next, at random; checks what must hold at every step."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.now, self.apart = 0.0, rng.random() < 0.3
        self.scheduler = LeaseScheduler[str](
            rng.randint(1, 6),
            capacity=rng.choice((None, 5_000, 40_000, 200_000)),
            tool_times=rng.choice((None, ToolTimes())),
            max_passes=rng.randint(1, 8),
            max_wait=rng.choice((50.0, 1800.0)),
            apart=self.apart,
        )
        self.state: dict[str, str] = {}
        self.contexts: dict[str, int] = {}
        self.born = 0
        self.log: list[str] = []
        self.events: list[LeaseEvent] = []

    def check(self) -> None:
        scheduler = self.scheduler
        held = sum(state == "generating" for state in self.state.values())
        assert scheduler.in_use == held
        assert scheduler.waiting == sum(state == "queued" for state in self.state.values())
        assert scheduler.leases <= len(self.state)
        assert scheduler.charged >= 0

    def pump(self) -> None:
        """Grant all that can be granted."""
        scheduler = self.scheduler
        while True:
            known = {branch for branch in self.state if scheduler.leased(branch)}
            granted = scheduler.grant(self.now)
            if granted is None:
                break
            assert scheduler.in_use <= scheduler.slots
            self.log.append(granted)
            self.state[granted] = "generating"
            if not self.apart and scheduler.leased(granted) and granted not in known:
                # All of the memory, for the cache may still have it.
                most = scheduler.capacity or math.inf
                assert scheduler.charged <= most or scheduler.leases == 1
        idle = "generating" not in self.state.values()
        assert not (idle and scheduler.waiting), "a permit is free and the engine does nothing"

    def ask(self, branch: str) -> None:
        new = self.rng.choice((5, 200, 3000))
        shared = int(branch.split()[1].rstrip("x")) % 3 == 0
        self.scheduler.enqueue(
            branch,
            resumed=branch in self.contexts,
            now=self.now,
            branch=branch,
            context=self.contexts.get(branch, 0) + new,
            prefix="question" if shared else None,
            prefix_tokens=1000 if shared else 0,
            run=f"run {len(branch) % 3}",
            tenant=f"tenant {len(branch) % 2}",
            deadline=self.now + 100 if self.rng.random() < 0.2 else None,
        )
        self.contexts[branch] = self.contexts.get(branch, 0) + new
        self.state[branch] = "queued"

    def step(self) -> None:
        rng, scheduler = self.rng, self.scheduler
        self.now += rng.choice((0.0, 0.01, 1.0, 30.0))
        if len(self.state) < 12 and rng.random() < 0.3:
            self.born += 1
            branch = f"branch {self.born}" + "x" * rng.randint(0, 3)
            if rng.random() < 0.8:
                self.ask(branch)
            else:
                self.state[branch] = "ready"
        for branch in rng.sample(sorted(self.state), min(len(self.state), 2)):
            self.move(branch, self.state[branch])
        chance = rng.random()
        if chance < 0.05:
            scheduler.slots = rng.randint(1, 6)
        elif chance < 0.08 and scheduler.capacity is not None:
            scheduler.capacity = rng.choice((5_000, 40_000, 200_000))

    def move(self, branch: str, state: str) -> None:
        rng, scheduler = self.rng, self.scheduler
        if rng.random() < 0.1:
            self.end(branch, state)
        elif state == "queued":
            if rng.random() < 0.2:
                assert scheduler.withdraw(branch)
                self.state[branch] = "ready"
        elif state == "generating":
            self.contexts[branch] += rng.choice((0, 100, 2000))
            cached = rng.choice((None, 0, self.contexts[branch]))
            scheduler.first_token(rng.choice((10, 3000)), rng.choice((0.1, 2.0)))
            scheduler.release(branch, now=self.now, context=self.contexts[branch], cached=cached)
            self.state[branch] = "ready"
        elif state == "acting":
            scheduler.returned(branch, self.now, completed=rng.random() < 0.8)
            self.state[branch] = "ready"
        else:
            choice = rng.random()
            if choice < 0.5:
                self.ask(branch)
            elif choice < 0.9:
                scheduler.acting(
                    branch, self.now, tool=rng.choice(TOOLS), shape=rng.choice((None, 1))
                )
                self.state[branch] = "acting"
            else:
                scheduler.park(branch, self.now)

    def end(self, branch: str, state: str) -> None:
        """Cancelled, in whatever state; the permit goes back before or after."""
        scheduler = self.scheduler
        first = self.rng.random() < 0.5
        if first:
            scheduler.end(branch, self.now)
        if state == "queued":
            assert scheduler.withdraw(branch)
        elif state == "generating":
            scheduler.release(branch, now=self.now)
        if not first:
            scheduler.end(branch, self.now)
        del self.state[branch]
        assert not scheduler.leased(branch)

    def live(self, steps: int) -> None:
        for _ in range(steps):
            self.step()
            self.check()
            self.pump()
            self.check()
        self.events += self.scheduler.take_events()
        for branch, state in list(self.state.items()):
            self.end(branch, state)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_whatever_happens_limits_hold_and_nothing_is_left(seed: int) -> None:
    lives = Lives(seed)
    lives.live(120)
    scheduler = lives.scheduler
    assert (scheduler.in_use, scheduler.waiting, scheduler.leases, scheduler.charged) == (
        0,
        0,
        0,
        0,
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_the_same_inputs_give_the_same_decisions(seed: int) -> None:
    one, other = Lives(seed), Lives(seed)
    one.live(80)
    other.live(80)
    assert one.log == other.log
    assert one.events == other.events


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 4), st.sampled_from((None, 20_000, 60_000)))
def test_nobody_waits_for_ever(seed: int, slots: int, capacity: int | None) -> None:
    """Among branches that never stop coming back, everyone who waits too long is served soon."""
    rng = random.Random(seed)
    scheduler = LeaseScheduler[str](slots, capacity=capacity, max_wait=100.0, max_passes=1000)
    since: dict[str, float] = {}
    held: list[str] = []

    def enqueue(branch: str, resumed: bool, now: float) -> None:
        since[branch] = now
        context = rng.randint(10, 9000)
        scheduler.enqueue(branch, resumed=resumed, now=now, branch=branch, context=context)

    for index in range(30):
        enqueue(f"new {index}", False, 0.0)
    for step in range(1500):
        now = float(step)
        if held and (len(held) == slots or rng.random() < 0.5):
            branch = held.pop(rng.randrange(len(held)))
            scheduler.release(branch, now=now)
            enqueue(branch, True, now)
        while (granted := scheduler.grant(now)) is not None:
            held.append(granted)
            del since[granted]
        assert all(now - begun < 100 + 30 * 12 for begun in since.values())


@pytest.mark.parametrize(
    ("capacity", "deadline"), [(None, None), (30_000, None), (None, 20.0), (None, 2000.0)]
)
@pytest.mark.parametrize("runs", [1, 1000])
def test_a_thousand_branches_cost_little_per_decision(
    capacity: int | None, deadline: float | None, runs: int
) -> None:
    """Counted in calls: a decision must not look at everyone who waits."""
    looked = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal looked
        looked += event == "call"

    scheduler = LeaseScheduler[str](8, capacity=capacity)
    for index in range(1000):
        scheduler.enqueue(
            f"{index}",
            resumed=False,
            now=0,
            branch=index,
            context=3000,
            run=index % runs,
            deadline=deadline,
        )
    profile: Callable[..., object] | None = sys.getprofile()
    sys.setprofile(count)
    try:
        for _ in range(8):
            scheduler.grant(0)
    finally:
        sys.setprofile(profile)  # type: ignore[arg-type]
    assert looked < 8 * 120
