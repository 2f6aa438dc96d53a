"""The states of a branch and which of them may follow which."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["FINAL_STATES", "SLOT_STATES", "TRANSITIONS", "BranchState"]


class BranchState(StrEnum):
    """Where a branch stands. Only GENERATING and TOOL_STARTED hold a slot.

    Values are what traces and views show.
    """

    NEW = "new"
    """Has not asked for anything yet."""
    QUEUED = "queued"
    """Waits for a slot."""
    GENERATING = "generating"
    """Holds a slot; tokens flow."""
    TOOL_STARTED = "tool_started"
    """Holds a slot; the first tool runs already while the stream drains."""
    ACTING = "acting"
    """A tool runs or a person is asked; no slot, context still warm."""
    PARKED = "parked"
    """Waits so long that its context was given up."""
    READY = "ready"
    """Has what it waited for, holds no slot, and goes before new branches."""
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


_S = BranchState
FINAL_STATES = frozenset({_S.DONE, _S.CANCELLED, _S.FAILED})
"""States that nothing follows."""

SLOT_STATES = frozenset({_S.GENERATING, _S.TOOL_STARTED})
"""States in which a branch holds a slot."""

TRANSITIONS: dict[BranchState, frozenset[BranchState]] = {
    # A branch may begin with a tool or a verifier, and a replayed one may end without generating.
    _S.NEW: frozenset({_S.QUEUED, _S.ACTING, _S.PARKED, _S.READY}) | FINAL_STATES,
    # Back to where it came from: the wish for a slot was given up.
    _S.QUEUED: frozenset({_S.GENERATING, _S.NEW, _S.READY, _S.ACTING}) | FINAL_STATES,
    # QUEUED: a second call of the same branch waits. ACTING: a tool that runs had asked a model.
    _S.GENERATING: frozenset({_S.TOOL_STARTED, _S.READY, _S.QUEUED, _S.ACTING}) | FINAL_STATES,
    # GENERATING: the early tool was dropped because the stream failed or said something else.
    _S.TOOL_STARTED: frozenset({_S.GENERATING, _S.ACTING, _S.QUEUED}) | FINAL_STATES,
    # QUEUED: what runs asks a model itself, a judge for example.
    _S.ACTING: frozenset({_S.PARKED, _S.READY, _S.QUEUED}) | FINAL_STATES,
    _S.PARKED: frozenset({_S.READY}) | FINAL_STATES,
    _S.READY: frozenset({_S.QUEUED, _S.ACTING, _S.PARKED}) | FINAL_STATES,
    _S.DONE: frozenset(),
    _S.CANCELLED: frozenset(),
    _S.FAILED: frozenset(),
}
"""All legal transitions; a branch refuses every other one."""
