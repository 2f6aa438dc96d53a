"""The scopes of a run, recomputed from its record alone: for running, parked and ended runs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from longthought.budgets import Amount, Budget, Clocks, Scope
from longthought.orchestrator.raising import limits_in_force
from longthought.orchestrator.recorded import Recorded
from longthought.storage import Recording
from longthought.types import JSONObject

__all__ = ["RunBudget", "run_budget"]


@dataclass(frozen=True, slots=True)
class RunBudget:
    """What a run may spend, has spent, and holds, in every scope.

    ``scopes`` has the form of ``Scope.view()``; ``reserved`` there is what the attempt under way
    has started and not finished. What an attempt that is over has left open counts as spent.
    ``clocks`` are seconds, ``time_left`` those left of each limit on time. ``driven`` is false
    where nobody works on a run that has come to no end: its process has died.
    """

    id: str
    workflow: str
    status: str
    scopes: JSONObject
    clocks: dict[str, float]
    spent: Amount
    reserved: Amount
    time_left: dict[str, float] = field(default_factory=dict)
    driven: bool = True

    @property
    def under_way(self) -> bool:
        """Whether somebody works on it."""
        return self.driven and self.status == "running"

    def to_json(self) -> JSONObject:
        """What ``longthought budget RUN --json`` prints."""
        return {
            "id": self.id,
            "workflow": self.workflow,
            "status": self.status,
            "scopes": self.scopes,
            "clocks": dict(self.clocks),
            "time_left": dict(self.time_left),
            **({"driven": False} if self.status == "running" and not self.driven else {}),
        }


def run_budget(recording: Recording, *, now: float | None = None, driven: bool = True) -> RunBudget:
    """Recompute the scopes of a run; the clock of one under way goes on to ``now`` (epoch seconds).

    Not ``driven``, it is over with the last event on record; see :meth:`Store.is_driven`.

    Raises:
        TraceError: the record has no manifest, or lacks a payload it needs.
    """
    index = Recorded.of(recording)
    ended = recording.ended()
    status = str(ended.body["status"]) if ended is not None else "running"
    goes_on = ended is None and driven
    held = _held(index) if goes_on else {}
    manifest = recording.manifest()
    limits = limits_in_force(recording, index, manifest=manifest)
    charged, reserved = index.charged, held.get("", Amount())
    run = _scope(recording.run_id, limits, None, charged, reserved, "run")
    scopes = {"": run}
    branch_limits = Budget.from_json(manifest.get("branch_budget") or {})
    for search, folds in index.folds.items():
        asked = [event.body["data"] for event in folds if event.body["input"] == "ask"]
        if not asked:
            continue
        own = Budget.from_json(asked[0].get("limits", {}).get("search", {}))
        parent = scopes[next(index.around(search), "")]
        scopes[search] = _scope(search, own, parent, *_figures(index, held, search), "search")
        for ask in (ask for data in asked for ask in data["asks"]):
            place = f"{search}/{ask}"
            figures = _figures(index, held, place)
            scopes[place] = _scope(ask, branch_limits, scopes[search], *figures, "branch")
    if goes_on and index.intervals:
        index.intervals[-1]["wall"][0][1] = time.time() if now is None else now
    clocks = index.clocks()
    return RunBudget(
        recording.run_id,
        str(recording.events[0].body["workflow"]),
        status,
        run.view(),
        clocks.view(),
        run.spent,
        run.reserved,
        _time_left(limits, clocks),
        driven,
    )


def _held(index: Recorded) -> dict[str, Amount]:
    """What the attempt under way has reserved, by search and branch; of all together under ""."""
    attempt, held = len(index.intervals), {"": Amount()}
    for key, tries in index.open.items():
        if attempt in tries:
            for place in ("", *index.around(key)):
                held[place] = held.get(place, Amount()) + tries[attempt]
    return held


def _figures(index: Recorded, held: dict[str, Amount], place: str) -> tuple[Amount, Amount]:
    return index.spent.get(place, Amount()), held.get(place, Amount())


def _scope(
    name: str, limits: Budget, parent: Scope | None, charged: Amount, held: Amount, level: str = ""
) -> Scope:
    """A scope with figures that count in itself alone; those above have their own."""
    scope = Scope(name, limits, parent, level=level, spent=charged - held)
    scope.accounts[0].move(held.vector, ())
    return scope


def _time_left(limits: Budget, clocks: Clocks) -> dict[str, float]:
    pairs = (("wall", limits.wall, "wall"), ("thinking", limits.thinking, "model"))
    return {
        name: round(max(0.0, limit - clocks.seconds(clock)), 3)  # type: ignore[arg-type]
        for name, limit, clock in pairs
        if limit is not None
    }
