"""Replies, usage, limits and cancelling, as real engines have them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from longthought.errors import BackendError
from longthought.types import text_of
from tests.engines.worker import NEVER_ENDS

pytestmark = [pytest.mark.engines, pytest.mark.timeout(3600)]


def prompt_tokens(*messages: tuple[str, str]) -> int:
    """By hand: a byte is a token, and so is each mark of the template."""
    sizes = [len(role.encode()) + len(text.encode()) + 4 for role, text in messages]
    return sum(sizes) + len("assistant") + 2


def told(reply: Any, *names: str) -> list[int]:
    return [reply["usage"].get(name, 0) for name in names]


@pytest.mark.parametrize("text", ["Say something.", "é 😀 \u202e\x00", "", " " * 300])
@pytest.mark.parametrize("stream", [True, False])
async def test_usage_is_the_servers_and_right(server, ask, settled, text, stream):
    await settled()
    read, generated = server.read, server.generated
    reply = await ask(text, 25, stream=stream, seed=1)
    await settled()
    prompt, completion, calls = told(reply, "prompt_tokens", "completion_tokens", "calls")
    assert (prompt, calls) == (prompt_tokens(("user", text)), 1)
    assert (server.read - read, server.generated - generated) == (prompt, completion)
    assert not reply["usage"].get("estimated")


@pytest.mark.parametrize("seed", range(4))
async def test_both_ways_give_the_same_reply(ask, seed):
    streamed = await ask(tokens=90, seed=seed)
    whole = await ask(tokens=90, seed=seed, stream=False)
    for reply in (streamed, whole):
        reply["usage"].pop("cached_tokens", None)
    assert streamed == whole
    assert streamed["fingerprint"]
    assert streamed["model"] == "tiny"


async def test_deltas_are_the_reply_in_pieces(ask):
    deltas: list[Any] = []
    reply = await ask(tokens=40, seed=1, emit=deltas.append)
    assert "".join(delta.text for delta in deltas) == text_of(reply["message"])
    assert sum(delta.tokens for delta in deltas) <= reply["usage"]["completion_tokens"]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("tokens", [1, 2, 7, 64])
async def test_the_maximum_is_kept_to_exactly(ask, tokens, stream):
    reply = await ask("Go on.", tokens, stream=stream, request={"provider": NEVER_ENDS}, seed=3)
    assert reply["finish_reason"] == "length"
    assert told(reply, "completion_tokens") == [tokens]
    assert len(text_of(reply["message"]).encode()) <= tokens


async def test_a_reply_that_ends_by_itself_says_so(ask):
    reply = await ask(tokens=50, seed=1, request={"provider": {"logit_bias": {"258": 100}}})
    assert (reply["finish_reason"], text_of(reply["message"])) == ("stop", "")
    assert told(reply, "completion_tokens") == [1]  # the end mark is counted


@pytest.mark.parametrize("stream", [True, False])
async def test_a_stop_string_ends_the_reply_before_it(server, ask, stream):
    options: Any = {"seed": 5, "stream": stream, "request": {"provider": NEVER_ENDS}}
    free = text_of((await ask(tokens=60, **options))["message"])
    stop = free[10:13]
    place = free.index(stop)
    reply = await ask(tokens=60, stop=[stop, "\N{SNOWMAN}"], **options)
    assert (reply["finish_reason"], text_of(reply["message"])) == ("stop", free[:place])
    assert told(reply, "completion_tokens") == [place + len(stop)]
    if server.engine == "vllm":
        assert reply["stopped_by"] == stop
    else:
        assert "stopped_by" not in reply


async def test_a_seed_gives_the_same_text_again(ask):
    texts = [text_of((await ask(tokens=40, seed=seed))["message"]) for seed in (1, 2, 3, 1, 2, 3)]
    assert texts[:3] == texts[3:]
    assert len(set(texts)) == 3


@pytest.mark.parametrize("stream", [True, False])
async def test_each_token_has_its_log_probability(ask, stream):
    reply = await ask(tokens=20, seed=1, stream=stream, logprobs=True)
    text = text_of(reply["message"])
    pieces = [item["token"] for item in reply["logprobs"]]
    assert "".join(pieces).removesuffix("<|im_end|>") == text
    assert all(item["logprob"] <= 0 and not item["top_logprobs"] for item in reply["logprobs"])
    greedy = await ask(tokens=20, stream=stream, logprobs=True, temperature=0.0)
    assert mean(greedy) > mean(reply)


def mean(reply: Any) -> float:
    found = [item["logprob"] for item in reply["logprobs"]]
    return sum(found) / len(found)


async def test_alternatives_are_there_when_asked_for(ask):
    request = {"provider": {"top_logprobs": 3}}
    reply = await ask(tokens=5, seed=1, logprobs=True, request=request)
    assert [len(item["top_logprobs"]) for item in reply["logprobs"]] == [3] * len(reply["logprobs"])


async def test_a_prompt_seen_before_is_cached(ask):
    text = "A long beginning that is said twice. " * 20
    first, second = [await ask(text + end, 5, seed=1) for end in ("One.", "Two.")]
    prompt, cached = told(second, "prompt_tokens", "cached_tokens")
    assert 0.7 * prompt < cached < prompt
    assert told(first, "prompt_tokens") == [prompt]


async def test_an_overlong_prompt_is_refused(server, ask):
    with pytest.raises(BackendError, match="does not fit the model's context window") as caught:
        await ask("x" * server.slot_context, 5)
    assert (caught.value.status, caught.value.retryable) == (400, False)


async def test_a_grant_beyond_the_window_is_cut_to_it(server, ask):
    window = server.slot_context
    settings = {"capabilities": {"context_window": window}}
    request = {"provider": NEVER_ENDS}
    reply = await ask("q", 5 * window, request=request, settings=settings, seed=1)
    assert reply["finish_reason"] == "length"
    assert sum(told(reply, "prompt_tokens", "completion_tokens")) in (window, window + 1)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_cancelled_call_frees_its_slot(server, ask, settled, stream):
    await settled()
    generated = server.generated
    begun = asyncio.Event()
    call = asyncio.create_task(
        ask(
            "Never end.",
            1900,
            stream=stream,
            request={"provider": NEVER_ENDS},
            emit=lambda delta: begun.set(),
        )
    )
    if stream:
        await begun.wait()
    else:
        while not await asyncio.to_thread(lambda: server.busy):
            assert not call.done()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await settled()
    if stream or server.engine == "vllm":
        # llama.cpp looks after whole replies only where it has nothing to do for anybody else
        assert server.generated - generated < 1900
    assert text_of((await ask(tokens=5, seed=1))["message"])


async def test_more_calls_than_slots_are_all_answered(server, ask, settled):
    await settled()
    generated = server.generated
    calls = [ask(f"Question {number}", 60, seed=number) for number in range(3 * server.slots)]
    replies = await asyncio.gather(*calls)
    await settled()
    assert sum(told(reply, "completion_tokens")[0] for reply in replies) == (
        server.generated - generated
    )
    assert len({text_of(reply["message"]) for reply in replies}) == len(replies)


@pytest.mark.parametrize("stream", [True, False])
async def test_an_unfinished_message_is_continued_without_repeating_it(ask, stream):
    begun = {"role": "assistant", "content": "one two "}
    messages = [{"role": "user", "content": "Count."}, begun]
    request = {"continue_last": True, "provider": NEVER_ENDS}
    reply = await ask(messages, 8, stream=stream, request=request, seed=1)
    assert told(reply, "completion_tokens") == [8]
    assert 0 < len(text_of(reply["message"])) <= 8
    whole = text_of(begun) + text_of(reply["message"])
    further = [messages[0], {"role": "assistant", "content": whole}]
    again = await ask(further, 4, stream=stream, request=request, seed=1)
    # what was said stands in the prompt as it was said
    assert told(again, "prompt_tokens")[0] == told(reply, "prompt_tokens")[0] + len(whole) - 8


async def test_samples_of_one_call_are_counted_as_the_server_counts(server, model_of, settled):
    await settled()
    model = model_of(samples_per_call=server.slots)
    generated = server.generated

    async def one(seed: int) -> Any:
        sampling = {"seed": seed}
        messages = [{"role": "user", "content": "Say something."}]
        request: Any = {"model": "tiny", "messages": messages, "sampling": sampling}
        return await model.generate(request, Grant30())

    replies = await asyncio.gather(*(one(seed) for seed in range(server.slots)))
    await settled()
    counted = sum(told(reply, "completion_tokens")[0] for reply in replies)
    assert counted == server.generated - generated
    assert sum(told(reply, "prompt_tokens")[0] for reply in replies) == 33


class Grant30:
    tokens = 30

    async def top_up(self, wanted: int) -> int:
        return self.tokens


@pytest.mark.parametrize("stream", [True, False])
async def test_what_an_engine_does_not_know_is_not_its_undoing(ask, stream):
    request = {"provider": {"frobnicate": 3, "user": "somebody", **NEVER_ENDS}}
    assert told(await ask(tokens=3, stream=stream, request=request), "completion_tokens") == [3]


async def test_a_body_that_is_refused_says_why(server):
    """Past the adapter: what errors look like, see docs/engines.md."""
    broken = server.post("/v1/chat/completions", {"model": "tiny", "messages": "none"})
    assert broken.status_code in (400, 422)
    assert isinstance(json.loads(broken.text)["error"]["message"], str)
