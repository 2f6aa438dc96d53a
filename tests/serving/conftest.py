"""Servers in a thread, clients for them, and models that end only when they are told to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator

import openai
import pytest

from longthought.errors import BackendError
from longthought.orchestrator.models.embedded import EmbeddedModel
from longthought.orchestrator.serving import ChatServer, chat_server
from longthought.types import (
    Capabilities,
    Delta,
    Grant,
    JSONObject,
    ModelReply,
    ModelRequest,
)

PUZZLE = "4 7 8 8 -> 24"
ASKED: list[JSONObject] = [{"role": "user", "content": PUZZLE}]
CALCULATOR: JSONObject = {
    "type": "function",
    "function": {
        "name": "calculator",
        "description": "The exact value of an arithmetic expression.",
        "parameters": {
            "type": "object",
            "properties": {"expression": {"type": "string"}},
            "required": ["expression"],
            "additionalProperties": False,
        },
        "strict": True,  # the client's own helper for streams wants it
    },
}


class Held:
    """A model that says one word and then nothing until :attr:`go`; tells when it was left."""

    name = "held"
    slots = 4
    capabilities = Capabilities()

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.entered, self.left, self.go = threading.Event(), threading.Event(), asyncio.Event()

    async def generate(
        self,
        request: ModelRequest,
        grant: Grant,
        emit: Callable[[Delta], None] | None = None,
    ) -> ModelReply:
        try:
            if emit is not None:
                emit(Delta("content", "well"))
            self.entered.set()
            if self.failure is None:
                await self.go.wait()
            raise self.failure or BackendError("nobody comes here")
        finally:
            self.left.set()

    def count_prompt(self, request: ModelRequest) -> int | None:
        return None

    def fingerprint(self) -> JSONObject:
        return {"kind": "held"}

    async def aclose(self) -> None:
        pass


def client_of(server: ChatServer, key: str = "none") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=server.url, api_key=key, max_retries=0)


@pytest.fixture(scope="session")
def embedded() -> EmbeddedModel:
    return EmbeddedModel("embedded")


@pytest.fixture(scope="session")
def server(embedded: EmbeddedModel) -> Iterator[ChatServer]:
    with chat_server(embedded, "embedded/puzzle-small") as running:
        yield running


@pytest.fixture
async def client(server: ChatServer) -> AsyncIterator[openai.AsyncOpenAI]:
    async with client_of(server) as made:
        yield made


@pytest.fixture(autouse=True)
def _no_ambient_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ADMIN_KEY", "OPENAI_CUSTOM_HEADERS"):
        monkeypatch.delenv(name, raising=False)
