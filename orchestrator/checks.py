"""What a workflow is given, checked once: names, shares, sampling, questions."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from longthought.budgets import Budget, PriceBook, Scope, admit
from longthought.errors import InvalidInput
from longthought.orchestrator.definition import Definition
from longthought.storage.messages import check_message
from longthought.tools import Tool
from longthought.types import Message, Model

__all__ = [
    "check_inner_budget",
    "check_models",
    "check_names",
    "check_numbers",
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


def check_numbers(
    parallel: int | None, max_turns: int, park_after: float | None, output_retries: int
) -> None:
    """Refuse numbers of a workflow that are too small."""
    for field, value in (("parallel", parallel), ("max_turns", max_turns)):
        if value is not None and value < 1:
            raise InvalidInput(field, f"{value} is too few", "Use 1 or more")
    if park_after is not None and not park_after >= 0:
        fix = "Use seconds from 0, or None for never"
        raise InvalidInput("park_after", f"{park_after!r} is no time", fix)
    if output_retries < 0:
        raise InvalidInput("output_retries", f"{output_retries} is too few", "Use 0 or more")


def check_inner_budget(field: str, budget: Budget | None) -> None:
    """Refuse limits that a scope inside a run cannot keep."""
    for name in ("wall", "thinking"):
        if budget is not None and getattr(budget, name) is not None:
            fix = "Limit the run: Workflow(budget=...)"
            raise InvalidInput(f"{field}.{name}", "time is counted for the run as a whole", fix)


def check_models(
    definition: Definition, prices: PriceBook, limits: Budget, pool: Scope | None
) -> None:
    """Refuse models that cannot be held to these limits: see :func:`~longthought.budgets.admit`."""
    scope = Scope("run", limits, pool, level="run")
    branch = scope.child("branch", definition.branch_budget)
    kinds = definition.model_kinds()
    try:
        for model in definition.models:
            price = prices.price(model.name, kinds[model.name])
            admit(branch, model.name, model.capabilities, price)
    finally:
        scope.close()


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
