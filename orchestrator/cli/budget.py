"""``budget`` shows what runs may spend, have spent and hold; ``raise`` gives them more."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longthought.orchestrator.cli import limits
from longthought.orchestrator.cli.failures import reported
from longthought.orchestrator.cli.output import console, plain_table, print_json, seconds
from longthought.orchestrator.cli.settings import Settings, settings_of
from longthought.types import JSONObject

if TYPE_CHECKING:
    from rich.table import Table

    from longthought.orchestrator.traces import RunBudget
    from longthought.storage import Recording, Store

__all__ = ["budget", "raise_limits"]

_KINDS = (
    "tokens",
    "output_tokens",
    "thinking_tokens",
    "usd",
    "model_calls",
    "tool_calls",
    "branches",
)
_MOST_RUNS = 10_000


@reported
def budget(
    context: typer.Context,
    run: Annotated[
        str | None, typer.Argument(help="The run; all that are running if left out.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on showing it until it rests, or Ctrl-C.")
    ] = False,
    every: Annotated[
        float, typer.Option(help="With --watch: seconds between two looks.", min=0.05)
    ] = 1.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; with --watch a line each time.")
    ] = False,
) -> None:
    """Show every scope of a run: what it has spent, holds, and has left, and its clocks.

    All of it is recomputed from the record, wherever the run is under way. A figure is what was
    spent, then what calls under way hold (+), then the limit (/). Without RUN: all running runs.

    \b
    Examples:
      longthought budget
      longthought budget RUN
      longthought budget RUN --watch
    """
    settings = settings_of(context)
    look = _one(run) if run is not None else _all
    show = _shown_as_json(watch) if as_json else None
    asyncio.run(_watched(settings, look, show, every if watch else None))


Look = Callable[["Store"], Any]


async def _watched(
    settings: Settings, look: Look, show: Callable[[Any], None] | None, every: float | None
) -> None:
    async with settings.store() as store:
        if show is not None or every is None:
            budgets = await look(store)
            (show or _print)(budgets)
            while every is not None and _under_way(budgets):
                await asyncio.sleep(every)
                budgets = await look(store)
                (show or _print)(budgets)
            return
        from rich.live import Live

        with Live(console=console(), refresh_per_second=4) as live:
            budgets = await look(store)
            live.update(_table(budgets))
            while _under_way(budgets):
                await asyncio.sleep(every)
                budgets = await look(store)
                live.update(_table(budgets))


def _one(run: str) -> Look:
    """Looks at one run; what was read of it is kept for the next look."""
    known: list[Recording] = []

    async def look(store: Store) -> list[RunBudget]:
        from longthought.orchestrator.traces import run_budget

        driven = await store.is_driven(run)  # first: it may end meanwhile, which is on record
        known[:] = [await store.read(run, known[0] if known else None)]
        return [run_budget(known[0], driven=driven)]

    return look


async def _all(store: Store) -> list[RunBudget]:
    from longthought.orchestrator.traces import run_budget

    rows = await store.list_runs(status="running", limit=_MOST_RUNS)
    driven = [await store.is_driven(row.id) for row in rows]
    pairs = zip(rows, driven, strict=True)
    return [run_budget(await store.read(row.id), driven=held) for row, held in pairs]


def _under_way(budgets: list[RunBudget]) -> bool:
    return any(one.under_way for one in budgets)


def _status(one: RunBudget) -> str:
    """The status in words: a run whose process has died is still on record as running."""
    if one.status != "running" or one.driven:
        return one.status
    return "running, nobody works on it"


def _shown_as_json(watch: bool) -> Callable[[list[RunBudget]], None]:
    def show(budgets: list[RunBudget]) -> None:
        value: Any = {"runs": [one.to_json() for one in budgets], "total": _total(budgets)}
        if watch:
            typer.echo(json.dumps(value, ensure_ascii=False))
        else:
            print_json(value)

    return show


def _total(budgets: list[RunBudget]) -> JSONObject:
    from longthought.budgets import Amount

    return {
        "runs": len(budgets),
        "spent": sum((one.spent for one in budgets), Amount()).to_json(),
        "reserved": sum((one.reserved for one in budgets), Amount()).to_json(),
    }


def _print(budgets: list[RunBudget]) -> None:
    if not budgets:
        typer.echo("no run is under way")
        return
    console().print(_table(budgets))


def _table(budgets: list[RunBudget]) -> Table:
    names = [name.replace("_", " ") for name in _KINDS]
    table = plain_table("scope", *names, "kept back", right=(*names, "kept back"))
    for one in budgets:
        table.add_row(f"{one.id}  {one.workflow}  {_status(one)}", style="bold")
        _add(table, one.scopes, 1)
        clocks = [f"{name} {seconds(value)}" for name, value in one.clocks.items() if value]
        clocks += [f"{name} left {seconds(value)}" for name, value in one.time_left.items()]
        table.add_row("  " + ", ".join(clocks), style="dim")
    if len(budgets) > 1:
        total = _total(budgets)
        cells = [_cell(kind, {**total, "limits": {}}) for kind in _KINDS]
        table.add_row(f"{len(budgets)} runs together", *cells, style="bold")
    return table


def _add(table: Table, scope: JSONObject, depth: int) -> None:
    kept = scope.get("kept_back", {})
    shown = [_amount(kind, _figure(kind, kept)) for kind in _KINDS if _figure(kind, kept)]
    cells = [_cell(kind, scope) for kind in _KINDS]
    over = "  over by " + json.dumps(scope["overrun"]) if "overrun" in scope else ""
    name = "run" if scope.get("level") == "run" else scope["name"]
    table.add_row(f"{'  ' * depth}{name}{over}", *cells, " ".join(shown))
    for child in scope.get("children", ()):
        _add(table, child, depth + 1)


def _cell(kind: str, scope: JSONObject) -> str:
    """Spent, held and the limit of one kind, as ``1,200 +300 / 5,000``."""
    spent, held = (_figure(kind, scope.get(part, {})) for part in ("spent", "reserved"))
    limit = scope.get("limits", {}).get(kind)
    if not spent and not held and limit is None:
        return ""
    text = _amount(kind, spent) + (f" +{_amount(kind, held)}" if held else "")
    return text if limit is None else f"{text} / {_amount(kind, float(limit))}"


def _figure(kind: str, amount: JSONObject) -> float:
    if kind == "usd":
        return float(amount.get("nanodollars", 0)) / 1e9
    return float(amount.get(kind, 0))


def _amount(kind: str, figure: float) -> str:
    return f"${figure:,.4f}" if kind == "usd" else f"{figure:,.0f}"


@reported
def raise_limits(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="The run.")],
    tokens: limits.Tokens = None,
    output_tokens: limits.OutputTokens = None,
    usd: limits.Usd = None,
    wall: limits.Wall = None,
    thinking: limits.Thinking = None,
    model_calls: limits.ModelCalls = None,
    tool_calls: limits.ToolCalls = None,
    branches: limits.Branches = None,
    thinking_tokens: limits.ThinkingTokens = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Raise limits of a run that is under way, in any process, or parked.

    A process that drives the run sees it within seconds, and who waits for room goes on. A limit
    is never lowered. A run that has ended is gone on with by resume and the new limit.

    \b
    Examples:
      longthought raise RUN --tokens 80000
      longthought raise RUN --usd 1 --wall 600
    """
    settings = settings_of(context)
    given = limits.given(
        tokens,
        output_tokens,
        usd,
        wall,
        thinking,
        model_calls,
        tool_calls,
        branches,
        thinking_tokens,
    )

    async def send() -> JSONObject:
        from longthought.budgets import Budget
        from longthought.orchestrator.raising import send_raise

        async with settings.store() as store:
            return (await send_raise(store, run, Budget(**given))).to_json()

    raised = asyncio.run(send())
    if as_json:
        print_json({"id": run, "budget": raised})
        return
    shown = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in raised.items())
    typer.echo(f"raised. In force with the run's next heartbeat, or when it goes on: {shown}")
