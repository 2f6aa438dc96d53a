"""How a live model call ends on record: with a reply, a failure, or what it was charged for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from longthought.budgets import usage_amount
from longthought.errors import BackendError, BudgetExhausted, LongthoughtError, QuestionRefused
from longthought.orchestrator.effects.thinking_room import note_thought, with_thought
from longthought.types import JSONObject, ModelReply

if TYPE_CHECKING:
    from longthought.orchestrator.effects.live_calls import LiveCall

__all__ = [
    "budget_fields",
    "finish",
    "finish_failed",
    "finish_reply",
    "finish_unusable",
    "refused_fields",
]


def finish_failed(call: LiveCall, error: BackendError) -> None:
    """A call that failed for good, with the error of its last try."""
    fields: JSONObject = {"error": str(error)}
    if error.status is not None:
        fields["status"] = error.status
    finish(call, "error", fields)


def finish_unusable(call: LiveCall, error: Exception) -> Exception:
    """A call with a reply that cannot be used, by an adapter's mistake; returns what to raise."""
    if isinstance(error, LongthoughtError):
        return error
    if call.early is not None:
        call.early.drop()
    failure = BackendError(f"the reply cannot be used: {type(error).__name__}: {error}")
    finish_failed(call, failure)
    return failure


def finish(call: LiveCall, status: str, result: JSONObject) -> None:
    """A call without a reply, charged for the tries that had left."""
    call.session.count_spent(call.model, call.lost)
    call.session.finish(
        call.frame,
        call.key,
        "model",
        call.request_id,
        result,
        status=status,
        charged=call.lost.to_json(),
        clock=call.clock(),
        attempt=call.finished_number(),
        **_scheduling(call),
    )


def _scheduling(call: LiveCall) -> JSONObject:
    """What is recorded of slots and leases: nothing that a replay would look at."""
    if call.seat is None:
        return {}
    call.session.seats.leave(call.seat)
    known = call.ask.known if call.ask is not None else 0
    return {
        "permits": call.permits,
        "known": known,
        "lease": call.session.seats.told(call.seat),
    }


def finish_reply(call: LiveCall, reply: ModelReply) -> None:
    """A call with its reply: settled on its usage, learned from, and staged for the record."""
    session = call.session
    usage = call.usage
    if usage.estimated and usage.prompt_tokens > call.prompt_tokens:
        # our own bound is the better estimate: it knows what earlier calls were counted as
        usage = replace(usage, prompt_tokens=call.prompt_tokens)
        reply["usage"] = usage.to_json()
    cut = reply["finish_reason"] in ("length", "cut") and not reply.get("thought_cut")
    if cut and call.cut_short():
        reply["granted"] = call.grant.tokens
    if call.early is not None:
        call.early.settle(reply, call.emitted)
    thought = note_thought(session, call.call, reply["message"], usage)
    actual = with_thought(usage_amount(call.price, usage), thought)
    reservation = call.reservation
    if call.found is not None:  # what was reserved for it then is charged already
        actual = call.found.beyond(actual)

    def settle() -> JSONObject:
        charge = call.scope.charge if reservation is None else reservation.settle
        overrun = charge(actual)
        return {"overrun": overrun.to_json()} if overrun else {}

    conversation = session.put({"p": call.ids[-1] if call.ids else "", "m": reply["message"]})
    if not call.exact:
        session.estimator.learn(
            call.request, call.ids, usage, reply=reply["message"], reply_id=conversation
        )
    result: JSONObject = {name: value for name, value in reply.items() if name != "message"}
    result["conversation"] = conversation
    session.count_spent(call.model, actual + call.lost)
    session.finish(
        call.frame,
        call.key,
        "model",
        call.request_id,
        result,
        charged=(actual + call.lost).to_json(),
        settle=settle,
        clock=call.clock(),
        attempt=call.finished_number(),
        **_scheduling(call),
    )
    if call.ask is not None:
        session.seats.mark(call.ask, call.ids, conversation)
    if call.frame.branch is not None:
        call.frame.branch.tokens += usage.total_tokens


def refused_fields(error: QuestionRefused) -> JSONObject:
    """A refusal as it is recorded."""
    return {"field": error.field, "problem": error.problem, "fix": error.fix}


def budget_fields(error: BudgetExhausted) -> JSONObject:
    """A budget that had no room for a call, as it is recorded."""
    return {
        "kind": error.kind,
        "scope": error.scope,
        "limit": error.limit,
        "needed": error.needed,
        **({"reason": error.reason} if error.reason != error.kind else {}),
    }
