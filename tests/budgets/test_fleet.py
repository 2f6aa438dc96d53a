"""Several endpoints under one queue: where tickets go, and lives of endpoints that come and go."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longthought.budgets import Controller
from longthought.budgets.fleet import Fleet
from longthought.budgets.leases import LeaseScheduler
from longthought.budgets.members import Member
from longthought.errors import InvalidInput
from tests.budgets import test_lease_lives


def fleet(*slots: int, capacity: int | None = 20_000, **more: Any) -> Fleet[str]:
    return Fleet[str](members(*slots, capacity=capacity), **more)


def members(
    *slots: int, capacity: int | None = 20_000, lives: tuple[int, ...] = ()
) -> list[Member]:
    """Endpoints a, b, ... with so many slots; 0 is out."""
    return [
        Member("abcdef"[place], count, capacity, lives[place] if lives else 0)
        for place, count in enumerate(slots)
    ]


def ask(one: Fleet[str], branch: str, context: int = 3000, now: float = 0.0, **more: Any) -> None:
    options = {"resumed": False, **more}
    one.enqueue(branch, now=now, branch=branch, context=context, **options)


def granted(one: Fleet[str], now: float = 0.0) -> dict[str, str]:
    """All that is granted now, with its endpoint."""
    found = {}
    while (ticket := one.grant(now)) is not None:
        found[ticket] = one.at(ticket)
    return found


def served(one: Fleet[str], branch: str, context: int = 3000, now: float = 0.0) -> str:
    ask(one, branch, context, now, resumed=True)
    [(ticket, place)] = granted(one, now).items()
    one.release(ticket, now=now, context=context)
    return place


# -- where tickets go ---------------------------------------------------------------------------


def test_new_tickets_go_where_most_room_is() -> None:
    one = fleet(1, 3)
    for branch in "wxyz":
        ask(one, branch)
    assert granted(one) == {"w": "a", "x": "b", "y": "b", "z": "b"}
    assert (one.in_use, one.waiting, one.slots, one.full) == (4, 0, 4, True)


def test_memory_counts_as_room() -> None:
    one = fleet(4, 4)
    served(one, "x", 9000)
    assert served(one, "y", 9000) == "b"


def test_what_is_too_large_for_one_goes_to_another() -> None:
    one = Fleet[str]([Member("a", 1, 5_000), Member("b", 1, 50_000)])
    served(one, "x", 40_000)
    assert served(one, "y", 6_000) == "b"


def test_a_branch_goes_back_to_its_lease_and_waits_for_it() -> None:
    one = fleet(1, 1, prefill_rate=1000.0)
    assert (served(one, "x"), served(one, "y")) == ("a", "b")
    ask(one, "y2")  # takes b: a and b have as much room
    ask(one, "x", resumed=True)
    assert granted(one) == {"x": "a", "y2": "b"}
    ask(one, "y", 3000, now=1.0, resumed=True)
    one.release("x", now=1.0)
    assert granted(one, 1.0) == {}  # b comes free soon, and computing 3,000 tokens takes 3 s
    look = one.next_look(1.0)
    assert look is not None
    assert look <= 4.0
    one.release("y2", now=2.0)
    assert granted(one, 2.0) == {"y": "b"}


def test_it_waits_no_longer_than_computing_anew_takes() -> None:
    one = fleet(1, 1, prefill_rate=1000.0)
    assert (served(one, "x"), served(one, "y")) == ("a", "b")
    ask(one, "z")
    ask(one, "x", resumed=True)
    assert granted(one) == {"x": "a", "z": "b"}
    one.release("x", now=0.0)
    ask(one, "y", 3000, now=0.0, resumed=True)
    assert granted(one, 2.9) == {}
    one.take_events()
    assert granted(one, 3.1) == {"y": "a"}
    told = [(place, event.kind, event.branch) for place, event in one.take_events()]
    assert sorted(told) == sorted([("b", "parked", "y"), ("a", "resumed", "y")])


def test_who_waits_for_one_endpoint_keeps_nobody_from_another() -> None:
    one = fleet(1, 1, capacity=None)
    branches = [f"x{number}" for number in range(20)]
    ask(one, "first")
    ask(one, "second")
    assert granted(one) == {"first": "a", "second": "b"}
    for branch in branches:
        ask(one, branch, only=["a"])
    ask(one, "last")
    one.release("second", now=0.0)
    assert granted(one) == {"last": "b"}


def test_siblings_go_where_their_beginning_is_until_that_is_much_fuller() -> None:
    one = fleet(4, 4, capacity=100_000)
    for number in range(5):
        ask(one, f"x{number}", 3000, prefix="start", prefix_tokens=2900)
    places = granted(one)
    assert list(places.values()) == ["a", "a", "a", "b", "b"]


def test_without_keeping_only_room_counts() -> None:
    one = fleet(2, 2, capacity=None, keeps=False)
    assert served(one, "x") == "a"
    ask(one, "y")
    assert granted(one) == {"y": "a"}
    assert served(one, "x") == "b"


def test_a_branch_without_a_lease_goes_back_to_what_is_held_of_it() -> None:
    one = fleet(2, 2, capacity=None)
    ask(one, "y")
    assert granted(one) == {"y": "a"}
    assert served(one, "x") == "b"
    one.release("y", now=0.0)
    ask(one, "z")
    assert granted(one) == {"z": "a"}
    for _ in range(3):
        assert served(one, "x") == "b"


# -- endpoints that come and go -----------------------------------------------------------------


def test_a_permit_moves_when_its_endpoint_is_out() -> None:
    one = fleet(1, 1)
    assert served(one, "x") == "a"
    ask(one, "x", resumed=True)
    one.update(members(0, 1), 0.0)
    assert granted(one) == {"x": "b"}
    one.release("x", now=0.0)
    assert (one.leases, one.in_use, one.slots) == (1, 0, 1)
    one.end("x", 0.0)
    assert (one.leases, one.charged) == (0, 0)


def test_what_an_endpoint_has_lost_is_not_leased_any_more() -> None:
    one = fleet(1, 1)
    served(one, "x")
    one.take_events()
    one.update(members(0, 1, lives=(1, 0)), 5.0)
    assert [(place, event.kind) for place, event in one.take_events()] == [("a", "parked")]
    assert one.leases == 0
    one.update(members(1, 1, lives=(1, 0)), 9.0)
    ask(one, "y", now=9.0)
    assert granted(one, 9.0) == {"y": "a"}


def test_what_an_endpoint_says_of_its_leases_stands_before_what_the_fleet_says() -> None:
    told = Member("a", 1, 1000, prefill_rate=5.0, on_lease=lambda branch, change: None)
    one = Fleet[str]([told, Member("b", 1, 1000)], prefill_rate=7.0)
    found = {name: (s.prefill_rate, s.fill) for name, s in one.endpoints.items()}
    assert found == {"a": (5.0, 0.95), "b": (7.0, 0.83)}
    for branch in "xy":
        ask(one, branch, 900)
    assert granted(one) == {"x": "a", "y": "b"}
    assert one.endpoints["a"].charged == 0 < one.endpoints["b"].charged


def test_one_that_is_gone_leaves_when_its_last_permit_does() -> None:
    one = fleet(1, 1)
    ask(one, "x")
    assert granted(one) == {"x": "a"}
    one.update(members(1, 1)[1:], 1.0)
    assert (list(one.endpoints), one.leases, one.slots) == (["a", "b"], 0, 1)
    one.release("x", now=2.0, context=3100)
    assert list(one.endpoints) == ["b"]
    ask(one, "x", 3100, now=2.0, resumed=True)
    assert granted(one, 2.0) == {"x": "b"}
    one.end("x", 3.0)
    one.release("x", now=3.0)
    assert (one.leases, one.in_use) == (0, 0)


def test_who_may_go_to_one_that_is_out_may_go_anywhere() -> None:
    one = fleet(1, 1)
    ask(one, "x", only=["a"])
    one.update(members(0, 1), 0.0)
    assert granted(one) == {"x": "b"}


def test_it_looks_again_when_one_comes_back() -> None:
    one = fleet(1)
    one.update([Member("a", 0, 20_000, back_in=7.0)], 10.0)
    ask(one, "x", now=10.0)
    assert (granted(one, 10.0), one.next_look(10.0)) == ({}, 17.0)


@pytest.mark.parametrize("slots", [0, -1, True])
def test_a_backend_of_one_endpoint_is_never_out(slots: Any) -> None:
    controller = Controller()
    with pytest.raises(InvalidInput, match="slots"):
        controller.backend("m", slots)
    with pytest.raises(InvalidInput, match="backend"):
        controller.in_use("m")


# -- what a grant costs -------------------------------------------------------------------------


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tickets of which it was found out where they could go, in that order."""
    found: list[str] = []
    choices = Fleet._choices

    def counted(self: Any, entry: Any, *rest: Any) -> Any:
        found.append(entry.ticket)
        return choices(self, entry, *rest)

    monkeypatch.setattr(Fleet, "_choices", counted)
    return found


@pytest.mark.parametrize("resumed", [True, False])
@pytest.mark.parametrize("deadline", [None, 20.0])
def test_who_may_only_go_where_it_is_full_is_not_looked_at(
    looked_at: list[str], resumed: bool, deadline: float | None
) -> None:
    one = fleet(1, 2)
    ask(one, "first", only=["a"])
    assert granted(one) == {"first": "a"}
    for number in range(2000):
        ask(one, f"x{number}", only=["a"], resumed=resumed, deadline=deadline)
    ask(one, "last", only=["b"])
    ask(one, "other", only=["a", "b"])
    looked_at.clear()
    assert granted(one) == {"last": "b", "other": "b"}
    assert len(looked_at) <= 20, "a few for each grant, whoever waits"


def test_those_who_can_go_keep_their_order_wherever_else_they_may_go() -> None:
    one = fleet(1, 1, capacity=None)
    ask(one, "first", only=["a"])
    assert granted(one) == {"first": "a"}
    ways: list[list[str] | None] = [["b"], ["a", "b"], ["a"], None]
    for number in range(24):
        ask(one, f"x{number}", only=ways[number * 7 % 4])
    order = []
    while found := granted(one):
        [(ticket, place)] = found.items()
        assert place == "b"
        order.append(int(ticket[1:]))
        one.release(ticket)
    assert order == [number for number in range(24) if number * 7 % 4 != 2]


def test_of_those_that_wait_for_their_context_a_bounded_number_is_looked_at(
    looked_at: list[str],
) -> None:
    one = fleet(1, 1, capacity=None, prefill_rate=1000.0)
    for number in range(2000):
        one.update(members(1, 0, capacity=None), 0.0)
        assert served(one, f"x{number}") == "a"
    one.update(members(1, 1, capacity=None), 0.0)
    ask(one, "first", only=["a"])
    assert granted(one) == {"first": "a"}
    for number in range(2000):
        ask(one, f"x{number}", resumed=True)
    looked_at.clear()
    assert granted(one) == {}
    assert 0 < len(looked_at) <= 200
    assert one.next_look(0.0) == 3.0  # when the first of them has waited long enough


# -- a fleet of one -----------------------------------------------------------------------------


class _OfOne(Fleet[str]):
    """A fleet of one endpoint behind the face of a scheduler."""

    def __init__(self, slots: int, *, capacity: int | None = None, **more: Any) -> None:
        super().__init__([Member("", slots, capacity)], **more)

    @property
    def one(self) -> LeaseScheduler[str]:
        return self.endpoints[""]

    def __getattr__(self, name: str) -> Any:
        if name in ("budget", "refresh", "refreshed"):
            return getattr(self.one, name)
        raise AttributeError(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("slots", "capacity"):
            setattr(self.one, name, value)
        else:
            super().__setattr__(name, value)

    def first_token(self, *told: Any) -> None:
        self.one.first_token(*told)

    def release(self, ticket: str, *, cached: int | None = None, **more: Any) -> None:
        self._places[""].reports = True
        super().release(ticket, cached=cached, **more)

    def take_events(self) -> Any:
        return [event for _, event in super().take_events()]

    @property
    def in_use(self) -> int:
        return self.one.in_use


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32))
def test_a_fleet_of_one_decides_as_its_scheduler_does(seed: int) -> None:
    alone = test_lease_lives.Lives(seed)
    alone.live(80)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_lease_lives, "LeaseScheduler", {str: _OfOne})
        among = test_lease_lives.Lives(seed)
        assert isinstance(among.scheduler, Fleet)
        among.live(80)
    assert among.log == alone.log
    assert among.events == alone.events


# -- any life -----------------------------------------------------------------------------------


class Lives:
    """Branches that do whatever is allowed next, at endpoints that come, go, forget and resize."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.now = 0.0
        self.members = {"a": self.member("a"), "b": self.member("b")}
        self.fleet = Fleet[str](
            list(self.members.values()),
            keeps=rng.random() < 0.8,
            max_passes=rng.randint(1, 8),
            max_wait=rng.choice((50.0, 1800.0)),
        )
        self.state: dict[str, str] = {}
        self.born = 0

    def member(self, name: str, *, out: bool = False, lives: int = 0) -> Member:
        rng = self.rng
        slots = 0 if out else rng.randint(1, 4)
        return Member(name, slots, rng.choice((None, 5_000, 40_000)), lives, back_in=1.0)

    def change(self) -> None:
        rng, known = self.rng, self.members
        name = rng.choice("abcd")
        if name in known and len(known) > 1 and rng.random() < 0.3:
            del known[name]
        else:
            lives = known[name].lives + (rng.random() < 0.3) if name in known else 0
            known[name] = self.member(name, out=rng.random() < 0.4, lives=lives)
        self.fleet.update(list(known.values()), self.now)

    def step(self) -> None:
        rng, one = self.rng, self.fleet
        self.now += rng.choice((0.0, 0.01, 1.0, 30.0))
        if rng.random() < 0.15:
            self.change()
        if len(self.state) < 12 and rng.random() < 0.4:
            self.born += 1
            self.state[f"x{self.born}"] = "ready"
        for branch in rng.sample(sorted(self.state), min(len(self.state), 3)):
            self.move(branch, self.state[branch])
        self.pump()
        assert one.in_use == sum(state == "generating" for state in self.state.values())
        assert one.waiting == sum(state == "queued" for state in self.state.values())

    def move(self, branch: str, state: str) -> None:
        rng, one = self.rng, self.fleet
        if rng.random() < 0.08:
            self.end(branch, state)
        elif state == "ready":
            only = rng.choice((None, None, ["a"], ["b", "c"]))
            shared = "start" if rng.random() < 0.3 else None
            ask(
                one,
                branch,
                rng.choice((200, 3000, 9000)),
                self.now,
                resumed=rng.random() < 0.7,
                prefix=shared,
                prefix_tokens=150 if shared else 0,
                only=only,
                run=branch[-1],
            )
            self.state[branch] = "queued"
        elif state == "queued" and rng.random() < 0.2:
            assert one.withdraw(branch)
            self.state[branch] = "ready"
        elif state == "generating":
            cached = rng.choice((None, 0, 3000))
            one.release(branch, now=self.now, context=rng.choice((300, 4000)), cached=cached)
            one.acting(branch, self.now, tool="read")
            self.state[branch] = "acting"
        elif state == "acting":
            one.returned(branch, self.now)
            self.state[branch] = "ready"

    def end(self, branch: str, state: str) -> None:
        one, first = self.fleet, self.rng.random() < 0.5
        if first:
            one.end(branch, self.now)
        if state == "queued":
            assert one.withdraw(branch)
        elif state == "generating":
            one.release(branch, now=self.now)
        if not first:
            one.end(branch, self.now)
        del self.state[branch]
        assert not one.leased(branch)

    def pump(self) -> None:
        one = self.fleet
        before = {name: at.in_use for name, at in one.endpoints.items()}
        while (ticket := one.grant(self.now)) is not None:
            self.state[ticket] = "generating"
            assert self.members[one.at(ticket)].slots  # none goes where none may go
        for name, at in one.endpoints.items():
            most = self.members[name].slots if name in self.members else 0
            assert at.in_use <= max(most, before.get(name, 0))
        look = one.next_look(self.now)
        waits = one.waiting and not one.in_use and any(m.slots for m in self.members.values())
        assert not waits or look is not None, "nobody generates, somebody waits, for nothing"


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 2**32))
def test_whatever_happens_no_endpoint_is_over_its_slots_and_nothing_is_left(seed: int) -> None:
    lives = Lives(seed)
    for _ in range(100):
        lives.step()
    for branch, state in list(lives.state.items()):
        lives.end(branch, state)
    one = lives.fleet
    assert (one.in_use, one.waiting, one.leases, one.charged) == (0, 0, 0, 0)
    assert set(one.endpoints) == set(lives.members)
    assert (one._at, one._kept) == ({}, {})


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from((None, 20_000)))
def test_nobody_waits_for_ever(seed: int, capacity: int | None) -> None:
    """Among branches that never stop coming back, at endpoints that keep going out."""
    rng = random.Random(seed)
    one = Fleet[str](members(2, 2, capacity=capacity), max_wait=100.0, max_passes=1000)
    since: dict[str, float] = {}
    held: list[str] = []

    def enqueue(branch: str, resumed: bool, now: float) -> None:
        since[branch] = now
        ask(one, branch, rng.randint(10, 9000), now, resumed=resumed)

    for index in range(20):
        enqueue(f"new {index}", False, 0.0)
    for step in range(1000):
        now = float(step)
        if step % 25 == 0:
            one.update(members(*rng.choice(((2, 2), (0, 2), (2, 0))), capacity=capacity), now)
        if held and (len(held) >= one.slots or rng.random() < 0.5):
            branch = held.pop(rng.randrange(len(held)))
            one.release(branch, now=now)
            enqueue(branch, True, now)
        for branch in granted(one, now):
            held.append(branch)
            del since[branch]
        assert all(now - begun < 100 + 20 * 20 for begun in since.values())
