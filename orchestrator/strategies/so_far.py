"""The best answer so far: what a policy would settle on if nothing more came.

It follows from the state that ``done`` reads, so that it is there at any moment, and can be worked
out again from a trace.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Protocol

from longthought.orchestrator.strategies.policy import Pick, Policy, State
from longthought.types import JSONObject

__all__ = ["SO_FAR", "BestSoFar", "SaysBest", "best_pick"]

SO_FAR = "so_far"
"""The stop reason of a pick that ends nothing."""

_LOG = logging.getLogger("longthought")


class SaysBest(Protocol):
    """What a :class:`Policy` may have besides: its best at any moment, without a what-if."""

    def best(self, state: State) -> Pick | None:
        """What it would settle on now, None if that is nothing. Changes nothing."""
        ...


@dataclass(frozen=True, slots=True)
class BestSoFar:
    """The best branch of a search that has not ended, and what it says.

    ``final`` is false for a line of thought that has not come to its end. ``score`` and ``passed``
    are those of the verifier, None without one. ``support`` is what it rests on so far.
    """

    ask: str
    answer: str | None
    text: str = ""
    score: float | None = None
    passed: bool | None = None
    final: bool = True
    support: JSONObject = field(default_factory=dict)

    def to_json(self) -> JSONObject:
        """Every field that says something; the answer always."""
        return {
            name: value
            for name, value in asdict(self).items()
            if name in ("ask", "answer", "final") or value not in (None, "", {})
        }


def best_pick(policy: Policy, state: State) -> Pick | None:
    """What a policy would settle on if nothing more came, None if that is nothing.

    A policy without a ``best`` of its own is told, in a copy of its state, that all is used up.
    One that fails at it has no best: nobody depends on it.
    """
    own: Callable[[State], Pick | None] | None = getattr(policy, "best", None)
    try:
        if own is not None:
            pick = own(state)
        else:
            copied: State = json.loads(json.dumps(state))
            policy.tell(copied, {"type": "exhausted", "scope": "run", "kind": SO_FAR})
            pick = policy.done(copied)
    except Exception:
        _LOG.exception("%s does not know its best so far", policy.name)
        return None
    return None if pick is None or pick.ask is None else pick
