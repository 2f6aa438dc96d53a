"""The gates on what is counted: Python calls, never seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.engine import sharing, tool_waits
from benchmarks.overhead import ratio
from benchmarks.protocol_server import ProtocolServer, in_process
from benchmarks.replay import replayed
from longthought.storage import Store

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def server() -> Iterator[ProtocolServer]:
    with in_process() as running:
        yield running


async def test_a_step_costs_half_of_the_bare_client(server: ProtocolServer) -> None:
    bare_5, ours_5 = await ratio(server, 5, times=3)
    bare_50, ours_50 = await ratio(server, 50, times=1)
    shown = f"5 turns: {ours_5:.0f} of {bare_5:.0f}; 50 turns: {ours_50:.0f} of {bare_50:.0f}"
    assert ours_5 <= 0.55 * bare_5, shown
    assert ours_50 <= 0.12 * bare_50, shown
    assert ours_50 <= 1.15 * ours_5, shown


async def test_a_delta_costs_little(server: ProtocolServer) -> None:
    _, few = await ratio(server, 0, words=10, stream=True, times=3)
    bare, many = await ratio(server, 0, words=200, stream=True, times=3)
    assert many <= 0.25 * bare, f"{many:.0f} of {bare:.0f}"
    assert (many - few) / 190 <= 100


@pytest.mark.parametrize(("turns", "branches"), [(25, 1), (12, 40)])
async def test_replay_calls_nothing_and_costs_little(
    sqlite_store: Store, turns: int, branches: int
) -> None:
    found = await replayed(sqlite_store, turns, branches)
    assert found["effects"] == branches * (2 * turns + 1)
    assert found["model_and_tool_calls"] == 0
    assert found["calls_per_effect"] <= 2_000, found


async def test_the_engine_computes_a_prompt_once_and_little_after_a_tool() -> None:
    room = 16 * 2**20
    assert await sharing("words", 16, room) < 0.7 * await sharing("words", 16, 0)
    assert await tool_waits(room, 5) < 0.5 * await tool_waits(0, 5)


@pytest.mark.parametrize("name", ["engine", "overhead", "replay"])
def test_a_benchmark_prints_its_figures(name: str) -> None:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--json"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=250)
    figures = json.loads(ran.stdout)["figures"]
    assert figures
    assert all(isinstance(value, (int, float)) for value in figures.values())
