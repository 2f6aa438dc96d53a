"""From exceptions to one clear line and an exit code."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

import typer

from longthought.errors import ControlFlow, LongthoughtError

__all__ = ["DEBUG", "INTERRUPTED", "reported", "unheard"]

DEBUG = "LONGTHOUGHT_DEBUG"
INTERRUPTED = 130

Command = TypeVar("Command", bound=Callable[..., Any])


def reported(command: Command) -> Command:
    """A command whose failures become one line on standard error and an exit code.

    1: it failed; 2: the input cannot be used; 130: interrupted.
    """

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        if os.environ.get(DEBUG):
            return command(*args, **kwargs)
        try:
            return command(*args, **kwargs)
        except LongthoughtError as error:
            typer.echo(f"longthought: {_line(error)}", err=True)
            raise typer.Exit(error.exit_code) from None
        except BrokenPipeError:
            unheard()
            raise typer.Exit(0) from None
        except KeyboardInterrupt:
            typer.echo("longthought: interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except (typer.Exit, typer.Abort):
            raise
        except (Exception, ControlFlow) as error:
            shown = f"{type(error).__name__}: {_line(error)}"
            typer.echo(f"longthought: {shown} ({DEBUG}=1 shows where)", err=True)
            raise typer.Exit(1) from None

    return cast("Command", run)


def unheard() -> None:
    """The reader of a pipe has left: write to nobody from here on.

    Without this the interpreter complains about unwritten output at its end.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
