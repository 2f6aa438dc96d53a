"""A reply that its provider worked on by itself while the process that had asked was gone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from longthought.budgets import Amount
from longthought.errors import BackendError
from longthought.orchestrator.session import Session
from longthought.types import Model, ModelReply, ModelRequest, PicksUp

__all__ = ["PickedUp", "picked_up"]


@dataclass(frozen=True, slots=True)
class PickedUp:
    """A reply that an earlier attempt began.

    Attributes:
        granted: the tokens that it was granted.
        reserved: what was reserved for it, which stays charged.
        asked_at: when it was asked for, in seconds since the epoch.
    """

    reply: ModelReply
    granted: int
    reserved: Amount
    asked_at: float

    def beyond(self, actual: Amount) -> Amount:
        """What it has cost more than was reserved for it."""
        more = (actual - self.reserved).vector
        return Amount(*(max(0, figure) for figure in more))


async def picked_up(
    session: Session, key: str, model: Model, request: ModelRequest
) -> PickedUp | None:
    """The reply to the last try that an earlier attempt began, once it has ended.

    None if there is no such try, or its reply is not to be had any more: then the call is made
    anew, as any that has no end on record.
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
    if reply is None:
        return None
    *_, reserved = session.index.open[key].values()  # of the attempt that began it
    return PickedUp(reply, granted, reserved, asked_at)
