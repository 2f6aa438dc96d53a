"""A real server that speaks Chat Completions, and the time of day, for the tests of whole runs."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from benchmarks.protocol_server import ProtocolServer, protocol_server
from tests.moved_time import TimeOfDay


@pytest.fixture(scope="module")
def running() -> Iterator[ProtocolServer]:
    with protocol_server() as server:
        yield server


@pytest.fixture
def server(running: ProtocolServer) -> ProtocolServer:
    """The server with all counts at nothing."""
    running.counts.clear()
    return running


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> TimeOfDay:
    """The time of day, which the test moves on."""
    moved = TimeOfDay()
    monkeypatch.setattr(time, "time", moved)
    return moved
