"""The program: its commands, in the order in which the help shows them.

Nothing heavy is imported here or at the top of a command's module: ``--help`` has to be quick.
"""

from __future__ import annotations

import typer

from longthought.orchestrator.cli.audit import audit
from longthought.orchestrator.cli.budget import budget, raise_limits
from longthought.orchestrator.cli.curve import curve
from longthought.orchestrator.cli.demo import demo
from longthought.orchestrator.cli.doctor import doctor
from longthought.orchestrator.cli.models import models
from longthought.orchestrator.cli.replay import replay, resume
from longthought.orchestrator.cli.runs import runs, signal
from longthought.orchestrator.cli.serve_model import serve_model
from longthought.orchestrator.cli.settings import remember
from longthought.orchestrator.cli.show import show
from longthought.orchestrator.cli.solve import solve
from longthought.orchestrator.cli.wake import wake
from longthought.orchestrator.cli.why import why

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
app.command()(demo)
app.command()(solve)
app.command()(curve)
app.command()(runs)
app.command()(show)
app.command()(why)
app.command()(budget)
app.command("raise")(raise_limits)
app.command()(resume)
app.command()(wake)
app.command()(replay)
app.command()(audit)
app.command()(signal)
app.command()(models)
app.command()(serve_model)
app.command()(doctor)
