"""What a branch can do to the world: the tool protocol, tools that come along, running them."""

from longthought.tools.calculator import calculator
from longthought.tools.function import FunctionTool, tool
from longthought.tools.protocol import Tool, ToolCall, ToolContext, ToolResult, ToolSpec, pending
from longthought.tools.python import python
from longthought.tools.running import (
    late_result,
    parse_arguments,
    redactor,
    run_tool,
    told_result,
)
from longthought.tools.search import search

__all__ = [
    "FunctionTool",
    "Tool",
    "ToolCall",
    "ToolContext",
    "ToolResult",
    "ToolSpec",
    "calculator",
    "late_result",
    "parse_arguments",
    "pending",
    "python",
    "redactor",
    "run_tool",
    "search",
    "told_result",
    "tool",
]
