"""Printing: JSON for programs, text for people, progress on standard error."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = [
    "age",
    "console",
    "count",
    "mark",
    "moment",
    "one_line",
    "plain_table",
    "print_json",
    "progress",
    "seconds",
]

_PIPED_WIDTH = 160
_MARKS = {
    "passed": ("✓", "+"),
    "failed": ("✗", "x"),
    "picked": ("★", "*"),
    "cancelled": ("⊘", "o"),
    "waiting": ("⏸", "="),
    "open": ("…", "~"),
    "dot": ("·", "-"),
}


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2, sort_keys=False))


def console(*, stderr: bool = False) -> Console:
    """A console that keeps to the terminal's width, and to a fixed one in a pipe."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")  # a model may write what a terminal cannot
    width = None if stream.isatty() or "COLUMNS" in os.environ else _PIPED_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=False, emoji=False)


def mark(name: str) -> str:
    """A sign, in ASCII where the terminal knows no other."""
    rich, plain = _MARKS[name]
    encoding = (sys.stdout.encoding or "ascii").lower().replace("-", "")
    return rich if encoding.startswith("utf") else plain


def plain_table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """A table without lines; ``right`` names the columns of figures."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


@contextmanager
def progress(text: str, *, quiet: bool = False) -> Iterator[Any]:
    """A line on standard error that says what takes so long; only where a person watches.

    Yields a function that changes the text.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda _text: None
        return
    with console(stderr=True).status(text, spinner="line") as status:
        yield status.update


def one_line(text: str, most: int) -> str:
    """Text on one line, cut to ``most`` characters."""
    line = " ".join(text.split())
    if len(line) <= most:
        return line
    ellipsis = mark("open")
    return line[: max(0, most - len(ellipsis))] + ellipsis


def count(number: int, noun: str, plural: str | None = None) -> str:
    """``1 token``, ``1,234 tokens``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def seconds(value: float) -> str:
    """A duration: ``0.12 s``, ``34 s``, ``5 min``."""
    if value < 10:
        return f"{value:.2f} s"
    return f"{value:.0f} s" if value < 300 else f"{value / 60:.0f} min"


def moment(at: float) -> str:
    """A moment in UTC: ``2026-01-31 12:00:00 UTC``."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))
    except (OverflowError, OSError, ValueError):  # which clocks of the system cannot tell
        return "the end of time"


def age(at: float) -> str:
    """How long ago a moment was."""
    passed = max(0.0, time.time() - at)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if passed >= size:
            return f"{passed / size:.0f} {unit} ago"
    return f"{passed:.0f} s ago"
