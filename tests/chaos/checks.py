"""What must hold after every kill and at the end of every run."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field

from longthought.orchestrator.recorded import Recorded
from longthought.storage import Event, Recording, Store
from longthought.storage.audit import audit
from longthought.types import text_of
from tests.chaos.worker import build, verdict_name
from tests.chaos.world import Tally

__all__ = ["Ending", "check_end", "check_kill", "content_key", "sequences", "unknown_writes"]

_BRANCH = re.compile(r"/(s\d+)/")

Sequence = list[tuple[str, str, str, str]]


@dataclass
class Ending:
    """How a case is to end. ``reference`` is the unkilled run of the same question."""

    reference: dict[str, Sequence]
    answer: str
    idempotent: bool
    limit: int
    tight: bool = False
    decided: set[str] = field(default_factory=set)
    """Branches whose write a person declared done: they go on otherwise than the reference."""


def branch_of(key: str) -> str:
    found = _BRANCH.search(key)
    return found[1] if found else ""


def sequences(recording: Recording) -> dict[str, Sequence]:
    """Per branch: key, kind, request and result of every finished effect, in order."""
    found: dict[str, Sequence] = defaultdict(list)
    for event in recording.events:
        if event.type == "effect_finished":
            body = event.body
            row = (event.key, body["kind"], body["request"], body["result"])
            found[branch_of(event.key)].append(row)
    return dict(found)


def content_key(recording: Recording, event: Event) -> str:
    """How the world calls an effect, from what it is, not from where it stands."""
    request = recording.get(event.body["request"])
    match event.body["kind"]:
        case "model":
            said = recording.messages(request["conversation"])
            turn = sum(1 for message in said if message["role"] == "assistant")
            return f"s{request['sampling']['seed']}/model/{turn}" if "sampling" in request else ""
        case "tool":
            branch = re.search(r'"branch": ?(\d+)', str(request["arguments"]))
            return f"s{branch[1]}/{request['tool']}" if branch else ""
        case "verify":
            return verdict_name(request["text"])
    return ""


def check_kill(recording: Recording, tally: Tally) -> list[str]:
    """After a kill: note what may not happen again; the record must hold all that has left."""
    problems = []
    for event in recording.events:
        if event.type == "effect_finished" and event.body["status"] == "ok":
            tally.forbidden.add(content_key(recording, event))
    tally.forbidden.discard("")  # what cannot be told apart by what it says
    charged = Recorded.of(recording).charged
    if charged.tokens < tally.tokens:
        problems.append(f"{tally.tokens} tokens left, {charged.tokens} are on record")
    if charged.model_calls < tally.model_calls:
        problems.append(f"{tally.model_calls} calls left, {charged.model_calls} on record")
    reads = sum(1 for key in tally.forbidden if key.endswith("/fetch"))
    if charged.tool_calls < tally.write_calls + reads:
        problems.append(f"{tally.write_calls} writes left, {charged.tool_calls} calls on record")
    return problems


def unknown_writes(recording: Recording) -> list[tuple[str, str]]:
    """Keys and branches of writes that were started and have no end on record."""
    index = Recorded.of(recording)
    return [(key, branch_of(key)) for key in index.open if key.endswith(":tool")]


async def check_end(store: Store, run_id: str, tally: Tally, ending: Ending) -> list[str]:
    """At the end: the same as if nothing had happened, nothing twice, nothing lost."""
    problems = list(tally.violations)
    recording = await store.read(run_id)
    result = tally.results[-1]
    problems += check_kill(recording, tally)
    if result["spent"]["tokens"] > ending.limit:
        problems.append(f"spent {result['spent']['tokens']} of {ending.limit} tokens")
    if result["spent"]["tokens"] < tally.tokens:
        problems.append(f"{tally.tokens} tokens left, the result says {result['spent']}")
    if not ending.tight:
        if (result["status"], result["answer"]) != ("completed", ending.answer):
            problems.append(f"ended with {result['status']}: {result['answer']}")
    elif result["status"] not in ("completed", "incomplete"):
        problems.append(f"ended with {result['status']}")
    problems += _compare(sequences(recording), ending)
    problems += _writes(tally, ending)
    report = await audit(store, run_id)
    problems += [f"audit: {finding}" for finding in report.findings]
    replayed = await build(ending.idempotent, ending.limit, store).replay(run_id)
    if (replayed.answer, replayed.model_calls) != (result["answer"], 0):
        problems.append(f"the replay ends with {replayed.answer}, {replayed.model_calls} calls")
    return problems


def _compare(found: dict[str, Sequence], ending: Ending) -> list[str]:
    if ending.tight:
        known = {row[0]: row for rows in ending.reference.values() for row in rows}
        return [
            f"{row[0]} differs from the unkilled run"
            for branch, rows in found.items()
            for row in rows
            if row[0] in known and row[2] != known[row[0]][2] and branch not in ending.decided
        ]
    problems = [
        f"branch {branch}: {rows} instead of {ending.reference.get(branch)}"
        for branch, rows in found.items()
        if branch not in ending.decided and rows != ending.reference.get(branch)
    ]
    if set(found) != set(ending.reference):
        problems.append(f"branches {sorted(found)} instead of {sorted(ending.reference)}")
    return problems


def _writes(tally: Tally, ending: Ending) -> list[str]:
    problems = [f"{what} done {n} times" for what, n in tally.performed.items() if n != 1]
    if not ending.tight and len(tally.performed) != len(ending.reference):
        problems.append(f"{len(tally.performed)} writes of {len(ending.reference)} were done")
    return problems


def conversation_text(recording: Recording, conversation: str) -> list[str]:
    """For reading by hand when a case fails."""
    return [f"{m['role']}: {text_of(m)}" for m in recording.messages(conversation)]
