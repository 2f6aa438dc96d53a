"""The command line: ``longthought --help``."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """The entry point of the program ``longthought``."""
    from longthought.orchestrator.cli.app import app

    app(prog_name="longthought")
