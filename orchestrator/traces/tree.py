"""A recorded run as a tree: searches, their branches, and the steps of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from longthought.errors import TraceError
from longthought.orchestrator.traces.so_far import best_in_trace
from longthought.orchestrator.traces.steps import Step, steps_of
from longthought.storage import Event, Recording
from longthought.types import JSON, JSONObject

__all__ = ["BranchNode", "RunTree", "SearchNode", "run_tree"]

_ENDED = ("completed", "incomplete")


@dataclass(slots=True)
class BranchNode:
    """One branch of a search.

    ``verdict`` says in a word what became of it: ``picked``, ``passed``, ``dead end`` (turned down
    or failed), ``given up`` (good so far, but nothing below it led on), ``finished``,
    ``cancelled``, ``late`` (charged, never told), ``parked``, ``open``.
    """

    id: str
    place: str
    how: str = "open"
    reason: str = ""
    told: bool = True
    outcome: JSONObject = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    children: list[BranchNode] = field(default_factory=list)
    verdict: str = "open"

    @property
    def tokens(self) -> int:
        """Charged to this branch alone, without those that go on from it."""
        return sum(step.tokens for step in self.steps)

    @property
    def model(self) -> str:
        """The name of the model that thinks in it, empty before it was asked."""
        return next((step.name for step in self.steps if step.kind == "model"), "")

    def to_json(self) -> JSONObject:
        """The branch with its steps and the branches that go on from it."""
        value: JSONObject = {"id": self.id, "place": self.place, "verdict": self.verdict}
        value |= {"how": self.how, "told": self.told, "tokens": self.tokens}
        for name in ("model", "reason", "outcome"):
            if getattr(self, name):
                value[name] = getattr(self, name)
        value["steps"] = [step.to_json() for step in self.steps]
        if self.children:
            value["children"] = [child.to_json() for child in self.children]
        return value


@dataclass(slots=True)
class SearchNode:
    """One search of a policy: its branches, and what else it was told, in order."""

    place: str
    branches: list[BranchNode] = field(default_factory=list)
    """Those that start at the question; the others hang below them."""
    notes: list[JSONObject] = field(default_factory=list)
    """Inputs besides asks and tells: exhausted, rejected, limit_raised, cancel."""

    def walk(self) -> Iterator[BranchNode]:
        """All branches, parents first."""
        todo = list(reversed(self.branches))
        while todo:
            branch = todo.pop()
            yield branch
            todo.extend(reversed(branch.children))

    def to_json(self) -> JSONObject:
        """The search with all its branches."""
        return {
            "place": self.place,
            "branches": [branch.to_json() for branch in self.branches],
            "notes": self.notes,
        }


@dataclass(slots=True)
class RunTree:
    """A whole run. ``status`` is ``running`` while its last attempt has no end.

    ``best`` is the best answer so far of a run that has not come to its end, however it stopped.
    """

    id: str
    workflow: str
    question: JSON
    status: str
    stop_reason: str = ""
    answer: str | None = None
    text: str = ""
    error: str = ""
    spent: JSONObject = field(default_factory=dict)
    support: JSONObject = field(default_factory=dict)
    begun: float = 0.0
    attempts: int = 0
    events: int = 0
    deleted: int = 0
    best: JSONObject = field(default_factory=dict)
    attention: JSONObject = field(default_factory=dict)
    waiting: list[JSONObject] = field(default_factory=list)
    searches: list[SearchNode] = field(default_factory=list)
    loose: list[Step] = field(default_factory=list)
    """Effects outside every search, in order."""

    @property
    def models(self) -> list[str]:
        """The names of the models that think in its branches, in the order of their first turn."""
        branches = (branch for search in self.searches for branch in search.walk())
        return list(dict.fromkeys(branch.model for branch in branches if branch.model))

    def to_json(self) -> JSONObject:
        """Everything, for ``show --json``."""
        names = ("id", "workflow", "question", "status", "stop_reason", "answer", "spent")
        value: JSONObject = {name: getattr(self, name) for name in names}
        for name in ("best", "text", "error", "support", "attention", "waiting", "deleted"):
            if getattr(self, name):
                value[name] = getattr(self, name)
        value |= {"begun": self.begun, "attempts": self.attempts, "events": self.events}
        value["searches"] = [search.to_json() for search in self.searches]
        value["effects"] = [step.to_json() for step in self.loose]
        return value


def run_tree(recording: Recording) -> RunTree:
    """The tree of a recording, whatever state it is in.

    Raises:
        TraceError: the run does not begin with a manifest.
    """
    first = recording.events[0] if recording.events else None
    if first is None or first.type != "run_started":
        raise TraceError(f"run {recording.run_id} does not begin with a manifest")
    tree = RunTree(recording.run_id, first.body["workflow"], None, "running")
    tree.begun, tree.events = first.body["at"], recording.length
    tree.deleted = len(recording.deleted)
    if recording.has(first.body["manifest"]):
        tree.question = recording.manifest()["question"]
    searches: dict[str, SearchNode] = {}
    branches: dict[str, BranchNode] = {}
    for event in recording.events:
        _take(recording, tree, searches, branches, event)
    _hang_steps(recording, tree, branches)
    tree.searches = list(searches.values())
    outcome = _end(recording, tree)
    if tree.status not in _ENDED and not tree.deleted:
        tree.best = _best(recording, outcome)
        outcome = {}
    for search in tree.searches:
        picked = outcome.get("ask") if search is tree.searches[0] else None
        _judge(search, picked, tree.status in _ENDED)
    return tree


def _take(
    recording: Recording,
    tree: RunTree,
    searches: dict[str, SearchNode],
    branches: dict[str, BranchNode],
    event: Event,
) -> None:
    body = event.body
    match event.type:
        case "attempt_started":
            tree.attempts = body["attempt"]
        case "fold" if event.key:  # those of the run as a whole have none
            search = searches.setdefault(event.key, SearchNode(event.key))
            data = body["data"]
            if body["input"] == "ask":
                for ask in data["asks"]:
                    _add(search, branches, ask)
            elif body["input"] == "tell":
                branch = branches.get(f"{event.key}/{data['ask']}")
                if branch is not None and recording.has(data["outcome"]):
                    branch.outcome = recording.get(data["outcome"])
            else:
                search.notes.append({"input": body["input"], **data})
        case "branch_ended":
            branch = branches.get(event.key)
            if branch is not None:
                branch.how, branch.reason = body["how"], body.get("reason", "")
                branch.told = body.get("told", True)


def _add(search: SearchNode, branches: dict[str, BranchNode], ask: str) -> None:
    """Policies name a branch that goes on from another after it: ``r0.1`` and then ``r0.1.0``."""
    branch = BranchNode(ask, f"{search.place}/{ask}")
    parent = branches.get(f"{search.place}/{ask.rpartition('.')[0]}") if "." in ask else None
    (parent.children if parent else search.branches).append(branch)
    branches[branch.place] = branch


def _hang_steps(recording: Recording, tree: RunTree, branches: dict[str, BranchNode]) -> None:
    for step in steps_of(recording).values():
        place = step.key.rpartition("#")[0]
        while place and place not in branches:
            place = place.rpartition("/")[0]
        (branches[place].steps if place else tree.loose).append(step)


def _end(recording: Recording, tree: RunTree) -> JSONObject:
    """How the last attempt ended; {} while it has no end."""
    ended = _last_end(recording)
    if ended is None:
        # what was deleted can no longer be gone on with
        tree.status = "failed" if tree.deleted else tree.status
        return {}
    tree.status, tree.stop_reason = ended.body["status"], ended.body["stop_reason"]
    tree.waiting = list(ended.body.get("waiting", ()))
    payload = ended.body.get("outcome")
    outcome: JSONObject = recording.get(payload) if payload and recording.has(payload) else {}
    tree.spent = outcome.get("spent", {})
    if tree.status == "needs_attention":
        tree.attention = {name: outcome.get(name) for name in ("key", "problem", "difference")}
        return {}
    tree.error = outcome.get("error") or ""
    if tree.status in _ENDED:
        tree.answer, tree.text = outcome.get("answer"), outcome.get("text") or ""
        tree.support = outcome.get("support") or {}
    return outcome


def _best(recording: Recording, outcome: JSONObject) -> JSONObject:
    """What the end that was recorded says of it, else what follows from the inputs; or {}."""
    if outcome.get("answer") is not None:
        names = ("ask", "answer", "text", "support")
        said = {name: outcome[name] for name in names if outcome.get(name)}
        return {**said, "final": not outcome.get("unfinished", False)}
    best = best_in_trace(recording)
    return best.to_json() if best is not None else {}


def _last_end(recording: Recording) -> Event | None:
    """The end of the last attempt; a tombstone or a signal may stand after it."""
    for event in reversed(recording.events):
        if event.type == "run_ended":
            return event
        if event.type == "attempt_started":
            return None
    return None


def _judge(search: SearchNode, picked: str | None, ended: bool) -> None:
    """What became of each branch; children first, for a parent is judged by them too."""
    for branch in reversed(list(search.walk())):
        branch.verdict = _verdict(branch, picked, ended)


def _verdict(branch: BranchNode, picked: str | None, ended: bool) -> str:
    if branch.id == picked:
        return "picked"
    if branch.how in ("open", "cancelled", "parked"):
        return branch.how
    if not branch.told:
        return "late"
    if branch.how == "failed" or branch.outcome.get("passed") is False:
        return "dead end"
    if branch.outcome.get("final", True):
        return "passed" if branch.outcome.get("passed") else "finished"
    if any(child.verdict in ("picked", "chain") for child in branch.children):
        return "chain"
    under_way = any(child.verdict in ("open", "parked") for child in branch.children)
    return "finished" if under_way or not ended else "given up"
