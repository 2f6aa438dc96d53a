"""Checked by mypy, never run: the types of the public names of ``longthought.tools``."""

from collections.abc import Callable
from typing import assert_type

from longthought.tools import (
    Tool,
    ToolCall,
    ToolContext,
    ToolResult,
    ToolSpec,
    calculator,
    parse_arguments,
    python,
    redactor,
    run_tool,
    search,
    tool,
)
from longthought.types import JSONObject, ToolDefinition


@tool
def plain(n: int) -> str:
    """Plain."""
    return str(n)


@tool(effect="read", timeout=3, retries=1)
async def waiting(n: int, context: ToolContext) -> float:
    """Wait."""
    return n / 2


async def check(spec: ToolSpec, call: ToolCall) -> None:
    assert_type(plain(3), str)
    assert_type(await waiting(3, ToolContext()), float)
    every: list[Tool] = [plain, waiting, calculator(), python(), search("notes")]
    for one in every:
        assert_type(one.spec, ToolSpec)
        assert_type(await run_tool(one, call, timeout=1, deps=object()), ToolResult)
        assert_type(parse_arguments(one, "{}"), JSONObject | ToolResult)
        await one.aclose()
    assert_type(parse_arguments(spec, "{}", finish_reason="length"), JSONObject | ToolResult)
    assert_type(spec.definition(), ToolDefinition)
    assert_type(spec.fingerprint(), JSONObject)
    assert_type(redactor(["secret"]), Callable[[str], str])
    assert_type(ToolResult.from_json({}).status == "ok", bool)
    plain("3")  # type: ignore[arg-type]
    tool(effect="harmless")  # type: ignore[call-overload]
    ToolResult("fine", "")  # type: ignore[arg-type]
