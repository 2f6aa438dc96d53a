"""The official client against the embedded model behind the server."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest

from longthought.orchestrator.models.allowance import Allowance
from longthought.orchestrator.models.embedded import EmbeddedModel
from longthought.orchestrator.models.scripted import ScriptedModel
from longthought.orchestrator.serving import chat_server
from longthought.tools import ToolCall, calculator, run_tool
from longthought.types import ModelReply, Sampling
from longthought.verifiers import answers
from tests.serving.conftest import ASKED, CALCULATOR

Client = openai.AsyncOpenAI


async def in_process(model: EmbeddedModel, **sampling: Any) -> ModelReply:
    request: Any = {"model": model.name, "messages": ASKED, "sampling": Sampling(**sampling)}
    return await model.generate(request, Allowance())


async def create(client: Client, **more: Any) -> Any:
    return await client.chat.completions.create(**{"model": "embedded", "messages": ASKED, **more})


async def chunked(client: Client, **more: Any) -> list[Any]:
    options = {"stream_options": {"include_usage": True}, **more}
    return [chunk async for chunk in await create(client, stream=True, **options)]


async def streamed(client: Client, **more: Any) -> tuple[list[Any], Any]:
    """All chunks, and the completion that the client's own helper makes of another stream."""
    options = {"stream_options": {"include_usage": True}, **more}
    chunks = await chunked(client, **more)
    async with client.chat.completions.stream(
        **{"model": "embedded", "messages": ASKED, **options}
    ) as stream:
        return chunks, await stream.get_final_completion()


async def test_a_reply(client: Client, embedded: EmbeddedModel) -> None:
    told = await create(client, seed=1)
    same = await in_process(embedded, seed=1)
    [choice] = told.choices
    assert choice.message.content == same["message"]["content"]
    assert (choice.message.role, choice.finish_reason, choice.logprobs) == (
        "assistant",
        "stop",
        None,
    )
    assert (told.object, told.model, told.id[:9]) == ("chat.completion", "embedded", "chatcmpl-")
    assert told.system_fingerprint.startswith("fp_")
    assert told.usage.total_tokens == told.usage.prompt_tokens + told.usage.completion_tokens
    assert told.usage.completion_tokens == same["usage"]["completion_tokens"]
    assert told.usage.completion_tokens_details.reasoning_tokens == 0
    again = await create(client, seed=1)
    assert again.usage.prompt_tokens_details.cached_tokens == same["usage"]["cached_tokens"]
    assert again.system_fingerprint == told.system_fingerprint
    assert again.id != told.id


RUNNING = {"include_usage": True, "continuous_usage_stats": True}


@pytest.mark.parametrize("choices", [1, 3])
async def test_a_stream_tells_its_usage_with_every_piece(client: Client, choices: int) -> None:
    chunks = await chunked(client, seed=1, n=choices, stream_options=RUNNING)
    said = [chunk.usage.completion_tokens for chunk in chunks]
    assert said == sorted(said)
    assert (said[0], len(set(said)) > 2, said[-2]) == (0, True, said[-1])
    assert {chunk.usage.prompt_tokens for chunk in chunks} == {chunks[-1].usage.prompt_tokens}
    for chunk in chunks:
        usage = chunk.usage
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


async def test_running_usage_alone_asks_for_none(client: Client) -> None:
    chunks = await chunked(client, seed=1, stream_options={"continuous_usage_stats": True})
    assert {chunk.usage for chunk in chunks} == {None}


async def test_what_nobody_counts_is_told_once_it_is_known() -> None:
    class Uncounted(ScriptedModel):
        def count_prompt(self, request: Any) -> None:
            """No more is known than of a model elsewhere."""

    with chat_server(Uncounted(["one two three"])) as server:
        async with Client(base_url=server.url, api_key="none") as client:
            chunks = await chunked(client, model="scripted", stream_options=RUNNING)
    *before, end, usage = [chunk.usage for chunk in chunks]
    assert before
    assert set(before) == {None}
    assert end.completion_tokens == usage.completion_tokens > 0


async def test_a_stream_is_the_same_reply_in_pieces(client: Client) -> None:
    whole = await create(client, seed=1)
    chunks, final = await streamed(client, seed=1)
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert text == whole.choices[0].message.content == final.choices[0].message.content
    # The role, the text in at least one piece (tokens that wait are sent together), end and usage.
    assert len(chunks) >= 4
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]][-1] == "stop"
    assert len({(c.id, c.created, c.model, c.system_fingerprint) for c in chunks}) == 1
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert (chunks[-1].choices, chunks[-1].usage) == ([], final.usage)
    assert final.usage.completion_tokens == whole.usage.completion_tokens
    assert final.usage.prompt_tokens == whole.usage.prompt_tokens


async def test_no_usage_in_a_stream_unless_asked_for(client: Client) -> None:
    chunks = [chunk async for chunk in await create(client, stream=True)]
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


async def test_three_choices_are_the_three_next_seeds(
    client: Client, embedded: EmbeddedModel
) -> None:
    same = [(await in_process(embedded, seed=seed))["message"]["content"] for seed in (5, 6, 7)]
    told = await create(client, n=3, seed=5)
    assert [choice.index for choice in told.choices] == [0, 1, 2]
    assert [choice.message.content for choice in told.choices] == same
    chunks, final = await streamed(client, n=3, seed=5)
    assert {chunk.choices[0].index for chunk in chunks[:-1]} == {0, 1, 2}
    assert [choice.message.content for choice in final.choices] == same
    assert final.usage == told.usage
    assert told.usage.prompt_tokens == embedded.count_prompt({"model": "", "messages": ASKED})
    unlike = await create(client, n=8)
    assert len({choice.message.content for choice in unlike.choices}) > 1


async def test_logprobs_are_those_of_the_chosen_tokens(
    client: Client, embedded: EmbeddedModel
) -> None:
    same = await in_process(embedded, seed=2, logprobs=True)
    told = await create(client, seed=2, logprobs=True, top_logprobs=0)
    found = told.choices[0].logprobs.content
    assert [{"token": t.token, "logprob": t.logprob} for t in found] == same["logprobs"]
    assert all(token.top_logprobs == [] and token.bytes is None for token in found)
    assert len(found) == told.usage.completion_tokens
    _, final = await streamed(client, seed=2, logprobs=True)
    assert final.choices[0].logprobs.content == found


async def test_stop_strings_and_maxima(client: Client) -> None:
    whole = (await create(client, temperature=0)).choices[0].message.content
    for stop in (";", [";", "never"]):
        [step] = (await create(client, temperature=0, stop=stop)).choices
        assert (step.finish_reason, step.message.content) == ("stop", whole.partition(";")[0])
    for name in ("max_tokens", "max_completion_tokens"):
        told = await create(client, temperature=0, **{name: 4})
        assert (told.choices[0].finish_reason, told.usage.completion_tokens) == ("length", 4)
        assert whole.startswith(told.choices[0].message.content)
    *_, last, usage = await chunked(client, temperature=0, max_tokens=4, stop=";")
    assert (last.choices[0].finish_reason, usage.usage.completion_tokens) == ("length", 4)


async def test_sampling_reaches_the_model(client: Client, embedded: EmbeddedModel) -> None:
    sampling: Any = {"temperature": 0.5, "top_p": 0.9, "seed": 3, "reasoning_effort": "none"}
    told = await create(client, **sampling)
    assert (
        told.choices[0].message.content
        == (await in_process(embedded, **sampling))["message"]["content"]
    )
    assert "=" not in told.choices[0].message.content


async def test_other_ways_to_write_messages(client: Client) -> None:
    plain = await create(client, temperature=0)
    parts = [{"type": "text", "text": "4 7 8 8"}, {"type": "text", "text": " -> 24"}]
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "system", "content": [{"type": "text", "text": "Be right."}]},
        {"role": "user", "content": "Hello!", "name": "ann"},
        {"role": "assistant", "content": "Hello.", "refusal": None, "annotations": []},
        {"role": "user", "content": parts},
    ]
    other = await create(client, temperature=0, messages=messages)
    assert other.choices[0].message.content == plain.choices[0].message.content


async def test_a_message_is_continued(client: Client) -> None:
    whole = (await create(client, temperature=0)).choices[0].message.content
    begun = whole.partition(";")[0] + "; "
    vllm = {"continue_final_message": True, "add_generation_prompt": False}
    messages = [*ASKED, {"role": "assistant", "content": begun}]
    told = await create(client, temperature=0, messages=messages, extra_body=vllm)
    assert begun + told.choices[0].message.content == whole


async def called(reply: Any) -> dict[str, Any]:
    """The tool message that answers the call of a reply, by our own calculator."""
    [call] = reply.tool_calls
    arguments = json.loads(call.function.arguments)
    tool_call = ToolCall(call.id, call.function.name, arguments, "")
    result = await run_tool(calculator(), tool_call, deps=None)
    return {"role": "tool", "tool_call_id": call.id, "content": result.content}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_puzzle_is_solved_with_the_calculator(client: Client, stream: bool) -> None:
    for seed in range(32):
        messages: list[Any] = list(ASKED)
        thought = ""
        while True:
            options = {"messages": messages, "tools": [CALCULATOR], "seed": seed}
            if stream:
                _, told = await streamed(client, **options)
            else:
                told = await create(client, tool_choice="auto", **options)
            [choice] = told.choices
            messages.append(choice.message.model_dump())
            thought += choice.message.content
            if choice.finish_reason != "tool_calls":
                break
            messages.append(await called(choice.message))
            thought += f" = {messages[-1]['content']}"
        if answers.puzzle().find(thought) and thought.endswith("DONE"):
            assert len(messages) >= 8
            return
    pytest.fail("no seed of 32 has solved the puzzle")


async def test_a_call_in_a_stream_is_one_piece(client: Client) -> None:
    chunks, final = await streamed(client, temperature=0, tools=[CALCULATOR])
    [delta] = [c.choices[0].delta for c in chunks[:-1] if c.choices[0].delta.tool_calls]
    [piece] = delta.tool_calls
    assert (piece.index, piece.type, piece.function.name) == (0, "function", "calculator")
    [call] = final.choices[0].message.tool_calls
    assert (piece.id, piece.function.arguments) == (call.id, call.function.arguments)
    assert final.choices[0].finish_reason == "tool_calls"


async def test_tool_choice_none_means_no_tools(client: Client) -> None:
    without = await create(client, temperature=0)
    told = await create(client, temperature=0, tools=[CALCULATOR], tool_choice="none")
    assert told.choices[0].message.content == without.choices[0].message.content
    assert told.choices[0].message.tool_calls is None


async def test_thirty_two_at_once(client: Client, embedded: EmbeddedModel) -> None:
    same = [(await in_process(embedded, seed=seed))["message"]["content"] for seed in range(32)]
    mixed = await asyncio.gather(
        *(
            create(client, seed=seed) if seed % 2 else streamed(client, seed=seed)
            for seed in range(32)
        )
    )
    told = [one if seed % 2 else one[1] for seed, one in enumerate(mixed)]
    assert [one.choices[0].message.content for one in told] == same
    assert embedded.counters.widest > 1


async def test_the_list_of_models(client: Client) -> None:
    listed = [model async for model in client.models.list()]
    assert [model.id for model in listed] == ["embedded", "embedded/puzzle-small"]
    for model in listed:
        assert await client.models.retrieve(model.id) == model
    other = await create(client, model="embedded/puzzle-small", temperature=0)
    assert other.model == "embedded/puzzle-small"
    assert other.system_fingerprint != (await create(client)).system_fingerprint


async def test_fields_that_change_nothing_are_ignored(client: Client) -> None:
    harmless: Any = {
        "frequency_penalty": 0,
        "logit_bias": {},
        "metadata": {"a": "b"},
        "modalities": ["text"],
        "parallel_tool_calls": False,
        "presence_penalty": 0.0,
        "response_format": {"type": "text"},
        "service_tier": "auto",
        "store": False,
        "user": "ann",
        "extra_body": {"top_k": -1, "made_up": {"deep": [1]}, "repetition_penalty": 1.0},
    }
    plain = await create(client, temperature=0)
    told = await create(client, temperature=0, **harmless)
    assert told.choices[0].message.content == plain.choices[0].message.content
    nulls: Any = dict.fromkeys(["n", "stop", "seed", "top_p", "tools", "stream", "max_tokens"])
    told = await create(client, temperature=0, extra_body=nulls)
    assert told.choices[0].message.content == plain.choices[0].message.content
