from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import pytest

from longthought.budgets import BranchState, Controller
from longthought.budgets.members import Member
from longthought.errors import InvalidInput
from longthought.types import JSONObject, LeaseChange


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Backend:
    """A controller with one backend: 10,000 tokens that take 10 s to compute, and its events."""

    def __init__(self, slots: int = 4) -> None:
        self.clock = Clock()
        self.events: list[JSONObject] = []
        self.controller = Controller(now=self.clock, on_event=self.events.append)
        self.controller.backend("m", slots, capacity=10_000, prefill_rate=1000.0)

    async def generate(self, branch: str, context: int) -> None:
        async with self.controller.permit("m", branch, context=context) as permit:
            permit.used(context=context, cached=0, first_token=(context, context / 1000))

    def leases(self) -> list[tuple[object, object, object]]:
        return [
            (event["event"], event["branch"], event["at"])
            for event in self.events
            if str(event["event"]).startswith("lease_")
        ]

    def memory(self) -> tuple[object, object]:
        backends = self.controller.view()["backends"]
        assert isinstance(backends, dict)
        shown = backends["m"]
        assert isinstance(shown, dict)
        return shown["leases"], shown["charged"]


async def test_a_lease_outlives_the_permit_and_ends_with_the_branch() -> None:
    backend = Backend()
    await backend.generate("a", 3000)
    branch = backend.controller.branch("a")
    assert backend.memory()[0] == 1
    assert backend.controller.in_use("m") == 0
    branch.move(BranchState.ACTING, tool="search")
    backend.clock.now = 2.0
    branch.move(BranchState.READY)
    await backend.generate("a", 3100)
    branch.move(BranchState.DONE)
    assert backend.memory() == (0, 0)
    assert backend.leases() == [("lease_taken", "a", 0.0), ("lease_ended", "a", 2.0)]


async def test_a_parked_branch_gives_its_lease_up_and_takes_it_again() -> None:
    backend = Backend()
    await backend.generate("a", 3000)
    branch = backend.controller.branch("a")
    branch.move(BranchState.ACTING, tool="approval")
    branch.move(BranchState.PARKED)
    assert backend.memory() == (0, 0)
    branch.move(BranchState.READY)
    await backend.generate("a", 3000)
    assert [event[0] for event in backend.leases()] == [
        "lease_taken",
        "lease_parked",
        "lease_resumed",
    ]


async def test_who_does_not_fit_is_let_in_when_time_has_passed() -> None:
    """No call and no end wakes it: the controller looks again by itself."""
    backend = Backend()
    controller, gate = backend.controller, asyncio.Event()
    for index in range(50):  # contexts do not grow, so much is learned
        await backend.generate(f"old {index}", 10)
        controller.branch(f"old {index}").move(BranchState.DONE)
    await backend.generate("a", 2500)
    controller.branch("a").move(BranchState.ACTING, tool="search")

    async def busy() -> None:
        async with controller.permit("m", "busy", context=2500):
            await gate.wait()

    holder = asyncio.create_task(busy())
    await asyncio.sleep(0)
    waiter = asyncio.create_task(backend.generate("b", 5000))
    await asyncio.sleep(0)
    assert (controller.in_use("m"), controller.waiting("m")) == (1, 1)
    backend.clock.now = 60.0
    await asyncio.wait_for(waiter, 30)
    assert ("lease_parked", "a", 60.0) in backend.leases()
    gate.set()
    await holder


@pytest.mark.parametrize("state", ["queued", "generating", "acting", "parked", "ready"])
async def test_cancelled_in_any_state_nothing_is_left(state: str) -> None:
    backend = Backend(slots=1)
    controller, gate = backend.controller, asyncio.Event()

    async def hold(branch: str) -> None:
        async with controller.permit("m", branch, context=2000):
            await gate.wait()

    holder = asyncio.create_task(hold("other" if state == "queued" else "a"))
    task = asyncio.create_task(hold("a")) if state == "queued" else holder
    await asyncio.sleep(0)
    branch = controller.branch("a")
    if state in {"acting", "parked", "ready"}:
        gate.set()
        await holder
        branch.move(BranchState.ACTING, tool="search")
        if state != "acting":
            branch.move(BranchState(state))
    assert branch.state.value == state
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    branch.move(BranchState.CANCELLED)
    gate.set()
    await holder if state == "queued" else None
    controller.branch("other").move(BranchState.DONE)
    assert backend.memory() == (0, 0)
    assert (controller.in_use("m"), controller.waiting("m")) == (0, 0)


async def test_a_wrong_number_of_tokens_leaves_no_trace() -> None:
    backend = Backend()
    with pytest.raises(InvalidInput, match="context"):
        await backend.generate("a", -1)
    assert backend.controller.branch("a").state is BranchState.NEW
    assert (backend.controller.in_use("m"), backend.controller.waiting("m")) == (0, 0)
    with pytest.raises(InvalidInput, match="capacity"):
        backend.controller.backend("m", 1, capacity=0)


async def test_one_call_of_a_tool_is_learned_once_for_all_backends() -> None:
    backend = Backend()
    controller = backend.controller
    controller.backend("n", 1)
    await backend.generate("a", 100)
    branch = controller.branch("a")
    for _ in range(3):
        branch.move(BranchState.ACTING, tool="search")
        branch.move(BranchState.READY)
    assert 2.9 < controller.tool_times.seen("search") <= 3


async def test_who_waits_is_looked_at_when_a_branch_begins_to_act() -> None:
    backend = Backend()
    controller, gate = backend.controller, asyncio.Event()
    for _ in range(50):
        controller.tool_times.observe("slow", 1000.0)  # longer than to compute all contexts anew
    for index in range(50):
        await backend.generate(f"old {index}", 10)
        controller.branch(f"old {index}").move(BranchState.DONE)
    await backend.generate("a", 2500)

    async def busy() -> None:
        async with controller.permit("m", "busy", context=2500):
            await gate.wait()

    holder = asyncio.create_task(busy())
    await asyncio.sleep(0)
    waiter = asyncio.create_task(backend.generate("b", 5000))
    await asyncio.sleep(0)
    assert (controller.in_use("m"), controller.waiting("m")) == (1, 1)
    controller.branch("a").move(BranchState.ACTING, tool="slow")
    assert (controller.in_use("m"), controller.waiting("m")) == (2, 0)
    await asyncio.wait_for(waiter, 30)
    gate.set()
    await holder


async def test_an_earlier_look_takes_the_place_of_a_later_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backend = Backend()
    known = backend.controller._known("m")
    armed: list[object] = []
    for delay in (9.0, 3.0, 6.0):
        monkeypatch.setattr(
            type(known.scheduler), "next_look", lambda _, now, delay=delay: now + delay
        )
        backend.controller.pump(known)
        assert known.timer is not None
        armed.append(known.timer[1])
    assert armed[0] is not armed[1]
    assert armed[1] is armed[2]
    known.timer[1].cancel()


# -- listeners that fail, attempts that overlap -------------------------------------------------


async def test_a_listener_that_fails_leaves_nothing_behind() -> None:
    """Whoever gives a slot back hears of the lease it makes room for; that may go wrong."""
    failing: set[object] = set()

    def fail(event: JSONObject) -> None:
        if event["event"] in failing:
            raise KeyError(event["event"])

    controller = Controller(on_event=fail)
    for name in ("m", "n"):
        controller.backend(name, 1, capacity=10_000)
    first, second = controller.branch("a"), controller.branch("b")
    second.log = []
    for name in ("m", "n"):
        async with controller.permit(name, first, context=100):
            pass
    failing = {"lease_taken"}
    permit = controller.permit("m", first, context=100)
    await permit.__aenter__()

    async def wait() -> None:
        async with controller.permit("m", second, context=100):
            pass

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    assert controller.waiting("m") == 1
    with pytest.raises(KeyError):
        permit.release()
    await waiting
    assert (first.permits, first.state) == (0, BranchState.READY)
    assert [what for what, *_ in second.log] == ["taken"]
    failing = {"lease_ended"}
    for branch in (first, second):
        with pytest.raises(KeyError):
            branch.move(BranchState.DONE)
    view = controller.view()
    assert view["branches"] == {}
    assert [(one["leases"], one["charged"]) for one in view["backends"].values()] == [(0, 0)] * 2  # type: ignore[union-attr,index,call-overload]


async def test_a_branch_that_is_begun_anew_keeps_its_leases_when_the_old_one_ends() -> None:
    backend = Backend()
    controller = backend.controller
    await backend.generate("a", 3000)
    old, new = controller.branch("a"), controller.branch("a", tenant="blue", anew=True)
    assert (new is old, new.tenant) == (False, "blue")
    async with controller.permit("m", new, context=3100):
        old.move(BranchState.CANCELLED)
        assert backend.memory()[0] == 1
    assert list(controller.view()["branches"]) == ["a"]  # type: ignore[call-overload]
    new.move(BranchState.DONE)
    assert backend.memory() == (0, 0)
    assert controller.view()["branches"] == {}


def test_a_loop_that_is_over_is_let_go() -> None:
    """A workflow keeps a controller for each loop; a look at who waits must not keep the loop."""
    kept: WeakKeyDictionary[asyncio.AbstractEventLoop, Controller] = WeakKeyDictionary()

    async def main() -> None:
        backend = Backend()
        controller = kept[asyncio.get_running_loop()] = backend.controller
        await backend.generate("a", 6000)
        controller.branch("a").move(BranchState.ACTING, tool="search")
        async with controller.permit("m", "c", context=2000):
            waiting = asyncio.create_task(backend.generate("b", 5000))
            await asyncio.sleep(0)
            assert controller.waiting("m") == 1
            waiting.cancel()
            await asyncio.wait([waiting])
        for name in ("a", "b", "c"):
            controller.branch(name).move(BranchState.DONE)

    asyncio.run(main())
    gc.collect()
    assert not kept


# -- who is told of leases -------------------------------------------------------------------------


async def test_who_cares_for_leases_is_told_of_each_in_order() -> None:
    told: list[tuple[str, str]] = []

    def on_lease(branch: str, change: LeaseChange) -> None:
        told.append((branch, change))

    controller = Controller()
    controller.backend("m", 2, capacity=1000, on_lease=on_lease)
    controller.backend("other", 2, capacity=1000)

    async def generate(branch: str, context: int) -> None:
        async with controller.permit("m", branch, context=context) as permit:
            told.append((branch, "generates"))
            permit.used(context=context)

    await generate("a", 500)
    controller.branch("a").move(BranchState.ACTING, tool="search")
    await generate("b", 800)
    controller.branch("b").move(BranchState.ACTING, tool="search")  # a waits longer: it gives way
    controller.branch("a").move(BranchState.READY)
    controller.branch("b").move(BranchState.PARKED)
    controller.branch("b").move(BranchState.CANCELLED)
    await generate("a", 510)
    controller.branch("a").move(BranchState.ACTING, tool="search")
    controller.branch("a").move(BranchState.FAILED)
    controller.branch("c").move(BranchState.ACTING, tool="search")  # it has no lease
    assert told == [
        ("a", "taken"),
        ("a", "generates"),
        ("a", "acting"),
        ("b", "taken"),
        ("b", "generates"),
        ("a", "parked"),
        ("b", "acting"),
        ("b", "parked"),
        ("a", "resumed"),
        ("a", "generates"),
        ("a", "acting"),
        ("a", "ended"),
    ]


async def test_each_endpoint_is_told_of_its_own_leases() -> None:
    told: list[tuple[str, str, str]] = []

    def listener(name: str) -> Callable[[str, LeaseChange], None]:
        return lambda branch, change: told.append((name, branch, change))

    slots = {"a": 1, "b": 1}

    def members() -> list[Member]:
        first = Member("a", slots["a"], 1000, on_lease=listener("a"))
        return [first, Member("b", slots["b"], 1000)]

    controller = Controller()
    controller.endpoints("m", members)

    async def generate(branch: str, context: int) -> None:
        async with controller.permit("m", branch, context=context) as permit:
            permit.used(context=context)

    await generate("x", 900)
    controller.branch("x").move(BranchState.ACTING, tool="search")
    controller.branch("x").move(BranchState.READY)
    slots["a"] = 0
    await generate("x", 500)
    controller.branch("x").move(BranchState.ACTING, tool="search")  # at b, which nobody hears of
    controller.branch("x").move(BranchState.DONE)
    slots["a"] = 1
    await generate("y", 900)
    controller.branch("y").move(BranchState.DONE)
    assert told == [
        ("a", "x", "taken"),
        ("a", "x", "acting"),
        ("a", "x", "parked"),
        ("a", "y", "taken"),
        ("a", "y", "ended"),
    ]


async def test_who_is_told_of_leases_and_fails_holds_nobody_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(branch: str, change: str) -> None:
        raise RuntimeError("a mistake")

    controller = Controller()
    controller.backend("first", 1, capacity=10_000, on_lease=fails)
    controller.backend("second", 1, capacity=10_000)
    branch = controller.branch("b")
    for name in ("first", "second"):
        async with controller.permit(name, branch, context=100):
            pass
    branch.move(BranchState.DONE)
    backends: Any = controller.view()["backends"]
    assert [(one["in_use"], one["leases"]) for one in backends.values()] == [(0, 0)] * 2
    assert "a lease of first: ended could not be told" in caplog.text
