"""Which model each sample is asked of: one model, or several of a workflow's in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar, cast

from longthought.errors import InvalidInput
from longthought.types import JSON

__all__ = ["Models", "Spread", "bound", "models_used", "spread"]

Models: TypeAlias = str | int | Sequence[str | int] | Mapping[str, int] | Mapping[int, int]
"""One model, several that take turns, or a weight for each; by name or index. ``"all"``: all."""

P = TypeVar("P")

_ALL = "all"
_LONGEST = 1000


@dataclass(frozen=True, slots=True)
class Spread:
    """The order in which models take turns; sample *i* is asked of item *i*, from the start again.

    Names stand in it until the workflow that has these models is built.
    """

    order: tuple[str | int, ...] = (0,)

    def at(self, number: int) -> int:
        """The index of the model of a sample.

        Raises:
            InvalidInput: the models are still names.
        """
        model = self.order[number % len(self.order)]
        if not isinstance(model, int):
            problem = f"{model!r} is a name, and no workflow has said whose"
            raise InvalidInput("models", problem, "Give the strategy to a Workflow, or use indices")
        return model

    def to_json(self) -> list[JSON]:
        """The order, for fingerprints and listings; empty for the first model alone."""
        return [] if set(self.order) == {0} else list(self.order)

    def bound_to(self, names: Sequence[Sequence[str]]) -> Spread:
        """The same with indices; ``names`` are what each of a workflow's models is called.

        Raises:
            InvalidInput: the workflow has no such model.
        """
        order = range(len(names)) if self.order == (_ALL,) else self.order
        return Spread(tuple(_index(model, names) for model in order))


def spread(models: Models | None) -> Spread:
    """The spread over these models; the first one alone unless given.

    Raises:
        InvalidInput: there are none, or a weight is no whole number from 1.
    """
    if models is None:
        return Spread()
    if isinstance(models, Mapping):
        return Spread(_by_weight(models))
    order = (models,) if isinstance(models, str | int) else tuple(models)
    wrong = [m for m in order if not isinstance(m, str | int) or isinstance(m, bool)]
    if not order or wrong or len(order) > _LONGEST:
        given = repr(wrong[0]) if wrong else f"a list of {len(order)}"
        problem = f"{given} cannot be used"
        raise InvalidInput("models", problem, 'Give names or indices of models, or "all"')
    return Spread(order)


def bound(policy: P, names: Sequence[Sequence[str]]) -> P:
    """A policy that knows its models by index; one of the user's own stays as it is.

    Raises:
        InvalidInput: it names a model that is not among them.
    """
    models = getattr(policy, "models", None)
    if not isinstance(models, Spread):
        return policy
    bound_to = models.bound_to(names)
    changed: Any = policy
    return policy if bound_to == models else replace(changed, models=bound_to)


def models_used(policy: object) -> list[int]:
    """The indices of the models that a policy asks, in the order of their first turn."""
    models = getattr(policy, "models", None)
    order = models.order if isinstance(models, Spread) else (0,)
    return list(dict.fromkeys(model for model in order if isinstance(model, int)))


def _index(model: str | int, names: Sequence[Sequence[str]]) -> int:
    known = ", ".join(dict.fromkeys(own[0] for own in names))
    if isinstance(model, int):
        if 0 <= model < len(names):
            return model
        problem = f"there is no model {model} among {len(names)}"
        raise InvalidInput("models", problem, f"The workflow has: {known}")
    fitting = [number for number, own in enumerate(names) if model in own]
    if len(fitting) == 1:
        return fitting[0]
    problem = f"{model!r} is the name of {len(fitting)} models" if fitting else f"no {model!r}"
    fix = "Use indices" if fitting else f"The workflow has: {known}"
    raise InvalidInput("models", problem, fix)


def _by_weight(weights: Mapping[str, int] | Mapping[int, int]) -> tuple[str | int, ...]:
    """An order in which each model comes as often as its weight says, as evenly as can be."""
    shares = dict(cast("Mapping[str | int, int]", weights))
    total = 0
    for model, weight in shares.items():
        if isinstance(weight, bool) or not isinstance(weight, int) or weight < 1:
            problem = f"{weight!r} is no weight of {model!r}"
            raise InvalidInput("models", problem, "Use whole numbers from 1")
        total += weight
    if not shares or total > _LONGEST:
        raise InvalidInput("models", f"weights add up to {total}", f"Use 1 to {_LONGEST}")
    due = dict.fromkeys(shares, 0)
    order = []
    for _ in range(total):
        for model, weight in shares.items():
            due[model] += weight
        turn = max(due, key=lambda model: due[model])  # the first of equals
        due[turn] -= total
        order.append(turn)
    return tuple(order)
