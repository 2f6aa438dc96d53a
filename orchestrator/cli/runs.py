"""``runs`` lists what is stored; ``signal`` answers a run that waits."""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longthought.errors import InvalidInput
from longthought.orchestrator.cli.failures import reported
from longthought.orchestrator.cli.output import (
    age,
    console,
    one_line,
    plain_table,
    print_json,
    progress,
)
from longthought.orchestrator.cli.settings import settings_of
from longthought.orchestrator.cli.show import print_use
from longthought.types import JSONObject

if TYPE_CHECKING:
    from longthought.orchestrator.traces import Utilisation
    from longthought.storage import RunRow, Store

__all__ = ["STATUSES", "runs", "signal"]

_AGE = re.compile(r"(\d+(?:\.\d+)?)(s|min|h|d)")
_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86_400}
"""Seconds of each."""

STATUSES = (
    "running",
    "completed",
    "incomplete",
    "parked",
    "needs_attention",
    "failed",
    "cancelled",
)


@reported
def runs(
    context: typer.Context,
    status: Annotated[
        str | None, typer.Option(help=", ".join(STATUSES) + ".", metavar="STATUS")
    ] = None,
    workflow: Annotated[str | None, typer.Option(help="Runs of this workflow alone.")] = None,
    limit: Annotated[
        int | None,
        typer.Option(help="Most runs: 50 unless given, with --clocks all.", min=1),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            help="Runs begun since then: 90s, 30min, 12h, 7d ago, or an ISO 8601 time (UTC unless "
            "it says otherwise).",
            metavar="WHEN",
        ),
    ] = None,
    answers: Annotated[
        bool, typer.Option("--answers", help="Also each answer, or the best so far.")
    ] = False,
    clocks: Annotated[
        bool,
        typer.Option(
            "--clocks", help="Not a list, but what these runs together used each backend for."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the runs in the store, newest first.

    \b
    Examples:
      longthought runs
      longthought runs --status parked
      longthought runs --status running --answers
      longthought runs --limit 500 --json
      longthought runs --since 1h --clocks
    """
    settings = settings_of(context)
    begun = None if since is None else _moment(since)
    if limit is None and not clocks:
        limit = 50
    if status is not None and status not in STATUSES:
        raise InvalidInput("status", f"there is no {status!r}", f"Use {', '.join(STATUSES)}")

    async def listed() -> tuple[list[RunRow], dict[str, JSONObject], Utilisation | None]:
        async with settings.store() as store:
            rows = await store.list_runs(limit=limit, status=status, workflow=workflow, since=begun)
            found = {row.id: await _answer(store, row) for row in rows if answers}
            return rows, found, await _used(store, rows) if clocks else None

    rows, found, use = asyncio.run(listed())
    if use is not None:
        if as_json:
            print_json(use.to_json())
        else:
            print_use(use)
        return
    if as_json:
        print_json([{**asdict(row), **found.get(row.id, {})} for row in rows])
        return
    if not rows:
        typer.echo('no runs; begin one with: longthought solve "4 7 8 8 -> 24"')
        return
    last = ("answer",) if answers else ()
    table = plain_table("run", "workflow", "status", "begun", "events", *last, right=("events",))
    for row in rows:
        cells = [row.id, row.workflow, row.status, age(row.created_at), f"{row.length:,}"]
        table.add_row(*cells, *([_shown(found[row.id])] if answers else ()))
    console().print(table)


async def _answer(store: Store, row: RunRow) -> JSONObject:
    """The answer of a run, and the best so far of one that has not come to its end."""
    from longthought.orchestrator.traces import run_tree

    tree = run_tree(await store.read(row.id))
    return {"answer": tree.answer, **({"best": tree.best} if tree.best else {})}


def _shown(found: JSONObject) -> str:
    if "best" in found:
        return f"{one_line(found['best']['answer'], 40)} (so far)"
    return "" if found["answer"] is None else one_line(found["answer"], 40)


async def _used(store: Store, rows: list[RunRow]) -> Utilisation:
    """What runs together used slots for; one of them in memory at a time."""
    from longthought.orchestrator.traces import UtilisationReader

    reader = UtilisationReader()
    with progress("reading") as told:
        for number, row in enumerate(rows, 1):
            told(f"reading run {number:,} of {len(rows):,}")
            reader.read(await store.read(row.id))
    return reader.found()


def _moment(text: str) -> float:
    """A moment in seconds since the epoch, said as an age or as a time.

    Raises:
        InvalidInput: it is neither.
    """
    if ago := _AGE.fullmatch(text):
        return time.time() - float(ago[1]) * _UNITS[ago[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInput(
            "since", f"{text!r} is no time", "Use 30min, 12h, 7d or 2026-01-31T12:00"
        ) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


@reported
def signal(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="The run.")],
    name: Annotated[str, typer.Argument(help="The signal it waits for.")],
    value: Annotated[
        str, typer.Argument(help="JSON; anything else counts as text.", metavar="[VALUE]")
    ] = "null",
    key: Annotated[str, typer.Option(help="The place it answers, if several wait.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Send a signal to a run; resume or wake then goes on.

    \b
    Examples:
      longthought signal RUN approve:send_mail true
      longthought signal RUN review '{"grade": 3}'
    """
    settings = settings_of(context)
    try:
        parsed: Any = json.loads(value)
    except ValueError:
        parsed = value

    async def send() -> str:
        from longthought.orchestrator.signals import send_signal

        async with settings.store() as store:
            return await send_signal(store, run, name, parsed, key)

    identifier = asyncio.run(send())
    if as_json:
        print_json({"id": run, "signal": identifier, "name": name, "value": parsed})
    else:
        typer.echo(f"sent. Go on with: longthought resume {run}")
