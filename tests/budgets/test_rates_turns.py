"""Turns at one endpoint for tasks, event loops and threads; real waiting, in short periods."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable

import pytest

from longthought.budgets.pace import Pace, TooLong
from longthought.budgets.rates import Rates, Said, Ticket

PERIOD = 0.05


def pace(requests: int | None = None, tokens: int | None = None) -> Pace:
    return Pace(Rates(requests, tokens, period=PERIOD))


async def call(pace: Pace, tokens: int = 1) -> None:
    ticket = await pace.turn(tokens)
    pace.sent(ticket)
    pace.heard(ticket, None, well=True)
    pace.over(ticket, tokens)


async def test_turns_are_waited_for_and_come_in_order() -> None:
    shared, order = pace(requests=2), []

    async def one(number: int) -> None:
        await call(shared)
        order.append(number)

    await asyncio.gather(*(one(number) for number in range(7)))
    assert order == list(range(7))


async def test_a_turn_at_once_or_none() -> None:
    shared = pace(requests=1)
    first = shared.try_turn(5)
    assert first is not None
    assert shared.try_turn(5) is None
    shared.over(first)  # it never left
    assert shared.try_turn(5) is not None


async def test_nobody_passes_those_who_wait() -> None:
    shared = pace(tokens=10)
    first = shared.try_turn(8)
    assert first is not None
    waiting = asyncio.create_task(shared.turn(9))
    await asyncio.sleep(0)
    assert shared.try_turn(1) is None  # it would fit, and somebody is there before
    shared.over(first)
    shared.over(await waiting)


@pytest.mark.parametrize("steps", range(6))
async def test_cancelling_at_any_step_gives_the_place_back(steps: int) -> None:
    shared = pace(requests=1)
    first = shared.try_turn(1)
    assert first is not None
    waiting = asyncio.create_task(shared.turn(1))
    for step in range(steps):
        if step == 2:
            shared.over(first)  # from here on it is granted
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    if not waiting.cancelled():
        shared.over(waiting.result())
    shared.over(first)
    assert shared.try_turn(1) is not None


async def test_too_long_a_wait_is_refused_at_once() -> None:
    shared = pace()
    shared.refused(None, None, wish=1000)
    with pytest.raises(TooLong, match="within 1000 s"):
        await shared.turn(1, within=500)
    waiting = asyncio.create_task(shared.turn(1, within=2000))
    await asyncio.sleep(0)
    shared.refused(None, None, wish=3000)  # what it waited for has moved
    with pytest.raises(TooLong):
        await waiting


async def test_a_pause_ends_by_itself() -> None:
    shared = pace()
    shared.refused(None, None, wish=0.02)
    assert shared.try_turn(1) is None
    shared.over(await shared.turn(1))


async def test_what_a_reply_says_wakes_those_who_wait() -> None:
    shared = pace()
    shared.heard(None, (Said(left=0, limit=1, reset=1000), None), well=True)
    waiting = asyncio.create_task(shared.turn(1))
    await asyncio.sleep(0)
    shared.heard(None, (Said(left=1, limit=1, reset=0), None), well=True)
    shared.over(await waiting)


def in_threads(count: int, work: Callable[[], None]) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def test_loops_in_threads_share_one_limit() -> None:
    rates = Rates(requests=4, period=PERIOD)
    shared, most, lock = Pace(rates), 0, threading.Lock()

    async def one() -> None:
        nonlocal most
        ticket = await shared.turn(1)
        with lock:
            most = max(most, rates.under_way)
        shared.sent(ticket)
        await asyncio.sleep(0)
        shared.over(ticket)

    async def some() -> None:
        await asyncio.gather(*(one() for _ in range(6)))

    in_threads(4, lambda: asyncio.run(some()))
    assert most <= 4
    assert (rates.waiting, rates.under_way) == (0, 0)


def test_a_loop_that_is_gone_holds_nobody_up() -> None:
    shared = pace(requests=1)
    first = shared.try_turn(1)
    assert first is not None
    left_behind = asyncio.new_event_loop()
    task = left_behind.create_task(shared.turn(1))
    left_behind.run_until_complete(asyncio.sleep(0))
    left_behind.close()  # without a word to those who wait in it

    async def next_one() -> Ticket:
        waiting = asyncio.create_task(shared.turn(1))
        await asyncio.sleep(0)
        shared.over(first)
        return await waiting

    shared.over(asyncio.run(next_one()))
    assert shared.try_turn(1) is not None
    task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_nothing_keeps_a_loop_alive() -> None:
    shared = pace(requests=1)

    async def some() -> weakref.ref[asyncio.AbstractEventLoop]:
        await asyncio.gather(*(call(shared) for _ in range(3)))
        return weakref.ref(asyncio.get_running_loop())

    loop = asyncio.run(some())
    gc.collect()
    assert loop() is None
