"""A thought that ends too soon is gone on with before the answer (budget forcing)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.protocol_server import ProtocolServer, protocol_server
from longthought import Budget, Store, Workflow, answers
from longthought.errors import InvalidInput
from longthought.orchestrator.definition import (
    ANSWER_PROMPT,
    THINK_ON_LEAD,
    THINK_ON_PROMPT,
    Retry,
)
from longthought.orchestrator.effects.cut_thoughts import MOST_EXTENSIONS
from longthought.orchestrator.models.openai import OpenAIModel
from longthought.orchestrator.models.registry import BackendSettings, resolve_model
from longthought.orchestrator.models.scripted import ScriptedModel, call, says
from longthought.tools import tool
from longthought.types import Capabilities, ModelRequest, text_of

FIVE = "hm hm hm hm hm"
ABLE = Capabilities(top_up=True, continues=True, seeds=True)
PLAIN = Capabilities(seeds=True)
WHOLE = Capabilities(seeds=True, streams=False)


@pytest.fixture
def server() -> Iterator[ProtocolServer]:
    with protocol_server() as running:
        yield running


class Hasty:
    """Thinks for five tokens each time, and answers with how often it has thought."""

    def __init__(self) -> None:
        self.requests: list[ModelRequest] = []

    def __call__(self, request: ModelRequest) -> Any:
        self.requests.append(request)
        return says(f"so it is {len(self.requests)}", reasoning=FIVE)


def workflow_of(
    store: Store, script: Any, capabilities: Capabilities, least: int, **options: Any
) -> Workflow:
    sampling = {"min_thinking_tokens": least, **options.pop("sampling", {})}
    return Workflow(
        "thoughts",
        model=ScriptedModel(script, capabilities=capabilities),
        answer=answers.number(),
        sampling=sampling,
        store=store,
        **options,
    )


async def replies(store: Store, run: str) -> list[Any]:
    """What each model call came to."""
    recording = await store.read(run)
    finished = [event for event in recording.events if event.type == "effect_finished"]
    return [recording.get(e.body["result"]) for e in finished if e.body["kind"] == "model"]


@pytest.mark.parametrize("capabilities", [ABLE, PLAIN], ids=["continues", "asked"])
async def test_it_thinks_on_until_it_has_thought_enough(
    sqlite_store: Store, capabilities: Capabilities
) -> None:
    hasty = Hasty()
    workflow = workflow_of(sqlite_store, hasty, capabilities, 12)
    result = await workflow.run("What is it?")
    assert (result.status, result.answer, result.text) == ("completed", "3", "so it is 3")
    first, second, third = hasty.requests
    tails = [request["messages"][len(first["messages"]) :] for request in (second, third)]
    if capabilities.continues:
        thought = FIVE + THINK_ON_LEAD
        assert [text_of(tail[0]) for tail in tails] == [thought, thought + FIVE + THINK_ON_LEAD]
        assert second["continue_last"]
    else:
        said = [
            {"role": "assistant", "content": FIVE},
            {"role": "user", "content": THINK_ON_PROMPT},
        ]
        assert tails == [said, said * 2]
    least = [request["sampling"].get("min_thinking_tokens") for request in hasty.requests]
    assert least == [12, 7, 2]
    one, two, last = await replies(sqlite_store, result.id)
    assert [one.get("thought_short"), two.get("thought_short")] == [True, True]
    assert "thought_short" not in last
    assert one["usage"]["completion_tokens"] == one["usage"]["reasoning_tokens"] == 5
    answered = last["usage"]["completion_tokens"]
    assert result.spent["output_tokens"] == 10 + answered
    replayed = await workflow.replay(result.id)
    assert (replayed.answer, replayed.model_calls, len(hasty.requests)) == ("3", 0, 3)


async def test_a_reply_that_comes_whole_is_paid_for_and_not_used(sqlite_store: Store) -> None:
    hasty = Hasty()
    result = await workflow_of(sqlite_store, hasty, WHOLE, 6).run("What is it?")
    assert (result.answer, len(hasty.requests)) == ("2", 2)
    one, last = await replies(sqlite_store, result.id)
    assert one["finish_reason"] == "stop"
    assert one["usage"]["completion_tokens"] > 5
    assert one["thought_short"]
    assert "thought_short" not in last


@pytest.mark.parametrize("capabilities", [ABLE, PLAIN, WHOLE], ids=["continues", "asked", "whole"])
async def test_the_extensions_have_an_end(sqlite_store: Store, capabilities: Capabilities) -> None:
    hasty = Hasty()
    workflow = workflow_of(sqlite_store, hasty, capabilities, 1_000)
    result = await workflow.run("What is it?")
    assert result.answer == str(1 + MOST_EXTENSIONS)
    assert len(hasty.requests) == 1 + MOST_EXTENSIONS
    assert "min_thinking_tokens" not in hasty.requests[-1]["sampling"]
    assert (await workflow.replay(result.id)).answer == result.answer


@pytest.mark.parametrize("thought", ["", FIVE * 3], ids=["none", "enough"])
async def test_what_shows_no_thought_or_enough_is_left(sqlite_store: Store, thought: str) -> None:
    script = [says("so it is 42", reasoning=thought)]
    result = await workflow_of(sqlite_store, script, ABLE, 12).run("What is it?")
    assert (result.answer, result.spent["model_calls"]) == ("42", 1)


async def test_the_most_counts_over_all_extensions(sqlite_store: Store) -> None:
    """Eight at least and eight at most: five, three more, and then the answer is asked for."""
    requests: list[ModelRequest] = []

    def script(request: ModelRequest) -> Any:
        requests.append(request)
        if text_of(request["messages"][-1]) == ANSWER_PROMPT:
            return "so it is 42"
        return says("never", reasoning=FIVE)

    sampling = {"thinking_tokens": 8, "max_tokens": 40}
    workflow = workflow_of(sqlite_store, script, PLAIN, 8, sampling=sampling)
    result = await workflow.run("What is it?")
    assert (result.answer, len(requests)) == ("42", 3)
    asked = [request["sampling"] for request in requests]
    assert [one["thinking_tokens"] for one in asked] == [8, 3, 0]
    assert [one["max_tokens"] for one in asked] == [40, 35, 32]
    assert [one.get("min_thinking_tokens") for one in asked] == [8, 3, None]
    short, cut, _ = await replies(sqlite_store, result.id)
    assert (short["thought_short"], cut["thought_cut"]) == (True, True)
    assert (await workflow.replay(result.id)).answer == "42"


async def test_it_also_thinks_on_before_it_calls_a_tool(sqlite_store: Store) -> None:
    @tool(effect="read")
    async def look(name: str) -> int:
        """Look it up."""
        return 42

    def script(request: ModelRequest) -> Any:
        last = request["messages"][-1]
        if last["role"] == "tool":
            return f"it is {text_of(last)}"
        return says(None, call("look", name=text_of(last)), reasoning=FIVE)

    workflow = workflow_of(sqlite_store, script, ABLE, 8, tools=[look])
    result = await workflow.run("What is it?")
    assert (result.answer, result.spent["tool_calls"], result.spent["model_calls"]) == ("42", 1, 3)
    assert (await workflow.replay(result.id)).answer == "42"


async def test_under_a_tight_budget_it_keeps_to_it(sqlite_store: Store) -> None:
    for tokens in range(20, 160, 10):
        workflow = workflow_of(sqlite_store, Hasty(), ABLE, 12, budget=Budget(tokens=tokens))
        result = await workflow.run("What is it?")
        assert result.spent["tokens"] <= tokens
        assert "overrun" not in result.spent
        assert (await workflow.replay(result.id)).answer == result.answer


@pytest.mark.parametrize(
    ("sampling", "field"),
    [
        ({"min_thinking_tokens": 10, "thinking_tokens": 9}, "min_thinking_tokens"),
        ({"min_thinking_tokens": 10, "thinking_tokens": 0}, "min_thinking_tokens"),
        ({"min_thinking_tokens": 10, "max_tokens": 9}, "min_thinking_tokens"),
        ({"min_thinking_tokens": -1}, "min_thinking_tokens"),
        ({"min_thinking_tokens": "10"}, "min_thinking_tokens"),
    ],
)
def test_limits_that_exclude_each_other_are_refused(sampling: Any, field: str) -> None:
    with pytest.raises(InvalidInput, match=rf"sampling\.{field}"):
        Workflow(model="embedded", sampling=sampling)


async def test_the_embedded_model_says_that_its_thought_is_its_text(sqlite_store: Store) -> None:
    workflow = Workflow("e", sampling={"min_thinking_tokens": 10}, store=sqlite_store)
    with pytest.raises(InvalidInput, match=r"sampling\.min_thinking_tokens.*is its text"):
        await workflow.run("4 7 8 8 -> 24")


@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_over_http_the_stream_is_closed_before_the_answer(
    server: ProtocolServer, sqlite_store: Store, api: Any
) -> None:
    model = OpenAIModel("toy", base_url=server.address("think3"), api_key="any", api=api)
    workflow = Workflow(
        "thoughts",
        model=model,
        answer=answers.number(),
        sampling={"min_thinking_tokens": 10},
        retry=Retry(attempts=1),
        store=sqlite_store,
    )
    async with asyncio.timeout(60):
        result = await workflow.run("Add up.")
    assert (result.answer, result.spent["model_calls"]) == ("42", 2)
    short, _ = await replies(sqlite_store, result.id)
    assert (short["finish_reason"], short["thought_short"]) == ("cut", True)
    assert short["usage"]["completion_tokens"] < 40  # by the bytes of the thought
    assert short["usage"]["estimated"]
    assert (await workflow.replay(result.id)).answer == "42"
    await workflow.aclose()


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
async def test_a_cut_stream_settles_at_its_running_usage(
    server: ProtocolServer, sqlite_store: Store, kind: str
) -> None:
    settings = BackendSettings(kind=kind, base_url=server.address("think30"))
    model = resolve_model("box/toy", backends={"box": settings})
    sampling: Any = {"thinking_tokens": 10}
    workflow = Workflow("thoughts", model=model, sampling=sampling, store=sqlite_store)
    async with asyncio.timeout(60):
        result = await workflow.run("Add up.")
    cut, *_ = await replies(sqlite_store, result.id)
    assert cut["thought_cut"]
    recording = await sqlite_store.read(result.id)
    thought = recording.get(cut["conversation"])["m"]["reasoning"][0]["text"]
    assert cut["usage"]["completion_tokens"] == thought.count("hm")
    assert "estimated" not in cut["usage"]
    assert server.received[0]["stream_options"]["continuous_usage_stats"] is True
    await workflow.aclose()
