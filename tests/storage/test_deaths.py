"""Attempts that die before they record anything are counted from the events alone."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from longthought.storage import Journal, Store, audit
from longthought.storage.deaths import MOST_DEATHS, died_in_vain, pause_after, starts_in_vain
from tests.storage.conftest import begin


@pytest.fixture
async def store(store_url: str, tmp_path: Path) -> AsyncIterator[Store]:
    """A store whose leases are over at once: an attempt that does nothing more is a dead one."""
    async with Store(store_url, directory=tmp_path, lease=1e-9) as opened:
        yield opened


async def parked(store: Store) -> Journal:
    journal = await begin(store)
    waiting = [{"name": "sleep", "key": "/a#0:sleep", "until": time.time()}]
    journal.stage("run_ended", status="parked", stop_reason="waiting", waiting=waiting)
    await journal.flush(status="parked")
    return journal


def deaths(journal: Journal) -> int:
    return died_in_vain(starts_in_vain(journal.events))


async def due_deaths(store: Store, at: float) -> list[int]:
    """How often each run that is due at a time has died."""
    return [row.deaths for row in await store.due(now=at)]


async def test_deaths_in_a_row_are_counted_and_the_run_rests_longer_after_each(
    store: Store,
) -> None:
    run = (await parked(store)).run_id
    assert await due_deaths(store, time.time()) == [0]
    for died in range(MOST_DEATHS):
        journal = await store.claim(run)
        assert deaths(journal) == died
        begun = journal.events[-1].body["at"]
        pause = pause_after(died + 1) if died + 1 < MOST_DEATHS else 0.0
        if pause:
            assert await due_deaths(store, begun + pause - 0.1) == []
        assert await due_deaths(store, begun + pause) == [died + 1]
    assert [pause_after(n) for n in range(1, MOST_DEATHS)] == [0, 10, 40, 160]
    report = await audit(store)
    assert report.ok, report.findings


async def test_what_an_attempt_recorded_counts_and_what_it_only_began_does_not(
    store: Store,
) -> None:
    run = (await parked(store)).run_id
    for _ in range(3):
        journal = await store.claim(run)
        request = journal.put({"model": "m"})
        await journal.append("effect_started", "/a#0:model", kind="model", request=request)
    assert deaths(journal) == 2
    assert await due_deaths(store, time.time() + 1e6) == [3]
    result = journal.put({"done": True})
    await journal.append(
        "effect_finished", "/a#0:model", kind="model", request=request, result=result
    )
    assert await due_deaths(store, time.time()) == [0], "this attempt has got further"
    assert deaths(await store.claim(run)) == 0
    assert deaths(await store.claim(run)) == 1


async def test_an_attempt_that_gave_the_run_back_did_not_die(store: Store) -> None:
    run = (await parked(store)).run_id
    for _ in range(MOST_DEATHS + 1):
        journal = await store.claim(run)
        await store.release(journal)
    assert deaths(journal) == 0
    assert await due_deaths(store, time.time()) == [0]


async def test_a_signal_is_no_progress(store: Store) -> None:
    run = (await parked(store)).run_id
    for _ in range(2):
        await store.send_signal(run, "review")
        journal = await store.claim(run)
        await store.take_signals(journal)
    assert deaths(journal) == 1


async def test_a_raised_limit_is_no_progress(store: Store) -> None:
    run = (await parked(store)).run_id
    for _ in range(2):
        journal = await store.claim(run)
        await journal.append("fold", input="limit_raised", data={"budget": {"tokens": 9}})
    assert deaths(journal) == 1
    assert await due_deaths(store, time.time() + 1e6) == [2]
    await journal.append("fold", "/search", input="limit_raised", data={"budget": {"tokens": 9}})
    assert await due_deaths(store, time.time()) == [0], "a search has got further"


async def test_runs_of_before_have_died_of_nothing(store: Store) -> None:
    """Traces of earlier versions do not say whether an attempt was lost."""
    run = (await parked(store)).run_id
    for _ in range(4):
        journal = await store.claim(run)
    for event in journal.events:
        event.body.pop("lost", None)
    assert deaths(journal) == 0
