"""What an audit found, and which payloads of the run it looks at are what."""

from __future__ import annotations

from longthought.storage.audit import audit


async def found(store, **options) -> list[tuple[str, int | None, str]]:
    report = await audit(store, **options)
    return [(finding.run_id, finding.seq, finding.problem) for finding in report.findings]


def at(findings, run_id: str, seq: int | None, words: str) -> bool:
    return any(f[:2] == (run_id, seq) and words in f[2] for f in findings)


async def names_of(store) -> dict[str, tuple[str, int]]:
    """Payloads of `run-1` by what they are, with the event that leads to them."""
    read = await store.read("run-1")
    body = {event.seq: event.body for event in read.events}
    outcome = body[11]["outcome"]
    request, result = body[4]["request"], body[6]["result"]
    reply = read.get(result)["conversation"]
    return {
        "manifest": (body[1]["manifest"], 1),
        "model request": (request, 4),
        "tools": (read.get(request)["tools"], 4),
        "model result": (result, 6),
        "tool request": (body[7]["request"], 7),
        "tool result": (body[7]["result"], 7),
        "signal value": (body[8]["value"], 8),
        "outcome": (outcome, 10),
        "last message": (read.get(outcome)["conversation"], 10),
        "reply": (reply, 6),
        "question": (read.get(reply)["p"], 4),
    }
