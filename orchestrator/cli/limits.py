"""The options that limit a run, the same wherever a run begins or goes on."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import typer

__all__ = [
    "Branches",
    "ModelCalls",
    "OutputTokens",
    "Thinking",
    "ThinkingTokens",
    "Tokens",
    "ToolCalls",
    "Usd",
    "Wall",
    "given",
]

Tokens: TypeAlias = Annotated[
    int | None, typer.Option("--tokens", help="Limit: tokens, prompt and output.")
]
OutputTokens: TypeAlias = Annotated[
    int | None, typer.Option("--output-tokens", help="Limit: output tokens.")
]
Usd: TypeAlias = Annotated[str | None, typer.Option("--usd", help="Limit: dollars.", metavar="USD")]
Wall: TypeAlias = Annotated[
    float | None, typer.Option("--wall", help="Limit: seconds from start to end.")
]
Thinking: TypeAlias = Annotated[
    float | None, typer.Option("--thinking", help="Limit: seconds in which a model works.")
]
ThinkingTokens: TypeAlias = Annotated[
    int | None, typer.Option("--thinking-tokens", help="Limit: tokens of thought.")
]
ModelCalls: TypeAlias = Annotated[
    int | None, typer.Option("--model-calls", help="Limit: model calls.")
]
ToolCalls: TypeAlias = Annotated[
    int | None, typer.Option("--tool-calls", help="Limit: tool calls.")
]
Branches: TypeAlias = Annotated[int | None, typer.Option("--branches", help="Limit: branches.")]


def given(
    tokens: int | None,
    output_tokens: int | None,
    usd: str | None,
    wall: float | None,
    thinking: float | None,
    model_calls: int | None,
    tool_calls: int | None,
    branches: int | None,
    thinking_tokens: int | None = None,
) -> dict[str, Any]:
    """The limits as a budget names them; None for those that were not given."""
    return {
        "tokens": tokens,
        "output_tokens": output_tokens,
        "usd": usd,
        "wall": wall,
        "thinking": thinking,
        "model_calls": model_calls,
        "tool_calls": tool_calls,
        "branches": branches,
        "thinking_tokens": thinking_tokens,
    }
