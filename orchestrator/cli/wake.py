"""``wake`` goes on with the parked runs that are due."""

from __future__ import annotations

import asyncio
import json
import math
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Self

import typer

from longthought.errors import InvalidInput
from longthought.orchestrator.cli.failures import INTERRUPTED, reported
from longthought.orchestrator.cli.options import load_workflow, workflow_of
from longthought.orchestrator.cli.output import count, one_line
from longthought.orchestrator.cli.settings import Settings, settings_of
from longthought.orchestrator.cli.solve import exit_code

if TYPE_CHECKING:
    from longthought import Result, Workflow
    from longthought.orchestrator.waking import Waker
    from longthought.storage import RunRow, Store

__all__ = ["wake"]


@reported
def wake(
    context: typer.Context,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on looking until Ctrl-C or SIGTERM.")
    ] = False,
    every: Annotated[
        float, typer.Option(help="With --watch: seconds between two looks.", metavar="SECONDS")
    ] = 1.0,
    workflow: Annotated[
        str | None, typer.Option(help="Its runs alone, by this code.", metavar="MODULE:ATTRIBUTE")
    ] = None,
    at_once: Annotated[int, typer.Option(help="Runs under way together.", min=1)] = 16,
    limit: Annotated[int | None, typer.Option(help="Most runs to wake.", min=1)] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, a line for each run.")
    ] = False,
) -> None:
    """Go on with the parked runs that are due: a signal came, or their time is over.

    Many may wake the runs of one store, and each run is woken once. Runs that a waker died on are
    gone on with by the next; one on which waker after waker dies needs attention. At Ctrl-C or
    SIGTERM those under way come to rest first; a second one gives them back. Exits with 1 if one
    could not be woken or has no answer.

    \b
    Examples:
      longthought wake
      longthought wake --watch --every 5
      longthought wake --workflow my_module:workflow --limit 100 --json
    """
    if not (math.isfinite(every) and every > 0):
        raise InvalidInput("every", f"{every:g} is no time between looks", "Use seconds above 0")
    settings = settings_of(context)
    told = _Told(as_json)
    number = asyncio.run(_woken(settings, told, workflow, every if watch else None, at_once, limit))
    if not as_json and not told.woken and not watch:
        typer.echo("no parked run is due")
    if number == signal.SIGINT:
        raise typer.Exit(INTERRUPTED)
    raise typer.Exit(1 if told.failed else 0)


async def _woken(
    settings: Settings,
    told: _Told,
    named: str | None,
    every: float | None,
    at_once: int,
    limit: int | None,
) -> int:
    """Wake runs; returns the signal that ended it, 0 for none."""
    from longthought.orchestrator.waking import Waker

    async with settings.store() as store, _Workflows(settings, store, named) as workflows:
        name = workflows.named.name if workflows.named else None
        waker = Waker(
            store, workflows.go_on, told.tell, workflow=name, at_once=at_once, limit=limit
        )
        ending = _Ending(waker)
        ending.listen()
        try:
            await waker.run(every)
        except asyncio.CancelledError:
            if not ending.number:
                raise
        finally:
            ending.ignore()
        return ending.number


class _Workflows:
    """The workflows of the runs in a store, each built once and closed at the end."""

    def __init__(self, settings: Settings, store: Store, named: str | None) -> None:
        self._settings, self._store = settings, store
        self.named: Workflow | None = load_workflow(named, store) if named else None
        self._built: dict[str, Workflow] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for workflow in (*self._built.values(), *([self.named] if self.named else [])):
            await workflow.aclose()

    async def go_on(self, row: RunRow) -> Result:
        """Wake one run with its own workflow, or the one that was named."""
        return await (self.named or await self._of(row.id)).wake_run(row)

    async def _of(self, run: str) -> Workflow:
        manifest = (await self._store.read(run)).manifest()
        options, source = manifest.get("options") or {}, manifest.get("source")
        key = json.dumps([options, source or ""], sort_keys=True)
        if key not in self._built:
            self._built[key] = workflow_of(manifest, self._settings, self._store, None)
        return self._built[key]


class _Told:
    """Prints what became of each run, and keeps what the exit code needs."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self.woken = 0
        self.failed = 0

    def tell(self, result: Result) -> None:
        self.woken += 1
        self.failed += bool(exit_code(result)) or result.stop_reason == "not_woken"
        if self._as_json:
            typer.echo(json.dumps(result.to_json(), ensure_ascii=False))
            return
        shown = result.answer if result.answer is not None else result.error
        if shown is None and result.waiting:
            shown = f"waits for {count(len(result.waiting), 'thing')}"
        reason = result.stop_reason.replace("_", " ")
        typer.echo(
            f"{result.id}  {result.status} ({reason})  {one_line(shown or '', 200)}".rstrip()
        )


class _Ending:
    """Ends a waker at SIGINT or SIGTERM: gently at the first, at once at the second."""

    def __init__(self, waker: Waker) -> None:
        self._waker, self._task = waker, asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        self.number = 0

    def listen(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(NotImplementedError, RuntimeError, ValueError):
                self._loop.add_signal_handler(number, self._end, number)

    def ignore(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(NotImplementedError, RuntimeError, ValueError):
                self._loop.remove_signal_handler(number)

    def _end(self, number: int) -> None:
        if self.number and self._task is not None:
            self._task.cancel()
        self.number = self.number or number
        self._waker.stop()
