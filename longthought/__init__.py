"""longthought: an orchestrator for reasoning at inference time, recorded, resumable, budgeted."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if Path(__file__).with_name("orchestrator").is_file():
    raise ImportError(
        f"{Path(__file__).parent} was cloned without links, so its folders are missing. "
        "Write: git config core.symlinks true && git checkout -- longthought"
    )

if TYPE_CHECKING:
    from longthought import errors, tools, types, verifiers
    from longthought.budgets import Budget, Pool, PriceBook
    from longthought.orchestrator import models, strategies
    from longthought.orchestrator.context import Context
    from longthought.orchestrator.definition import Retry
    from longthought.orchestrator.results import Result
    from longthought.orchestrator.workflow import Workflow
    from longthought.storage import Store
    from longthought.tools import ToolContext, ToolResult, tool
    from longthought.types import Candidate, Message, Model, Usage, Verdict
    from longthought.verifiers import answers

__all__ = [
    "Budget",
    "Candidate",
    "Context",
    "Message",
    "Model",
    "Pool",
    "PriceBook",
    "Result",
    "Retry",
    "Store",
    "ToolContext",
    "ToolResult",
    "Usage",
    "Verdict",
    "Workflow",
    "__version__",
    "answers",
    "errors",
    "models",
    "strategies",
    "tool",
    "tools",
    "types",
    "verifiers",
]

# Loaded on first use: LangGraph, SQLAlchemy and pydantic take most of a second together.
_WHERE = {
    "Budget": "budgets",
    "Candidate": "types",
    "Context": "orchestrator.context",
    "Message": "types",
    "Model": "types",
    "Pool": "budgets",
    "PriceBook": "budgets",
    "Result": "orchestrator.results",
    "Retry": "orchestrator.definition",
    "Store": "storage",
    "ToolContext": "tools",
    "ToolResult": "tools",
    "Usage": "types",
    "Verdict": "types",
    "Workflow": "orchestrator.workflow",
    "tool": "tools",
}
_MODULES = {
    "answers": "verifiers.answers",
    "errors": "errors",
    "models": "orchestrator.models",
    "strategies": "orchestrator.strategies",
    "tools": "tools",
    "types": "types",
    "verifiers": "verifiers",
}


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"longthought.{_WHERE[name]}"), name)
    if name in _MODULES:
        return import_module(f"longthought.{_MODULES[name]}")
    raise AttributeError(f"module 'longthought' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
