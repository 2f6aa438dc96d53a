"""The room that a run's limit on tokens of thought leaves to one call.

A call reserves it as it does all else, and its model is told: the limit that stands in the request
on record is the user's own, and the lower one by which the thought may then be cut shows in the
reply alone (``thought_cut``).
"""

from __future__ import annotations

from longthought.budgets import Amount, Scope
from longthought.orchestrator.effects.requests import ModelCall
from longthought.orchestrator.models.thoughts import thought_of, thought_tokens
from longthought.orchestrator.session import Session
from longthought.types import Message, ModelRequest, Sampling, Usage

__all__ = ["limited_thought", "note_thought", "thinking_bounds", "with_thought"]


def thinking_bounds(
    session: Session, scope: Scope, call: ModelCall, output: int
) -> tuple[int, int]:
    """The tokens of thought that a call wants at most and needs at least.

    It needs none, since a thought can be cut and the answer still be asked for. Of a model that
    thinks where nobody can see it, one: it would think whatever it is told.
    """
    if not scope.limited("thinking_tokens"):
        return 0, 0
    least = int(call.model.name in session.seats.controller.hidden_thinkers)
    wish = min(output, call.sampling.get("thinking_tokens", output))
    return max(wish, least), least


def with_thought(amount: Amount, tokens: int) -> Amount:
    """An amount, and so many tokens of thought besides."""
    return amount + Amount(thinking_tokens=tokens) if tokens else amount


def limited_thought(
    scope: Scope, request: ModelRequest, granted: int, *, last: bool
) -> ModelRequest:
    """The request as the model gets it: with no longer a thought than was granted.

    Where nothing is left one token is asked for, not none: a thought that nobody limits would take
    what it likes, while this one is cut at once. A ``last`` answer is asked for no thought: nobody
    asks again after one that was cut.
    """
    sampling = request.get("sampling", {})
    most = sampling.get("thinking_tokens")
    if most == 0 or not scope.limited("thinking_tokens"):
        return request
    if most is not None and most <= granted and not last:
        return request
    room = 0 if last else max(1, granted)
    limited: Sampling = {**sampling, "thinking_tokens": room}
    if limited.get("min_thinking_tokens", 0) > min(room, granted):
        limited.pop("min_thinking_tokens")
    return {**request, "sampling": limited}


def note_thought(session: Session, call: ModelCall, message: Message, usage: Usage) -> int:
    """The tokens of thought of a reply; a model that hides its own is noted."""
    if not usage.reasoning_tokens and "reasoning" not in message:
        return 0
    if usage.reasoning_tokens and not thought_of(message):
        session.seats.controller.hidden_thinkers.add(call.model.name)
    return thought_tokens(message, usage)
