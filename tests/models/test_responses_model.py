"""The model of a server that speaks Responses, against a real server on loopback."""

from __future__ import annotations

import asyncio
import cProfile
import itertools
import json
import pstats
import urllib.request

import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from benchmarks import responses_protocol
from benchmarks.protocol_server import FINAL
from longthought import Budget, Store, Workflow, answers
from longthought.errors import BackendError, QuestionRefused
from longthought.orchestrator.models import OpenAIModel
from longthought.orchestrator.models.openai.sse import ServerEvents
from longthought.tools import tool
from longthought.types import UNBOUNDED_TOKENS, text_of

TOOLS = [{"name": "add", "description": "Add.", "parameters": {"type": "object"}}]


def question(**fields):
    return {"model": "toy", "messages": [{"role": "user", "content": "Add é."}], **fields}


@pytest.fixture
async def model_of(server):
    made = []

    def make(modes="t0", **options):
        options.setdefault("base_url", server.address(modes))
        made.append(OpenAIModel("toy", **{"api": "responses", **options}))
        return made[-1]

    yield make
    for model in made:
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
    assert replies[0]["model"] == "toy-2026"


@pytest.mark.parametrize(
    "modes",
    [
        "t0",
        "t1,p2",
        "reasoning",
        "t3,p2,reasoning",
        "t1,opaque",
        "hidden",
        "t1,hidden",
        "no-usage",
        "refusal",
        "bytes",
        "t1,p2,bytes",
    ],
)
@pytest.mark.parametrize("tokens", [999, 9, 2])
async def test_both_ways_give_the_same_reply(model_of, granted, modes, tokens):
    streamed = await model_of(modes).generate(question(), granted(tokens))
    whole = await model_of(modes, stream=False).generate(question(), granted(tokens))
    assert streamed == whole
    assert streamed["usage"].get("estimated", False) is (modes == "no-usage")
    assert streamed["usage"]["completion_tokens"] <= (tokens if tokens < 99 else 60)


@pytest.mark.parametrize("modes", ["t0", "t2,p2", "reasoning", "hidden", "refusal", "t1,hidden"])
async def test_both_protocols_tell_the_same(model_of, granted, modes):
    replies = [await model_of(modes, api=api).generate(question(), granted(99)) for api in APIS]
    chat, responses = replies
    assert text_of(chat["message"]) == text_of(responses["message"])
    for field in ("tool_calls", "content"):
        assert chat["message"].get(field) == responses["message"].get(field)
    assert (chat["finish_reason"], chat["usage"]) == (
        responses["finish_reason"],
        responses["usage"],
    )


APIS = ("chat", "responses")


@pytest.mark.parametrize("api", APIS)
async def test_deltas_are_the_reply_in_pieces_and_calls_are_told(model_of, granted, api):
    deltas = []
    model = model_of("t1,p2,reasoning", api=api)
    reply = await model.generate(question(), granted(99), deltas.append)
    pieces = [(delta.kind, delta.text) for delta in deltas]
    assert "".join(text for kind, text in pieces if kind == "reasoning") == "Add them up."
    assert reply["message"]["reasoning"][0]["text"] == "Add them up."
    calls = reply["message"]["tool_calls"]
    for index, call in enumerate(calls):
        own = [d for d in deltas if d.kind == "tool_call" and d.index == index]
        assert own[0].text == call["name"]
        assert "".join(delta.text for delta in own[1:]) == call["arguments"]
        assert [delta.call for delta in own] == [*[None] * (len(own) - 1), call]
        assert (own[-1].text, own[-1].tokens) == ("", 0)
    assert sum(delta.tokens for delta in deltas) == reply["usage"]["completion_tokens"]


async def test_the_server_keeps_to_the_grant_or_to_the_wish(model_of, server, granted):
    reply = await model_of().generate(question(), granted(3))
    assert (reply["finish_reason"], reply["usage"]["completion_tokens"]) == ("length", 3)
    assert server.received[-1]["max_output_tokens"] == 3
    wish = question(sampling={"max_tokens": 2})
    reply = await model_of().generate(wish, granted(99))
    assert (reply["finish_reason"], reply["usage"]["completion_tokens"]) == ("length", 2)
    reply = await model_of("w700").generate(question(), granted(UNBOUNDED_TOKENS))
    assert (reply["finish_reason"], reply["usage"]["completion_tokens"]) == ("stop", 700)
    assert "max_output_tokens" not in server.received[-1]


async def test_a_server_that_does_not_tell_when_there_was_no_room_left(
    model_of, granted, monkeypatch
):
    """As llama.cpp does it: every reply is completed."""
    shaped = responses_protocol._response

    def silent(job, status):
        response = {**shaped(job, "completed" if status == "incomplete" else status)}
        del response["incomplete_details"]
        return response

    monkeypatch.setattr(responses_protocol, "_response", silent)
    for stream in (True, False):
        for tokens, reason in ((3, "length"), (99, "stop")):
            reply = await model_of(stream=stream).generate(question(), granted(tokens))
            assert reply["finish_reason"] == reason
        estimated = await model_of("no-usage", stream=stream).generate(question(), granted(20))
        assert estimated["finish_reason"] == "stop"


async def test_a_server_that_ignores_the_maximum_is_cut_off(model_of, server, granted):
    before = server.stats()
    reply = await model_of("ignore-max,slow,w500").generate(question(), granted(5))
    assert reply["finish_reason"] == "cut"
    assert reply["usage"]["completion_tokens"] == 6
    assert reply["usage"]["estimated"]
    assert len(text_of(reply["message"]).split()) == 6
    async with asyncio.timeout(10):
        while server.counts["in_flight"] or server.counts["lost"] <= before.get("lost", 0):
            await asyncio.sleep(0.005)
    sent = server.stats()["completion_tokens"] - before.get("completion_tokens", 0)
    assert sent < 12  # what was in flight when it was cut, nothing like 500
    asked = [*question()["messages"], reply["message"], {"role": "user", "content": "Go on."}]
    await model_of().generate(question(messages=asked), granted(9))
    assert server.received[-1]["input"][1] == {
        "type": "message",
        "role": "assistant",
        "content": text_of(reply["message"]),
    }
    whole = await model_of("ignore-max,w500", stream=False).generate(question(), granted(5))
    assert whole["usage"]["completion_tokens"] == 500


async def test_a_call_that_was_cut_off_is_there_as_far_as_it_came(model_of, granted):
    both = [
        await model_of("t1,ignore-max", api=api).generate(question(), granted(1)) for api in APIS
    ]
    for reply in both:
        assert reply["finish_reason"] == "cut"
        [call] = reply["message"]["tool_calls"]
        assert call == {"id": "call_00", "name": "add", "arguments": '{"a": '}


async def test_cancelling_frees_the_connection(model_of, server, granted):
    model, lost, came = model_of("slow,w500"), server.counts["lost"], asyncio.Event()
    call = asyncio.create_task(model.generate(question(), granted(999), lambda _: came.set()))
    async with asyncio.timeout(10):
        await came.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    async with asyncio.timeout(10):
        while server.counts["in_flight"] or server.counts["lost"] <= lost:
            await asyncio.sleep(0.005)


async def test_many_at_once(model_of, granted):
    model = model_of("t2")
    jobs = await asyncio.gather(*(converse(model, granted(99)) for _ in range(32)))
    assert all(job == jobs[0] for job in jobs)
    assert text_of(jobs[0][-1]["message"]) == FINAL


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("modes", "status", "retryable", "says"),
    [
        ("status400", 400, False, "refused with 400"),
        ("status429", 429, True, "refused with 429"),
        ("malformed", None, True, "is not JSON"),
        ("truncated", None, True, "the connection was lost"),
        ("empty", None, True, "no output|ended in mid-reply"),
        ("odd", None, True, "no known form"),
        ("error", 500, True, "the engine died"),
    ],
)
async def test_faults_of_the_server(model_of, granted, modes, status, retryable, says, stream):
    with pytest.raises(BackendError, match=says) as info:
        await model_of(modes, stream=stream).generate(question(), granted(99))
    assert info.value.status == (None if stream and modes == "error" else status)
    assert info.value.retryable is retryable


@pytest.mark.parametrize("modes", ["broken-off", "lost-end"])
async def test_a_stream_without_its_end_is_no_reply(model_of, granted, modes):
    with pytest.raises(BackendError, match=r"ended in mid-reply|connection was lost") as info:
        await model_of(modes).generate(question(), granted(99))
    assert info.value.retryable


async def test_what_the_protocol_cannot_do(model_of, granted):
    model = model_of()
    assert not model.capabilities.seeds
    assert not model.capabilities.continues
    assert model.capabilities.logprobs
    assert model_of(api="chat").capabilities.seeds
    assert model_of(capabilities={"seeds": True}).capabilities.seeds
    with pytest.raises(QuestionRefused, match="stop"):
        await model.generate(question(sampling={"stop": ["\n"]}), granted(9))
    messages = [*question()["messages"], {"role": "assistant", "content": "The"}]
    with pytest.raises(QuestionRefused, match="continue_last"):
        await model.generate(question(messages=messages, continue_last=True), granted(9))
    insisting = model_of(capabilities={"continues": True})
    with pytest.raises(QuestionRefused, match="always begins a new message"):
        await insisting.generate(question(messages=messages, continue_last=True), granted(9))


# -- the server is a real one ---------------------------------------------------------------------

ASKED = {"model": "toy", "input": "Add é.", "include": ["reasoning.encrypted_content"]}


@pytest.mark.parametrize("modes", ["t0", "t1,p2", "t1,reasoning", "opaque", "hidden", "refusal"])
@pytest.mark.parametrize("tokens", [999, 5])
async def test_the_official_client_reads_the_same(server, modes, tokens):
    asked = {**ASKED, "max_output_tokens": tokens}
    address = server.address(modes)
    async with openai.AsyncOpenAI(base_url=address, api_key="none") as client:
        whole = await client.responses.create(**asked)
        events = [event async for event in await client.responses.create(**asked, stream=True)]
        async with client.responses.stream(**asked) as stream:
            typed = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].type == f"response.{whole.status}"
    assert events[-1].response == whole
    assert typed[-1].response.output_text == whole.output_text
    assert (whole.status == "incomplete") is (whole.usage.output_tokens == tokens)
    assert [e.item for e in events if e.type == "response.output_item.done"] == whole.output


@pytest.mark.parametrize("modes", ["t0", "t1,p2", "t1,reasoning", "opaque", "hidden", "refusal"])
@pytest.mark.parametrize("tokens", [999, 5])
def test_what_the_server_sends_has_the_official_form(server, modes, tokens):
    """The official client does not look whether what it reads is as its types say."""
    asked = {**ASKED, "max_output_tokens": tokens}
    Response.model_validate_json(post(server, modes, asked), strict=True)
    parser = TypeAdapter(ResponseStreamEvent)
    events = ServerEvents().feed(post(server, modes, {**asked, "stream": True}))
    assert len(events) > 4
    for kind, data in events:
        assert parser.validate_json(data, strict=True).type == kind


def post(server, modes, body):
    request = urllib.request.Request(
        f"{server.address(modes)}/responses", json.dumps(body).encode()
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read()


# -- what it costs --------------------------------------------------------------------------------


async def calls_of(model, request, grant):
    await model.generate(request, grant)
    profile = cProfile.Profile()
    profile.enable()
    for _ in range(3):
        await model.generate(request, grant)
    profile.disable()
    return pstats.Stats(profile).total_calls / 3


async def test_a_delta_costs_no_more_than_in_chat_and_a_turn_little(model_of, granted):
    long, short = model_of("w200"), model_of("w1")
    rest = await calls_of(short, question(), granted(999))
    delta = (await calls_of(long, question(), granted(999)) - rest) / 199
    model = model_of("t60", stream=False)
    replies = await converse(model_of("t20,reasoning"), granted(999))
    messages = list(question()["messages"])
    for reply in replies:
        messages.append(reply["message"])
        calls = reply["message"].get("tool_calls", ())
        messages += [{"role": "tool", "tool_call_id": c["id"], "content": "3"} for c in calls]
    brief = await calls_of(model, question(), granted(999))
    grown = await calls_of(model, question(messages=messages), granted(999))
    turn = (grown - brief) / len(replies)
    print(f"\none delta: {delta:.1f} calls; one turn of the conversation: {turn:.1f}")
    assert delta <= 100
    assert turn <= 80


# -- in a workflow --------------------------------------------------------------------------------


@tool(effect="pure")
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("modes", ["t2,p2,reasoning", "t2,p2,hidden", "t2,opaque"])
async def test_a_recorded_run_carries_its_reasoning_and_replays(
    server, sqlite_store: Store, modes, stream
):
    model = OpenAIModel("toy", base_url=server.address(modes), api="responses", stream=stream)
    workflow = Workflow(
        "sums",
        model=model,
        tools=[add],
        answer=answers.number(),
        budget=Budget(tokens=20_000),
        store=sqlite_store,
    )
    calls = server.stats().get("calls", 0)
    run = await workflow.run("Add up the numbers.")
    assert (run.status, run.answer, run.text) == ("completed", "42", FINAL)
    assert server.stats()["calls"] == calls + 3
    for asked, after in itertools.pairwise(list(server.received)[-3:]):
        assert (asked["store"], asked["include"]) == (False, ["reasoning.encrypted_content"])
        output = json.loads(post(server, modes, {**asked, "stream": False}))["output"]
        assert output[0]["encrypted_content"].startswith("gAAAA")
        told = [*asked["input"], *output]
        assert after["input"][: len(told)] == told
        results = after["input"][len(told) :]
        calls_made = [item["call_id"] for item in output if item["type"] == "function_call"]
        assert [item["type"] for item in results] == ["function_call_output"] * len(calls_made)
        assert [item["call_id"] for item in results] == calls_made
    calls = server.stats()["calls"]
    again = await workflow.replay(run.id)
    assert (again.answer, again.text, again.model_calls) == (run.answer, run.text, 0)
    assert again.spent["tokens"] == run.spent["tokens"]
    assert server.stats()["calls"] == calls
    await model.aclose()
