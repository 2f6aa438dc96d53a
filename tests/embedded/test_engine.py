"""The engine: batching, random streams, cancellation, the prefix cache, several event loops."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import numpy as np
import pytest

from longthought.errors import BackendError
from longthought.orchestrator.models.embedded import EmbeddedModel, Network
from longthought.orchestrator.models.embedded.engine import Engine, Row, Step
from longthought.orchestrator.models.embedded.network import Shape
from longthought.orchestrator.models.embedded.prefixes import Prefix, PrefixCache
from longthought.orchestrator.models.embedded.puzzles import vocabulary as v
from longthought.orchestrator.models.embedded.sampling import Draw, random_stream

SHAPE = Shape(v.SIZE, 128, 32, 2, 2)
PROMPT = [v.MODE_CHAIN, 24, 4, 7, 8, 8, v.COLON]


def never(token: int) -> bool:
    del token
    return False


async def tokens_of(engine: Engine, prompt: list[int], limit: int, draw: Draw) -> list[int]:
    steps: list[Step] = []
    await engine.run(Row(prompt, draw, limit, never), steps.extend)
    return [step.token for step in steps]


def engine_of(slots: int = 4, cache_bytes: int = 2**20) -> Engine:
    return Engine(Network.random(SHAPE, seed=3), slots=slots, cache_bytes=cache_bytes)


async def test_a_batch_draws_what_single_rows_draw() -> None:
    engine = engine_of(slots=8)
    prompts = [[*PROMPT[: 3 + n], v.COLON] for n in range(6)]

    def one(n: int) -> asyncio.Future[list[int]]:
        draw = Draw(1.0, 1.0, random_stream(n, 0))
        return asyncio.ensure_future(tokens_of(engine, prompts[n], 20 + n, draw))

    together = await asyncio.gather(*(one(n) for n in range(6)))
    assert engine.counters.widest == 6
    engine.close()
    alone = [await one(n) for n in range(6)]
    assert together == alone
    assert [len(tokens) for tokens in alone] == [20 + n for n in range(6)]
    engine.close()


async def test_no_more_rows_than_slots_and_none_is_forgotten() -> None:
    engine = engine_of(slots=3)
    drawn = await asyncio.gather(
        *(tokens_of(engine, PROMPT, 5, Draw(stream=random_stream(n, 0))) for n in range(20))
    )
    assert engine.counters.widest == 3
    assert all(len(tokens) == 5 for tokens in drawn)
    engine.wait_idle()
    assert engine.in_flight == 0


async def test_equal_prompts_are_computed_once() -> None:
    engine = engine_of(slots=16)
    draws = [Draw(stream=random_stream(n, 0)) for n in range(16)]
    await asyncio.gather(*(tokens_of(engine, PROMPT, 1, draw) for draw in draws))
    assert engine.counters.positions == len(PROMPT) + 15
    assert engine.counters.reused == 15 * (len(PROMPT) - 1)
    engine.close()


async def test_prompts_that_arrive_together_share_what_they_have_in_common() -> None:
    engine = engine_of(slots=32)
    held, arrived = threading.Event(), threading.Event()

    def hold(token: int) -> bool:
        held.set()
        return arrived.wait()

    first = asyncio.create_task(engine.run(Row([1], Draw(), 9, hold), lambda steps: None))
    while not held.is_set():
        await asyncio.sleep(0)
    trunk = [*PROMPT, *range(20)]
    prompts = [PROMPT, PROMPT, PROMPT, *([*trunk, n, v.EQUALS] for n in range(16))]
    rows = [asyncio.create_task(tokens_of(engine, prompt, 1, Draw(0.0))) for prompt in prompts]
    while engine.in_flight < 1 + len(rows):
        await asyncio.sleep(0)
    arrived.set()
    await asyncio.gather(first, *rows)
    # One of the sixteen is computed whole, of the others only the ends; and one of the three, which
    # for so little did not wait for the sixteen, while the other two waited for it.
    assert engine.counters.positions == 1 + len(trunk) + 16 * 2 + len(PROMPT) + 2
    assert engine.counters.reused == 15 * len(trunk) + 2 * (len(PROMPT) - 1)
    engine.close()


async def test_a_row_that_comes_back_longer_computes_only_what_is_new() -> None:
    engine = engine_of()
    drawn = await tokens_of(engine, PROMPT, 10, Draw(0.0))
    before = engine.counters.positions
    row = Row([*PROMPT, *drawn, 1, v.RETURN], Draw(0.0), 1, never)
    await engine.run(row, lambda steps: None)
    assert engine.counters.positions - before == 3  # two new tokens and the last one drawn
    assert row.cached == len(PROMPT) + 9
    engine.close()


async def test_evicted_prefixes_are_computed_again_with_the_same_outcome() -> None:
    roomy, tight = engine_of(), engine_of(cache_bytes=0)
    for engine in (roomy, tight):
        await tokens_of(engine, PROMPT, 8, Draw(0.0))
    again = [await tokens_of(engine, PROMPT, 8, Draw(0.0)) for engine in (roomy, tight)]
    assert again[0] == again[1]
    assert tight.counters.reused == 0 < roomy.counters.reused
    roomy.close()
    tight.close()


async def test_cancelling_frees_the_row() -> None:
    engine = engine_of(slots=1)
    task: asyncio.Task[None]

    def cancel(steps: list[Step]) -> None:
        task.cancel()

    task = asyncio.create_task(engine.run(Row(PROMPT, Draw(), 120, never), cancel))
    waiting = asyncio.create_task(tokens_of(engine, PROMPT, 3, Draw()))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(await waiting) == 3  # there is one place only: it must have been given up
    engine.wait_idle()
    assert engine.in_flight == 0


async def test_a_row_cancelled_before_it_starts_is_never_computed() -> None:
    engine = engine_of(slots=1)
    first = asyncio.create_task(tokens_of(engine, PROMPT, 60, Draw()))
    second = asyncio.create_task(tokens_of(engine, [*PROMPT[:3], v.COLON], 60, Draw()))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    engine.wait_idle()
    assert engine.counters.positions <= len(PROMPT) + 60
    assert engine.in_flight == 0


async def test_an_exception_of_the_receiver_frees_the_row() -> None:
    engine = engine_of()

    def fail(steps: list[Step]) -> None:
        raise ValueError("display is gone")

    with pytest.raises(ValueError, match="display"):
        await engine.run(Row(PROMPT, Draw(), 120, never), fail)
    engine.wait_idle()
    assert engine.in_flight == 0


async def test_a_failing_computation_reaches_every_caller_and_the_engine_lives_on() -> None:
    engine = engine_of()
    network = engine.network
    engine.network = None  # type: ignore[assignment]
    results = await asyncio.gather(
        *(tokens_of(engine, PROMPT, 5, Draw()) for _ in range(3)), return_exceptions=True
    )
    assert all(isinstance(result, BackendError) for result in results)
    engine.network = network
    assert len(await tokens_of(engine, PROMPT, 5, Draw())) == 5
    engine.close()


async def test_a_failure_while_rows_leave_reaches_every_caller_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = engine_of()
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def held(token: int) -> bool:
        del token
        loop.call_soon_threadsafe(begun.set)
        go_on.wait()
        return False

    stays = asyncio.ensure_future(engine.run(Row(PROMPT, Draw(), 50, held), lambda _steps: None))
    goes = asyncio.ensure_future(tokens_of(engine, PROMPT, 50, Draw()))
    await begun.wait()

    def full(place: int) -> None:
        raise MemoryError(f"no room for {place}")

    monkeypatch.setattr(engine, "_keep", full)
    goes.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await goes
    go_on.set()
    with pytest.raises(BackendError, match="no room for"):
        await stays
    monkeypatch.undo()
    assert len(await tokens_of(engine, PROMPT, 5, Draw())) == 5
    engine.close()


async def test_closing_fails_what_is_in_flight_and_leaves_no_thread() -> None:
    engine = engine_of(slots=1)
    started = asyncio.Event()
    tasks = [
        asyncio.create_task(
            engine.run(Row(PROMPT, Draw(), 121, never), lambda steps: started.set())
        )
        for _ in range(3)
    ]
    await started.wait()
    engine.close()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[-1], BackendError)
    assert not [t for t in threading.enumerate() if t.name == "embedded-engine"]
    assert len(await tokens_of(engine, PROMPT, 5, Draw())) == 5  # and it may be used again
    engine.close()


def test_only_one_closes_at_a_time() -> None:
    both_in, met = threading.Barrier(2), []

    class Last:
        """Stands for the engine's thread; two who wait for it together meet."""

        def join(self) -> None:
            with contextlib.suppress(threading.BrokenBarrierError):
                both_in.wait(0.2)
                met.append(True)

    engine = engine_of()
    engine._thread = Last()  # type: ignore[assignment]
    closers = [threading.Thread(target=engine.close) for _ in range(2)]
    for closer in closers:
        closer.start()
    for closer in closers:
        closer.join()
    assert not met  # the second might have cleared what a row that came between them uses


def test_one_model_in_several_event_loops() -> None:
    engine = engine_of()

    async def some() -> list[list[int]]:
        draws = [Draw(stream=random_stream(n, 0)) for n in range(3)]
        return await asyncio.gather(*(tokens_of(engine, PROMPT, 6, draw) for draw in draws))

    async def abandoned() -> None:
        task = asyncio.create_task(engine.run(Row(PROMPT, Draw(), 120, never), lambda steps: None))
        await asyncio.sleep(0)
        del task

    first = asyncio.run(some())
    asyncio.run(abandoned())
    assert asyncio.run(some()) == first
    engine.close()


async def test_the_default_model_closes_twice() -> None:
    model = EmbeddedModel("puzzle-small", network=Network.random(SHAPE, seed=0))
    await model.aclose()
    await model.aclose()


def prefix_of(*tokens: int) -> Prefix:
    shape = (1, 1, len(tokens), 4)
    return Prefix(tokens, np.zeros(shape, np.float32), np.zeros(shape, np.float32))


def test_prefix_cache_finds_the_longest_and_forgets_the_oldest() -> None:
    cache = PrefixCache(prefix_of(*range(8)).nbytes)
    cache.add(prefix_of(1, 2))
    cache.add(prefix_of(1, 2, 3))  # extends the one before, which goes
    assert len(cache) == 1
    cache.add(prefix_of(1, 2, 4, 5))
    assert cache.find([1, 2, 3, 9])[0] == 3
    assert cache.find([1, 2, 9])[0] == 2
    assert cache.find([7])[0] == 0
    assert cache.covers([1, 2, 4])
    cache.find([1, 2, 3])  # used last
    cache.add(prefix_of(6, 7, 8))
    assert cache.nbytes <= cache.limit_bytes
    assert cache.find([1, 2, 4, 5])[0] == 2
    assert cache.find([1, 2, 3])[0] == 3
    cache.add(prefix_of(*range(20)))  # larger than the whole cache: not kept
    assert cache.find([0, 1])[0] == 0
    cache.clear()
    assert (len(cache), cache.nbytes, cache.find([6])[0]) == (0, 0, 0)


def test_prefix_cache_agrees_with_a_plain_search() -> None:
    draw = np.random.default_rng(0)
    cache = PrefixCache(400)
    for _ in range(2000):
        tokens = tuple(draw.integers(0, 3, draw.integers(1, 7)).tolist())
        cache.add(prefix_of(*tokens))
        wanted = tuple(draw.integers(0, 3, 6).tolist())
        depth, found = cache.find(wanted)
        stored = [prefix.tokens for prefix in cache._stored.values()]
        best = max(n for n in range(7) if any(s[:n] == wanted[:n] and len(s) >= n for s in stored))
        assert depth == best
        assert depth == 0 or (found is not None and found.tokens[:depth] == wanted[:depth])
        assert cache.nbytes == sum(prefix.nbytes for prefix in cache._stored.values()) <= 400
