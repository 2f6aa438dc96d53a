"""Python calls per model call, against the typed client on the same server with the same job."""

from __future__ import annotations

import cProfile
import pstats

import openai
import pytest

from longthought.orchestrator.models import OpenAIModel

PARAMETERS = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
TOOL = {"name": "add", "description": "Add two numbers.", "parameters": PARAMETERS}
WIRE_TOOL = {"type": "function", "function": TOOL}
USER = {"role": "user", "content": "Add up the numbers with the tool, then tell me the sum."}


async def ours(model, grant):
    """The job through the model under test: the number of model calls it took."""
    messages, steps = [USER], 0
    while True:
        request = {"model": "toy", "messages": messages, "tools": [TOOL]}
        reply = await model.generate(request, grant)
        steps += 1
        messages.append(reply["message"])
        if reply["finish_reason"] != "tool_calls":
            return steps
        calls = reply["message"]["tool_calls"]
        messages += [{"role": "tool", "tool_call_id": c["id"], "content": "3"} for c in calls]


async def bare(client):
    """The same job through the typed client."""
    messages, steps = [USER], 0
    while True:
        reply = await client.chat.completions.create(
            model="toy", messages=messages, tools=[WIRE_TOOL], max_tokens=999
        )
        steps += 1
        message = reply.choices[0].message
        if not message.tool_calls:
            return steps
        calls = [call.model_dump() for call in message.tool_calls]
        messages.append({"role": "assistant", "content": None, "tool_calls": calls})
        ids = [call.id for call in message.tool_calls]
        messages += [{"role": "tool", "tool_call_id": i, "content": "3"} for i in ids]


async def bare_stream(client):
    chunks = await client.chat.completions.create(
        model="toy",
        messages=[USER],
        max_tokens=999,
        stream=True,
        stream_options={"include_usage": True},
    )
    return len([chunk async for chunk in chunks]) and 1


async def calls_per_step(job, *arguments):
    await job(*arguments)  # what is done once only is left out
    profile, steps = cProfile.Profile(), 0
    profile.enable()
    for _ in range(3):
        steps += await job(*arguments)
    profile.disable()
    return pstats.Stats(profile).total_calls / steps


@pytest.fixture
async def pair(server):
    made = []

    def make(modes, **options):
        address = server.address(modes)
        model = OpenAIModel("toy", base_url=address, **options)
        client = openai.AsyncOpenAI(base_url=address, api_key="none")
        made.extend((model.aclose, client.close))
        return model, client

    yield make
    for close in made:
        await close()


async def test_a_step_costs_a_third_of_the_typed_client_and_does_not_grow(pair, granted):
    model, client = pair("t5", stream=False)
    mine, typed = (
        await calls_per_step(ours, model, granted(999)),
        await calls_per_step(bare, client),
    )
    print(f"\n5 turns: {mine:.0f} calls per step, typed {typed:.0f}, ratio {mine / typed:.3f}")
    assert mine <= 0.35 * typed
    longer, _ = pair("t50", stream=False)
    grown = await calls_per_step(ours, longer, granted(999))
    print(f"50 turns: {grown:.0f} calls per step, {grown / mine:.3f} of 5 turns")
    assert grown <= 1.10 * mine


async def test_a_delta_costs_a_sixth_of_the_typed_stream(pair, granted):
    model, client = pair("w200")
    one, _ = pair("w1")
    mine, typed = (
        await calls_per_step(ours, model, granted(999)),
        await calls_per_step(bare_stream, client),
    )
    delta = (mine - await calls_per_step(ours, one, granted(999))) / 199
    print(f"\n200 deltas: {mine:.0f} calls, typed {typed:.0f}, ratio {mine / typed:.3f}")
    print(f"one delta: {delta:.1f} calls")
    assert mine <= 0.25 * typed
    assert delta <= 100
