"""A thought that has used up its own tokens is cut, and the answer asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.protocol_server import ProtocolServer, protocol_server
from longthought import Budget, Store, Workflow, answers
from longthought.errors import InvalidInput
from longthought.orchestrator.definition import ACT_PROMPT, ANSWER_LEAD, ANSWER_PROMPT, Retry
from longthought.orchestrator.models import toytokens
from longthought.orchestrator.models.openai import OpenAIModel
from longthought.orchestrator.models.registry import BackendSettings, resolve_model
from longthought.orchestrator.models.scripted import ScriptedModel, call, says
from longthought.tools import tool
from longthought.types import Capabilities, ModelRequest, text_of

THOUGHT = " ".join(["hm"] * 50)
TEN = " ".join(["hm"] * 10)
ABLE = Capabilities(top_up=True, continues=True, seeds=True)
PLAIN = Capabilities(seeds=True)


@pytest.fixture
def server() -> Iterator[ProtocolServer]:
    with protocol_server() as running:
        yield running


class Thinker:
    """Thinks for 50 tokens; answers at once when it is told to, or its thought is at hand."""

    def __init__(self, thought: str = THOUGHT, first: Any = None) -> None:
        self.requests: list[ModelRequest] = []
        self.thought, self.first = thought, first

    def __call__(self, request: ModelRequest) -> Any:
        self.requests.append(request)
        last = request["messages"][-1]
        if request.get("continue_last"):
            return self.first or text_of(last) + " it is 42"
        if text_of(last) in (ANSWER_PROMPT, ACT_PROMPT):
            return "so it is 42"
        return says("at length: 42", reasoning=self.thought)


def workflow_of(store: Store, thinker: Any, capabilities: Capabilities, **options: Any) -> Workflow:
    options = {"sampling": {"thinking_tokens": 10}, **options}
    return Workflow(
        "thoughts",
        model=ScriptedModel(thinker, capabilities=capabilities),
        answer=answers.number(),
        store=store,
        **options,
    )


async def replies(store: Store, run: str) -> list[Any]:
    """What each model call came to, with its message."""
    recording = await store.read(run)
    results = [
        recording.get(event.body["result"])
        for event in recording.events
        if event.type == "effect_finished" and event.body["kind"] == "model"
    ]
    return [{**one, **recording.get(one["conversation"])} for one in results]


def thought_of(reply: Any) -> str:
    return "".join(item["text"] for item in reply["m"]["reasoning"])


@pytest.mark.parametrize("able", [True, False], ids=["continues", "asked"])
async def test_a_long_thought_is_closed_and_answered(sqlite_store: Store, able: bool) -> None:
    thinker = Thinker()
    workflow = workflow_of(sqlite_store, thinker, ABLE if able else PLAIN)
    result = await workflow.run("What is it?")
    assert (result.status, result.answer) == ("completed", "42")
    first, second = thinker.requests
    *before, last = second["messages"]
    if able:
        assert (before, text_of(last)) == (first["messages"], TEN + ANSWER_LEAD)
    else:
        asked = [{"role": "assistant", "content": TEN}, {"role": "user", "content": ANSWER_PROMPT}]
        assert second["messages"] == [*first["messages"], *asked]
    assert second["sampling"]["thinking_tokens"] == 0
    cut, said = await replies(sqlite_store, result.id)
    assert (cut["finish_reason"], cut["thought_cut"]) == ("cut", True)
    assert cut["usage"]["completion_tokens"] == cut["usage"]["reasoning_tokens"] == 10
    assert "granted" not in cut
    assert "thought_cut" not in said
    answer_tokens = said["usage"]["completion_tokens"]
    assert result.spent["output_tokens"] == 10 + answer_tokens <= 16
    replayed = await workflow.replay(result.id)
    assert (replayed.answer, replayed.model_calls, len(thinker.requests)) == ("42", 0, 2)


@pytest.mark.parametrize("tokens", [0, 50, None])
async def test_within_the_limit_nothing_is_cut(sqlite_store: Store, tokens: int | None) -> None:
    thinker = Thinker()
    sampling = {} if tokens is None else {"thinking_tokens": tokens}
    result = await workflow_of(sqlite_store, thinker, ABLE, sampling=sampling).run("What is it?")
    assert (result.text, len(thinker.requests)) == ("at length: 42", 1)


async def test_where_going_on_brings_nothing_it_is_asked(sqlite_store: Store) -> None:
    """A server may take what follows an unfinished message for more of the thought."""
    thinker = Thinker(first=says("", reasoning="more of it"))
    result = await workflow_of(sqlite_store, thinker, ABLE).run("What is it?")
    assert (result.answer, len(thinker.requests)) == ("42", 3)
    assert text_of(thinker.requests[-1]["messages"][-1]) == ANSWER_PROMPT


@pytest.mark.parametrize("able", [True, False], ids=["continues", "asked"])
async def test_the_answer_may_be_a_tool_call(sqlite_store: Store, able: bool) -> None:
    @tool(effect="read")
    async def look(name: str) -> int:
        """Look it up."""
        return 42

    def script(request: ModelRequest) -> Any:
        last = request["messages"][-1]
        if last["role"] == "tool":
            return f"it is {text_of(last)}"
        if text_of(last) == ACT_PROMPT:
            return call("look", name="it")
        return says("never", reasoning=THOUGHT)

    capabilities = ABLE if able else PLAIN
    workflow = workflow_of(sqlite_store, script, capabilities, tools=[look])
    result = await workflow.run("What is it?")
    assert (result.answer, result.spent["tool_calls"]) == ("42", 1)
    assert (await workflow.replay(result.id)).answer == "42"


@pytest.mark.parametrize("able", [True, False], ids=["continues", "asked"])
async def test_under_a_tight_budget_it_keeps_to_it(sqlite_store: Store, able: bool) -> None:
    for tokens in range(20, 120, 7):
        workflow = workflow_of(
            sqlite_store, Thinker(), ABLE if able else PLAIN, budget=Budget(tokens=tokens)
        )
        result = await workflow.run("What is it?")
        assert result.spent["tokens"] <= tokens
        assert "overrun" not in result.spent
        assert (await workflow.replay(result.id)).answer == result.answer


async def test_the_wish_for_the_whole_reply_is_kept(sqlite_store: Store) -> None:
    thinker = Thinker()
    sampling = {"thinking_tokens": 10, "max_tokens": 12}
    await workflow_of(sqlite_store, thinker, PLAIN, sampling=sampling).run("What is it?")
    assert thinker.requests[1]["sampling"]["max_tokens"] == 2


@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_over_http_the_stream_is_cut(
    server: ProtocolServer, sqlite_store: Store, api: Any
) -> None:
    model = OpenAIModel("toy", base_url=server.address("think30"), api_key="any", api=api)
    workflow = Workflow(
        "thoughts",
        model=model,
        answer=answers.number(),
        sampling={"thinking_tokens": 10},
        retry=Retry(attempts=1),
        store=sqlite_store,
    )
    async with asyncio.timeout(60):
        result = await workflow.run("Add up.")
    assert (result.answer, result.spent["model_calls"]) == ("42", 2)
    cut, _ = await replies(sqlite_store, result.id)
    assert cut["thought_cut"]
    assert thought_of(cut) == "hm " * 11  # one piece more shows that it goes on
    assert (await workflow.replay(result.id)).answer == "42"
    await workflow.aclose()


async def test_a_server_that_ends_thoughts_itself_is_told(
    server: ProtocolServer, sqlite_store: Store
) -> None:
    """Ours does not listen: then the stream is cut all the same, a little later."""
    settings = BackendSettings(kind="vllm", base_url=server.address("think30"))
    model = resolve_model("box/toy", backends={"box": settings})
    workflow = Workflow(
        "thoughts", model=model, sampling={"thinking_tokens": 10}, store=sqlite_store
    )
    async with asyncio.timeout(60):
        result = await workflow.run("Add up.")
    assert "42" in result.text
    told = [body.get("thinking_token_budget") for body in server.received]
    assert told[0] == 10
    assert set(told[1:]) == {0}
    cut, *_ = await replies(sqlite_store, result.id)
    assert 10 < thought_of(cut).count("hm") < 30
    await workflow.aclose()


@pytest.mark.parametrize("tokens", [-1, 1.5, True, "10"])
def test_what_is_no_number_of_tokens_is_refused(tokens: Any) -> None:
    with pytest.raises(InvalidInput, match=r"sampling\.thinking_tokens"):
        Workflow(model="embedded", sampling={"thinking_tokens": tokens})


def test_the_thought_of_the_tests_has_fifty_tokens() -> None:
    assert toytokens.count(THOUGHT) == 50
