"""Many wakers at a time: one attempt for each run that is due, and nothing lost on the way."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langgraph.runtime import Runtime

from longthought import Context, Result, Store, Workflow
from longthought.errors import RunMoved
from longthought.orchestrator.models.scripted import ScriptedModel
from longthought.orchestrator.waking import NOT_WOKEN, Waker
from tests.executor.test_waking import (
    HOUR,
    State,
    attempts_of,
    graph_of,
    nothing_is_held,
    reviewed,
    sleeping,
    sound,
)
from tests.moved_time import TimeOfDay


async def test_of_all_who_saw_a_run_rest_one_begins_the_next_attempt(store: Store) -> None:
    workflow = reviewed(store)
    parked = await workflow.run("go")
    await store.send_signal(parked.id, "review", "good")
    (row,) = await store.due()
    results = await asyncio.gather(
        *(workflow.wake_run(row) for _ in range(5)), return_exceptions=True
    )
    done = [one for one in results if not isinstance(one, BaseException)]
    assert [one.status for one in done] == ["completed"]
    with pytest.raises(RunMoved):
        await store.claim(parked.id, after=row.attempt)
    assert await attempts_of(store, parked.id) == 2


async def test_a_waker_that_is_cancelled_gives_its_runs_back(store: Store) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def held(state: State, runtime: Runtime[Context]) -> State:
        value = await runtime.context.suspend("review")
        reached.set()
        await go_on.wait()
        return {"answer": str(value)}

    model = ScriptedModel(lambda _: "x")
    workflow = Workflow("held", model=model, graph=graph_of(held), store=store)
    parked = await workflow.run("go")
    await store.send_signal(parked.id, "review", "good")
    task = asyncio.create_task(workflow.wake())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await store.row(parked.id)).status == "running"
    assert nothing_is_held(workflow)
    go_on.set()
    (done,) = await workflow.wake()
    assert (done.status, done.answer) == ("completed", "good")
    assert await attempts_of(store, parked.id) == 3
    await sound(store)


async def test_a_late_heartbeat_takes_no_lease_on_a_run_that_rests(store: Store) -> None:
    """It may be on its way while the end of the attempt is committed."""
    journal = await store.create_run("w", {}, fingerprint="", version="1")
    await store.renew(journal)
    assert (await store.row(journal.run_id)).lease_until > 0
    journal.stage("run_ended", status="parked", stop_reason="waiting")
    await journal.flush(status="parked")
    await store.renew(journal)
    assert (await store.row(journal.run_id)).lease_until == 0


async def test_a_run_that_cannot_be_woken_leaves_the_others_alone(store: Store) -> None:
    workflow = reviewed(store)
    ids = [(await workflow.run("go")).id for _ in range(3)]
    for run_id in ids:
        await store.send_signal(run_id, "review", "good")
    await store.database.write(
        lambda c: c.exec_driver_sql(f"DELETE FROM events WHERE run_id = '{ids[1]}' AND seq = 2")
    )
    results = {result.id: result for result in await workflow.wake()}
    assert [results[run_id].status for run_id in ids] == ["completed", "parked", "completed"]
    assert results[ids[1]].stop_reason == NOT_WOKEN
    assert "chain is broken" in str(results[ids[1]].error)


async def test_a_limit_is_kept(store: Store) -> None:
    workflow = reviewed(store)
    for _ in range(5):
        await store.send_signal((await workflow.run("go")).id, "review", "good")
    assert len(await workflow.wake(limit=2)) == 2
    assert len(await workflow.wake(at_once=1)) == 3


async def test_runs_with_deleted_payloads_are_never_due(store: Store, clock: TimeOfDay) -> None:
    workflow = sleeping(store)
    parked = await workflow.run("go")
    recording = await store.read(parked.id)
    await store.delete_payloads(parked.id, [next(iter(recording.bodies))], "asked for")
    await store.send_signal(parked.id, "review", "good")
    clock.ahead = 2 * HOUR
    assert await store.due() == []
    await sound(store)


async def test_a_watching_waker_hears_of_signals(
    store: Store, store_url: str, tmp_path: Any
) -> None:
    """It looks once an hour, and is told at once: by its own store, and by the server."""
    workflow = reviewed(store)
    woken: asyncio.Queue[Result] = asyncio.Queue()
    waker = Waker(store, workflow.wake_run, woken.put_nowait)
    task = asyncio.create_task(waker.run(every=HOUR))
    parked = [await workflow.run("go") for _ in range(3)]
    async with Store(store_url, directory=tmp_path) as other, asyncio.timeout(60):
        shared = store.url.get_backend_name() == "postgresql"
        for sender, run in zip((store, other if shared else store), parked, strict=False):
            await sender.send_signal(run.id, "weather")
            assert (await woken.get()).status == "parked"
            await sender.send_signal(run.id, "review", "good")
            assert (await woken.get()).id == run.id
        waker.stop()
        await task
    assert [await attempts_of(store, run.id) for run in parked] == [3, 3, 1]


async def test_a_watching_waker_looks_when_the_next_timer_is_over(
    store: Store, clock: TimeOfDay
) -> None:
    """It looks once an hour, and of two runs that sleep one is due in a moment."""
    workflow = sleeping(store)
    first = await workflow.run("go")
    clock.ahead = HOUR / 2
    second = await workflow.run("go")
    clock.ahead = HOUR - 0.5
    woken: asyncio.Queue[Result] = asyncio.Queue()
    looks, due = [], store.due

    async def counted(**options: Any) -> Any:
        looks.append(options["now"])
        return await due(**options)

    store.due = counted  # type: ignore[method-assign]
    waker = Waker(store, workflow.wake_run, woken.put_nowait)
    task = asyncio.create_task(waker.run(every=HOUR))
    async with asyncio.timeout(60):
        done = await woken.get()
    assert (done.id, done.status) == (first.id, "completed")
    waker.stop()
    await task
    assert len(looks) <= 20, "it does not look all the time"
    assert (await store.row(second.id)).status == "parked"
