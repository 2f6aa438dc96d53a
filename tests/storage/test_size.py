"""Bytes and transactions, counted; never seconds."""

from __future__ import annotations

import sys

import pytest

from benchmarks.storage import bytes_per_history, record_run
from longthought.storage.audit import audit


@pytest.mark.parametrize("steps", [5, 50, 200])
async def test_bytes_stored_are_at_most_three_times_the_history(steps):
    assert await bytes_per_history(None, steps) <= 3.0


async def test_the_workload_is_a_sound_run(store):
    loop = await record_run(store, 10)
    report = await audit(store)
    assert report.ok, report.findings
    assert report.loose == 0
    recording = await store.read(loop.journal.run_id)
    assert recording.messages(loop.conversation) == loop.history


async def test_a_step_of_two_commits_costs_few_calls_on_the_loop(sqlite_store, kit):
    """Counted on the event loop's thread alone; the bound leaves room for other versions."""
    journal = await kit.begin(sqlite_store)
    calls = 0

    def count(_frame, event, _argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    async def step(number: int) -> None:
        request = journal.put({"model": "m", "conversation": "", "number": number})
        await journal.append("effect_started", f"k{number}", kind="model", request=request)
        result = journal.put({"conversation": journal.extend("", {"content": f"{number}"})})
        await journal.append(
            "effect_finished", f"k{number}", kind="model", request=request, result=result
        )

    await step(0)
    sys.setprofile(count)
    try:
        for number in range(1, 21):
            await step(number)
    finally:
        sys.setprofile(None)
    assert calls / 20 <= 450
