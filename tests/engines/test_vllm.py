"""What is peculiar to vLLM; a newer one that changes it should be noticed here.

Each is told in docs/engines.md, and most have a place in the adapter that deals with it.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from longthought.errors import BackendError
from longthought.types import text_of
from tests.engines.test_tools_and_output import ADD, CALLING, MUST_CALL

pytestmark = [pytest.mark.engines, pytest.mark.timeout(3600)]

CHAT = "/v1/chat/completions"
QUESTION = [{"role": "user", "content": "Say something."}]
_BLOCK = 128


def chunks(reply: Any) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in reply.text.splitlines()]
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_the_fingerprint_comes_with_the_last_chunk_alone(server):
    usage = {"stream_options": {"include_usage": True}}
    body = {"model": "tiny", "messages": QUESTION, "max_tokens": 3, "stream": True, **usage}
    found = [bool(chunk.get("system_fingerprint")) for chunk in chunks(server.post(CHAT, body))]
    assert found == [False] * (len(found) - 1) + [True]


async def test_a_maximum_beyond_the_window_is_refused(server, ask):
    with pytest.raises(BackendError, match="cannot be greater than max_model_len") as caught:
        await ask(tokens=server.slot_context + 1)
    assert (caught.value.status, caught.value.retryable) == (400, False)


async def test_a_whole_reply_whose_call_was_cut_holds_it_as_text(ask):
    whole = await ask("Add.", 30, seed=1, request=CALLING, stream=False)
    assert text_of(whole["message"]).startswith("<tool_call>")
    assert "tool_calls" not in whole["message"]
    streamed = await ask("Add.", 45, seed=1, request=CALLING)
    assert streamed["message"]["tool_calls"][0]["name"] == "add"


def test_a_call_by_name_ends_with_stop(server):
    tool = {"type": "function", "function": {**ADD, "strict": True}}
    named = {"type": "function", "function": {"name": "add"}}
    body = {"model": "tiny", "messages": QUESTION, "tools": [tool], "max_tokens": 150}
    biased = {**body, "logit_bias": MUST_CALL["logit_bias"], "tool_choice": named}
    (choice,) = server.post(CHAT, biased).json()["choices"]
    assert choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "stop"


async def test_the_cache_holds_blocks_and_a_salt_keeps_them_apart(ask):
    text = "Something long that is said again and again. " * 12

    async def cached(salt: str) -> int:
        request = {"provider": {"cache_salt": salt}}
        return (await ask(text, 2, seed=1, request=request))["usage"].get("cached_tokens", 0)

    found = [await cached(salt) for salt in ("one", "one", "other")]
    assert found[0] == found[2] == 0
    assert found[1] > 0
    assert found[1] % _BLOCK == 0


async def test_priorities_are_taken(ask):
    reply = await ask(tokens=3, seed=1, request={"provider": {"priority": -5}})
    assert reply["usage"]["completion_tokens"] <= 3


def test_what_it_says_of_itself(server):
    (entry,) = server.get("/v1/models").json()["data"]
    assert (entry["owned_by"], entry["max_model_len"]) == ("vllm", server.slot_context)
    assert server.get("/version").json()["version"]
