"""The best answer so far of a run under way, or of one that was stopped: read, and never stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longthought.orchestrator.strategies.so_far import BestSoFar, best_pick
from longthought.types import JSONObject

if TYPE_CHECKING:
    from longthought.orchestrator.search import Search
    from longthought.orchestrator.session import Session

__all__ = ["best_in_search", "best_of_run", "best_outcome", "note_search", "show_best"]


def note_search(session: Session, search: Search) -> None:
    """Note a search that begins; of those that are over only the last is still of interest."""
    over = [one for one in session.searches if one.pick is not None]
    under_way = [one for one in session.searches if one.pick is None]
    session.searches = [*over[-1:], *under_way, search]


def best_of_run(session: Session) -> BestSoFar | None:
    """The best answer so far, at any moment: of the search begun last that has one.

    None while no branch of any has come back with anything.
    """
    found = [best_in_search(search) for search in reversed(session.searches)]
    bests = [best for best in found if best is not None]
    return next((best for best in bests if best.answer is not None), next(iter(bests), None))


def best_in_search(search: Search) -> BestSoFar | None:
    """The best answer of one search: its pick, or what its policy would pick now."""
    pick = search.pick or best_pick(search.policy, search.state)
    if pick is None or pick.ask is None:
        return None
    branch = search.branches[pick.ask]
    candidate, verdict = branch.candidate, branch.verdict
    if candidate is None:
        return None
    return BestSoFar(
        pick.ask,
        candidate.answer,
        candidate.text,
        verdict.score if verdict else None,
        verdict.passed if verdict else None,
        candidate.final,
        pick.support,
    )


def best_outcome(session: Session) -> JSONObject:
    """The best answer so far as the outcome of a run that ends before its search does, or {}."""
    best = best_of_run(session)
    if best is None:
        return {}
    outcome: JSONObject = {"answer": best.answer, "text": best.text, "support": best.support}
    outcome["ask"] = best.ask
    return outcome if best.final else {**outcome, "unfinished": True}


def show_best(search: Search) -> None:
    """Show the best answer so far to who watches the run, if anybody does, when it is another."""
    best = best_in_search(search) if search.session.watch is not None else None
    if best is not None and (best.ask, best.answer) != search.shown:
        search.shown = best.ask, best.answer
        search.session.show({"event": "best", **best.to_json()})
