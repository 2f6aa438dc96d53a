"""A real server that speaks Chat Completions, for the tests of whole runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.protocol_server import ProtocolServer, protocol_server


@pytest.fixture(scope="module")
def running() -> Iterator[ProtocolServer]:
    with protocol_server() as server:
        yield server


@pytest.fixture
def server(running: ProtocolServer) -> ProtocolServer:
    """The server with all counts at nothing."""
    running.counts.clear()
    return running
