"""The model of a Chat Completions server, against a real server on loopback."""

from __future__ import annotations

import asyncio
import gc

import pytest

from benchmarks.protocol_server import FINAL, in_process
from longthought.errors import BackendError, ConfigurationError, InvalidInput, QuestionRefused
from longthought.orchestrator.models import OpenAIModel
from longthought.types import UNBOUNDED_TOKENS, text_of

TOOLS = [{"name": "add", "description": "Add.", "parameters": {"type": "object"}}]


def question(**fields):
    return {"model": "toy", "messages": [{"role": "user", "content": "Add é."}], **fields}


@pytest.fixture
async def model_of(server):
    made = []

    def make(modes="t0", **options):
        options.setdefault("base_url", server.address(modes))
        made.append(OpenAIModel("toy", **options))
        return made[-1]

    yield make
    for model in made:
        await model.aclose()
        await model.aclose()


async def converse(model, grant):
    """Ask until the final text: the replies."""
    messages, replies = list(question()["messages"]), []
    while True:
        reply = await model.generate(question(messages=messages, tools=TOOLS), grant)
        replies.append(reply)
        messages.append(reply["message"])
        calls = reply["message"].get("tool_calls", ())
        messages += [{"role": "tool", "tool_call_id": c["id"], "content": "3"} for c in calls]
        if reply["finish_reason"] != "tool_calls":
            return replies


@pytest.mark.parametrize("stream", [True, False])
async def test_a_job_with_tools_is_counted_as_the_server_counts(model_of, server, granted, stream):
    before = server.stats()
    replies = await converse(model_of("t3,p2", stream=stream), granted(99))
    after = server.stats()
    assert len(replies) == 4
    assert text_of(replies[-1]["message"]) == FINAL
    assert [part["name"] for part in replies[0]["message"]["tool_calls"]] == ["add", "add"]
    assert replies[1]["message"]["tool_calls"][1]["arguments"] == '{"a": 1, "b": 2}'
    for kind in ("prompt_tokens", "completion_tokens", "calls"):
        told = sum(reply["usage"][kind] for reply in replies)
        assert told == after[kind] - before.get(kind, 0)
    assert (replies[0]["model"], replies[0]["fingerprint"]) == ("toy-2026", "fp_1")


@pytest.mark.parametrize(
    "modes",
    ["t0", "t1,p2", "reasoning", "t1,opaque", "hidden", "no-usage", "refusal", "bytes", "t1,bytes"],
)
@pytest.mark.parametrize("tokens", [999, 9])
async def test_both_ways_give_the_same_reply(model_of, granted, modes, tokens):
    streamed = await model_of(modes).generate(question(), granted(tokens))
    whole = await model_of(modes, stream=False).generate(question(), granted(tokens))
    assert streamed == whole
    assert streamed["usage"].get("estimated", False) is (modes == "no-usage")
    assert streamed["usage"]["completion_tokens"] <= (tokens if tokens == 9 else 60)


async def test_deltas_are_the_reply_in_pieces(model_of, granted):
    deltas = []
    reply = await model_of("t1,reasoning").generate(question(), granted(99), deltas.append)
    pieces = [(delta.kind, delta.text) for delta in deltas]
    assert "".join(text for kind, text in pieces if kind == "reasoning") == "Add them up."
    assert reply["message"]["reasoning"][0]["text"] == "Add them up."
    calls = [text for kind, text in pieces if kind == "tool_call"]
    assert (calls[0], "".join(calls[1:])) == ("add", '{"a": 0, "b": 1}')
    assert sum(delta.tokens for delta in deltas) == reply["usage"]["completion_tokens"]


async def test_what_came_with_a_message_goes_back_with_it(model_of, granted, monkeypatch):
    model = model_of("t1,opaque")
    first, second = await converse(model, granted(99))
    provider = first["message"]["provider"]
    assert provider["reasoning_details"] == [{"index": 0, "type": "secret", "data": "s3"}]
    assert provider["tool_calls"] == {"call_00": {"extra_content": {"signature": "s4"}}}
    assert text_of(second["message"]) == FINAL


async def test_the_server_keeps_to_the_grant_or_to_the_wish(model_of, granted):
    reply = await model_of().generate(question(), granted(3))
    assert (reply["finish_reason"], reply["usage"]["completion_tokens"]) == ("length", 3)
    wish = question(sampling={"max_tokens": 2})
    reply = await model_of().generate(wish, granted(99))
    assert (reply["finish_reason"], reply["usage"]["completion_tokens"]) == ("length", 2)
    with pytest.raises(BackendError, match="no tokens are granted") as info:
        await model_of().generate(question(), granted(0))
    assert not info.value.sent


async def test_a_server_that_ignores_the_maximum_is_cut_off(model_of, server, granted):
    before = server.stats()
    reply = await model_of("ignore-max,slow,w500").generate(question(), granted(5))
    assert reply["finish_reason"] == "cut"
    assert reply["usage"]["completion_tokens"] == 6
    assert reply["usage"]["estimated"]
    assert len(text_of(reply["message"]).split()) == 6
    await settled(server, lost=before.get("lost", 0) + 1)
    sent = server.stats()["completion_tokens"] - before.get("completion_tokens", 0)
    assert sent < 12  # what was in flight when it was cut, nothing like 500
    whole = await model_of("ignore-max,w500", stream=False).generate(question(), granted(5))
    assert whole["usage"]["completion_tokens"] == 500


async def test_without_a_limit_none_is_sent(model_of, granted):
    reply = await model_of("w700").generate(question(), granted(UNBOUNDED_TOKENS))
    assert (reply["finish_reason"], reply["usage"]["completion_tokens"]) == ("stop", 700)


async def test_a_running_count_is_used_when_the_last_one_is_missing(model_of, granted):
    cut = await model_of("ignore-max,running,slow,w500").generate(question(), granted(5))
    assert cut["finish_reason"] == "cut"
    assert cut["usage"]["completion_tokens"] == 6
    assert cut["usage"]["cached_tokens"] > 0
    lost = await model_of("lost-end,w5").generate(question(), granted(9))
    assert lost["finish_reason"] == "stop"
    assert lost["usage"]["estimated"]


async def settled(server, **counts):
    """Wait until nothing is in flight at the server and it has counted so much."""
    async with asyncio.timeout(10):
        while server.counts["in_flight"] or any(server.counts[k] < v for k, v in counts.items()):
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("modes", ["slow,w500", "hang"])
@pytest.mark.parametrize("stream", [True, False])
async def test_cancelling_frees_the_connection(model_of, server, granted, modes, stream):
    async with asyncio.timeout(10):
        while server.counts["in_flight"]:  # of tests before this one
            await asyncio.sleep(0.005)
    model, lost = model_of(modes, stream=stream), server.counts["lost"]
    came = asyncio.Event()
    call = asyncio.create_task(model.generate(question(), granted(999), lambda _: came.set()))
    async with asyncio.timeout(10):
        while not server.counts["in_flight"]:
            await asyncio.sleep(0.005)
        if stream and modes != "hang":
            await came.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await settled(server, lost=lost + 1)
    if modes != "hang":
        model.base_url = server.address("w3")
        assert len(text_of((await model.generate(question(), granted(9)))["message"])) > 3


@pytest.mark.parametrize("stream", [True, False])
async def test_many_at_once(model_of, granted, stream):
    model = model_of("t2", stream=stream)
    jobs = await asyncio.gather(*(converse(model, granted(99)) for _ in range(64)))
    assert all(job == jobs[0] for job in jobs)
    assert text_of(jobs[0][-1]["message"]) == FINAL


def test_one_model_serves_one_loop_after_the_other(server, granted):
    model = OpenAIModel("toy", base_url=server.address("t1"))
    before = server.counts["lost"]
    for _ in range(2):
        replies = asyncio.run(converse(model, granted(99)))
        assert text_of(replies[-1]["message"]) == FINAL
    del model
    gc.collect()  # a connection left open would warn here, and warnings are errors
    assert server.counts["lost"] == before


async def test_a_closed_model_opens_again(model_of, granted):
    model = model_of()
    for _ in range(2):
        assert (await model.generate(question(), granted(99)))["finish_reason"] == "stop"
        await model.aclose()


async def test_continuing_needs_a_server_that_can(model_of, granted):
    unfinished = {"role": "assistant", "content": "The"}
    messages = [*question()["messages"], unfinished]
    request = question(messages=messages, continue_last=True)
    with pytest.raises(QuestionRefused, match="cannot go on with an unfinished message"):
        await model_of().generate(request, granted(9))
    able = model_of(capabilities={"continues": True, "context_window": 4096})
    assert able.capabilities.context_window == 4096
    assert (await able.generate(request, granted(99)))["finish_reason"] == "stop"


async def test_openai_itself_needs_a_key_when_it_is_called(granted, monkeypatch):
    model = OpenAIModel("gpt-5-mini", api_key_env="MY_KEY")
    assert model.fingerprint()["endpoint"] == "https://api.openai.com/v1"
    for ask in (model.check, lambda: asyncio.run(model.generate(question(), granted(9)))):
        with pytest.raises(ConfigurationError, match="Set MY_KEY, or OPENAI_BASE_URL"):
            await asyncio.to_thread(ask)
    monkeypatch.setenv("MY_KEY", "sk-here")
    model.check()
    OpenAIModel("toy", base_url="http://localhost:1/v1").check()


def test_addresses_and_capabilities_are_checked():
    for bad in ("localhost:8000/v1", "ftp://x/v1", "http:///v1"):
        with pytest.raises(ConfigurationError, match="is no http address"):
            OpenAIModel("toy", base_url=bad)
    with pytest.raises(InvalidInput, match="unknown among"):
        OpenAIModel("toy", base_url="http://x/v1", capabilities={"flies": True})
    model = OpenAIModel("toy", base_url="http://user:hidden-pass@h:1/v1/?k=hidden", api_key="k")
    shown = repr(model) + str(model.fingerprint())
    assert "hidden" not in shown
    assert "http://h:1/v1" in shown
    assert model.count_prompt(question()) is None


def test_the_server_runs_in_a_process_of_its_own(granted):
    with in_process() as server:
        model = OpenAIModel("toy", base_url=server.address("w3"))
        reply = asyncio.run(model.generate(question(), granted(9)))
        assert server.stats()["completion_tokens"] == 3 == reply["usage"]["completion_tokens"]
