"""Admission: which models may be called at all where limits are hard."""

from __future__ import annotations

from longthought.budgets.ledger import Scope
from longthought.budgets.prices import Price
from longthought.errors import BackendRefused, UnpricedModel
from longthought.types import Capabilities

__all__ = ["admit"]


def admit(scope: Scope, model: str, capabilities: Capabilities, price: Price | None) -> None:
    """Check before the first dispatch that a model can be held to the limits of a scope.

    Raises:
        UnpricedModel: dollars are limited and the model has no price.
        BackendRefused: tokens or dollars are limited, and the backend neither honours
            ``max_tokens`` nor streams, so that nothing could stop it.
    """
    if price is None and scope.limited("nanodollars"):
        raise UnpricedModel(
            "model",
            f"{model} has no price, so the dollar limit of {scope.name} cannot be kept",
            "Add its price to [prices] in the configuration, or drop the usd limit",
        )
    if scope.hard and not (capabilities.honours_max_tokens or capabilities.streams):
        raise BackendRefused(
            "model",
            f"{model} neither honours max_tokens nor streams, so the limits of {scope.name} "
            "cannot be kept",
            "Use another endpoint, or limit calls and time instead of tokens and dollars",
        )
