"""A limit on the tokens of thought of a whole run: shared by its calls, and no end to answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.protocol_server import ProtocolServer, protocol_server
from longthought import Budget, Store, Workflow, answers, strategies, tool, verifiers
from longthought.budgets import Amount, Pool, Scope
from longthought.orchestrator.definition import ANSWER_PROMPT, FINAL_PROMPT
from longthought.orchestrator.models.openai import OpenAIModel
from longthought.orchestrator.models.scheduling import scheduling_now
from longthought.orchestrator.models.scripted import ScriptedModel, call, says
from longthought.types import Capabilities, Delta, ModelReply, ModelRequest, text_of

TEN = " ".join(["hm"] * 10)
PLAIN = Capabilities(seeds=True)


@pytest.fixture
def server() -> Iterator[ProtocolServer]:
    with protocol_server() as running:
        yield running


class Thinker:
    """Thinks for ten tokens before it answers, and not at all when it is told to answer."""

    def __init__(self) -> None:
        self.requests: list[ModelRequest] = []

    def __call__(self, request: ModelRequest) -> Any:
        self.requests.append(request)
        if text_of(request["messages"][-1]) == ANSWER_PROMPT:
            return "it is 42"
        return says("it is 42", reasoning=TEN)


def workflow_of(store: Store, script: Any, limit: int, **options: Any) -> Workflow:
    return Workflow(
        "thinking",
        model=ScriptedModel(script, capabilities=PLAIN),
        answer=answers.number(),
        budget=Budget(thinking_tokens=limit),
        store=store,
        **options,
    )


async def test_the_calls_of_a_run_share_it_and_all_are_answered(sqlite_store: Store) -> None:
    thinker = Thinker()
    strategy = strategies.sample(6)
    workflow = workflow_of(sqlite_store, thinker, 25, strategy=strategy, parallel=1)
    result = await workflow.run("q")
    assert (result.status, result.answer) == ("completed", "42")
    assert result.support["votes"] == {"42": 6}
    told = [request["sampling"].get("thinking_tokens") for request in thinker.requests]
    # two thoughts in full, one cut at five; then each is cut at its first token
    assert told == [25, 15, 5, 0, 1, 0, 1, 0, 1, 0]
    assert result.spent["thinking_tokens"] == 28
    assert result.spent["overrun"] == {"thinking_tokens": 3}
    recording = await sqlite_store.read(result.id)
    asked = [
        recording.get(event.body["request"])["sampling"].get("thinking_tokens")
        for event in recording.events
        if event.type == "effect_finished" and event.body["kind"] == "model"
    ]
    assert asked == [
        None,
        None,
        None,
        0,
        None,
        0,
        None,
        0,
        None,
        0,
    ]  # what is left is no part of it
    replayed = await workflow.replay(result.id)
    assert (replayed.answer, replayed.model_calls) == ("42", 0)
    assert replayed.spent["thinking_tokens"] == 28


async def test_branches_side_by_side_get_even_shares(sqlite_store: Store) -> None:
    thinker = Thinker()
    workflow = workflow_of(sqlite_store, thinker, 20, strategy=strategies.sample(4))
    result = await workflow.run("q")
    assert result.support["votes"] == {"42": 4}
    thought = [r["sampling"]["thinking_tokens"] for r in thinker.requests]
    assert sorted(tokens for tokens in thought if tokens) == [5, 5, 5, 5]
    assert result.spent["thinking_tokens"] == 20
    assert "overrun" not in result.spent


async def test_a_raised_limit_lets_it_think_again(sqlite_store: Store) -> None:
    thinker = Thinker()
    workflow = workflow_of(sqlite_store, thinker, 5)
    result = await workflow.run("q")
    assert result.spent["thinking_tokens"] == 5
    again = await workflow.resume(result.id, budget=Budget(thinking_tokens=50))
    assert (again.answer, again.spent["thinking_tokens"]) == ("42", 5)


@pytest.mark.parametrize("parallel", [1, 4])
async def test_hidden_thoughts_are_charged_and_stop_when_it_is_used_up(
    server: ProtocolServer, sqlite_store: Store, parallel: int
) -> None:
    """Forty tokens a call that nobody sees: they cannot be cut, so no further call is made."""
    model = OpenAIModel("toy", base_url=server.address("hidden"), api_key="any")
    workflow = Workflow(
        "hidden",
        model=model,
        answer=answers.number(),
        strategy=strategies.sample(6),
        budget=Budget(thinking_tokens=100),
        parallel=parallel,
        store=sqlite_store,
    )
    async with asyncio.timeout(60):
        result = await workflow.run("q")
    assert (result.status, result.stop_reason) == ("incomplete", "thinking_tokens")
    assert result.answer == "42"
    calls = result.spent["model_calls"]
    assert calls == max(3, parallel)
    assert result.spent["thinking_tokens"] == 40 * calls
    assert result.spent["overrun"] == {"thinking_tokens": 40 * calls - 100}
    assert (await workflow.replay(result.id)).answer == "42"
    await workflow.aclose()


async def test_a_thought_has_its_share_and_takes_none_of_the_answer() -> None:
    """Little room to think does not scale down what may be said."""
    scope = Scope("run", Budget(tokens=10_000, thinking_tokens=10, final_answer=0))
    wanted = Amount(tokens=5_000, output_tokens=4_000, thinking_tokens=4_000)
    least = Amount(tokens=1_100, output_tokens=100)
    held = await scope.reserve(wanted, minimum=least)
    assert held.amount == Amount(tokens=5_000, output_tokens=4_000, thinking_tokens=10)
    more = await scope.reserve(wanted, minimum=least)
    assert more.amount == Amount(tokens=5_000, output_tokens=4_000)
    held.release()
    more.release()
    scope.close()


class Halting(ScriptedModel):
    """Its first reply ends once the second thinks, which never comes to its end."""

    def __init__(self) -> None:
        super().__init__(["it is 42"])
        self.thinks = asyncio.Event()

    async def generate(self, request: ModelRequest, grant: Any, emit: Any = None) -> ModelReply:
        if not self.calls:
            reply = super().generate(request, grant, emit)
            self.calls += 1
            await self.thinks.wait()
            return await reply
        if emit is not None:
            emit(Delta("reasoning", TEN, tokens=10))
        self.thinks.set()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")


async def test_a_thought_that_is_cancelled_costs_what_was_thought(sqlite_store: Store) -> None:
    workflow = Workflow(
        "halting",
        model=Halting(),
        verifier=verifiers.callable(lambda candidate: True),
        strategy=strategies.sample(2, wave=2, stop=strategies.first_pass()),
        store=sqlite_store,
    )
    async with asyncio.timeout(60):
        result = await workflow.run("q")
    events = (await sqlite_store.read(result.id)).events
    ended = [e.body for e in events if e.type == "effect_finished" and e.body["kind"] == "model"]
    cancelled = next(body for body in ended if body["status"] == "abandoned")
    assert cancelled["charged"]["output_tokens"] == cancelled["charged"]["thinking_tokens"] == 10


async def test_a_last_answer_is_given_without_a_thought(sqlite_store: Store) -> None:
    """Nobody asks again after it, so a thought that is cut would be all there is."""
    requests: list[ModelRequest] = []

    @tool(effect="read")
    async def again() -> str:
        """Look again."""
        return "seen"

    def script(request: ModelRequest) -> Any:
        requests.append(request)
        if text_of(request["messages"][-1]) == FINAL_PROMPT:
            thinks = request["sampling"].get("thinking_tokens") != 0
            return says("it is 42", reasoning=TEN if thinks else "")
        return says("x " * 20, call("again"))

    workflow = Workflow(
        "last",
        model=ScriptedModel(script),
        tools=[again],
        answer=answers.number(),
        budget=Budget(tokens=600, final_answer=300, thinking_tokens=5),
        store=sqlite_store,
    )
    result = await workflow.run("q")
    assert text_of(requests[-1]["messages"][-1]) == FINAL_PROMPT
    assert result.answer == "42"
    assert requests[-1]["sampling"]["thinking_tokens"] == 0
    assert "thinking_tokens" not in result.spent


async def test_what_one_run_found_out_of_a_model_the_next_one_knows(
    server: ProtocolServer, sqlite_store: Store
) -> None:
    """A pool without room for thought is not worth another call to a model that hides its own."""
    pool = Pool("batch", Budget(thinking_tokens=40))
    model = OpenAIModel("toy", base_url=server.address("hidden"), api_key="any")
    workflow = Workflow("hidden", model=model, answer=answers.number(), store=sqlite_store)
    first = await workflow.run("q", pool=pool)
    second = await workflow.run("q", pool=pool)
    assert (first.spent["model_calls"], first.answer) == (1, "42")
    assert (second.status, second.stop_reason) == (
        "incomplete",
        "batch.thinking_tokens",
    )
    assert not second.model_calls
    await workflow.aclose()


async def test_who_calls_a_model_in_a_tool_puts_nothing_on_record(sqlite_store: Store) -> None:
    @tool(effect="read")
    async def look() -> str:
        """Look."""
        told = scheduling_now()
        assert told is not None
        assert told.keep is not None
        await told.keep("late")
        return "seen"

    model = ScriptedModel([says("looking", call("look")), "it is 42"])
    model.takes_scheduling = True  # type: ignore[attr-defined]
    workflow = Workflow("kept", model=model, tools=[look], store=sqlite_store)
    result = await workflow.run("q")
    assert result.status == "completed"
    events = (await sqlite_store.read(result.id)).events
    assert not [event for event in events if event.body.get("handle")]
