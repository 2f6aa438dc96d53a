"""What ``--stream`` shows of a run while it is under way."""

from __future__ import annotations

import json
from collections.abc import Callable

import typer

from longthought.orchestrator.cli.failures import unheard
from longthought.orchestrator.cli.output import mark, one_line
from longthought.types import JSONObject

__all__ = ["watcher"]

_SEQUENTIAL = ("single", "backtrack")
_LINE = 160


def watcher(strategy: str, as_json: bool) -> Callable[[JSONObject], None]:
    """Prints what happens: as JSON lines, as running text, or a line for each branch that ended.

    Text runs only where one branch thinks at a time; the words of many would be mixed. When the
    reader of a pipe leaves, the run goes on unseen.
    """
    show: Callable[[JSONObject], None]
    if as_json:
        show = _print_json_line
    else:
        show = _Running() if strategy in _SEQUENTIAL else _Lines()

    def watch(event: JSONObject) -> None:
        try:
            show(event)
        except BrokenPipeError:
            unheard()

    return watch


def _print_json_line(event: JSONObject) -> None:
    typer.echo(json.dumps(event, ensure_ascii=False))


class _Running:
    def __init__(self) -> None:
        self._open = False

    def __call__(self, event: JSONObject) -> None:
        match event["event"]:
            case "delta" if event["kind"] != "tool_call":  # the call itself is told by "tool"
                typer.echo(event["text"], nl=False)
                self._open = True
            case "tool":
                self._break()
                typer.echo(f"  [{event['tool']} {json.dumps(event['arguments'])}]")
            case "branch_ended":
                self._break()
                if event.get("passed") is False:
                    typer.echo(f"  {mark('failed')} dead end")

    def _break(self) -> None:
        if self._open:
            typer.echo("")
        self._open = False


class _Lines:
    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}

    def __call__(self, event: JSONObject) -> None:
        match event["event"]:
            case "delta" if event["kind"] != "tool_call":
                self._texts.setdefault(event["branch"], []).append(event["text"])
            case "branch_ended":
                text = "".join(self._texts.pop(event["branch"], []))
                typer.echo(f"{event['branch']:<6}{self._sign(event)} {one_line(text, _LINE)}")

    def _sign(self, event: JSONObject) -> str:
        if event["how"] == "cancelled":
            return mark("cancelled")
        if event["how"] != "finished" or event.get("passed") is False:
            return mark("failed")
        return mark("passed") if event.get("passed") else mark("dot")
