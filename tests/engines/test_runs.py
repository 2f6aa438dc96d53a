"""Whole workflows on a real engine: recorded, replayed, limited, killed and resumed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from longthought import Budget, Store, Workflow, answers, strategies, verifiers
from longthought.orchestrator.models.local_servers import find_local_servers
from longthought.tools import tool
from longthought.types import Candidate
from tests.engines.test_tools_and_output import ANSWER, MUST_CALL
from tests.engines.worker import NEVER_ENDS, Calling, workflow

pytestmark = [pytest.mark.engines, pytest.mark.timeout(3600)]

ROOT = Path(__file__).resolve().parents[2]


async def test_samples_are_recorded_and_replayed_without_a_call(
    server, model_of, settled, store_url
):
    await settled()
    read, generated = server.read, server.generated
    flow = Workflow(
        "votes",
        model=model_of(),
        output=ANSWER,
        answer=answers.json(ANSWER),
        strategy=strategies.sample(8, select=strategies.majority()),
        store=store_url,
    )
    run = await flow.run("How much?")
    await settled()
    assert (run.status, run.model_calls) == ("completed", 8)
    assert sorted(json.loads(run.text)) == ["n", "word"]
    assert sum(run.support["votes"].values()) == 8
    told = (server.read - read, server.generated - generated)
    assert run.spent["tokens"] == sum(told)
    replayed = await flow.replay(run.id)
    assert (replayed.model_calls, replayed.text) == (0, run.text)
    assert (server.read - read, server.generated - generated) == told
    await flow.aclose()


@pytest.mark.parametrize("tokens", [700, 1500, 4000])
async def test_a_budget_is_never_overrun(server, model_of, settled, store_url, tokens):
    await settled()
    used = server.read + server.generated
    flow = Workflow(
        "limited",
        model=model_of(),
        strategy=strategies.sample(16),
        budget=Budget(tokens=tokens),
        max_output_tokens=400,
        store=store_url,
    )
    run = await flow.run("Say something.")
    await settled()
    spent = server.read + server.generated - used
    assert run.spent["tokens"] == spent
    assert 0 < spent <= tokens
    assert not run.spent.get("overrun")
    replayed = await flow.replay(run.id)
    assert (replayed.model_calls, replayed.spent["tokens"]) == (0, spent)
    await flow.aclose()


async def test_tools_are_called_until_the_turns_are_used_up(server, model_of, store_url):
    asked: list[int] = []

    @tool(effect="read")
    async def add(a: int) -> int:
        """Add one."""
        asked.append(a)
        return a + 1

    flow = Workflow(
        "calls",
        model=Calling(model_of(), MUST_CALL),
        tools=[add],
        strategy=strategies.sample(3),
        max_turns=3,
        max_output_tokens=60,
        store=store_url,
    )
    run = await flow.run("Add.")
    assert run.spent["tool_calls"] == 9
    assert len(asked) == 9
    assert run.model_calls == 12
    replayed = await flow.replay(run.id)
    assert (replayed.model_calls, replayed.tool_calls) == (0, 0)
    assert replayed.text == run.text
    await flow.aclose()


async def test_a_run_killed_in_mid_stream_is_resumed(server, settled, store_url, tmp_path):
    await settled()
    arguments = [server.url, store_url, "killed"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.engines.worker", *arguments),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert (await process.stdout.readline()) == b"in mid-stream\n"
    process.send_signal(signal.SIGKILL)
    await process.wait()
    await settled()  # the engine notices that nobody listens any more
    async with Store(store_url, directory=tmp_path) as store:
        before = await store.read("killed")
        ended = [event for event in before.events if event.type == "effect_finished"]
        begun = [event for event in before.events if event.type == "effect_started"]
        assert len(ended) < len(begun)
        assert before.ended() is None
        generated = server.generated
        flow = workflow(server.url, store)
        run = await flow.resume("killed", force=True)
        await settled()
        assert run.status == "completed"
        assert run.support["of"] == 6
        again = server.generated - generated
        assert again > 0
        replayed = await flow.replay("killed")
        assert (replayed.model_calls, replayed.text) == (0, run.text)
        assert replayed.spent["tokens"] == run.spent["tokens"]
        assert server.generated - generated == again
        await flow.aclose()


async def test_the_server_is_found_and_known_for_what_it_is(server):
    (found,) = await find_local_servers({server.port: "server"})
    assert found.kind == {"llama.cpp": "llama.cpp", "vllm": "vLLM"}[server.engine]
    assert (found.models, found.chat_model) == (("tiny",), "tiny")


async def test_probing_finds_out_what_it_can(server):
    program = Path(sys.executable).with_name("longthought")
    process = await asyncio.create_subprocess_exec(
        *(str(program), "models", "--probe", "openai/tiny", "--base-url", server.url, "--json"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    out, _ = await process.communicate()
    probed = json.loads(out)
    assert (probed["kind"], probed["context_window"]) == (server.engine, server.slot_context)
    found = {finding["name"]: finding["found"] for finding in probed["findings"]}
    # what random weights can show for sure; an answer of theirs may be empty, or too long
    sure = ("usage in streams", "honours max_tokens", "n")
    assert [name for name in sure if not found[name]] == []
    assert found["structured output"] is not False


def no_sevens(candidate: Candidate) -> bool:
    return "7" not in candidate.text


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_thought_in_steps_is_the_same_whole_and_streamed(server, model_of, tmp_path, seed):
    runs = []
    for stream in (True, False):
        flow = Workflow(
            "steps",
            model=model_of(stream=stream, extra_body=NEVER_ENDS),
            verifier=verifiers.callable(no_sevens, partial=True),
            strategy=strategies.backtrack(width=3, depth=6, steps=12, stop=(" ",)),
            sampling={"max_tokens": 30, "temperature": 1.0},
            store=f"sqlite:///{tmp_path / f'{stream}.db'}",
        )
        runs.append(await flow.run("Think.", seed=seed))
        replayed = await flow.replay(runs[-1].id)
        assert (replayed.model_calls, replayed.text) == (0, runs[-1].text)
        await flow.aclose()
    streamed, whole = runs
    assert streamed.text == whole.text
    assert streamed.model_calls == whole.model_calls > 2
    for name in ("tokens", "output_tokens"):
        assert streamed.spent[name] == whole.spent[name]
