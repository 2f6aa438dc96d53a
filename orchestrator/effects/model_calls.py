"""A model call: the recorded reply, or a live call that is recorded."""

from __future__ import annotations

from typing import cast

from longthought.errors import BackendError, BudgetExhausted, QuestionRefused
from longthought.orchestrator.branches import Branch
from longthought.orchestrator.effects.live_calls import LiveCall
from longthought.orchestrator.effects.requests import ModelCall
from longthought.orchestrator.effects.thinking_room import note_thought
from longthought.orchestrator.places import current_frame
from longthought.orchestrator.session import MISSING, Session
from longthought.storage import Event, as_recorded
from longthought.types import JSONObject, ModelReply, Usage

__all__ = ["call_model"]


async def call_model(session: Session, call: ModelCall, *, defer: bool = False) -> ModelReply:
    """Ask a model, or hand out the recorded reply.

    With ``defer`` the reply is committed with the branch's next dispatch or its end; the caller
    must not act on it in any other way before.

    Raises:
        BackendError: the backend failed, all tries included (a recorded failure fails again).
        BudgetExhausted: the budget has no room for this call.
        QuestionRefused, UnpricedModel, BackendRefused: nothing was sent.
        Diverged, ReplayStopped: see :meth:`Session.recorded`.
    """
    frame = current_frame()
    key = frame.next_key("model")
    ids = session.conversation(call.messages, call.known)
    form = call.recorded_form(session, ids)
    event = session.recorded(key, form, frame, call.messages)
    if event is not MISSING:
        reply = _recorded_reply(session, event, frame.branch)
        note_thought(session, call, reply["message"], Usage.from_json(reply["usage"]))
        return reply
    await session.until_live(frame)
    live = LiveCall(session, call, frame, key, session.put(form), ids)
    reply = await live.perform()
    if not defer:
        await session.commit(frame)
    # in the order in which a replay is handed it
    message, rest = as_recorded([reply["message"], _without_message(reply)])
    return cast("ModelReply", {"message": message, **rest})


def _without_message(reply: ModelReply) -> JSONObject:
    return {name: value for name, value in reply.items() if name != "message"}


def _recorded_reply(session: Session, event: Event, branch: Branch | None) -> ModelReply:
    result = session.result_of(event)
    match event.body["status"]:
        case "error":
            raise BackendError(result["error"], status=result.get("status"))
        case "budget":
            raise BudgetExhausted(
                result["kind"],
                result["scope"],
                result["limit"],
                result["needed"],
                result.get("reason", result["kind"]),
            )
        case "refused":
            raise QuestionRefused(result["field"], result["problem"], result["fix"])
    message = session.recording.get(result.pop("conversation"))["m"]
    reply: ModelReply = {"message": message, **result}  # type: ignore[typeddict-item]
    if branch is not None:
        branch.tokens += Usage.from_json(reply["usage"]).total_tokens
    return reply
