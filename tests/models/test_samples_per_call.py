"""Several samples with one call, against servers that give several choices."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from longthought import Budget, Store, Workflow, strategies
from longthought.errors import BackendError, ConfigurationError
from longthought.orchestrator.models import OpenAIModel, ScriptedModel, says
from longthought.orchestrator.models.embedded import EmbeddedModel
from longthought.orchestrator.models.openai.chat_choices import ChatChoices
from longthought.orchestrator.models.openai.siblings import Siblings
from longthought.orchestrator.models.openai.usage import shared_usage
from longthought.orchestrator.serving import chat_server
from longthought.types import Delta, Message, Usage, text_of

PUZZLE = "4 7 8 8 -> 24"


def asked(seed: int | None, text: str = PUZZLE) -> Any:
    sampling = {} if seed is None else {"seed": seed}
    messages = [{"role": "user", "content": text}]
    return {"model": "m", "messages": messages, "sampling": sampling}


@pytest.fixture
def asks() -> list[Any]:
    """The requests that the script was asked for."""
    return []


@pytest.fixture
async def remote(asks: list[Any]) -> Any:
    """A maker of clients for a scripted model behind a server; also the server's own model."""

    def script(request: Any) -> Any:
        asks.append(request)
        seed = request["sampling"].get("seed", 0)
        return says(f"it is {seed}, naïve", reasoning="hm " * seed)

    served = ScriptedModel(script, slots=64)
    made: list[OpenAIModel] = []
    with chat_server(served) as server:

        def make(**options: Any) -> OpenAIModel:
            made.append(OpenAIModel("scripted", base_url=server.url, **options))
            return made[-1]

        yield make
        for model in made:
            await model.aclose()


@pytest.mark.parametrize("stream", [True, False])
async def test_samples_of_one_question_share_a_call(
    remote: Any, asks: list[Any], granted: Any, stream: bool
) -> None:
    alone, together = remote(stream=stream), remote(stream=stream, samples_per_call=8)
    expected = [await alone.generate(asked(seed), granted(99)) for seed in range(12)]
    shown: list[list[Delta]] = [[] for _ in range(12)]
    calls = [together.generate(asked(n), granted(99), shown[n].append) for n in range(12)]
    replies = await asyncio.gather(*calls)
    assert [reply["message"] for reply in replies] == [reply["message"] for reply in expected]
    if stream:
        texts = ["".join(d.text for d in part if d.kind == "content") for part in shown]
        assert texts == [text_of(reply["message"]) for reply in replies]
    usages = [Usage.from_json(reply["usage"]) for reply in replies]
    alone_usages = [Usage.from_json(reply["usage"]) for reply in expected]
    # The prompt was read once for each of the two calls.
    read = [usage.prompt_tokens for usage in usages]
    assert read == [alone_usages[0].prompt_tokens, *[0] * 7, alone_usages[0].prompt_tokens, 0, 0, 0]
    for field in ("completion_tokens", "reasoning_tokens"):
        told = sum(getattr(usage, field) for usage in usages)
        assert told == sum(getattr(usage, field) for usage in alone_usages)
    assert not any(usage.estimated for usage in usages)


async def test_only_what_is_the_same_is_brought_together(remote: Any, granted: Any) -> None:
    model = remote(samples_per_call=8)
    requests = [asked(0), asked(1), asked(5), asked(6), asked(2, "other"), asked(None), asked(None)]
    grants = [99, 99, 99, 99, 99, 99, 50]
    calls = [model.generate(r, granted(g)) for r, g in zip(requests, grants, strict=True)]
    replies = await asyncio.gather(*calls)
    texts = [text_of(reply["message"]) for reply in replies]
    assert texts[:5] == [f"it is {seed}, naïve" for seed in (0, 1, 5, 6, 2)]
    read = [reply["usage"].get("prompt_tokens", 0) > 0 for reply in replies]
    assert read == [True, False, True, False, True, True, True]


async def test_who_leaves_takes_nothing_from_the_others(remote: Any, granted: Any) -> None:
    model = remote(samples_per_call=4)
    tasks = [asyncio.create_task(model.generate(asked(n), granted(99))) for n in range(4)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    replies = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(replies[1], asyncio.CancelledError)
    others = [replies[n] for n in (0, 2, 3)]
    assert [text_of(reply["message"]) for reply in others if isinstance(reply, dict)] == [
        f"it is {seed}, naïve" for seed in (0, 2, 3)
    ]
    assert (await model.generate(asked(9), granted(99)))["message"]["content"] == "it is 9, naïve"


async def test_after_the_last_has_left_the_call_ends(granted: Any) -> None:
    entered, left = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    async def script(request: Any) -> str:
        loop.call_soon_threadsafe(entered.set)
        try:
            await asyncio.Event().wait()
        finally:
            loop.call_soon_threadsafe(left.set)
        return ""

    with chat_server(ScriptedModel(script)) as server:
        model = OpenAIModel("scripted", base_url=server.url, samples_per_call=2)
        tasks = [asyncio.create_task(model.generate(asked(n), granted(99))) for n in range(2)]
        await entered.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await left.wait()
        await model.aclose()


async def test_a_failed_call_fails_for_each(server: Any, granted: Any) -> None:
    model = OpenAIModel("toy", base_url=server.address("status503"), samples_per_call=4)
    calls = [model.generate(asked(n), granted(99)) for n in range(4)]
    failures = await asyncio.gather(*calls, return_exceptions=True)
    assert [getattr(failure, "status", None) for failure in failures] == [503] * 4
    await model.aclose()


async def test_a_call_that_is_cancelled_from_inside_fails_for_each() -> None:
    async def ask_all(*_: Any) -> Any:
        raise asyncio.CancelledError

    siblings = Siblings(ask_all, 4)
    calls = [siblings.reply(asked(n), 99, None) for n in range(2)]
    async with asyncio.timeout(5):
        failures = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(failure) for failure in failures] == [BackendError] * 2


@pytest.mark.parametrize("stream", [True, False])
async def test_a_server_that_gives_fewer_choices_leaves_the_others_without(
    server: Any, granted: Any, stream: bool
) -> None:
    """The protocol server knows nothing of ``n``: it gives one."""
    options = {"base_url": server.address("t0"), "stream": stream, "samples_per_call": 3}
    model = OpenAIModel("toy", **options)
    calls = [model.generate(asked(n), granted(99)) for n in range(3)]
    first, *others = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(first, dict)
    for other in others:
        assert isinstance(other, BackendError)
        assert other.retryable
    await model.aclose()


async def test_a_workflow_gets_what_it_would_have_got(sqlite_store: Store) -> None:
    embedded = EmbeddedModel("embedded")
    answers = []
    with chat_server(embedded) as server:
        for count in (1, 8):
            model = OpenAIModel("embedded", base_url=server.url, samples_per_call=count)
            workflow = Workflow(
                model=model,
                strategy=strategies.sample(8, wave=8),
                budget=Budget(tokens=20_000),
                store=sqlite_store,
            )
            result = await workflow.run(PUZZLE, seed=3)
            assert (result.status, result.support["samples"]) == ("completed", 8)
            answers.append((result.answer, result.spent["output_tokens"]))
            spent = result.spent["tokens"] - result.spent["output_tokens"]
            answers.append(spent)
            assert (await workflow.replay(result.id)).answer == result.answer
            await workflow.aclose()
    await embedded.aclose()
    assert answers[0] == answers[2]
    assert answers[1] == 8 * answers[3]


def chunk(index: int, delta: Any, finish: str | None = None) -> str:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return json.dumps({"model": "m", "choices": [choice]})


def test_choices_that_come_mixed_are_told_apart() -> None:
    shown: list[list[str]] = [[], []]
    choices = ChatChoices([lambda d: shown[0].append(d.text), lambda d: shown[1].append(d.text)], 0)
    for data in (
        chunk(1, {"content": "b"}),
        chunk(0, {"content": "a 😀"}),
        chunk(7, {"content": "nobody asked"}),
        chunk(1, {"content": "c"}, "stop"),
    ):
        choices.take("", data)
    assert (choices.ended, choices.complete, choices.tokens) == (False, False, 1)
    choices.take("", chunk(0, {}, "length"))
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    choices.take("", json.dumps({"choices": [], "usage": usage}))
    choices.take("", "[DONE]")
    assert (choices.ended, choices.complete, choices.done) == (True, True, True)
    first, second = choices.answers()
    assert first is not None
    assert second is not None
    assert (text_of(first.message), first.finish_reason) == ("a 😀", "length")
    assert (text_of(second.message), second.finish_reason) == ("bc", "stop")
    assert shown == [["a 😀"], ["b", "c"]]
    assert choices.usage == Usage(3, 4, calls=1)


def test_parts_of_a_usage_sum_up_to_it() -> None:
    said: list[Message] = [{"role": "assistant", "content": text} for text in ("a", "", "b" * 50)]
    choices = ChatChoices([None] * 3, 0)
    reply = {"choices": [{"index": n, "message": m} for n, m in enumerate(said)]}
    for total in (Usage(9, 17, 4, 5, calls=1), None):
        choices.take_whole(reply)
        parts = shared_usage(asked(0), total, choices.answers(), 99)
        usages = [part.usage for part in parts if part is not None and part.usage is not None]
        assert [usage.prompt_tokens > 0 for usage in usages] == [True, False, False]
        if total is not None:
            summed = sum(usages, Usage())
            assert (summed.completion_tokens, summed.reasoning_tokens) == (17, 5)
            assert (summed.prompt_tokens, summed.cached_tokens) == (9, 4)
        else:
            assert all(usage.estimated for usage in usages)


def test_only_chat_takes_several() -> None:
    for options in ({"samples_per_call": 0}, {"samples_per_call": 2, "api": "responses"}):
        with pytest.raises(ConfigurationError, match="samples_per_call"):
            OpenAIModel("m", base_url="http://127.0.0.1:1/v1", **options)  # type: ignore[arg-type]
