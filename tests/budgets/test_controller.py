from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from longthought.budgets import Branch, BranchState, Controller
from longthought.budgets.states import FINAL_STATES, SLOT_STATES, TRANSITIONS
from longthought.errors import InvalidInput


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def one_slot(**more: Any) -> Controller:
    controller = Controller(now=lambda: 7.0, **more)
    controller.backend("m", 1)
    return controller


async def hold(controller: Controller, branch: Branch | str, gate: asyncio.Event) -> None:
    async with controller.permit("m", branch):
        await gate.wait()


# -- permits ---------------------------------------------------------------------------------------


async def test_a_slot_is_held_inside_the_context_and_no_longer() -> None:
    controller = one_slot()
    branch = controller.branch("b")
    async with controller.permit("m", branch) as permit:
        assert controller.in_use("m") == branch.permits == 1
        assert controller.would_wait("m")
        assert branch.state is BranchState.GENERATING
        permit.release()
        assert controller.in_use("m") == 0
        assert branch.state is BranchState.READY
    assert controller.in_use("m") == 0
    assert not controller.would_wait("m")


async def test_a_free_slot_takes_no_turn_of_the_loop() -> None:
    controller = one_slot()
    seen = []
    asyncio.get_running_loop().call_soon(seen.append, 1)
    async with controller.permit("m", "b"):
        assert not seen


async def test_an_error_gives_the_slot_back() -> None:
    controller = one_slot()

    async def fail() -> None:
        async with controller.permit("m", "b"):
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    assert controller.in_use("m") == 0


async def test_resumed_work_goes_before_new_work() -> None:
    controller, order = one_slot(), []

    async def call(name: str) -> None:
        async with controller.permit("m", name):
            order.append(name)

    await call("old")
    gate = asyncio.Event()
    first = asyncio.create_task(hold(controller, "first", gate))
    await turns()
    tasks = [asyncio.create_task(call(name)) for name in ("new", "old")]
    await turns()
    assert controller.waiting("m") == 2
    gate.set()
    await asyncio.gather(first, *tasks)
    assert order == ["old", "old", "new"]


async def test_cancelled_while_waiting() -> None:
    controller, gate = one_slot(), asyncio.Event()
    holder = asyncio.create_task(hold(controller, "a", gate))
    waiter = asyncio.create_task(hold(controller, "b", gate))
    await turns()
    assert controller.branch("b").state is BranchState.QUEUED
    waiter.cancel()
    await turns()
    assert controller.branch("b").state is BranchState.NEW
    assert (controller.in_use("m"), controller.waiting("m")) == (1, 0)
    gate.set()
    await holder


@pytest.mark.parametrize("cancel_first", [True, False])
async def test_granted_and_cancelled_in_the_same_turn(cancel_first: bool) -> None:
    controller, gate = one_slot(), asyncio.Event()
    holder = asyncio.create_task(hold(controller, "a", gate))
    waiter = asyncio.create_task(hold(controller, "b", gate))
    await turns()
    next_one = asyncio.create_task(hold(controller, "c", gate))
    await turns()
    if cancel_first:
        waiter.cancel()
        holder.cancel()
    else:
        holder.cancel()
        await asyncio.sleep(0)  # the slot has been given to b, which has not run yet
        waiter.cancel()
    gate.set()
    await asyncio.wait({holder, waiter, next_one})
    assert (holder.cancelled(), waiter.cancelled()) == (True, True)
    assert next_one.exception() is None
    assert (controller.in_use("m"), controller.waiting("m")) == (0, 0)


async def test_slots_can_change_live() -> None:
    controller, gate = one_slot(), asyncio.Event()
    tasks = [asyncio.create_task(hold(controller, str(i), gate)) for i in range(4)]
    await turns()
    assert (controller.in_use("m"), controller.waiting("m")) == (1, 3)
    controller.backend("m", 3)
    assert (controller.in_use("m"), controller.waiting("m")) == (3, 1)
    controller.backend("m", 1)
    gate.set()
    await asyncio.gather(*tasks)
    assert controller.view()["backends"] == {"m": {"slots": 1, "in_use": 0, "waiting": 0}}


def test_one_controller_serves_several_loops() -> None:
    controller = one_slot()

    async def stuck() -> None:
        gate = asyncio.Event()
        holder = asyncio.create_task(hold(controller, "a", gate))
        waiter = asyncio.create_task(hold(controller, "b", gate))
        await turns()
        assert not waiter.done()
        del holder

    asyncio.run(stuck())
    assert (controller.in_use("m"), controller.waiting("m")) == (0, 0)

    loop = asyncio.new_event_loop()
    lost = [loop.create_task(hold(controller, name, asyncio.Event())) for name in "ab"]
    loop.run_until_complete(turns())
    loop.close()  # tasks never finish
    lost[0].get_coro().close()  # type: ignore[union-attr]
    assert controller.in_use("m") == 0
    lost[1].get_coro().close()  # type: ignore[union-attr]

    async def again() -> None:
        async with controller.permit("m", "c"):
            assert controller.in_use("m") == 1

    asyncio.run(again())
    for task in lost:
        task._log_destroy_pending = False  # type: ignore[attr-defined]


async def test_a_permit_is_used_once() -> None:
    controller = one_slot()
    permit = controller.permit("m", "b")
    async with permit:
        pass
    with pytest.raises(RuntimeError, match="once"):
        await permit.__aenter__()


async def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no backend called 'x'"):
        Controller().permit("x", "b")


# -- events ----------------------------------------------------------------------------------------


async def test_events_carry_the_callers_clock() -> None:
    seen: list[dict[str, Any]] = []
    controller = one_slot(on_event=seen.append)
    async with controller.permit("m", "b"):
        pass
    controller.branch("b").move(BranchState.DONE)
    assert [e["event"] for e in seen] == [
        "state",
        "permit_queued",
        "state",
        "permit_acquired",
        "permit_released",  # first the slot is back, then the branch goes on
        "state",
        "state",
    ]
    assert {e["at"] for e in seen} == {7.0}
    assert seen[3] == {
        "event": "permit_acquired",
        "backend": "m",
        "branch": "b",
        "in_use": 1,
        "waiting": 0,
        "queued_seconds": 0.0,
        "at": 7.0,
    }


@pytest.mark.parametrize("event", ["permit_queued", "permit_acquired"])
async def test_a_callback_that_fails_keeps_no_slot(event: str) -> None:
    def fail(seen: dict[str, Any]) -> None:
        if seen["event"] == event:
            raise KeyError

    controller = one_slot(on_event=fail)
    with pytest.raises(KeyError):
        await controller.permit("m", "b").__aenter__()
    assert (controller.in_use("m"), controller.waiting("m")) == (0, 0)


# -- states ----------------------------------------------------------------------------------------


def test_the_table_of_transitions() -> None:
    assert set(TRANSITIONS) == set(BranchState)
    for state in FINAL_STATES:
        assert not TRANSITIONS[state]
    for state in set(BranchState) - FINAL_STATES:
        assert TRANSITIONS[state] >= FINAL_STATES
        assert state not in TRANSITIONS[state]
    for state, following in TRANSITIONS.items():
        assert BranchState.GENERATING not in following or state in {
            BranchState.QUEUED,
            BranchState.TOOL_STARTED,
        }


async def test_the_life_of_a_branch() -> None:
    controller = one_slot()
    branch = controller.branch("b")
    async with controller.permit("m", branch):
        branch.move(BranchState.TOOL_STARTED)
        with pytest.raises(ValueError, match="holds a slot"):
            branch.move(BranchState.ACTING)
    assert branch.state is BranchState.ACTING
    branch.move(BranchState.PARKED)
    with pytest.raises(ValueError, match="parked and cannot generate"):
        await controller.permit("m", branch).__aenter__()
    branch.move(BranchState.READY)
    async with controller.permit("m", branch):
        branch.move(BranchState.TOOL_STARTED)
        branch.move(BranchState.GENERATING)  # the early tool was dropped
    assert branch.state is BranchState.READY
    branch.move(BranchState.DONE)
    assert controller.view()["branches"] == {}
    with pytest.raises(ValueError, match="done and cannot generate"):
        await controller.permit("m", branch).__aenter__()
    with pytest.raises(ValueError, match="ready cannot follow done"):
        branch.move(BranchState.READY)
    assert controller.in_use("m") == 0


async def test_a_tool_that_asks_a_model_goes_on_acting() -> None:
    controller = one_slot()
    branch = controller.branch("b", resumed=True)
    branch.move(BranchState.ACTING)
    async with controller.permit("m", branch):
        assert branch.state is BranchState.GENERATING
    assert branch.state is BranchState.ACTING


async def test_calls_side_by_side_in_one_branch() -> None:
    controller, gates = one_slot(), [asyncio.Event(), asyncio.Event()]
    branch = controller.branch("b")
    tasks = [asyncio.create_task(hold(controller, branch, gate)) for gate in gates]
    await turns()
    assert branch.state is BranchState.GENERATING
    gates[0].set()
    await turns()
    assert branch.state is BranchState.GENERATING
    gates[1].set()
    await asyncio.gather(*tasks)
    assert branch.state is BranchState.READY


async def test_ending_a_branch_that_holds_a_slot() -> None:
    controller = one_slot()
    branch = controller.branch("b")
    async with controller.permit("m", branch):
        branch.move(BranchState.CANCELLED)
        assert controller.in_use("m") == 1
    assert controller.in_use("m") == 0
    assert branch.state is BranchState.CANCELLED


# -- any interleaving ------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", range(4))
async def test_permits_under_random_cancellation(chunk: int) -> None:
    for seed in range(chunk * 250, chunk * 250 + 250):
        await one_random_life(random.Random(seed))


async def one_random_life(rng: random.Random) -> None:
    holding = dict.fromkeys("xy", 0)
    last_state: dict[str, str] = {}

    def follow(event: dict[str, Any]) -> None:
        if event["event"] == "state":
            assert last_state.get(event["branch"], "new") == event["from"]
            assert BranchState(event["to"]) in TRANSITIONS[BranchState(event["from"])]
            last_state[event["branch"]] = event["to"]

    controller = Controller(on_event=follow, max_passes=rng.choice((1, 64)))
    slots = {name: rng.randint(1, 4) for name in holding}
    for name, count in slots.items():
        controller.backend(name, count)

    async def live(index: int) -> None:
        branch = controller.branch(str(index))
        for _ in range(rng.randint(1, 4)):
            name = rng.choice("xy")
            async with controller.permit(name, branch) as permit:
                holding[name] += 1
                try:
                    assert holding[name] <= slots[name]
                    assert branch.state in SLOT_STATES
                    await turns(rng.randrange(3))
                    if rng.random() < 0.3:
                        branch.move(BranchState.TOOL_STARTED)
                        await turns(rng.randrange(2))
                finally:
                    holding[name] -= 1
                    if rng.random() < 0.3:
                        permit.release()
            assert branch.state not in SLOT_STATES
            await turns(rng.randrange(2))

    tasks = [asyncio.create_task(live(i)) for i in range(rng.randint(1, 24))]
    for turn in range(10_000):
        if all(task.done() for task in tasks):
            break
        assert turn < 9_999, "a waiter hangs"
        if rng.random() < 0.4:
            rng.choice(tasks).cancel()
        if rng.random() < 0.1:
            name = rng.choice("xy")
            slots[name] += rng.randrange(2)  # raised only, so that the bound above stays exact
            controller.backend(name, slots[name])
        await asyncio.sleep(0)
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert result is None or isinstance(result, asyncio.CancelledError), result
    for name in holding:
        assert (controller.in_use(name), controller.waiting(name)) == (0, 0)
    assert not SLOT_STATES & {BranchState(s) for s in controller.view()["branches"].values()}
    assert "queued" not in controller.view()["branches"].values()
