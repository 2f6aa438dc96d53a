"""Helpers of the embedded model's tests: grants, requests, a model, random weights."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from longthought.orchestrator.models.embedded import EmbeddedModel, Network
from longthought.orchestrator.models.embedded.network import Shape
from longthought.orchestrator.models.embedded.puzzles import vocabulary as v
from longthought.types import Message, ModelRequest, Sampling


@dataclass
class CountingGrant:
    """Gives ``tokens`` at first and ``more`` afterwards, up to ``wanted`` at a time."""

    tokens: int = 10_000
    more: int = 0
    asked: list[int] = field(default_factory=list)

    async def top_up(self, wanted: int) -> int:
        self.asked.append(wanted)
        given = min(wanted, self.more)
        self.more -= given
        self.tokens += given
        return self.tokens


@pytest.fixture
def grant() -> Callable[..., CountingGrant]:
    return CountingGrant


@pytest.fixture
def ask() -> Callable[..., ModelRequest]:
    """A request for one puzzle; keyword arguments are sampling."""

    def build(text: str = "4 7 8 8 -> 24", *more: Message, **sampling: object) -> ModelRequest:
        return ModelRequest(
            model="embedded",
            messages=[Message(role="user", content=text), *more],
            sampling=Sampling(**sampling),
        )

    return build


@pytest.fixture
async def model() -> AsyncIterator[EmbeddedModel]:
    made = EmbeddedModel()
    yield made
    await made.aclose()


@pytest.fixture
async def babbler() -> AsyncIterator[EmbeddedModel]:
    """A model with random weights: it practically never ends by itself."""
    network = Network.random(Shape(v.SIZE, 128, 32, 2, 2), seed=3)
    made = EmbeddedModel("puzzle-large", network=network, slots=4)
    yield made
    await made.aclose()
