"""The scripted model: what it says, how it counts, where it stops."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longthought.errors import BackendError, InvalidInput, QuestionRefused
from longthought.orchestrator.models import ScriptedModel, call, rng, says, toytokens
from longthought.types import Capabilities


def ask(*messages, **fields):
    turns = [
        {"role": "assistant" if i % 2 else "user", "content": text}
        for i, text in enumerate(messages)
    ]
    return {"model": "scripted", "messages": turns, **fields}


@given(st.text())
def test_tokens_joined_are_the_text_and_never_more_than_its_bytes(text):
    tokens = toytokens.split(text)
    assert "".join(tokens) == text
    assert len(tokens) == toytokens.count(text) <= len(text.encode())


async def test_a_list_is_answered_by_the_turn_and_not_by_the_call(granted):
    model = ScriptedModel(["one", "two"])
    replies = await asyncio.gather(
        model.generate(ask("q", "one", "more"), granted(9)), model.generate(ask("q"), granted(9))
    )
    assert [reply["message"]["content"] for reply in replies] == ["two", "one"]
    assert model.calls == model.peak == 2


async def test_a_list_that_has_run_out_says_so(granted):
    with pytest.raises(BackendError, match="has 1 answers and turn 2"):
        await ScriptedModel(["one"]).generate(ask("q", "one", "more"), granted(9))


async def test_a_mapping_is_answered_by_the_last_user_or_tool_text(granted):
    model = ScriptedModel({"q": call("add", a=1), "2": lambda _: "It is 2."})
    first = await model.generate(ask("q"), granted(99))
    assert first["message"]["tool_calls"] == [
        {"id": "call_0_0", "name": "add", "arguments": '{"a": 1}'}
    ]
    assert first["finish_reason"] == "tool_calls"
    request = ask("q")
    result = {"role": "tool", "tool_call_id": "call_0_0", "content": "2"}
    request["messages"] += [first["message"], result]
    second = await model.generate(request, granted(99))
    assert second["message"]["content"] == "It is 2."
    with pytest.raises(QuestionRefused, match="no answer to 'other'"):
        await model.generate(ask("other"), granted(9))


async def test_a_function_may_be_async_and_give_several_calls_or_a_whole_reply(granted):
    async def script(request):
        await asyncio.sleep(0)
        if request["messages"][-1]["content"] == "calls":
            return [call("a"), call("b")]
        own = {"prompt_tokens": 7, "completion_tokens": 8}
        return {"message": says("x"), "finish_reason": "refusal", "usage": own, "model": "m"}

    model = ScriptedModel(script)
    reply = await model.generate(ask("calls"), granted(99))
    ids = [part["id"] for part in reply["message"]["tool_calls"]]
    assert ids == ["call_0_0", "call_0_1"]
    assert await model.generate(ask("reply"), granted(99)) == await script(ask("reply"))


async def test_usage_is_counted_and_the_prompt_is_exact(granted):
    tools = [{"name": "t", "description": "d", "parameters": {}}]
    request = ask("How much is 6*7?", tools=tools, output={"type": "object"})
    model = ScriptedModel(lambda _: says("It is 42.", reasoning="Let me see."))
    reply = await model.generate(request, granted(99))
    assert reply["usage"] == {
        "prompt_tokens": model.count_prompt(request),
        "completion_tokens": 8,
        "reasoning_tokens": 4,
        "calls": 1,
    }


@given(limit=st.integers(0, 30), reserve=st.integers(0, 30), step=st.integers(1, 7))
async def test_the_grant_is_honoured_to_the_token(granted_tokens, limit, reserve, step):
    whole = says("a b c d", call("add", x=1), reasoning="e f g")
    model = ScriptedModel(lambda _: whole, top_up_by=step)
    grant = granted_tokens(limit, reserve)
    deltas = []
    reply = await model.generate(ask("q"), grant, deltas.append)
    everything = toytokens.count_message(whole)
    produced = min(everything, limit + reserve)
    said = sum(delta.tokens for delta in deltas)
    assert reply["usage"].get("completion_tokens", 0) == produced == said
    assert toytokens.count_message(reply["message"]) == produced
    assert produced <= grant.tokens
    assert reply["finish_reason"] == ("tool_calls" if produced == everything else "length")
    texts = [delta.text for delta in deltas if delta.kind == "content"]
    assert "".join(texts) == reply["message"]["content"]


@pytest.fixture(scope="module")
def granted_tokens(request):
    # Hypothesis wants fixtures that outlive one example.
    from types import SimpleNamespace

    def make(tokens, reserve):
        grant = SimpleNamespace(tokens=tokens, reserve=reserve)

        async def top_up(wanted):
            more = min(wanted, grant.reserve)
            grant.reserve -= more
            grant.tokens += more
            return grant.tokens

        grant.top_up = top_up
        return grant

    return make


async def test_the_wish_for_fewer_tokens_is_no_reason_to_ask_for_more(granted):
    grant = granted(100, 100)
    request = ask("q", sampling={"max_tokens": 2})
    reply = await ScriptedModel(["a b c d"]).generate(request, grant)
    assert reply["message"]["content"] == "a b"
    assert reply["finish_reason"] == "length"
    assert grant.asked == []


async def test_a_cut_reply_can_be_continued_to_the_same_end(granted):
    text = "one two three four"
    model = ScriptedModel([text, "never"])
    first = await model.generate(ask("q"), granted(2))
    request = ask("q", first["message"]["content"], continue_last=True)
    second = await model.generate(request, granted(9))
    assert first["message"]["content"] + second["message"]["content"] == text


async def test_stop_texts_end_the_reply(granted):
    request = ask("q", sampling={"stop": ["END", "three"]})
    reply = await ScriptedModel(["one two three END"]).generate(request, granted(9))
    assert reply["message"]["content"] == "one two "
    assert reply["finish_reason"] == "stop"


async def test_a_poorer_backend_can_be_played(granted):
    unruly = Capabilities(honours_max_tokens=False, streams=False)
    model = ScriptedModel(["a b c"], capabilities=unruly)
    deltas = []
    reply = await model.generate(ask("q"), granted(1, 9), deltas.append)
    assert (reply["usage"]["completion_tokens"], deltas) == (3, [])
    grant = granted(1, 9)
    short = ScriptedModel(["a b c"], capabilities=Capabilities(top_up=False))
    assert (await short.generate(ask("q"), grant))["finish_reason"] == "length"
    assert grant.asked == []


async def test_faults_count_the_tries_of_one_request(granted):
    def faults(request, attempt):
        busy = attempt < 2 and request["messages"][0]["content"] == "q"
        return BackendError("busy", status=503, retryable=True) if busy else None

    model = ScriptedModel({"q": "yes", "r": "no"}, faults=faults)
    for _ in range(2):
        with pytest.raises(BackendError, match="busy"):
            await model.generate(ask("q"), granted(9))
    await model.generate(ask("r"), granted(9))
    assert (await model.generate(ask("q"), granted(9)))["message"]["content"] == "yes"
    with pytest.raises(BackendError):
        await model.generate(ask("q"), granted(9))
    assert model.calls == 5


def test_random_numbers_depend_on_the_request_alone():
    one, two = (ask("q", sampling={"seed": seed}) for seed in (1, 2))
    assert rng(one).random() == rng(json.loads(json.dumps(one))).random()
    assert len({rng(one).random(), rng(two).random(), rng(one, "salt").random()}) == 3


async def test_latency_is_waited_for_and_cancelled(granted):
    model = ScriptedModel(["a"], latency=lambda _: 60.0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await model.generate(ask("q"), granted(9))
    paced = ScriptedModel(["a b"], token_delay=0.001)
    assert (await paced.generate(ask("q"), granted(9)))["message"]["content"] == "a b"


async def test_the_script_is_never_changed(granted):
    message = says(None, call("add"))
    model = ScriptedModel([message])
    await model.generate(ask("q"), granted(9))
    assert message == says(None, call("add"))


def test_the_fingerprint_names_the_script_and_bad_arguments_are_refused():
    assert ScriptedModel(["a"]).fingerprint() == ScriptedModel(["a"]).fingerprint()
    assert ScriptedModel(["a"]).fingerprint() != ScriptedModel(["b"]).fingerprint()
    assert ScriptedModel(rng).fingerprint()["script"].endswith("scripted.rng")
    assert ScriptedModel([rng]).fingerprint()["script"] == "list"
    assert repr(ScriptedModel(["a"], name="x")) == "ScriptedModel(name='x')"
    for bad in ({"slots": 0}, {"top_up_by": 0}):
        with pytest.raises(InvalidInput):
            ScriptedModel(["a"], **bad)
