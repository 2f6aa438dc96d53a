"""A reply that the budget cut short is gone on with, for as long as there is room for more.

A remote backend is told its maximum when a call leaves, so a call made while much was reserved by
others may have been granted little. What they did not use is free again later: the reply is then
continued where it stopped, by an effect of its own, until it ends or the user's wish is used up.
"""

from __future__ import annotations

from dataclasses import replace

from longthought.errors import BackendError, BudgetExhausted, QuestionRefused
from longthought.orchestrator.definition import CONTINUE_PROMPT
from longthought.orchestrator.effects.cut_thoughts import (
    answering,
    check_thinking,
    thinking_on,
)
from longthought.orchestrator.effects.model_calls import call_model
from longthought.orchestrator.effects.requests import ModelCall
from longthought.orchestrator.session import Session
from longthought.types import Message, ModelReply, Usage, text_of

__all__ = ["whole_reply"]


async def whole_reply(session: Session, call: ModelCall, *, defer: bool = False) -> ModelReply:
    """Ask a model as :func:`call_model` does, and go on with a reply that its grant cut short.

    A backend that can (capability ``continues``) goes on with the unfinished message. Others are
    sent what was said so far and asked to go on; a thought that was cut before it said anything is
    asked anew, with twice the room, and so is one whose decoder keeps to a schema: it would begin
    the answer again. What was said stands when nothing more is to be had.

    Where a thought was cut for its own limit (``thinking_tokens``), the answer is asked for; one
    that was too short (``min_thinking_tokens``) is gone on with.

    Raises:
        BackendError, BudgetExhausted, QuestionRefused: of the first call, see :func:`call_model`,
            or of one that goes on from a thought.
        InvalidInput: the limits on a thought exclude each other.
    """
    if call.sampling.get("min_thinking_tokens"):
        check_thinking(call.sampling)
    reply = await call_model(session, call, defer=defer)
    while not (reply.get("thought_cut") or reply.get("thought_short")):
        rest = _rest(session, call, reply)
        if rest is None:
            return reply
        try:
            more = await call_model(session, rest, defer=defer)
        except (BackendError, BudgetExhausted, QuestionRefused):
            return reply
        if not Usage.from_json(more["usage"]).completion_tokens:
            return reply
        reply = _joined(reply, more, anew=not rest.goes_on)
        if rest.goes_on:  # the thought was over: what a server thinks again is not looked at
            reply.pop("thought_cut", None)
            reply.pop("thought_short", None)
    if reply.get("thought_short"):
        return await _thought_on(session, call, reply, defer=defer)
    return await _answered(session, call, reply, defer=defer)


async def _thought_on(
    session: Session, call: ModelCall, reply: ModelReply, *, defer: bool
) -> ModelReply:
    """A thought that was too short, without what was said after it, and what it then came to."""
    message: Message = {**reply["message"], "content": ""}
    message.pop("tool_calls", None)
    first, *others = thinking_on(call, reply)
    try:
        more = await whole_reply(session, first, defer=defer)
    except QuestionRefused:
        if not others:
            raise
        more = await whole_reply(session, others[0], defer=defer)
    joined = _joined({**reply, "message": message}, more, anew=False)
    said = joined["message"]
    said["content"] = text_of(said).lstrip() or (None if said.get("tool_calls") else "")
    return joined


async def _answered(
    session: Session, call: ModelCall, reply: ModelReply, *, defer: bool
) -> ModelReply:
    """A thought that was cut, and the answer that was then asked for."""
    for way in answering(call, reply):
        try:
            more = await whole_reply(session, way, defer=defer)
        except QuestionRefused:
            continue
        reply = _joined(reply, more, anew=False)
        said = reply["message"]
        if text_of(said).strip() or said.get("tool_calls"):
            said["content"] = text_of(said).lstrip() or None  # behind the beginning of an answer
            break
    return reply


def _rest(session: Session, call: ModelCall, reply: ModelReply) -> ModelCall | None:
    """The call that goes on with a reply; None if it ended, or as the user wished."""
    said = reply["message"]
    granted = reply.get("granted")
    if granted is None or said.get("tool_calls"):
        return None
    wish = call.sampling.get("max_tokens", session.definition.max_output_tokens)
    text = text_of(said)
    if call.output is not None or not text:
        anew = 2 * granted
        began = bool(said.get("reasoning")) or call.output is not None
        return replace(call, least_output=anew) if began and anew <= wish else None
    left = wish - Usage.from_json(reply["usage"]).completion_tokens
    if left < 1:
        return None
    messages, known, continues = list(call.messages), call.known, call.model.capabilities.continues
    if call.continue_last:
        text = text_of(messages.pop()) + text
        known = known[: len(messages)]
    messages.append({**said, "content": text})
    if not continues:
        messages.append({"role": "user", "content": CONTINUE_PROMPT})
    return replace(
        call,
        messages=messages,
        sampling={**call.sampling, "max_tokens": left},
        continue_last=continues,
        known=known,
        goes_on=True,
    )


def _joined(reply: ModelReply, more: ModelReply, *, anew: bool) -> ModelReply:
    """Both replies as one; the second alone if it was asked anew."""
    usage = Usage.from_json(reply["usage"]) + Usage.from_json(more["usage"])
    if anew:
        return {**more, "usage": usage.to_json()}
    first, last = reply["message"], more["message"]
    text = text_of(first) + text_of(last)
    message: Message = {**last, "content": text or (None if last.get("tool_calls") else "")}
    reasoning = [*first.get("reasoning", ()), *last.get("reasoning", ())]
    if reasoning:
        message["reasoning"] = reasoning
    provider = {**first.get("provider", {}), **last.get("provider", {})}
    if provider:
        message["provider"] = provider
    joined: ModelReply = {**more, "message": message, "usage": usage.to_json()}
    logprobs = [*reply.get("logprobs", ()), *more.get("logprobs", ())]
    if logprobs:
        joined["logprobs"] = logprobs
    return joined
