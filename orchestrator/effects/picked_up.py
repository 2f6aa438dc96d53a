"""A reply that its provider worked on by itself while the process that had asked was gone."""

from __future__ import annotations

from typing import cast

from longthought.errors import BackendError
from longthought.orchestrator.session import Session
from longthought.types import Model, ModelReply, ModelRequest, PicksUp

__all__ = ["picked_up"]


async def picked_up(
    session: Session, key: str, model: Model, request: ModelRequest
) -> tuple[ModelReply, int, float] | None:
    """The reply to the last try that an earlier attempt began, once it has ended.

    With the tokens that it was granted, and when it was asked for, in seconds since the epoch. None
    if there is no such try, or its reply is not to be had any more: then the call is made anew, as
    any that has no end on record.
    """
    handle, granted = session.index.handles.get(key, ("", 0))
    if not handle or not hasattr(model, "pick_up"):
        return None
    asked_at = session.now
    try:
        with session.clocks.running("model"):
            reply = await cast("PicksUp", model).pick_up(request, handle, granted)
    except BackendError:
        return None
    return None if reply is None else (reply, granted, asked_at)
