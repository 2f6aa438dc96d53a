"""The program: its commands, in the order in which the help shows them.

Nothing heavy is imported here or at the top of a command's module: ``--help`` has to be quick.
"""

from __future__ import annotations

import typer

from longthought.orchestrator.cli import (
    audit,
    demo,
    doctor,
    models,
    replay,
    runs,
    show,
    solve,
    why,
)
from longthought.orchestrator.cli.settings import remember

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    # plain help is quick, narrow terminals included, and the same in a pipe
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Reasoning at inference time: recorded, resumable, inside a hard budget.

    \b
    Examples:
      longthought demo
      longthought solve "4 7 8 8 -> 24"
      longthought runs

    Exit codes: 0 all is well, 1 failure or finding, 2 input that cannot be used, 130 interrupted.
    LONGTHOUGHT_DEBUG=1 shows tracebacks.
    """,
)

app.callback()(remember)
app.command()(demo.demo)
app.command()(solve.solve)
app.command()(runs.runs)
app.command()(show.show)
app.command()(why.why)
app.command()(replay.resume)
app.command()(replay.replay)
app.command()(audit.audit)
app.command()(runs.signal)
app.command()(models.models)
app.command()(doctor.doctor)
