"""Telling a branch what is left of the run's limits, in one line of its next prompt.

What it is told is an effect: recorded before the prompt leaves, and told again on every replay,
whatever clocks and ledger say then.
"""

from __future__ import annotations

from collections.abc import Iterator

from longthought.budgets import Kind
from longthought.orchestrator.places import Frame, current_frame
from longthought.orchestrator.session import Session

__all__ = ["tell_left"]

_COUNTED: tuple[tuple[Kind, str], ...] = (
    ("tokens", "tokens"),
    ("output_tokens", "output tokens"),
    ("thinking_tokens", "tokens of thought"),
    ("model_calls", "model calls"),
    ("tool_calls", "tool calls"),
)
_NAME = "budget"


async def tell_left(session: Session, told: float) -> tuple[str, float]:
    """The line for the next prompt, empty if there is none, and the share told of by then.

    ``told`` is the share that the branch was told of last, 0 at first. There is a line when a
    limit has been used to a further one of the shares in ``Definition.tell_left``.
    """
    due = [share for share in session.definition.tell_left if share > told]
    if not due:
        return "", told
    frame = current_frame()
    key = frame.mark_key("left", _NAME)
    event = session.index.finished.get(key)
    if event is not None:
        session.asked.add(key)
        session.counters.effects += 1
        result = session.result_of(event)
        return result["line"], result["share"]
    if session.mode == "replay" or _gone_past(session, frame):
        return "", told
    await session.until_live(frame)
    session.enter_chain(frame.branch)  # what this branch has used itself is settled
    figures = [(used, text) for used, text in _figures(session) if used >= due[0]]
    if not figures:
        return "", told
    share = max(share for share in due if any(used >= share for used, _ in figures))
    line = f"Left of the budget: {', '.join(text for _, text in figures)}."
    session.counters.effects += 1
    request = session.put({"left": list(session.definition.tell_left), "told": told})
    session.finish(frame, key, "left", request, {"share": share, "line": line})
    return line, share


def _gone_past(session: Session, frame: Frame) -> bool:
    """Whether the prompt of this place has left already, in an earlier attempt, without a line."""
    number = frame.places.numbered(frame.path)
    sent = f"{frame.path}#{number}:model" in session.index.tries
    return sent or session.index.holds_beyond(frame.path, number)


def _figures(session: Session) -> Iterator[tuple[float, str]]:
    """Of each limit the share that is used, and what is left of it in words."""
    budget, spent, clocks = session.budget, session.scope.spent, session.clocks
    for kind, name in _COUNTED:
        limit = budget.limit(kind)
        if limit:
            left = max(0, limit - budget.kept_back(kind) - int(getattr(spent, kind)))
            yield 1 - left / limit, f"{left:,} of {limit:,} {name}"
    if budget.wall is not None:
        left_s = max(0.0, budget.wall - clocks.seconds("wall"))
        yield 1 - left_s / budget.wall, f"{left_s:.0f} of {budget.wall:g} seconds"
    if budget.thinking is not None:
        left_s = max(0.0, budget.thinking - clocks.seconds("model"))
        text = f"{left_s:.0f} of {budget.thinking:g} seconds of thinking"
        yield 1 - left_s / budget.thinking, text
