"""What a workflow is given, checked once: names, shares, sampling, questions."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from longthought.budgets import Budget
from longthought.errors import InvalidInput
from longthought.storage.messages import check_message
from longthought.tools import Tool
from longthought.types import Message, Model

__all__ = [
    "check_inner_budget",
    "check_names",
    "check_question",
    "check_tenant",
    "checked_shares",
]


def check_names(name: str, tools: Sequence[Tool]) -> None:
    """Refuse a name that cannot be listed, and two tools of one name."""
    if not name or not name.strip() or "\n" in name:
        raise InvalidInput("name", f"{name!r} cannot be used", "Give the workflow a short name")
    names = [tool.spec.name for tool in tools]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise InvalidInput("tools", f"two tools are called {twice.pop()!r}", "Rename one")


def check_inner_budget(field: str, budget: Budget | None) -> None:
    """Refuse limits that a scope inside a run cannot keep."""
    for name in ("wall", "thinking"):
        if budget is not None and getattr(budget, name) is not None:
            fix = "Limit the run: Workflow(budget=...)"
            raise InvalidInput(f"{field}.{name}", "time is counted for the run as a whole", fix)


def check_tenant(tenant: str | None) -> None:
    """Refuse what is no name of a tenant."""
    if tenant is not None and not (isinstance(tenant, str) and tenant):
        fix = "Give a name, or leave it out"
        raise InvalidInput("tenant", f"{tenant!r} is no tenant", fix)


def checked_shares(shares: Sequence[float]) -> tuple[float, ...]:
    """The shares of ``tell_left``, ascending, each once."""
    fix = "Write shares between 0 and 1, as (0.5, 0.8)"
    if isinstance(shares, str) or not isinstance(shares, Sequence):
        raise InvalidInput("tell_left", f"{shares!r} is no list of shares", fix)
    for share in shares:
        number = isinstance(share, int | float) and not isinstance(share, bool)
        if not number or not 0 < share < 1:
            raise InvalidInput("tell_left", f"{share!r} is no share of a limit", fix)
    return tuple(sorted(set(shares)))


def check_question(question: str | Sequence[Message]) -> None:
    """Refuse a question that is empty or no message."""
    fix = 'Give text, or messages like {"role": "user", "content": "..."}'
    if isinstance(question, str):
        if not question.strip():
            raise InvalidInput("question", "is empty", "Ask something")
        return
    if not isinstance(question, Sequence) or isinstance(question, bytes):
        raise InvalidInput("question", f"{type(question).__name__} is no question", fix)
    if not question:
        raise InvalidInput("question", "is empty", "Ask something")
    try:
        for message in question:
            check_message(message)
    except ValidationError as error:
        raise InvalidInput(
            "question", f"holds something that is no message: {error}", fix
        ) from error


def names_of(specs: Sequence[str | Model]) -> tuple[str, ...]:
    """The names by which models were given."""
    return tuple(spec if isinstance(spec, str) else spec.name for spec in specs)
