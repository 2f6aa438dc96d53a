"""A thought that has used up its own tokens is closed, and the answer asked for.

The thought that was cut is on record as a reply of its own. The calls made from it follow from that
record alone, so that a replay makes the same.
"""

from __future__ import annotations

from dataclasses import replace

from longthought.orchestrator.definition import ACT_PROMPT, ANSWER_LEAD, ANSWER_PROMPT
from longthought.orchestrator.effects.requests import ModelCall
from longthought.types import Message, ModelReply, Sampling, Usage, text_of

__all__ = ["answering"]


def answering(call: ModelCall, reply: ModelReply) -> list[ModelCall]:
    """The calls that ask for the answer after the thought of a reply, the best first.

    A backend that goes on with an unfinished message (``continues``) is given the thought as text
    and the beginning of an answer. Where that brings nothing, where tools or a schema say what may
    come next, and for all other backends the thought stands in a message of the assistant's, and
    the answer is asked for. Neither limits the thinking again: it is asked for none.
    """
    messages, known = list(call.messages), call.known
    thought = "".join(item.get("text", "") for item in reply["message"].get("reasoning", ()))
    if call.continue_last:
        thought = text_of(messages.pop()) + thought
        known = known[: len(messages)]
    plain = replace(
        call,
        sampling=_without_thinking(call.sampling, reply),
        continue_last=False,
        known=known,
        least_output=0,
    )
    prompt = ACT_PROMPT if call.tools else ANSWER_PROMPT
    said: Message = {"role": "assistant", "content": thought}
    asked: Message = {"role": "user", "content": prompt}
    ways = [replace(plain, messages=[*messages, said, asked])]
    if call.model.capabilities.continues and not call.tools and call.output is None:
        begun: Message = {"role": "assistant", "content": f"{thought}{ANSWER_LEAD}"}
        ways.insert(0, replace(plain, messages=[*messages, begun], continue_last=True))
    return ways


def _without_thinking(sampling: Sampling, reply: ModelReply) -> Sampling:
    """What is left of the user's wish for the whole reply, none of it for thoughts."""
    left: Sampling = {**sampling, "thinking_tokens": 0}
    if "max_tokens" in sampling:
        used = Usage.from_json(reply["usage"]).completion_tokens
        left["max_tokens"] = max(1, sampling["max_tokens"] - used)
    return left
