"""Workflows that the executor's tests run: small, scripted, quick."""

from __future__ import annotations

import asyncio
from typing import Any

from longthought import Budget, Workflow, answers, strategies
from longthought.orchestrator.models.scripted import ScriptedModel, call, rng, says
from longthought.tools import tool
from longthought.types import ModelRequest


def turns_of(request: ModelRequest) -> int:
    return sum(1 for message in request["messages"] if message["role"] == "assistant")


def two_lookups(request: ModelRequest) -> Any:
    """Two tool turns, then an answer that depends on the sample's seed."""
    turn = turns_of(request)
    if turn < 2:
        return says("looking", call("lookup", name=f"n{turn}-{rng(request).randint(0, 99)}"))
    return f"The answer is {rng(request).choice([41, 42, 42, 42])}"


@tool(effect="read")
async def lookup(name: str) -> int:
    """Look a number up.

    Args:
        name: which one.
    """
    await asyncio.sleep(0)
    return len(name)


def jitter(request: ModelRequest) -> float:
    """A latency that differs from run to run."""
    import random

    return random.SystemRandom().uniform(0, 0.003)


def looking(store: Any, *, script: Any = two_lookups, **changes: Any) -> Workflow:
    """A workflow of 4 samples with two lookups each."""
    options: dict[str, Any] = {
        "model": ScriptedModel(script, latency=jitter),
        "tools": [lookup],
        "answer": answers.number(),
        "strategy": strategies.sample(4),
        "budget": Budget(tokens=100_000),
    }
    options.update(changes)
    return Workflow("looking", store=store, **options)


@tool(effect="pure")
async def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: one number.
        b: the other.
    """
    return a + b
