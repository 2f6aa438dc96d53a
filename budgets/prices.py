"""Prices: what a token costs, in whole pico-dollars, and which price applies to which model."""

from __future__ import annotations

import datetime
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from longthought.budgets.amounts import Amount
from longthought.errors import ConfigurationError, UnpricedModel
from longthought.types import JSON, JSONObject, Usage

__all__ = ["FREE", "Price", "PriceBook", "call_bound", "cost", "usage_amount"]

_SHIPPED = Path(__file__).with_name("prices.toml")
_PICODOLLARS = 10**6  # pico-dollars per token in one dollar per million tokens
_SNAPSHOT = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{8})$")
_PARTS = ("input", "cached", "output")


@dataclass(frozen=True, slots=True)
class Price:
    """Pico-dollars per token: 1 dollar per million tokens is 1,000,000 of them.

    ``cached`` applies to prompt tokens that the backend read from its cache.
    """

    input: int
    cached: int
    output: int

    def to_json(self) -> JSONObject:
        """Dollars per million tokens as text, exact."""
        return {
            part: format((Decimal(getattr(self, part)) / _PICODOLLARS).normalize(), "f")
            for part in _PARTS
        }


FREE = Price(0, 0, 0)


def cost(price: Price, usage: Usage) -> int:
    """What the usage costs in nano-dollars, rounded up."""
    prompt = max(0, usage.prompt_tokens)
    cached = min(max(0, usage.cached_tokens), prompt)
    output = max(0, usage.completion_tokens)
    picodollars = (prompt - cached) * price.input + cached * price.cached + output * price.output
    return -(-picodollars // 1000)


def call_bound(price: Price | None, prompt_tokens: int, output_tokens: int) -> Amount:
    """The most that one call with at most so many tokens can take: what is reserved for it.

    Counts no token as cached. Without a price it holds no money, which is right only where
    dollars are not limited; see :func:`~longthought.budgets.admission.admit`.
    """
    nanodollars = 0
    if price is not None:
        dearest = max(price.input, price.cached)
        nanodollars = -(-(prompt_tokens * dearest + output_tokens * price.output) // 1000)
    return Amount(prompt_tokens + output_tokens, output_tokens, nanodollars, model_calls=1)


def usage_amount(price: Price | None, usage: Usage) -> Amount:
    """What one call took, to settle its reservation with; at least one model call."""
    return Amount(
        max(0, usage.prompt_tokens) + max(0, usage.completion_tokens),
        max(0, usage.completion_tokens),
        cost(price, usage) if price is not None else 0,
        model_calls=max(1, usage.calls),
    )


@dataclass(frozen=True, slots=True)
class PriceBook:
    """Prices by model name.

    A price applies to the model it names, with or without ``openai/`` before it, and to dated
    snapshots of that model (``gpt-5-mini-2025-08-07``). It does not apply to relatives:
    ``gpt-5-pro`` costs twelve times as much as ``gpt-5``. A key that ends in ``*`` applies to every
    name that begins like it. The longest key wins; an exact one always does.

    Attributes:
        as_of: the day for which the shipped prices were right.
        prices: price by key.
        free: kinds of models that cost nothing, alone or as ``kind/name`` and ``kind:name``.
    """

    as_of: datetime.date
    prices: Mapping[str, Price]
    free: tuple[str, ...] = ()
    _found: dict[tuple[str, str | None], Price | None] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def load(cls, user_path: Path | None = None) -> PriceBook:
        """The shipped prices, overridden and extended by the ``[prices]`` of a TOML file.

        Other tables of that file are left alone, so it may be the general configuration.

        Raises:
            ConfigurationError: a file cannot be read or holds something that is no price.
        """
        table = _read(_SHIPPED)
        book = cls(table["as_of"], _prices(table["prices"], str(_SHIPPED)), tuple(table["free"]))
        if user_path is None:
            return book
        return book.extended(_read(user_path).get("prices", {}), str(user_path))

    def extended(self, table: Mapping[str, Any], source: str = "prices") -> PriceBook:
        """This book with more prices, as they stand in a ``[prices]`` table; same names replace.

        Raises:
            ConfigurationError: an entry is no price; names ``source``, the field and the fix.
        """
        return replace(self, prices={**self.prices, **_prices(table, source)})

    def price(self, model: str, kind: str | None = None) -> Price | None:
        """The price of a model, None if it is not known; that never means free.

        ``kind`` is what the model says of itself in its fingerprint, for models whose name does
        not tell that they are free.
        """
        asked = (model, kind)
        if asked not in self._found:
            self._found[asked] = self._search(model, kind)
        return self._found[asked]

    def _search(self, model: str, kind: str | None) -> Price | None:
        if kind in self.free or re.split("[/:]", model, maxsplit=1)[0] in self.free:
            return FREE
        names = (model, model.removeprefix("openai/"))
        for name in names:
            if name in self.prices:
                return self.prices[name]
        keys = [key for key in self.prices if any(_applies(key, name) for name in names)]
        return self.prices[max(keys, key=len)] if keys else None

    def require(self, model: str, kind: str | None = None) -> Price:
        """The price of a model.

        Raises:
            UnpricedModel: it is not known.
        """
        price = self.price(model, kind)
        if price is None:
            raise UnpricedModel(
                "model",
                f"{model} has no price, so a dollar limit cannot be kept",
                f'Add [prices."{model}"] with input and output in dollars per million tokens to '
                "the configuration, or drop the usd limit",
            )
        return price

    def to_json(self, models: Iterable[str]) -> JSONObject:
        """What a run with these models needs to know of the book, for its manifest."""
        known = {model: price for model in sorted(models) if (price := self.price(model))}
        return {
            "as_of": self.as_of.isoformat(),
            "prices": {model: price.to_json() for model, price in known.items()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, JSON]) -> PriceBook:
        """The book that :meth:`to_json` wrote; it knows the recorded models alone.

        Raises:
            ConfigurationError: an entry is no price.
        """
        return cls(
            datetime.date.fromisoformat(value["as_of"]), _prices(value["prices"], "recorded prices")
        )


def _applies(key: str, name: str) -> bool:
    if key.endswith("*"):
        return name.startswith(key[:-1])
    return name.startswith(key) and _SNAPSHOT.fullmatch(name, len(key)) is not None


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file, parse_float=Decimal)
    except OSError as error:
        raise ConfigurationError(
            str(path), f"cannot be read: {error.strerror}", "check the path"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(str(path), f"is no TOML: {error}", "correct that line") from error


def _prices(table: Any, source: str) -> dict[str, Price]:
    if not isinstance(table, Mapping):
        raise ConfigurationError(f"{source}: prices", "is no table", "write [prices.NAME] tables")
    return {name: _price(entry, f'{source}: prices."{name}"') for name, entry in table.items()}


def _price(entry: Any, where: str) -> Price:
    if not isinstance(entry, Mapping):
        raise ConfigurationError(where, "is no table", "give it input and output")
    for part in entry:
        if part not in _PARTS:
            raise ConfigurationError(f"{where}.{part}", "is unknown", f"use {', '.join(_PARTS)}")
    for part in ("input", "output"):
        if part not in entry:
            raise ConfigurationError(
                f"{where}.{part}", "is missing", "write dollars per million tokens"
            )
    figures = {part: _picodollars(figure, f"{where}.{part}") for part, figure in entry.items()}
    return Price(
        figures["input"], figures.get("cached", figures["input"]), output=figures["output"]
    )


def _picodollars(figure: Any, where: str) -> int:
    try:
        if isinstance(figure, bool):
            raise TypeError
        exact = Decimal(str(figure)) if isinstance(figure, float) else Decimal(figure)
    except (TypeError, ValueError, InvalidOperation):
        raise ConfigurationError(
            where, f"{figure!r} is no number", "write dollars per million tokens"
        ) from None
    if not exact.is_finite() or not 0 <= exact < 10**9:
        raise ConfigurationError(where, f"{figure} is no price", "write dollars from 0")
    picodollars = exact * _PICODOLLARS
    if picodollars != int(picodollars):
        raise ConfigurationError(where, f"{figure} is too fine", "use at most six decimals")
    return int(picodollars)
