"""The model behind the protocol: text, tools, continuation, grants, usage, refusals."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable

import numpy as np
import pytest

from longthought.errors import InvalidInput, QuestionRefused
from longthought.orchestrator.models.allowance import Allowance
from longthought.orchestrator.models.embedded import (
    EmbeddedModel,
    Puzzle,
    parse_question,
    trace_text,
)
from longthought.orchestrator.models.embedded.puzzles import Question
from longthought.orchestrator.models.embedded.puzzles import vocabulary as v
from longthought.orchestrator.models.embedded.reply import StopScanner
from longthought.types import Delta, Grant, Message, Model, ModelReply, ModelRequest

Ask = Callable[..., ModelRequest]
MakeGrant = Callable[..., Grant]

CALCULATOR = {"name": "calculator", "description": "", "parameters": {"type": "object"}}


def text(reply: ModelReply) -> str:
    content = reply["message"]["content"]
    assert isinstance(content, str)
    return content


def tokens_of(reply: ModelReply) -> list[str]:
    return [entry["token"] for entry in reply["logprobs"]]


def with_tool(request: ModelRequest) -> ModelRequest:
    request["tools"] = [CALCULATOR]
    return request


def continuing(request: ModelRequest, written: str) -> ModelRequest:
    message = Message(role="assistant", content=written)
    return {**request, "messages": [*request["messages"], message], "continue_last": True}


async def test_a_chain_of_thought_streams_and_counts(model: EmbeddedModel, ask: Ask) -> None:
    as_protocol: Model = model
    request = ask(seed=1)
    deltas: list[Delta] = []
    reply = await as_protocol.generate(request, Allowance(), deltas.append)
    assert reply["finish_reason"] == "stop"
    assert text(reply).endswith(". DONE")
    assert "".join(delta.text for delta in deltas) == text(reply)
    usage = reply["usage"]
    assert sum(delta.tokens for delta in deltas) == usage["completion_tokens"]
    assert usage["completion_tokens"] == len(v.encode(text(reply)))
    assert usage["prompt_tokens"] == model.count_prompt(request) == 7
    assert usage["calls"] == 1


async def test_a_seed_gives_the_same_reply_again(model: EmbeddedModel, ask: Ask) -> None:
    replies = [await model.generate(ask(seed=seed), Allowance()) for seed in (5, 5, 6, 7, 8)]
    texts = [text(reply) for reply in replies]
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1
    greedy = [await model.generate(ask(temperature=0), Allowance()) for _ in range(2)]
    assert text(greedy[0]) == text(greedy[1])
    almost = await model.generate(ask(seed=9, top_p=1e-9), Allowance())
    assert text(almost) == text(greedy[0])


async def test_next_to_no_temperature_is_none(model: EmbeddedModel, ask: Ask) -> None:
    greedy = await model.generate(ask(temperature=0), Allowance())
    nearly = await model.generate(ask(temperature=1e-320, seed=1), Allowance())
    assert text(nearly) == text(greedy)


async def test_what_shares_the_batch_does_not_change_a_reply(
    model: EmbeddedModel, ask: Ask
) -> None:
    drawn = {"seed": 5, "temperature": 0.9, "top_p": 0.9, "stop": ["BACK"], "logprobs": True}
    alone = await model.generate(ask(**drawn), Allowance())
    assert "BACK" not in text(alone)
    crowd = (model.generate(ask("1 5 5 5 -> 24", seed=seed), Allowance()) for seed in range(15))
    among, *_ = await asyncio.gather(model.generate(ask(**drawn), Allowance()), *crowd)
    assert text(among) == text(alone)
    assert tokens_of(among) == tokens_of(alone)
    certain = [entry["logprob"] for entry in alone["logprobs"]]
    assert [entry["logprob"] for entry in among["logprobs"]] == pytest.approx(certain, abs=1e-3)


async def test_log_probabilities_are_the_networks_own(model: EmbeddedModel, ask: Ask) -> None:
    reply = await model.generate(
        ask(seed=1, temperature=0.5, top_p=0.5, logprobs=True), Allowance()
    )
    network = model.engine_of("puzzles").network
    head = [v.MODE_CHAIN, 24, 4, 7, 8, 8, v.COLON]
    tokens = [*head, *v.encode(text(reply))]
    logits = network.forward(np.array([tokens]), network.new_cache(1), every=True)[0, 6:-1]
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = logprobs[np.arange(len(logits)), tokens[7:]]
    assert [entry["logprob"] for entry in reply["logprobs"]] == pytest.approx(expected, abs=1e-3)
    assert tokens_of(reply) == [v.word_of(token) for token in tokens[7:]]


async def test_forty_at_once(model: EmbeddedModel, ask: Ask) -> None:
    replies = await asyncio.gather(
        *(model.generate(ask(seed=seed), Allowance()) for seed in range(40))
    )
    assert all(text(reply) for reply in replies)
    assert model.counters.widest == model.slots == 16
    assert sum(reply["usage"].get("cached_tokens", 0) for reply in replies) == 39 * 6


async def test_other_modes(model: EmbeddedModel, ask: Ask) -> None:
    direct = await model.generate(ask(temperature=0, reasoning_effort="none"), Allowance())
    assert "=" not in text(direct)
    assert text(direct).endswith(". DONE")
    value = await model.generate(ask("can 4 6 make 24?", temperature=0, logprobs=True), Allowance())
    assert text(value) == "YES"
    assert value["logprobs"][0]["token"] == "YES"
    assert value["logprobs"][0]["logprob"] <= 0


async def test_a_tool_call_and_its_way_back(model: EmbeddedModel, ask: Ask) -> None:
    request = with_tool(ask(temperature=0))
    deltas: list[Delta] = []
    first = await model.generate(request, Allowance(), deltas.append)
    assert first["finish_reason"] == "tool_calls"
    (call,) = first["message"]["tool_calls"]
    told = [delta.text for delta in deltas if delta.kind == "tool_call"]
    assert told == [call["name"], call["arguments"]]  # as all models tell it
    assert deltas[-2].kind == deltas[-1].kind == "tool_call"
    assert sum(delta.tokens for delta in deltas) == first["usage"]["completion_tokens"]
    assert (call["id"], call["name"]) == ("call_0", "calculator")
    expression = json.loads(call["arguments"])["expression"]
    assert text(first) == expression

    before = model.counters.positions
    answer = Message(role="tool", content="1", tool_call_id=call["id"])
    request["messages"] += [first["message"], answer]
    second = await model.generate({**request, "sampling": {"max_tokens": 1}}, Allowance())
    assert model.counters.positions - before <= 2 + 1  # the result, RET, and the pending CALL
    assert second["usage"]["cached_tokens"] == second["usage"]["prompt_tokens"] - 3
    assert text(second).startswith(" [")
    third = await model.generate(request, Allowance())
    assert third["message"]["tool_calls"][0]["id"] == "call_1"
    together = trace_text([*request["messages"], third["message"]])
    assert together == f"{expression} = 1{text(third)}"
    assert v.decode(v.encode(together)) == together


async def test_a_tool_call_can_be_rebuilt_from_its_arguments(
    model: EmbeddedModel, ask: Ask
) -> None:
    arguments = '{"expression": "8 / 8"}'
    call = Message(
        role="assistant",
        content=None,
        tool_calls=[{"id": "call_0", "name": "calculator", "arguments": arguments}],
    )
    request = with_tool(ask("4 7 8 8 -> 24", call, Message(role="tool", content="1.0")))
    assert model.count_prompt(request) == 7 + 6
    call["content"] = "8 / 8"
    assert model.count_prompt(request) == 7 + 6


@pytest.mark.parametrize("result", ["256", "-1", "0.5", "error: division by zero", "", "9" * 999])
async def test_a_result_that_cannot_be_used_ends_honestly(
    model: EmbeddedModel, ask: Ask, result: str
) -> None:
    request = with_tool(ask(temperature=0))
    first = await model.generate(request, Allowance())
    request["messages"] += [first["message"], Message(role="tool", content=result)]
    reply = await model.generate(request, Allowance())
    assert reply["finish_reason"] == "stop"
    assert "could not be used" in text(reply)
    assert len(text(reply)) < 250
    assert "completion_tokens" not in reply["usage"]


async def test_a_step_search_gets_one_step_at_a_time(model: EmbeddedModel, ask: Ask) -> None:
    whole = text(await model.generate(ask(temperature=0), Allowance()))
    written = ""
    request = ask(temperature=0, stop=[";"])
    for _ in range(20):
        ongoing = continuing(request, written) if written else request
        before = model.counters.positions
        reply = await model.generate(ongoing, Allowance())
        if written:
            drawn = reply["usage"]["completion_tokens"]
            assert model.counters.positions - before <= drawn + 1
        assert ";" not in text(reply).removeprefix(";")
        written += text(reply)
        if written.endswith("DONE"):
            break
        written += "; "
    assert written == whole


@pytest.mark.parametrize(("tail", "joint"), [("", "; "), (";", " "), ("; ", "")])
async def test_text_and_its_continuation_fit_together(
    model: EmbeddedModel, ask: Ask, tail: str, joint: str
) -> None:
    written = "8 / 8 = 1 [1 4 7 left]"
    reply = await model.generate(continuing(ask(temperature=0), written + tail), Allowance())
    assert text(reply).startswith(joint)
    full = written + tail + text(reply)
    assert v.decode(v.encode(full)) == full
    assert reply["usage"]["prompt_tokens"] == 7 + 9


async def test_a_thought_goes_on_after_back(model: EmbeddedModel, ask: Ask) -> None:
    wrong = "8 + 8 = 16 [4 7 16 left]; 16 + 7 = 23 [4 23 left]; 23 + 4 = 27. BACK"
    for tail in ("", "\n"):
        reply = await model.generate(continuing(ask(seed=2), wrong + tail), Allowance())
        full = wrong + tail + text(reply)
        assert v.decode(v.encode(full)) == full


async def test_a_finished_thought_has_no_continuation(model: EmbeddedModel, ask: Ask) -> None:
    reply = await model.generate(continuing(ask(), "6 * 4 = 24. DONE"), Allowance())
    assert (reply["finish_reason"], text(reply)) == ("stop", "")


async def test_the_grant_is_kept_to_the_token(
    model: EmbeddedModel, ask: Ask, grant: MakeGrant
) -> None:
    free = text(await model.generate(ask(seed=1), Allowance()))
    tight = await model.generate(ask(seed=1), grant(5))
    assert tight["finish_reason"] == "length"
    assert tight["usage"]["completion_tokens"] == 5
    assert free.startswith(text(tight))
    fed = grant(3, more=10_000)
    topped = await model.generate(ask(seed=1), fed)
    assert text(topped) == free
    assert fed.asked
    assert topped["usage"]["cached_tokens"] == 6  # of the prompt, whatever the stretches reused
    partly = await model.generate(ask(seed=1), grant(3, more=4))
    assert partly["finish_reason"] == "length"
    assert partly["usage"]["completion_tokens"] == 7
    none = await model.generate(ask(seed=1), grant(0))
    assert (none["finish_reason"], text(none)) == ("length", "")


async def test_max_tokens_is_the_users_own_limit(
    model: EmbeddedModel, ask: Ask, grant: MakeGrant
) -> None:
    allowed = grant(100)
    reply = await model.generate(ask(max_tokens=4), allowed)
    assert reply["finish_reason"] == "length"
    assert reply["usage"]["completion_tokens"] == 4
    assert allowed.asked == []


async def test_the_context_ends_a_reply(babbler: EmbeddedModel, ask: Ask) -> None:
    reply = await babbler.generate(ask(temperature=0), Allowance())
    usage = reply["usage"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == 128
    assert reply["finish_reason"] == "length"
    full = await babbler.generate(continuing(ask(temperature=0), text(reply)), Allowance())
    assert (full["finish_reason"], text(full)) == ("length", "")


async def test_cancelling_a_reply_frees_its_place(babbler: EmbeddedModel, ask: Ask) -> None:
    task: asyncio.Task[ModelReply]

    def cancel(delta: Delta) -> None:
        task.cancel()

    task = asyncio.create_task(babbler.generate(ask(temperature=0), Allowance(), cancel))
    with pytest.raises(asyncio.CancelledError):
        await task
    babbler.engine_of("puzzles").wait_idle()
    assert babbler.engine_of("puzzles").in_flight == 0


@pytest.mark.parametrize(
    "question",
    [
        "4 7 8 8 -> 24",
        "  8 4 8 7 → 24 ",
        "4, 7, 8, 8 => 24",
        "Make 24 from 4 7 8 8",
        "make 24 using 4, 7, 8, and 8.",
        "Use 4, 7, 8 and 8 to make 24",
        "Use the numbers 4 7 8 8 to reach 24!",
        "4\u00a07\t8\n8 -> 24",
    ],
)
def test_ways_to_ask(question: str) -> None:
    assert parse_question(question) == Question(Puzzle((4, 7, 8, 8), 24))


def test_the_question_about_reachability() -> None:
    question = parse_question("Can 1 4 7 still make 24?")
    assert question == Question(Puzzle((1, 4, 7), 24), value=True)


@pytest.mark.parametrize(
    "question",
    [
        "What is the capital of France?",
        "",
        "4 7 -> 24",
        "1 2 3 4 5 -> 24",
        "4 7 8 14 -> 24",
        "0 7 8 8 -> 24",
        "4 7 8 8 -> 101",
        "4 7 8 8 -> 0",
        "4 7 8 8 -> " + "9" * 5000,
        "4 7 8 8",
        "\uff14 7 8 8 -> 24",  # the verifier reads ASCII digits alone
        "4 7 8 8 -> \u0662\u0664",
        "1" + " " * 200_000 + "x",  # a time that grows with the square would be noticed
    ],
)
async def test_other_questions_are_refused_with_advice(
    model: EmbeddedModel, ask: Ask, question: str
) -> None:
    with pytest.raises(QuestionRefused) as caught:
        await model.generate(ask(question), Allowance())
    assert caught.value.field == "question"
    assert "'4 7 8 8 -> 24'" in caught.value.fix
    assert "--base-url http://localhost:11434/v1" in caught.value.fix
    assert len(str(caught.value)) < 800
    assert model.counters.positions == 0


async def test_conversations_this_model_did_not_write_are_refused(
    model: EmbeddedModel, ask: Ask
) -> None:
    with pytest.raises(QuestionRefused, match="no user message"):
        await model.generate({"model": "embedded", "messages": []}, Allowance())
    own = Message(role="assistant", content="8 / 8 = 1")
    with pytest.raises(QuestionRefused, match="continue_last"):
        await model.generate(ask("4 7 8 8 -> 24", own), Allowance())
    with pytest.raises(QuestionRefused, match="no word"):
        await model.generate(continuing(ask(), "Let me think"), Allowance())
    with pytest.raises(QuestionRefused, match="more than 20,000 characters"):
        await model.generate(continuing(ask(), "8 / 8 = 1; " * 400_000), Allowance())
    with pytest.raises(QuestionRefused, match="unfinished"):
        await model.generate({**ask(), "continue_last": True}, Allowance())
    for temperature in (-1, math.nan):
        with pytest.raises(InvalidInput, match="temperature"):
            await model.generate(ask(temperature=temperature), Allowance())
    with pytest.raises(InvalidInput, match="top_p"):
        await model.generate(ask(top_p=0), Allowance())


async def test_system_messages_and_earlier_turns_are_ignored(
    model: EmbeddedModel, ask: Ask
) -> None:
    earlier = [
        Message(role="system", content="You are brief."),
        Message(role="user", content="What is the capital of France?"),
        Message(role="assistant", content="Paris."),
    ]
    request = ask()
    request["messages"] = [*earlier, *request["messages"]]
    assert model.count_prompt(request) == 7


def test_the_fingerprint_names_the_weights() -> None:
    model, small = EmbeddedModel("puzzle-large"), EmbeddedModel("embedded/puzzle-small")
    assert model.fingerprint()["weights"].startswith("sha256:")
    assert model.fingerprint() != small.fingerprint()
    assert (model.name, small.name) == ("embedded/puzzle-large", "embedded/puzzle-small")
    assert EmbeddedModel("puzzle-small").name == small.name
    assert model.fingerprint()["parameters"] == 371_232
    assert model.capabilities.top_up
    assert model.capabilities.continues
    assert model.capabilities.context_window == 128


def test_stop_strings_across_pieces() -> None:
    scanner = StopScanner(["abc", "z"])
    assert [scanner.feed(piece) for piece in ("xa", "b", "ab")] == [
        ("x", False),
        ("", False),
        ("ab", False),
    ]
    assert scanner.feed("c!") == ("", True)
    scanner = StopScanner(["abc"])
    scanner.feed("1ab")
    assert scanner.flush() == "ab"
