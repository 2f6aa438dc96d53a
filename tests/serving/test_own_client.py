"""Our own client and whole workflows against a server: the same as in one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from longthought import Budget, Workflow, answers, strategies, verifiers
from longthought.errors import BackendError
from longthought.orchestrator.models import OpenAIModel
from longthought.orchestrator.models.allowance import Allowance
from longthought.orchestrator.models.embedded import EmbeddedModel
from longthought.orchestrator.models.registry import BackendSettings, resolve_model
from longthought.orchestrator.models.scripted import ScriptedModel
from longthought.orchestrator.serving import ChatServer, chat_server
from longthought.tools import calculator
from longthought.types import Delta, JSONObject, ModelRequest
from tests.serving.conftest import ASKED, PUZZLE, Held

ABLE = {"continues": True, "inline_tools": True}
TOOL: Any = {"name": "calculator", "description": "", "parameters": {"type": "object"}}


@pytest.fixture(autouse=True)
def _own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGTHOUGHT_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("LONGTHOUGHT_DATABASE_URL", raising=False)


@pytest.fixture
def fresh() -> Iterator[ChatServer]:
    """A server whose model has computed nothing yet."""
    with chat_server("embedded") as running:
        yield running


def asked(*more: Any, **sampling: Any) -> ModelRequest:
    request: Any = {"model": "embedded", "messages": [*ASKED, *more], "sampling": sampling}
    return request


@pytest.mark.parametrize("stream", [False, True])
async def test_replies_and_usage_are_those_of_the_process(fresh: ChatServer, stream: bool) -> None:
    near = EmbeddedModel("embedded")
    far = OpenAIModel("embedded", base_url=fresh.url, stream=stream, capabilities=ABLE)
    requests = [
        *(asked(seed=seed) for seed in range(4)),
        asked(seed=1, max_tokens=1),
        asked(seed=1, max_tokens=5, stop=["]"]),
        asked(seed=1, stop=["BACK", ";"]),
        asked(seed=1, stop=["said by nobody"]),
        asked(seed=1, logprobs=True, top_p=0.9),
        asked(seed=1, reasoning_effort="none"),
        {**asked(seed=3), "tools": [TOOL]},
    ]
    cached = 0
    ends = []
    for request in requests:
        here = await near.generate(request, Allowance())
        there = await far.generate(request, Allowance())
        assert there["message"] == here["message"]
        assert there["finish_reason"] == here["finish_reason"]
        assert there["usage"] == here["usage"]
        ends += [reply["stopped_by"] for reply in (here, there) if reply.get("stopped_by", "")]
        if here["finish_reason"] == "stop":
            assert there.get("stopped_by", "") == here.get("stopped_by", "")
        cached += there["usage"].get("cached_tokens", 0)
        pairs = [(entry["token"], entry["logprob"]) for entry in there.get("logprobs", [])]
        assert pairs == [(entry["token"], entry["logprob"]) for entry in here.get("logprobs", [])]
    assert cached > 0
    assert ends == [";", ";"]
    await near.aclose()
    await far.aclose()


async def test_a_client_that_knows_the_server_hears_the_usage_of_a_stream(
    fresh: ChatServer,
) -> None:
    settings = BackendSettings(kind="longthought", base_url=fresh.url)
    far = resolve_model("near/embedded", backends={"near": settings})
    heard: list[int] = []

    def emit(delta: Delta) -> None:
        assert delta.usage is not None
        heard.append(delta.usage.completion_tokens)

    reply = await far.generate(asked(seed=1), Allowance(), emit)
    assert heard == sorted(heard)
    assert 0 < heard[0] <= heard[-1] == reply["usage"]["completion_tokens"]
    await far.aclose()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("told", [None, ";", "end_turn", 151_645])
async def test_what_is_no_stop_string_of_ours_stopped_nothing(stream: bool, told: Any) -> None:
    whole = {"message": {"role": "assistant", "content": "8 / 8 = 1"}, "stopped_by": told}
    with chat_server(ScriptedModel([whole])) as server:
        far = OpenAIModel("scripted", base_url=server.url, stream=stream)
        reply = await far.generate({**asked(stop=[";"]), "model": "scripted"}, Allowance())
        assert reply["stopped_by"] == (";" if told == ";" else None)
        assert "stopped_by" not in await far.generate(asked(), Allowance())
        await far.aclose()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_thought_in_steps_goes_on_with_what_was_said(
    fresh: ChatServer, stream: bool
) -> None:
    far = OpenAIModel("embedded", base_url=fresh.url, stream=stream, capabilities=ABLE)
    whole = await far.generate(asked(temperature=0.0), Allowance())
    written = ""
    while not written.endswith("DONE"):
        more = [{"role": "assistant", "content": written}] if written else []
        request = asked(*more, temperature=0.0, stop=[";"])
        if written:
            request["continue_last"] = True
        said = await far.generate(request, Allowance())
        assert said["finish_reason"] == "stop"
        written += str(said["message"]["content"])
        if not written.endswith("DONE"):
            written += "; "
    assert written == whole["message"]["content"]
    await far.aclose()


@pytest.mark.parametrize("grant", range(1, 9))
async def test_a_stream_within_its_grant_is_never_cut(fresh: ChatServer, grant: int) -> None:
    far = OpenAIModel("embedded", base_url=fresh.url)
    for tools in ([], [TOOL]):
        request = asked(temperature=0.0)
        if tools:
            request["tools"] = tools
        reply = await far.generate(request, Allowance(grant))
        assert reply["finish_reason"] in ("length", "tool_calls")
        assert reply["usage"]["completion_tokens"] <= grant
        assert "estimated" not in reply["usage"]
    await far.aclose()


def served(server: ChatServer, **more: Any) -> Workflow:
    return Workflow(
        "far",
        model=OpenAIModel("embedded", base_url=server.url, capabilities=ABLE),
        answer=answers.puzzle(),
        verifier=verifiers.puzzle(integers=True),
        **more,
    )


async def test_best_of_sixteen(server: ChatServer) -> None:
    budget = Budget(tokens=8_000, wall=60)
    workflow = served(server, strategy=strategies.best_of(16, wave=4), budget=budget)
    run = await workflow.run(PUZZLE, run_id="far")
    assert (run.status, run.stop_reason) == ("completed", "first_pass"), run.error
    assert run.answer
    assert 0 < run.spent["tokens"] <= 8_000
    replayed = await workflow.replay("far")
    assert replayed.answer == run.answer
    await workflow.aclose()


async def test_tools_are_called_on_the_way(server: ChatServer) -> None:
    workflow = served(server, strategy=strategies.best_of(16, wave=4), tools=[calculator()])
    run = await workflow.run(PUZZLE)
    assert run.status == "completed", run.error
    assert run.spent["tool_calls"] > 2
    await workflow.aclose()


async def test_a_search_that_goes_back(server: ChatServer) -> None:
    search = strategies.backtrack(width=2, restarts=15, stop=(";", "BACK"))
    run = await served(server, strategy=search).run(PUZZLE)
    assert run.status == "completed", run.error
    assert run.answer


async def test_the_refusal_of_a_question_reaches_the_caller(server: ChatServer) -> None:
    far = OpenAIModel("embedded", base_url=server.url)
    request: Any = {"model": "embedded", "messages": [{"role": "user", "content": "Wie groß?"}]}
    with pytest.raises(BackendError, match="4 7 8 8 -> 24") as caught:
        await far.generate(request, Allowance())
    assert (caught.value.status, caught.value.retryable) == (400, False)
    await far.aclose()
    run = await served(server).run("Wie groß?")
    assert (run.answer, run.spent["model_calls"], run.spent["tokens"]) == (None, 1, 0)
    assert "4 7 8 8 -> 24" in (run.error or "")


async def test_what_went_wrong_is_a_fault_of_the_backend() -> None:
    with chat_server(Held(BackendError("inside", retryable=True))) as server:
        for stream in (False, True):
            far = OpenAIModel("held", base_url=server.url, stream=stream)
            request: JSONObject = {"model": "held", "messages": ASKED}
            with pytest.raises(BackendError, match="the model failed") as caught:
                await far.generate(request, Allowance())  # type: ignore[arg-type]
            assert caught.value.retryable
            await far.aclose()
