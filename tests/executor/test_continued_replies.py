"""Replies that a small grant cut short are gone on with when there is room again."""

from __future__ import annotations

from typing import Any

import pytest

from longthought import Budget, Store, Workflow, answers, strategies
from longthought.orchestrator.definition import CONTINUE_PROMPT, Retry
from longthought.orchestrator.models import toytokens
from longthought.orchestrator.models.scripted import ScriptedModel, call, says
from longthought.types import Capabilities, ModelRequest, text_of

LONG = " ".join(f"word{n}" for n in range(300)) + " so it is 42"
CAPABILITIES = {
    "continues": Capabilities(continues=True, seeds=True),
    "asked": Capabilities(seeds=True),
}


class Endpoint:
    """Answers at length to the seed 1 and briefly to others; goes on where it was stopped."""

    def __init__(self, thought: str = "") -> None:
        self.requests: list[ModelRequest] = []
        self.thought = thought

    def __call__(self, request: ModelRequest) -> Any:
        self.requests.append(request)
        if request["sampling"]["seed"] != 1:
            return "it is 42"
        *_, before, last = [{}, *request["messages"]]
        if text_of(last) == CONTINUE_PROMPT:
            return LONG.removeprefix(text_of(before))
        return says(LONG, reasoning=self.thought)


def workflow_of(
    store: Store, endpoint: Endpoint, capabilities: Capabilities, tokens: int | None, **options: Any
) -> Workflow:
    return Workflow(
        "continued",
        model=ScriptedModel(endpoint, capabilities=capabilities),
        answer=answers.number(),
        strategy=strategies.sample(4),
        budget=Budget() if tokens is None else Budget(tokens=tokens, final_answer=0),
        retry=Retry(attempts=1),
        store=store,
        **options,
    )


def effects(recording: Any, kind: str) -> list[Any]:
    """The finished effects of a kind."""
    events = [event for event in recording.events if event.type == "effect_finished"]
    return [event for event in events if event.body["kind"] == kind]


@pytest.mark.parametrize("way", CAPABILITIES)
async def test_what_siblings_leave_goes_to_who_was_cut(sqlite_store: Store, way: str) -> None:
    endpoint = Endpoint()
    need = toytokens.count(LONG)
    workflow = workflow_of(sqlite_store, endpoint, CAPABILITIES[way], 3 * need)
    result = await workflow.run("What is it?")
    assert (result.status, result.answer, result.support["samples"]) == ("completed", "42", 4)
    recording = await sqlite_store.read(result.id)
    finished = effects(recording, "model")
    assert len(finished) == len(endpoint.requests) > 4
    cut = [recording.get(event.body["result"]).get("granted") for event in finished]
    assert any(cut)
    continued = [r for r in endpoint.requests if r.get("continue_last")]
    assert bool(continued) == (way == "continues")
    told = [text_of(branch["message"]) for branch in messages_of(recording, finished)]
    assert "".join(part for part in told if part != "it is 42").replace(" ", "") == LONG.replace(
        " ", ""
    )
    assert result.spent["tokens"] <= 3 * need
    assert "overrun" not in result.spent
    calls = len(endpoint.requests)
    replayed = await workflow.replay(result.id)
    assert (replayed.answer, len(endpoint.requests)) == ("42", calls)


def messages_of(recording: Any, finished: list[Any]) -> list[Any]:
    """What each call said, in order."""
    results = [recording.get(event.body["result"]) for event in finished]
    return [{"message": recording.get(result["conversation"])["m"]} for result in results]


@pytest.mark.parametrize("way", CAPABILITIES)
async def test_a_wish_of_the_user_is_no_cut(sqlite_store: Store, way: str) -> None:
    endpoint = Endpoint()
    workflow = workflow_of(
        sqlite_store, endpoint, CAPABILITIES[way], None, sampling={"max_tokens": 9}
    )
    await workflow.run("What is it?")
    assert len(endpoint.requests) == 4


@pytest.mark.parametrize("way", CAPABILITIES)
async def test_what_was_said_stands_when_nothing_more_is_to_be_had(
    sqlite_store: Store, way: str
) -> None:
    endpoint = Endpoint()
    need = toytokens.count(LONG)
    workflow = workflow_of(sqlite_store, endpoint, CAPABILITIES[way], need)
    result = await workflow.run("What is it?")
    assert result.answer == "42"  # of the short one
    assert result.spent["tokens"] <= need
    replayed = await workflow.replay(result.id)
    assert replayed.answer == result.answer


async def test_a_thought_that_said_nothing_yet_is_asked_anew(sqlite_store: Store) -> None:
    endpoint = Endpoint(thought=" ".join(["hm"] * 900))
    need = toytokens.count(LONG) + 900
    workflow = workflow_of(sqlite_store, endpoint, CAPABILITIES["asked"], 2 * need)
    result = await workflow.run("What is it?")
    assert result.support["samples"] == 4
    first, anew, *_ = [r for r in endpoint.requests if r["sampling"]["seed"] == 1]
    assert first == anew
    assert result.spent["tokens"] <= 2 * need


async def test_a_cut_tool_call_is_not_gone_on_with(sqlite_store: Store) -> None:
    def asks(request: ModelRequest) -> Any:
        requests.append(request)
        return says(None, call("nothing", text="x " * 200))

    requests: list[ModelRequest] = []
    workflow = workflow_of(
        sqlite_store,
        asks,  # type: ignore[arg-type]
        CAPABILITIES["continues"],
        400,
        max_turns=1,
    )
    await workflow.run("What is it?")
    assert not any(request.get("continue_last") for request in requests)
