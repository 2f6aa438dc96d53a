"""What a model step costs: Python calls, everything on, against the bare client.

The job is a question, N turns of a model step and a trivial tool, and an answer: N + 1 model steps,
against a server without latency in a process of its own. *Ours* runs on the graph, with every
effect acknowledged on SQLite, under a budget. *Bare* is a loop over
``AsyncOpenAI.chat.completions.create`` that keeps nothing. Calls are those of Python functions and
built-ins in the main thread (cProfile), which do not depend on the machine's mood.
"""

from __future__ import annotations

import asyncio
import cProfile
import json
import pstats
import tempfile
from collections.abc import Awaitable, Callable
from typing import Any

import openai

from benchmarks.protocol_server import ProtocolServer, in_process
from benchmarks.results import arguments, report
from longthought import Budget, Store, Workflow, tool
from longthought.orchestrator.models.openai_chat import OpenAIModel

__all__ = ["bare", "counted", "measure", "ours", "profile"]

QUESTION = "What is the sum of all numbers?"
MODEL = "toy"


@tool(effect="pure")
async def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: one number.
        b: the other.
    """
    return a + b


def _definition() -> dict[str, Any]:
    return {"type": "function", "function": dict(add.spec.definition())}


async def bare(client: openai.AsyncOpenAI, *, stream: bool = False) -> str:
    """The same job by hand: a loop over the typed client that keeps nothing."""
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    step = _streamed if stream else _whole
    while True:
        text, calls = await step(client, messages)
        if not calls:
            return text
        messages.append({"role": "assistant", "content": text or None, "tool_calls": calls})
        for call in calls:
            result = await add(**json.loads(call["function"]["arguments"]))
            messages.append(
                {"role": "tool", "tool_call_id": call["id"], "content": json.dumps(result)}
            )


async def _whole(
    client: openai.AsyncOpenAI, messages: list[Any]
) -> tuple[str, list[dict[str, Any]]]:
    reply: Any = await client.chat.completions.create(
        model=MODEL, messages=messages, tools=[_definition()]
    )
    said = reply.choices[0].message
    return said.content or "", [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.function.name, "arguments": call.function.arguments},
        }
        for call in said.tool_calls or ()
    ]


async def _streamed(
    client: openai.AsyncOpenAI, messages: list[Any]
) -> tuple[str, list[dict[str, Any]]]:
    text: list[str] = []
    calls: list[dict[str, Any]] = []
    chunks: Any = await client.chat.completions.create(
        model=MODEL,
        messages=messages,
        tools=[_definition()],
        stream=True,
        stream_options={"include_usage": True},
    )
    async for chunk in chunks:
        for choice in chunk.choices:
            if choice.delta.content:
                text.append(choice.delta.content)
            for part in choice.delta.tool_calls or ():
                if part.id:
                    function = {"name": part.function.name, "arguments": ""}
                    calls.append({"id": part.id, "type": "function", "function": function})
                calls[part.index]["function"]["arguments"] += part.function.arguments or ""
    return "".join(text), calls


async def ours(workflow: Workflow) -> str:
    """The job by a workflow with everything on."""
    result = await workflow.run(QUESTION)
    if result.status != "completed":
        raise RuntimeError(f"the run ended with {result.status}: {result.error}")
    return result.text


async def counted(job: Callable[[], Awaitable[str]], times: int) -> cProfile.Profile:
    """The profile of a job done so many times, after two that are not counted."""
    for _ in range(2):
        await job()
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(times):
        await job()
    profiler.disable()
    return profiler


def total(profiler: cProfile.Profile) -> int:
    """How many calls a profile holds."""
    stats: Any = pstats.Stats(profiler)
    return int(stats.total_calls)


async def profile(
    server: ProtocolServer, modes: str, *, ours_too: bool = True, stream: bool = False, times: int
) -> tuple[cProfile.Profile, cProfile.Profile | None]:
    """Profiles of the bare client and of ours, on the job that the server's modes say."""
    async with openai.AsyncOpenAI(
        api_key="any", base_url=server.address(modes), max_retries=0
    ) as client:
        by_hand = await counted(lambda: bare(client, stream=stream), times)
    if not ours_too:
        return by_hand, None
    with tempfile.TemporaryDirectory() as directory:
        async with Store(directory=directory) as store:
            address = server.address(modes)
            model = OpenAIModel(MODEL, base_url=address, api_key="any", stream=stream)
            workflow = Workflow(
                "overhead",
                model=model,
                tools=[add],
                budget=Budget(tokens=10_000_000, model_calls=10_000, wall=3600),
                max_turns=100,
                store=store,
            )
            by_us = await counted(lambda: ours(workflow), times)
            await workflow.aclose()
    return by_hand, by_us


async def ratio(
    server: ProtocolServer, turns: int, *, words: int = 0, stream: bool = False, times: int
) -> tuple[float, float]:
    """Calls per model step: the bare client's, and ours."""
    modes = f"t{turns},w{words}" if words else f"t{turns}"
    by_hand, by_us = await profile(server, modes, stream=stream, times=times)
    assert by_us is not None
    steps = times * (turns + 1)
    return total(by_hand) / steps, total(by_us) / steps


async def measure(quick: bool) -> dict[str, float]:
    """All figures, in one run against one server."""
    figures: dict[str, float] = {}
    times = 4 if quick else 20
    with in_process() as server:
        for turns in (5, 50):
            theirs, mine = await ratio(server, turns, times=max(2, times * 5 // turns))
            figures[f"bare_calls_per_step_{turns}_turns"] = theirs
            figures[f"calls_per_step_{turns}_turns"] = mine
            figures[f"ratio_{turns}_turns"] = mine / theirs
        growth = figures["calls_per_step_50_turns"] / figures["calls_per_step_5_turns"] - 1
        figures["growth_5_to_50_turns"] = growth
        few, many = 10, 200
        for words in (few, many):
            theirs, mine = await ratio(server, 0, words=words, stream=True, times=times)
            figures[f"bare_calls_per_step_{words}_deltas"] = theirs
            figures[f"calls_per_step_{words}_deltas"] = mine
            figures[f"ratio_{words}_deltas"] = mine / theirs
        figures["calls_per_delta"] = (
            figures[f"calls_per_step_{many}_deltas"] - figures[f"calls_per_step_{few}_deltas"]
        ) / (many - few)
    return figures


def main() -> None:
    """Measure and report."""
    options = arguments(__doc__ or "")
    report("overhead", asyncio.run(measure(options.quick)), options)


if __name__ == "__main__":
    main()
