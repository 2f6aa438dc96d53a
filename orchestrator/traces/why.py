"""What the answer of a run rests on, computed from the recorded outcomes alone.

Each branch is left out in turn and the selector asked again: if another answer comes out, the
answer rests on that branch. Nothing is run, so a stopper that would have asked for more samples
cannot be followed; where leaving one out would have done that, the explanation says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from longthought.errors import InvalidInput
from longthought.orchestrator.strategies import Selector, best, majority, weighted
from longthought.orchestrator.strategies.policy import Outcome
from longthought.orchestrator.traces.tree import BranchNode, RunTree, SearchNode, run_tree
from longthought.orchestrator.typed import OUTPUT_CHECK
from longthought.storage import Recording
from longthought.types import JSONObject

__all__ = ["Explanation", "explain"]

_SELECTORS: dict[str, Callable[..., Selector]] = {
    "majority": majority,
    "weighted": weighted,
    "best": best,
}


@dataclass(slots=True)
class Explanation:
    """What the answer rests on.

    ``basis``: ``vote``, ``verified`` (a pick that a verifier passed), ``score`` (the best, not
    passed), ``only`` (one sample, taken as it is), ``chain`` (steps), ``graph`` (a graph of the
    user's own). ``decisive`` are the branches without any one of which the answer would be another
    one; ``fewest`` is the smallest number of votes whose absence would change it.
    ``rests_on`` are the effects behind the answer, ``alone`` where the absence of that effect alone
    would change it; ``indifferent`` are the branches whose absence would change nothing.
    """

    id: str
    answer: str | None
    status: str
    stop_reason: str
    basis: str = "graph"
    picked: str | None = None
    samples: int | None = None
    of: int | None = None
    votes: JSONObject = field(default_factory=dict)
    margin: float | None = None
    fewest: int | None = None
    verdict: JSONObject = field(default_factory=dict)
    decisive: list[str] = field(default_factory=list)
    otherwise: JSONObject = field(default_factory=dict)
    """For each decisive branch the answer that the others would give, None for no answer."""
    rests_on: list[JSONObject] = field(default_factory=list)
    indifferent: list[JSONObject] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> JSONObject:
        """All fields that say something."""
        value = {name: getattr(self, name) for name in self.__slots__}
        always = ("id", "answer", "status", "stop_reason", "basis", "rests_on", "decisive")
        return {k: v for k, v in value.items() if k in always or v not in (None, [], {})}


def explain(recording: Recording) -> Explanation:
    """The explanation of a run that has an answer, or of why it has none.

    Raises:
        InvalidInput: the run has not ended yet, or its payloads were deleted.
    """
    tree = run_tree(recording)
    if tree.status not in ("completed", "incomplete"):
        raise InvalidInput(
            "run", f"{tree.id} is {tree.status} and has no answer", f"longthought show {tree.id}"
        )
    if tree.deleted:
        raise InvalidInput("run", "has deleted payloads", "Its chain can still be audited")
    told = Explanation(tree.id, tree.answer, tree.status, tree.stop_reason)
    strategy = recording.manifest()["workflow"]["strategy"]
    picked = _picked(tree)
    if picked is None:
        _without_pick(told, tree)
    elif strategy["name"] == "backtrack":
        _chain(told, tree.searches[0], picked)
    elif (strategy.get("select") or {}).get("name") in _SELECTORS:
        selector = _selector(strategy["select"])
        _selection(told, tree.searches[0], picked, selector, strategy)
    else:
        _own_policy(told, tree.searches[0], picked)
    return told


# -- the kinds of strategy --------------------------------------------------------------------


def _selection(
    told: Explanation,
    search: SearchNode,
    picked: BranchNode,
    selector: Selector,
    strategy: JSONObject,
) -> None:
    """A vote, or the best of N."""
    branches = {branch.id: branch for branch in search.walk()}
    rejected = {note["ask"] for note in search.notes if note["input"] == "rejected"}
    able = [b.outcome for b in branches.values() if b.outcome and b.id not in rejected]
    able = [o for o in able if branches[o["ask"]].told]
    told.picked = picked.id
    told.samples = sum(1 for outcome in able if outcome["status"] == "finished")
    told.of = len(branches)
    support = selector.select(able).support
    told.votes, told.margin = support.get("votes", {}), support.get("margin")
    told.verdict = _verdict(picked)
    voted = bool(told.votes)
    told.basis = "vote" if voted else _basis(picked, told.of)
    for outcome in able:
        rest = [other for other in able if other is not outcome]
        without = _answer_of(selector, rest)
        if without != told.answer:
            told.decisive.append(outcome["ask"])
            told.otherwise[outcome["ask"]] = without
    if voted:
        told.fewest = _fewest(selector, able, told.answer)
    supporters = [o["ask"] for o in able if voted and o["answer"] == told.answer]
    carried = supporters if voted else [picked.id]
    told.rests_on = _effects(told, [branches[name] for name in carried])
    _add_indifferent(told, branches, carried, rejected)
    _note_stopper(told, strategy)


def _chain(told: Explanation, search: SearchNode, picked: BranchNode) -> None:
    """The steps from the question to the pick; what was tried beside them is not part of it."""
    branches = {branch.id: branch for branch in search.walk()}
    names = [picked.id]
    while (parent := names[0].rpartition(".")[0]) in branches:
        names.insert(0, parent)
    told.basis, told.picked, told.verdict = "chain", picked.id, _verdict(picked)
    told.decisive = names
    told.rests_on = _effects(told, [branches[name] for name in names])
    _add_indifferent(told, branches, names, set())
    if len(branches) > len(names):
        told.notes.append(
            "the steps beside the chain are no part of it; they did decide where it turned"
        )


def _own_policy(told: Explanation, search: SearchNode, picked: BranchNode) -> None:
    branches = {branch.id: branch for branch in search.walk()}
    told.picked, told.basis = picked.id, _basis(picked, len(branches))
    told.verdict = _verdict(picked)
    told.decisive = [picked.id]
    told.rests_on = _effects(told, [picked])
    told.notes.append("the policy is one of your own: only the branch it picked is shown")


def _without_pick(told: Explanation, tree: RunTree) -> None:
    if tree.searches and tree.answer is not None:
        told.notes.append("the answer was given at the end, outside the branches of the search")
    elif tree.answer is None:
        told.notes.append("there is no answer" + (f": {tree.error}" if tree.error else ""))
    told.basis = "graph" if tree.loose or not tree.searches else "none"
    told.rests_on = [
        {"key": step.key, "kind": step.kind, "branch": None, "alone": True} for step in tree.loose
    ]


# -- details ----------------------------------------------------------------------------------


def _selector(spec: JSONObject) -> Selector:
    """The selector of a recorded strategy."""
    options = {name: value for name, value in spec.items() if name != "name"}
    return _SELECTORS[spec["name"]](**options)


def _picked(tree: RunTree) -> BranchNode | None:
    if not tree.searches:
        return None
    return next((b for b in tree.searches[0].walk() if b.verdict == "picked"), None)


def _basis(picked: BranchNode, of: int) -> str:
    if picked.outcome.get("passed"):
        return "verified"
    return "only" if of == 1 else "score"


def _verdict(branch: BranchNode) -> JSONObject:
    # that a typed answer had to be mended says nothing of the one that was given in the end
    verdicts = [s for s in branch.steps if s.kind == "verify" and s.name != OUTPUT_CHECK]
    if not verdicts:
        return {}
    last = verdicts[-1]
    return {"passed": last.passed, "score": last.score, "reason": last.text, "key": last.key}


def _answer_of(selector: Selector, outcomes: Sequence[Outcome]) -> str | None:
    ask = selector.select(outcomes).ask
    return next((o["answer"] for o in outcomes if o["ask"] == ask), None)


def _fewest(selector: Selector, able: Sequence[Outcome], answer: str | None) -> int | None:
    """How many of the votes for the answer would have to be absent for another one to win."""
    left = list(able)
    for number in range(1, len(able) + 1):
        vote = next((o for o in reversed(left) if o["answer"] == answer), None)
        if vote is None:
            return None
        left.remove(vote)
        if _answer_of(selector, left) != answer:
            return number
    return None


def _effects(told: Explanation, branches: Sequence[BranchNode]) -> list[JSONObject]:
    """The effects of some branches; one alone matters if its branch alone does."""
    return [
        {
            "key": step.key,
            "kind": step.kind,
            "branch": branch.id,
            "alone": branch.id in told.decisive,
        }
        for branch in branches
        for step in branch.steps
        if step.status == "ok" or step.kind == "tool"
    ]


def _add_indifferent(
    told: Explanation, branches: dict[str, BranchNode], carried: Sequence[str], rejected: set[str]
) -> None:
    for name, branch in branches.items():
        if name in carried or name in told.decisive:
            continue
        why = "rejected" if name in rejected else branch.verdict
        answer = branch.outcome.get("answer")
        told.indifferent.append({"branch": name, "why": why, "answer": answer})


def _note_stopper(told: Explanation, strategy: JSONObject) -> None:
    if told.decisive and told.stop_reason in ("first_pass", "agreement"):
        told.notes.append(
            f"without {'it' if len(told.decisive) == 1 else 'one of these'} the run would not have "
            f"stopped there but asked for more samples (up to {strategy['n']})"
        )
