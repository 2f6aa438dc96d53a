"""A Chat Completions server on loopback, a grant, and nothing of the environment's own keys."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # `benchmarks` stands beside the tests and is not installed
    sys.path.insert(0, str(ROOT))

from benchmarks.protocol_server import protocol_server  # noqa: E402


class FakeGrant:
    """A grant of some tokens with some more in reserve."""

    def __init__(self, tokens: int, reserve: int = 0) -> None:
        self.tokens, self.reserve = tokens, reserve
        self.asked: list[int] = []

    async def top_up(self, wanted: int) -> int:
        self.asked.append(wanted)
        more = min(wanted, self.reserve)
        self.reserve -= more
        self.tokens += more
        return self.tokens


@pytest.fixture
def granted():
    return FakeGrant


@pytest.fixture(scope="session")
def server():
    with protocol_server() as running:
        yield running


@pytest.fixture(autouse=True)
def _no_ambient_settings(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ADMIN_KEY", "OPENAI_CUSTOM_HEADERS"):
        monkeypatch.delenv(name, raising=False)
