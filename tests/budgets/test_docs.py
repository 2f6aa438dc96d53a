"""The price lists that docs/budgets.md shows can be read."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from longthought.budgets import PriceBook

PAGE = (Path(__file__).parents[2] / "docs" / "budgets.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", blocks("toml"))
def test_prices_shown_are_prices(text: str) -> None:
    book = PriceBook.load().extended(tomllib.loads(text)["prices"])
    assert book.price("my-lab/large") is not None
