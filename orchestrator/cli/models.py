"""``models``: which models there are, and what they cost."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from longthought.orchestrator.cli.failures import reported
from longthought.orchestrator.cli.output import console, plain_table, print_json
from longthought.orchestrator.cli.settings import Settings, settings_of

__all__ = ["models"]


@reported
def models(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the models that can be named, and the prices that are known.

    Any other name works too: openai/NAME with --base-url for any server that speaks Chat
    Completions. A model without a price is refused only under a limit of dollars.

    \b
    Examples:
      longthought models
      longthought models --json
    """
    settings = settings_of(context)
    listed = _listed(settings)
    book = settings.prices()
    if as_json:
        print_json({"as_of": book.as_of.isoformat(), "models": listed})
        return
    table = plain_table(
        "model", "input", "cached", "output", "", right=("input", "cached", "output")
    )
    for model in listed:
        price = model["price"] or {}
        figures = [price.get(part, "") for part in ("input", "cached", "output")]
        table.add_row(model["model"], *figures, model["note"])
    console().print(table)
    typer.echo(f"dollars per million tokens, as of {book.as_of.isoformat()}")


def _listed(settings: Settings) -> list[dict[str, Any]]:
    from longthought.orchestrator.models.embedded.model import WEIGHTS

    book = settings.prices()
    found: list[dict[str, Any]] = [
        {"model": name, "price": _free(), "note": "in the package; make-a-target puzzles only"}
        for name in WEIGHTS
    ]
    named = {name for name in settings.config.backends if "/" in name}
    for name in sorted({*book.prices, *named}):
        price = book.price(name)
        shown = name if "/" in name or name.endswith("*") else f"openai/{name}"
        note = "configured" if name in named else ""
        found.append({"model": shown, "price": price.to_json() if price else None, "note": note})
    return found


def _free() -> dict[str, str]:
    return {"input": "0", "cached": "0", "output": "0"}
