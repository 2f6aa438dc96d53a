"""A thought that was cut: closed and the answer asked for, or gone on with because it was short.

The thought that was cut is on record as a reply of its own. The calls made from it follow from that
record alone, so that a replay makes the same.
"""

from __future__ import annotations

from dataclasses import replace

from longthought.errors import InvalidInput
from longthought.orchestrator.definition import (
    ACT_PROMPT,
    ANSWER_LEAD,
    ANSWER_PROMPT,
    THINK_ON_LEAD,
    THINK_ON_PROMPT,
)
from longthought.orchestrator.effects.requests import ModelCall
from longthought.orchestrator.models.thoughts import thought_of, thought_tokens
from longthought.types import Message, ModelReply, Sampling, Usage, text_of

__all__ = ["MOST_EXTENSIONS", "answering", "check_thinking", "thinking_on"]

MOST_EXTENSIONS = 6
"""How often one thought is gone on with; what is said after the last one stands."""


def check_thinking(sampling: Sampling) -> None:
    """Check the limits on a thought that stand in ``sampling``, also against each other.

    Raises:
        InvalidInput: one is no number of tokens, or the least is above the most.
    """
    for name in ("thinking_tokens", "min_thinking_tokens"):
        tokens = sampling.get(name, 0)
        if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 0:
            fix = "Write a whole number of tokens, or leave it out for no limit"
            raise InvalidInput(f"sampling.{name}", f"{tokens!r} cannot be used", fix)
    least = sampling.get("min_thinking_tokens", 0)
    limits = {"thinking_tokens": sampling.get("thinking_tokens")}
    for name, most in {**limits, "max_tokens": sampling.get("max_tokens")}.items():
        if least and most is not None and most < least:
            problem = f"{least} tokens of thought do not fit into {name}={most}"
            raise InvalidInput(
                "sampling.min_thinking_tokens", problem, f"Raise {name}, or lower it"
            )


def answering(call: ModelCall, reply: ModelReply) -> list[ModelCall]:
    """The calls that ask for the answer after the thought of a reply, the best first.

    A backend that goes on with an unfinished message (``continues``) is given the thought as text
    and the beginning of an answer. Where that brings nothing, where tools or a schema say what may
    come next, and for all other backends the thought stands in a message of the assistant's, and
    the answer is asked for. Neither limits the thinking again: it is asked for none.
    """
    sampling = _what_is_left(call.sampling, reply)
    sampling["thinking_tokens"] = 0
    sampling.pop("min_thinking_tokens", None)
    prompt = ACT_PROMPT if call.tools else ANSWER_PROMPT
    return _after_the_thought(replace(call, sampling=sampling), reply, ANSWER_LEAD, prompt)


def thinking_on(call: ModelCall, reply: ModelReply) -> list[ModelCall]:
    """The calls that go on with the thought of a reply, which was too short; the best first.

    The thought is gone on with after the word "Wait" (budget forcing, arXiv:2501.19393), in the
    same two ways as in :func:`answering`. The last extension has no least length any more.
    """
    sampling = _what_is_left(call.sampling, reply)
    thought = max(1, thought_tokens(reply["message"], Usage.from_json(reply["usage"])))
    least = sampling.pop("min_thinking_tokens", 0) - thought
    if least > 0 and call.extensions + 1 < MOST_EXTENSIONS:
        sampling["min_thinking_tokens"] = least
    if sampling.get("thinking_tokens"):
        sampling["thinking_tokens"] = max(1, sampling["thinking_tokens"] - thought)
    longer = replace(call, sampling=sampling, extensions=call.extensions + 1)
    return _after_the_thought(longer, reply, THINK_ON_LEAD, THINK_ON_PROMPT)


def _after_the_thought(
    call: ModelCall, reply: ModelReply, lead: str, prompt: str
) -> list[ModelCall]:
    """The call again behind the thought of its reply, which goes on with a lead, or is told to."""
    messages, known = list(call.messages), call.known
    thought = thought_of(reply["message"])
    if call.continue_last:
        thought = text_of(messages.pop()) + thought
        known = known[: len(messages)]
    plain = replace(call, continue_last=False, known=known, least_output=0)
    said: Message = {"role": "assistant", "content": thought}
    asked: Message = {"role": "user", "content": prompt}
    ways = [replace(plain, messages=[*messages, said, asked])]
    if call.model.capabilities.continues and not call.tools and call.output is None:
        begun: Message = {"role": "assistant", "content": f"{thought}{lead}"}
        ways.insert(0, replace(plain, messages=[*messages, begun], continue_last=True))
    return ways


def _what_is_left(sampling: Sampling, reply: ModelReply) -> Sampling:
    """The sampling with what is left of the user's wish for the whole reply."""
    left: Sampling = {**sampling}
    if "max_tokens" in sampling:
        used = Usage.from_json(reply["usage"]).completion_tokens
        left["max_tokens"] = max(1, sampling["max_tokens"] - used)
    return left
