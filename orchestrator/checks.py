"""What a workflow is given, checked once: names, shares, sampling, questions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from longthought.budgets import Budget, PriceBook, Scope, admit
from longthought.budgets.limits import check_budget
from longthought.errors import InvalidInput
from longthought.orchestrator.definition import Definition
from longthought.orchestrator.effects.cut_thoughts import check_thinking
from longthought.storage.messages import check_message
from longthought.tools import Tool
from longthought.types import Message, Model, Sampling

__all__ = [
    "check_inner_budget",
    "check_models",
    "check_names",
    "check_numbers",
    "check_pool",
    "check_question",
    "check_sampling",
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
    parallel: int | None,
    max_turns: int,
    max_output_tokens: int,
    park_after: float | None,
    output_retries: int,
) -> None:
    """Refuse numbers of a workflow that are none, or too small."""
    if parallel is not None:
        _check_whole("parallel", parallel, 1)
    _check_whole("max_turns", max_turns, 1)
    _check_whole("max_output_tokens", max_output_tokens, 1)
    if park_after is not None and not (_is_number(park_after) and park_after >= 0):
        fix = "Use seconds from 0, or None for never"
        raise InvalidInput("park_after", f"{park_after!r} is no time", fix)
    _check_whole("output_retries", output_retries, 0)


def check_sampling(sampling: Sampling) -> None:
    """Refuse what no reply can be drawn with; the limits on its thought, too."""
    if not isinstance(sampling, Mapping):
        fix = 'Write {"temperature": 0.7}, or leave it out'
        raise InvalidInput("sampling", f"{sampling!r} is no dictionary", fix)
    if "max_tokens" in sampling:
        _check_whole("sampling.max_tokens", sampling["max_tokens"], 1)
    temperature = sampling.get("temperature", 0)
    if not (_is_number(temperature) and 0 <= temperature < math.inf):
        problem = f"{temperature!r} is no temperature"
        raise InvalidInput("sampling.temperature", problem, "Use 0 or more")
    check_thinking(sampling)


def _check_whole(field: str, value: object, least: int) -> None:
    fix = f"Use {least} or more"
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInput(field, f"{value!r} is no whole number", fix)
    if value < least:
        raise InvalidInput(field, f"{value} is too few", fix)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_inner_budget(field: str, budget: Budget | None) -> None:
    """Refuse limits that a scope inside a run cannot keep."""
    check_budget(field, budget)
    for name in ("wall", "thinking"):
        if budget is not None and getattr(budget, name) is not None:
            fix = "Limit the run: Workflow(budget=...)"
            raise InvalidInput(f"{field}.{name}", "time is counted for the run as a whole", fix)


def check_models(
    definition: Definition, prices: PriceBook, limits: Budget, pool: Scope | None
) -> None:
    """Refuse models that cannot be held to these limits: see :func:`~longthought.budgets.admit`."""
    check_budget("budget", limits)
    check_pool(pool)
    scope = Scope("run", limits, pool, level="run")
    branch = scope.child("branch", definition.branch_budget)
    kinds = definition.model_kinds()
    try:
        for model in definition.models:
            price = prices.price(model.name, kinds[model.name])
            admit(branch, model.name, model.capabilities, price)
    finally:
        scope.close()


def check_pool(pool: Scope | None) -> None:
    """Refuse what is no pool; None passes."""
    if pool is not None and not isinstance(pool, Scope):
        raise InvalidInput("pool", f"{pool!r} is no pool", 'Write Pool("batch", Budget(...))')


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
        if not _is_number(share) or not 0 < share < 1:
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
