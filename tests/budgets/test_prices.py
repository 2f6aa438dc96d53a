from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longthought.budgets import (
    FREE,
    Amount,
    Budget,
    Price,
    PriceBook,
    Scope,
    admit,
    call_bound,
    cost,
    usage_amount,
)
from longthought.budgets.waiting import Wish
from longthought.errors import BackendRefused, ConfigurationError, UnpricedModel
from longthought.types import Capabilities, Usage

book = PriceBook.load()
# Small ones matter: where a token costs a fraction of a nano-dollar, every sum is rounded.
picodollars = st.one_of(st.integers(0, 3000), st.integers(0, 10**8))
prices = st.builds(Price, picodollars, picodollars, picodollars)
counts = st.integers(0, 10**7)


def test_shipped_prices_are_dated_and_exact() -> None:
    assert book.as_of.year >= 2026
    assert book.price("gpt-5-mini") == Price(250_000, 25_000, 2_000_000)
    assert book.price("gpt-5-nano") == Price(50_000, 5_000, 400_000)
    usage = Usage(prompt_tokens=1000, completion_tokens=100, cached_tokens=400)
    price = book.require("openai/gpt-5-mini")
    assert cost(price, usage) == 600 * 250 + 400 * 25 + 100 * 2000


@pytest.mark.parametrize(
    ("name", "like"),
    [
        ("openai/gpt-5-mini", "gpt-5-mini"),
        ("gpt-5-mini-2025-08-07", "gpt-5-mini"),
        ("openai/gpt-4o-2024-08-06", "gpt-4o"),
        ("gpt-4o-2024-05-13", "gpt-4o-2024-05-13"),
    ],
)
def test_a_snapshot_costs_what_its_model_costs(name: str, like: str) -> None:
    assert book.price(name) == book.prices[like]


@pytest.mark.parametrize(
    "name",
    ["gpt-5-pro", "gpt-4o-audio-preview", "gpt-5-mini-high", "gpt", "azure/gpt-5", "", "gpt-50"],
)
def test_a_relative_has_no_price(name: str) -> None:
    assert book.price(name) is None
    with pytest.raises(UnpricedModel, match="prices"):
        book.require(name)


@pytest.mark.parametrize("name", ["embedded", "embedded/tiny", "scripted", "recorded:x.jsonl"])
def test_what_runs_here_is_free(name: str) -> None:
    assert book.price(name) is FREE


def test_free_by_kind_when_the_name_does_not_tell() -> None:
    assert book.price("aime-2024") is None
    assert book.price("aime-2024", kind="recorded") is FREE


@given(prices, counts, counts, counts)
def test_cost_is_the_exact_cost_rounded_up(
    price: Price, prompt: int, cached: int, out: int
) -> None:
    usage = Usage(prompt, out, cached)
    cached = min(cached, prompt)
    exact = Fraction(
        (prompt - cached) * price.input + cached * price.cached + out * price.output, 1000
    )
    assert 0 <= cost(price, usage) - exact < 1
    amount = usage_amount(price, usage)
    assert amount.nanodollars == cost(price, usage)
    assert amount.fits(call_bound(price, prompt, out))


@given(prices, st.integers(0, 5000), st.integers(0, 300), st.integers(1, 300), st.data())
def test_a_partial_grant_always_pays_for_its_tokens(
    price: Price, prompt: int, least: int, more: int, data: st.DataObject
) -> None:
    """Scaling all kinds together may never reserve less money than the granted tokens cost."""
    low, high = call_bound(price, prompt, least), call_bound(price, prompt, least + more)
    wish = Wish(low.vector, high.vector)
    step = data.draw(st.integers(0, more))
    granted = Amount(*wish.at(step))
    assert granted.output_tokens == least + step
    needed = call_bound(price, prompt, least + step)
    assert needed.fits(granted)
    assert granted.fits(high)
    assert (granted - needed).nanodollars <= 1


@pytest.mark.parametrize("prompt", range(4))
@pytest.mark.parametrize("output", range(1, 3000, 97))
def test_partial_grants_of_very_cheap_tokens(prompt: int, output: int) -> None:
    price = Price(999, 0, output)
    for more in range(1, 12):
        low, high = call_bound(price, prompt, 1), call_bound(price, prompt, 1 + more)
        wish = Wish(low.vector, high.vector)
        for step in range(more + 1):
            assert call_bound(price, prompt, 1 + step).fits(Amount(*wish.at(step)))


def test_nonsense_usage_costs_nothing_negative() -> None:
    assert usage_amount(Price(5, 5, 5), Usage(-3, -4, 9)) == Amount(model_calls=1)


def test_own_prices_override_and_extend(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        '[other]\nx = 1\n[prices."gpt-5"]\ninput = 1\noutput = 2\n'
        '[prices."lab/*"]\ninput = 0.000001\noutput = 0\n[prices."lab/big*"]\ninput = 3\noutput = 3'
    )
    own = PriceBook.load(path)
    assert own.price("gpt-5") == Price(1_000_000, 1_000_000, 2_000_000)
    assert own.price("lab/small") == Price(1, 1, 0)
    assert own.price("lab/big-1") == Price(3_000_000, 3_000_000, 3_000_000)
    assert own.price("gpt-5-mini") == book.price("gpt-5-mini")


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("[prices", "TOML"),
        ("prices = 3", "prices"),
        ("[prices]\nx = 3", 'prices."x"'),
        ("[prices.x]\ninput = 1", 'prices."x".output'),
        ("[prices.x]\ninput = 1\noutput = 1\nout = 2", 'prices."x".out'),
        ("[prices.x]\ninput = -1\noutput = 1", 'prices."x".input'),
        ("[prices.x]\ninput = nan\noutput = 1", 'prices."x".input'),
        ("[prices.x]\ninput = true\noutput = 1", 'prices."x".input'),
        ("[prices.x]\ninput = [1]\noutput = 1", 'prices."x".input'),
        ('[prices.x]\ninput = "a"\noutput = 1', 'prices."x".input'),
        ("[prices.x]\ninput = 0.0000001\noutput = 1", 'prices."x".input'),
    ],
)
def test_a_bad_file_is_refused_by_file_and_field(tmp_path: Path, text: str, field: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        PriceBook.load(path)
    assert str(path) in str(caught.value)
    assert field in str(caught.value)
    assert caught.value.fix


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        PriceBook.load(tmp_path / "none.toml")


def test_the_recorded_book_gives_the_same_prices() -> None:
    written = json.loads(json.dumps(book.to_json(["openai/gpt-5-mini", "embedded", "unknown"])))
    assert list(written["prices"]) == ["embedded", "openai/gpt-5-mini"]
    again = PriceBook.from_json(written)
    assert again.price("openai/gpt-5-mini") == book.price("gpt-5-mini")
    assert again.price("embedded") == FREE
    assert again.as_of == book.as_of


def test_admission() -> None:
    free, dollars = Scope("run", Budget(model_calls=3)), Scope("run", Budget(usd=1))
    tokens = Scope("run", Budget(tokens=100)).child("branch")
    endless = Capabilities(streams=False, honours_max_tokens=False)
    admit(free, "x", endless, None)
    admit(tokens, "x", Capabilities(streams=False), None)
    admit(tokens, "x", Capabilities(honours_max_tokens=False), None)
    admit(dollars, "x", Capabilities(), FREE)
    with pytest.raises(UnpricedModel, match="dollar limit of run"):
        admit(dollars, "x", Capabilities(), None)
    with pytest.raises(BackendRefused, match="neither honours"):
        admit(tokens, "x", endless, None)
