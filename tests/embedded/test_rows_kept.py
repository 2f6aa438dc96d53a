"""Rows that are kept while a branch waits, and rows that are given up: counted in positions."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from longthought.orchestrator.models.embedded import Network
from longthought.orchestrator.models.embedded.engine import Engine, Row, Step
from longthought.orchestrator.models.embedded.network import Shape
from longthought.orchestrator.models.embedded.prefixes import Prefix, PrefixCache
from longthought.orchestrator.models.embedded.sampling import Draw

SHAPE = Shape(vocabulary=50, positions=64, width=16, layers=1, heads=1)
LENGTH = 20
ROOM = 3  # sequences of that length, and half of one
BYTES = ROOM * LENGTH * 2 * 4 * SHAPE.width + LENGTH * 4 * SHAPE.width


def prefix_of(*tokens: int) -> Prefix:
    shape = (1, 1, len(tokens), 4)
    return Prefix(tokens, np.zeros(shape, np.float32), np.zeros(shape, np.float32))


def cache_of(*sequences: tuple[int, ...], room: int) -> PrefixCache:
    cache = PrefixCache(prefix_of(*range(room)).nbytes)
    for tokens in sequences:
        cache.add(prefix_of(*tokens))
    return cache


# -- the cache -------------------------------------------------------------------------------------


def test_what_is_kept_outlives_what_was_used_later() -> None:
    cache = cache_of((1, 1), (2, 2), (3, 3), room=6)
    cache.keep([1, 1, 9])  # as a branch knows it: the last token drawn was never computed
    for first in range(4, 9):
        cache.add(prefix_of(first, first))
    assert cache.depth([1, 1, 9]) == 2
    assert (cache.depth([2, 2]), cache.depth([3, 3]), len(cache)) == (0, 0, 3)


def test_what_is_released_goes_first_though_it_was_used_last() -> None:
    cache = cache_of((1, 1), (2, 2), (3, 3), room=6)
    cache.keep([3, 3])
    assert cache.release([3, 3])  # it had been kept
    assert not cache.release([3, 3])
    cache.add(prefix_of(4, 4))
    assert [cache.depth([n, n]) for n in (1, 2, 3, 4)] == [2, 2, 0, 2]


def test_a_start_that_others_share_stays_when_what_went_on_from_it_is_gone() -> None:
    cache = cache_of((1, 1), (2, 2), (3, 3), room=6)
    assert not cache.release([3, 3, 5, 6])
    cache.add(prefix_of(4, 4))
    assert [cache.depth([n, n]) for n in (1, 2, 3, 4)] == [0, 2, 2, 2]


def test_what_is_kept_is_free_to_go_when_it_has_come_back() -> None:
    cache = cache_of((1, 1), (2, 2), (3, 3), room=6)
    cache.keep([3, 3])
    assert not cache.come_back([2, 2, 5])
    assert cache.come_back([3, 3, 5])
    cache.add(prefix_of(4, 4))
    assert [cache.depth([n, n]) for n in (1, 2, 3, 4)] == [2, 2, 0, 2]


def test_where_all_is_kept_nothing_more_gets_in() -> None:
    cache = cache_of(room=6)
    for first in range(8):
        cache.add(prefix_of(first, first))
        cache.keep([first, first])
        assert cache.nbytes <= cache.limit_bytes
    assert [first for first in range(8) if cache.depth([first, first])] == [0, 1, 2]


def test_where_all_is_kept_the_newest_may_take_the_place_of_one_that_goes() -> None:
    cache = cache_of((1, 1), (2, 2), (3, 3), room=6)
    for first in (1, 2, 3):
        cache.keep([first, first])
    cache.add(prefix_of(4, 4))
    cache.release([2, 2])
    cache.keep([4, 4])
    assert cache.nbytes <= cache.limit_bytes
    assert [cache.depth([n, n]) for n in (1, 2, 3, 4)] == [2, 0, 2, 2]


def test_what_only_a_longer_sequence_holds_is_not_marked() -> None:
    cache = cache_of((1, 1, 1), (2, 2), room=5)
    cache.keep([1, 1])
    assert not cache.release([1, 1])
    cache.release([8])
    cache.add(prefix_of(3, 3))
    assert cache.depth([1, 1, 1]) == 0
    cache.keep([2, 2])
    cache.clear()
    cache.keep([2, 2])
    assert not cache.come_back([2, 2])


def test_marks_change_nothing_but_the_order_of_eviction() -> None:
    draw = np.random.default_rng(0)
    cache = PrefixCache(400)
    for _ in range(3000):
        tokens = tuple(draw.integers(0, 3, draw.integers(1, 7)).tolist())
        mark = (cache.add, cache.keep, cache.release, cache.come_back)[draw.integers(4)]
        mark(prefix_of(*tokens) if mark == cache.add else tokens)  # type: ignore[arg-type]
        wanted = tuple(draw.integers(0, 3, 6).tolist())
        stored = [prefix.tokens for prefix in cache._stored.values()]
        best = max([n for n in range(7) if any(s[:n] == wanted[:n] for s in stored)], default=0)
        assert cache.find(wanted)[0] == best
        assert cache._kept <= set(cache._stored)
        assert cache.nbytes == sum(prefix.nbytes for prefix in cache._stored.values())
        over = cache.nbytes - 400
        if over > 0:  # by the newest, while all others are kept
            (newest,) = set(cache._stored) - cache._kept
            assert over <= cache._stored[newest].nbytes


# -- the engine ------------------------------------------------------------------------------------


def engine_of(slots: int = 1) -> Engine:
    network = Network.random(SHAPE, seed=3)
    return Engine(network, slots=slots, cache_bytes=BYTES)


def sequence(first: int) -> list[int]:
    return [first, *range(LENGTH - 1)]


async def compute(engine: Engine, tokens: list[int]) -> int:
    """Positions computed to draw one token after these."""
    before = engine.counters.positions
    await engine.run(Row(tokens, Draw(0.0), 1, lambda token: False), lambda steps: None)
    return engine.counters.positions - before


async def crowd(engine: Engine, count: int = ROOM) -> None:
    for other in range(count):
        assert await compute(engine, sequence(40 + other)) == LENGTH


@pytest.mark.parametrize("new", [1, 2, 7])
async def test_kept_rows_leave_only_what_is_new_to_compute(new: int) -> None:
    engine = engine_of()
    await compute(engine, sequence(1))
    engine.wait_idle()
    engine.keep(sequence(1))
    await crowd(engine, 2 * ROOM)
    assert await compute(engine, [*sequence(1), *range(new)]) == new
    engine.close()


async def test_released_rows_are_computed_whole_though_used_last() -> None:
    engine = engine_of()
    for first in range(ROOM):
        await compute(engine, sequence(first))
    engine.wait_idle()
    engine.release(sequence(ROOM - 1))
    await crowd(engine, 1)
    assert await compute(engine, [*sequence(0), 5]) == 1
    assert await compute(engine, [*sequence(ROOM - 1), 5]) == LENGTH + 1
    engine.close()


async def test_rows_that_were_kept_go_first_once_they_are_in_the_batch() -> None:
    engine = engine_of(slots=2)
    for first in range(ROOM):
        await compute(engine, sequence(first))
    engine.wait_idle()
    engine.keep(sequence(0))
    in_batch, go_on = threading.Event(), threading.Event()
    found: list[list[int]] = []

    def look(token: int) -> bool:
        del token
        in_batch.set()
        found.append([engine.prefixes.depth(sequence(first)) for first in range(ROOM)])
        return not go_on.wait()

    back = Row([*sequence(0), 7, 8], Draw(0.0), 3, look)
    task = asyncio.create_task(engine.run(back, lambda steps: None))
    await asyncio.to_thread(in_batch.wait)
    assert back.cached == LENGTH
    other = asyncio.create_task(compute(engine, sequence(40)))
    while engine.in_flight < 2:
        await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(task, other)
    # The rows of who came back made room for the other, and lay there once only.
    assert found == [[LENGTH] * ROOM] + 2 * [[0, LENGTH, LENGTH]]
    assert await compute(engine, [*sequence(0), 7, 8, 9]) == 1
    engine.close()


async def test_orders_given_while_rows_are_decoded_count_for_those_that_come_later() -> None:
    engine = engine_of(slots=2)
    for first in range(ROOM):
        await compute(engine, sequence(first))
    decoding, go_on = threading.Event(), threading.Event()

    def hold(token: int) -> bool:
        del token
        decoding.set()
        return go_on.wait()

    row = Row([49], Draw(0.0), 1, hold, lambda: False)
    task = asyncio.create_task(engine.run(row, lambda steps: None))
    await asyncio.to_thread(decoding.wait)
    engine.keep(sequence(0))
    engine.release(sequence(2))
    others = [asyncio.create_task(compute(engine, sequence(40 + n))) for n in range(2)]
    while engine.in_flight < 3:
        await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(task, *others)
    assert await compute(engine, [*sequence(0), 7]) == 1
    assert await compute(engine, [*sequence(2), 7]) == LENGTH + 1
    engine.close()
    engine.keep(sequence(0))  # of an engine that is closed nothing is kept
    assert await compute(engine, [*sequence(0), 7]) == LENGTH + 1
    engine.close()


async def test_rows_that_are_not_kept_any_longer_are_as_good_as_any_others() -> None:
    engine = engine_of()
    for first in range(ROOM):
        await compute(engine, sequence(first))
    engine.wait_idle()
    for first in range(ROOM):
        engine.keep(sequence(first))
        engine.release(sequence(first), first=False)
    await crowd(engine, 1)
    assert await compute(engine, [*sequence(ROOM - 1), 5]) == 1
    assert await compute(engine, [*sequence(0), 5]) == LENGTH + 1
    engine.close()


async def test_a_long_prompt_is_computed_in_pieces_to_the_same_end() -> None:
    shape = Shape(vocabulary=50, positions=512, width=16, layers=2, heads=2, rotary=True)
    network = Network.random(shape, seed=3)
    prompt = np.random.default_rng(1).integers(0, 50, 300).tolist()
    whole = network.forward(np.array([prompt]), network.new_cache(1))
    engine = Engine(network, slots=2, cache_bytes=0)
    drawn: list[Step] = []
    rows = [Row(prompt, Draw(0.0), 1, lambda token: False) for _ in range(2)]
    await asyncio.gather(*(engine.run(row, drawn.extend) for row in rows))
    assert engine.counters.positions == 2 * len(prompt)
    assert {step.token for step in drawn} == {int(whole.argmax())}
    likeliest = whole.max() - np.log(np.exp(whole).sum())
    assert [step.logprob for step in drawn] == pytest.approx([likeliest] * 2, abs=1e-4)
    engine.close()
