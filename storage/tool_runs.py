"""How long the tools of earlier runs took, from the events that are there anyway."""

from __future__ import annotations

import json
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass

import sqlalchemy as sa

from longthought.storage.digests import canonical
from longthought.storage.tables import events, payloads, runs
from longthought.types import JSONObject

__all__ = ["ToolRun", "find_tool_runs"]

_NEWEST = 200
"""Runs of a store that are looked at for some of one workflow."""
_MOST_EVENTS = 5_000
"""Events of them that are looked at."""
_MOST_CALLS = 200


@dataclass(frozen=True, slots=True)
class ToolRun:
    """One call that came to its end: ``size`` of its arguments as they were written, in
    characters, and the ``seconds`` that the tool ran."""

    tool: str
    size: int
    seconds: float


def find_tool_runs(
    connection: sa.Connection, workflow: str, tools: Collection[str]
) -> list[ToolRun]:
    """The last calls of these tools in the newest runs of a workflow, the oldest first.

    What it reads is bounded, however large the store is.
    """
    calls = _calls(connection, _newest(connection, workflow))
    wanted = [(run, body["request"]) for run, body in calls]
    query = sa.select(payloads.c.run_id, payloads.c.id, payloads.c.body).where(
        sa.tuple_(payloads.c.run_id, payloads.c.id).in_(wanted)
    )
    asked = {(row[0], row[1]): row[2] for row in connection.execute(query)}
    found = []
    for run, body in reversed(calls):
        request = asked.get((run, body["request"]))
        if request is not None:  # it was not deleted
            with suppress(ValueError, KeyError, TypeError):  # the audit's business, not ours
                found.append(_tool_run(json.loads(request), body))
    return [one for one in found if one.tool in tools]


def _tool_run(request: JSONObject, body: JSONObject) -> ToolRun:
    arguments, (began, ended) = request["arguments"], body["ran"]
    raw = arguments if isinstance(arguments, str) else canonical(arguments)
    return ToolRun(request["tool"], len(raw), ended - began)


def _newest(connection: sa.Connection, workflow: str) -> list[str]:
    """The newest runs of a workflow, as many as have no more than so many events together."""
    columns = (runs.c.id, runs.c.workflow, runs.c.length)
    newest = sa.select(*columns).order_by(runs.c.created_at.desc(), runs.c.id).limit(_NEWEST)
    found, left = [], _MOST_EVENTS
    for run, name, length in connection.execute(newest):
        if name == workflow and left > 0:
            found.append(run)
            left -= length
    return found


def _calls(connection: sa.Connection, newest: list[str]) -> list[tuple[str, JSONObject]]:
    """The ends of their last tool calls, with the run of each, the newest first."""
    calls: list[tuple[str, JSONObject]] = []
    for run in newest:
        query = (
            sa.select(events.c.body)
            .where(events.c.run_id == run, events.c.type == "effect_finished")
            .where(events.c.key.like("%:tool"), events.c.body.like('%"ran":%'))
            .order_by(events.c.seq.desc())
            .limit(_MOST_CALLS - len(calls))
        )
        for (text,) in connection.execute(query):
            with suppress(ValueError):
                body = json.loads(text)
                # one that was cut short says nothing of how long it would have taken
                if body.get("status") != "abandoned" and "request" in body:
                    calls.append((run, body))
        if len(calls) >= _MOST_CALLS:
            break
    return calls
