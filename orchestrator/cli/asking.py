"""The options that say which model is asked, how, and who judges: the same in every command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from longthought.orchestrator.cli.options import VERIFIERS

__all__ = [
    "BaseUrl",
    "Images",
    "MaxTokens",
    "Model",
    "Models",
    "Schema",
    "System",
    "Temperature",
    "Verifier",
]

Model: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", help="embedded, openai/NAME, BACKEND/NAME or recorded:FILE.", metavar="M"
    ),
]
Models: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-m",
        help="embedded, openai/NAME, BACKEND/NAME or recorded:FILE; given more than once, the"
        " models take turns.",
        metavar="M",
    ),
]
Images: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option("--image", help="A picture to ask about; may be repeated.", metavar="FILE"),
]
Schema: TypeAlias = Annotated[
    Path | None,
    typer.Option("--schema", help="Answer with JSON that fits this JSON schema.", metavar="FILE"),
]
BaseUrl: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--base-url", help="Address of a server that speaks Chat Completions.", metavar="URL"
    ),
]
Verifier: TypeAlias = Annotated[
    str | None, typer.Option("--verifier", help=", ".join(VERIFIERS) + ".", metavar="V")
]
System: TypeAlias = Annotated[str | None, typer.Option("--system", help="The system prompt.")]
Temperature: TypeAlias = Annotated[
    float | None, typer.Option("--temperature", help="Sampling temperature.")
]
MaxTokens: TypeAlias = Annotated[
    int | None, typer.Option("--max-tokens", help="Most tokens of one reply.")
]
