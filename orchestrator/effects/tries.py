"""The pauses between the tries of a model call, and when there is no further try."""

from __future__ import annotations

import asyncio
import math
import random

from longthought.errors import BackendError
from longthought.orchestrator.session import Session

__all__ = ["longest_wait", "pause", "stopped"]


async def pause(session: Session, error: BackendError, number: int) -> None:
    """Wait after the ``number``-th try; the slot is free meanwhile, lost money is on record."""
    retry = session.definition.retry
    if error.retry_after is None:
        seconds = random.uniform(0, min(retry.cap, retry.base * 2 ** (number - 1)))
    else:  # not a moment sooner, and not all at the same moment
        seconds = error.retry_after + random.uniform(0, min(retry.cap, retry.base))
    with session.clocks.running("queue"):
        await asyncio.sleep(seconds)


def stopped(session: Session, error: BackendError, number: int) -> BackendError | None:
    """The failure of the whole call after its ``number``-th try; None if it is to be tried again.

    There is no further try, or none that could leave in time.
    """
    wish, longest = error.retry_after or 0.0, longest_wait(session)
    if not error.retryable or number == session.definition.retry.attempts:
        return error
    if wish <= longest:
        return None
    told = (
        f"{error}; it wants no call for {wish:.0f} s, which is longer than this call "
        f"can wait ({longest:.0f} s)"
    )
    return BackendError(told, status=error.status, retry_after=wish)


def longest_wait(session: Session) -> float:
    """Seconds that are worth waiting before a try: all that the run has left, at most."""
    longest, wall = session.definition.retry.longest_wait, session.budget.wall
    left = math.inf if wall is None else wall - session.clocks.seconds("wall")
    return max(0.0, min(longest, left))
