"""Suspended generation: a tool call in mid-thought gives the place up, and costs only what is new.

All of it on the real engine with the real weights; positions are counted exactly.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from longthought.orchestrator.models.allowance import Allowance
from longthought.orchestrator.models.embedded import EmbeddedModel, trace_text
from longthought.orchestrator.models.embedded.engine import Engine
from longthought.orchestrator.models.embedded.puzzles import problems as p
from longthought.orchestrator.models.embedded.puzzles import vocabulary as v
from longthought.types import Delta, Message, ModelReply, ModelRequest, ToolDefinition, text_of

Ask = Callable[..., ModelRequest]
Tool = Callable[[str], Awaitable[str]]

QUESTION = "4 7 8 8 -> 24"
CALCULATOR = ToolDefinition(name="calculator", description="", parameters={"type": "object"})
HEAD = 7  # tokens of the question
CALL = 4  # tokens of `8 / 8 CALL`
RETURNED = 2  # tokens of `1 RET`


@asynccontextmanager
async def made(slots: int = 1, cache_bytes: int = 2**24) -> AsyncIterator[EmbeddedModel]:
    model = EmbeddedModel("embedded/puzzle-large", slots=slots, cache_bytes=cache_bytes)
    yield model
    await model.aclose()


def engine(model: EmbeddedModel) -> Engine:
    return model.engine_of("puzzles")


async def calculator(expression: str) -> str:
    left, operator, right = v.encode(expression)
    return str(p.apply(left, operator, right))


@dataclass
class Thought:
    """A conversation in tool mode; ``positions`` were computed for each of its replies."""

    request: ModelRequest
    replies: list[ModelReply] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)

    @property
    def text(self) -> str:
        return trace_text(self.request["messages"])


async def think(model: EmbeddedModel, ask: Ask, tool: Tool, **sampling: object) -> Thought:
    """Answer with a tool: between two replies the model has nothing to do with this thought."""
    request = ask(QUESTION, temperature=0, seed=3, logprobs=True, **sampling)
    request["tools"] = [CALCULATOR]
    thought = Thought(request)
    while True:
        before = model.counters.positions
        reply = await model.generate(request, Allowance())
        thought.replies.append(reply)
        thought.positions.append(model.counters.positions - before)
        request["messages"].append(reply["message"])
        if reply["finish_reason"] != "tool_calls":
            return thought
        (call,) = reply["message"]["tool_calls"]
        result = await tool(json.loads(call["arguments"])["expression"])
        request["messages"].append(Message(role="tool", content=result, tool_call_id=call["id"]))


def drawn(reply: ModelReply) -> int:
    return int(reply["usage"].get("completion_tokens", 0))


def certainty(thought: Thought) -> list[float]:
    return [one["logprob"] for reply in thought.replies for one in reply["logprobs"]]


def words(thought: Thought) -> list[str]:
    return [one["token"] for reply in thought.replies for one in reply["logprobs"]]


async def test_while_a_tool_works_another_reply_has_the_only_place(ask: Ask) -> None:
    async with made(slots=1) as model:
        others: list[str] = []

        async def slow(expression: str) -> str:
            engine(model).wait_idle()
            assert engine(model).in_flight == 0  # nothing is held for the thought that waits
            before = model.counters.positions
            other = await model.generate(ask("1 2 3 4 -> 24", temperature=0), Allowance())
            others.append(text_of(other["message"]))
            assert model.counters.positions > before
            return await calculator(expression)

        thought = await think(model, ask, slow)
        assert len(thought.replies) >= 4
        assert len(others) == len(thought.replies) - 1
        assert all(text.endswith("DONE") for text in others)
        assert model.counters.widest == 1


async def test_a_resumed_thought_computes_only_what_is_new(ask: Ask) -> None:
    async with made() as model:
        thought = await think(model, ask, calculator)
        first, *resumed = zip(thought.replies, thought.positions, strict=True)
        assert first[1] == HEAD + drawn(first[0]) - 1  # the last token drawn is never computed
        assert resumed
        for reply, positions in resumed:
            usage = reply["usage"]
            # the result, RET, and CALL, which was still to be computed
            assert usage["prompt_tokens"] - usage["cached_tokens"] == RETURNED + 1
            assert positions == RETURNED + 1 + drawn(reply) - 1


@pytest.mark.parametrize("others", [0, 16])
async def test_an_evicted_thought_is_computed_whole_and_goes_on_the_same(
    ask: Ask, others: int
) -> None:
    """Evicted because nothing is kept at all, or because of what came in between."""
    async with made() as roomy:
        kept = await think(roomy, ask, calculator)
    async with made(cache_bytes=bytes_of_a_full_row() if others else 0) as tight:

        async def crowded(expression: str) -> str:
            for target in range(10, 10 + others):  # in another mode: not a token in common
                other = ask(f"1 2 3 4 -> {target}", seed=1, max_tokens=9)
                await tight.generate(other, Allowance())
            return await calculator(expression)

        evicted = await think(tight, ask, crowded)
        assert len(engine(tight).prefixes) >= others / 4  # it is full of theirs
    assert evicted.text == kept.text
    assert words(evicted) == words(kept)
    assert certainty(evicted) == pytest.approx(certainty(kept), abs=1e-3)
    assert len(evicted.replies) >= 4
    for reply, positions in zip(evicted.replies, evicted.positions, strict=True):
        assert positions == reply["usage"]["prompt_tokens"] + drawn(reply) - 1
        assert "cached_tokens" not in reply["usage"]


def bytes_of_a_full_row() -> int:
    """The size of the keys and values of one row that fills the context."""
    cache = engine(EmbeddedModel("embedded/puzzle-large")).network.new_cache(1)
    return cache.keys.nbytes + cache.values.nbytes


async def test_what_a_cancelled_reply_had_computed_is_not_computed_again(ask: Ask) -> None:
    async with made() as model:
        shown: list[str] = []
        task: asyncio.Task[ModelReply]

        def cancel(delta: Delta) -> None:
            shown.append(delta.text)
            task.cancel()  # the engine may be ahead of the loop: what counts is the first piece

        request = ask(QUESTION, temperature=0)
        task = asyncio.create_task(model.generate(request, Allowance(), cancel))
        with pytest.raises(asyncio.CancelledError):
            await task
        engine(model).wait_idle()
        assert engine(model).in_flight == 0
        written = Message(role="assistant", content=shown[0])
        request["messages"].append(written)
        before = model.counters.positions
        again = await model.generate({**request, "continue_last": True}, Allowance())
        # the token drawn last is never computed; where all was shown at once, nothing is drawn
        assert model.counters.positions - before <= max(1, drawn(again))
        assert again["usage"]["cached_tokens"] == again["usage"]["prompt_tokens"] - 1


async def test_what_sixteen_branches_share_is_computed_once(ask: Ask) -> None:
    trunk = "8 + 8 = 16 [4 7 16 left]; 16 + 7 = 23 [4 23 left]; 23 + 4 = 27. BACK\n"

    async def branch(model: EmbeddedModel, number: int) -> ModelReply:
        begun = Message(role="assistant", content=f"{trunk}{number} + 1")
        request = ask(QUESTION, begun, temperature=0, max_tokens=1)
        return await model.generate({**request, "continue_last": True}, Allowance())

    async with made(slots=16) as model:
        replies = await asyncio.gather(*(branch(model, number) for number in range(16)))
        shared = HEAD + len(v.encode(trunk))
        assert model.counters.positions == shared + 16 * 3
        cached = [reply["usage"].get("cached_tokens", 0) for reply in replies]
        assert sorted(cached) == [0] + 15 * [shared]
    async with made(cache_bytes=0) as model:
        alone = [await branch(model, number) for number in range(16)]
    assert [one["message"] for one in replies] == [one["message"] for one in alone]
