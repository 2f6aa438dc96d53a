from __future__ import annotations

import pytest

from longthought.budgets import PromptEstimator
from longthought.types import Message, ModelRequest, Usage

SYSTEM: Message = {"role": "system", "content": "Be brief."}
USER: Message = {"role": "user", "content": "Wie viele Einwohner hat Zürich?"}
REPLY: Message = {"role": "assistant", "content": "About 440,000."}
NEXT: Message = {"role": "user", "content": "And Bern?"}
IDS = ["a", "b", "c", "d"]


def request(*messages: Message, **more: object) -> ModelRequest:
    return {"model": "m", "messages": list(messages), **more}  # type: ignore[typeddict-item]


def test_the_first_bound_is_bytes_and_allowances() -> None:
    bound = PromptEstimator(message_tokens=10, base_tokens=100).bound(request(SYSTEM, USER))
    assert bound == 100 + 10 + 9 + 10 + len("Wie viele Einwohner hat Zürich?") + 1


def test_everything_that_reaches_the_model_counts() -> None:
    estimator = PromptEstimator(message_tokens=0, base_tokens=0, part_tokens=7)
    tools = [{"name": "f", "description": "ä" * 50, "parameters": {}}]
    with_tools = estimator.bound(request(USER, tools=tools))
    assert with_tools > estimator.bound(request(USER)) + 100
    message: Message = {
        "role": "assistant",
        "content": [{"text": "four"}, {"image_url": "x"}],
        "tool_calls": [{"id": "1", "name": "run", "arguments": "{}"}],
        "reasoning": [{"text": "hm"}, {"encrypted": "abcde"}],
    }
    assert estimator.bound(request(message)) == 4 + 7 + 1 + 3 + 2 + 2 + 5
    assert estimator.bound(request({"role": "assistant", "content": None})) == 0


def test_a_prompt_seen_before_is_known() -> None:
    estimator = PromptEstimator()
    estimator.learn(request(SYSTEM, USER), IDS[:2], Usage(23, 5))
    assert estimator.bound(request(SYSTEM, USER), IDS[:2]) == 23


def test_a_conversation_that_goes_on_is_bounded_by_what_was_counted() -> None:
    estimator = PromptEstimator(message_tokens=10)
    first = request(SYSTEM, USER)
    estimator.learn(first, IDS[:2], Usage(23, 5), reply=REPLY, reply_id="c")
    following = request(SYSTEM, USER, REPLY, NEXT)
    assert estimator.bound(following, IDS) == 23 + 5 + 10 + 10 + len("And Bern?")
    without_reply = estimator.bound(request(SYSTEM, USER, NEXT), ["a", "b", "x"])
    assert without_reply == 23 + 10 + len("And Bern?")


def test_other_tools_or_another_model_are_another_prompt() -> None:
    estimator = PromptEstimator()
    estimator.learn(request(USER), ["b"], Usage(8, 1))
    tools = [{"name": "f", "description": "", "parameters": {}}]
    assert estimator.bound(request(USER, tools=tools), ["b"]) > 8
    assert estimator.bound({**request(USER), "model": "other"}, ["b"]) > 8


def test_a_bound_that_was_too_low_widens_the_next() -> None:
    estimator = PromptEstimator()
    before = estimator.bound(request(NEXT))
    estimator.learn(request(USER), ["b"], Usage(estimator.bound(request(USER)) + 300, 1))
    assert estimator.bound(request(NEXT)) == before + 300
    known = estimator.bound(request(USER), ["b"])
    estimator.learn(request(USER), ["b"], Usage(known + 1, 1))
    assert estimator.bound(request(NEXT)) == before + 300


def test_estimates_teach_nothing() -> None:
    estimator = PromptEstimator()
    before = estimator.bound(request(USER), ["b"])
    estimator.learn(request(USER), ["b"], Usage(9999, 1, estimated=True))
    estimator.learn(request(USER), ["b"], Usage())
    assert estimator.bound(request(USER), ["b"]) == before


def test_memory_is_bounded_and_forgets_the_unused() -> None:
    estimator = PromptEstimator(capacity=2)
    for name in ("x", "y"):
        estimator.learn(request(USER), [name], Usage(8, 1))
    estimator.bound(request(USER), ["x"])
    estimator.learn(request(USER), ["z"], Usage(8, 1))
    assert [estimator.bound(request(USER), [n]) == 8 for n in "xyz"] == [True, False, True]


def test_ids_must_match_the_messages() -> None:
    with pytest.raises(ValueError, match="1 ids for 2 messages"):
        PromptEstimator().bound(request(SYSTEM, USER), ["a"])
