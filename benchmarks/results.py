"""How every benchmark tells its figures: a table to read, JSON, or a dated row in RESULTS.md."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path

__all__ = ["RESULTS", "argument_parser", "arguments", "machine", "report"]

RESULTS = Path(__file__).with_name("RESULTS.md")

_HEADER = """# Results

Ratios and counts can be compared between machines; seconds and rates only within one row.
"""


def arguments(description: str) -> argparse.Namespace:
    """The options that every benchmark has."""
    return argument_parser(description).parse_args()


def argument_parser(description: str) -> argparse.ArgumentParser:
    """The same, for a benchmark that adds its own."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="smaller, within 50 s; saves nothing")
    parser.add_argument("--json", action="store_true", help='print {"figures": {name: number}}')
    return parser


def machine() -> str:
    """The machine in general terms."""
    return f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


def report(
    name: str, figures: Mapping[str, float], options: argparse.Namespace, *, note: str = ""
) -> None:
    """Print the figures; without ``--quick`` also append them to ``RESULTS.md``.

    ``note`` says what else was there, such as the versions of what was compared.
    """
    if options.json:
        print(json.dumps({"figures": dict(figures)}))
    else:
        width = max(map(len, figures), default=0)
        for figure, value in figures.items():
            print(f"{figure:<{width}}  {_shown(value)}")
    if not options.quick:
        _append(name, figures, note)


def _append(name: str, figures: Mapping[str, float], note: str) -> None:
    """A section per benchmark, newest last; a row per run, its figures named in the row."""
    text = RESULTS.read_text() if RESULTS.exists() else _HEADER
    heading = f"## {name}\n"
    if heading not in text:
        table = "| date | command | machine | figures |\n|---|---|---|---|\n"
        text = f"{text.rstrip()}\n\n{heading}\n{table}"
    shown = "; ".join(f"{figure} {_shown(value)}" for figure, value in figures.items())
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    where = f"{machine()}; {note}" if note else machine()
    row = f"| {today} | `python -m benchmarks.{name}` | {where} | {shown} |\n"
    before, found, after = text.partition(heading)
    body, next_heading, rest = after.partition("\n## ")
    RESULTS.write_text(before + found + body.rstrip("\n") + "\n" + row + next_heading + rest)


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
