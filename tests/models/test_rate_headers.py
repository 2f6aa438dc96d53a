"""What servers say of their rate limits, and who hears it."""

from __future__ import annotations

import asyncio
import math
import time

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longthought.budgets.rates import Said
from longthought.errors import BackendError, ConfigurationError
from longthought.orchestrator.models import OpenAIModel
from longthought.orchestrator.models.openai.rate_headers import said_of_limits, seconds_of

QUESTION = {"model": "toy", "messages": [{"role": "user", "content": "q"}]}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("20ms", 0.02),
        ("1h2m3.5s", 3723.5),
        ("7m12s", 432.0),
        ("2d", 172_800.0),
        ("500us", 0.0005),
        (" 59.8S ", 59.8),
        ("12", 12.0),
        ("0", 0.0),
        ("", None),
        ("soon", None),
        ("-1s", None),
        ("1s later", None),
        ("9" * 400, None),
        ("2024-01-01T00:00:00Z", None),
    ],
)
def test_times_as_servers_write_them(text, seconds):
    assert seconds_of(text) == (seconds if seconds is None else pytest.approx(seconds))


@given(st.text(max_size=30))
def test_any_text_is_a_time_or_none(text):
    seconds = seconds_of(text)
    assert seconds is None or (seconds >= 0 and math.isfinite(seconds))


def said(**fields):
    return said_of_limits(httpx2.Headers({n.replace("_", "-"): v for n, v in fields.items()}))


def test_limits_as_openai_says_them():
    found = said(
        x_ratelimit_limit_requests="5000",
        x_ratelimit_remaining_requests="4999",
        x_ratelimit_reset_requests="12ms",
        x_ratelimit_limit_tokens="30000",
        x_ratelimit_remaining_tokens="29000",
        x_ratelimit_reset_tokens="2s",
    )
    assert found == (Said(4999, 5000, 0.012), Said(29000, 30000, 2.0))


def test_limits_as_others_say_them(monkeypatch):
    plain = said(ratelimit_limit="100, 100;w=60", ratelimit_remaining="7", ratelimit_reset="30")
    assert plain == (Said(7, 100, 30.0, refills=False), None)
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.0)
    for reset in ("1700000045", "1700000045000"):  # a moment, in seconds or milliseconds
        moment = said(X_RateLimit_Remaining="0", X_RateLimit_Reset=reset)
        assert moment == (Said(0, None, 45.0, refills=False), None)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"content_type": "text/plain"},
        {"x_ratelimit_limit_requests": "60"},
        {"x_ratelimit_remaining_requests": "-1"},
        {"x_ratelimit_remaining_requests": "many"},
        {"x_ratelimit_remaining_requests": "5", "x_ratelimit_limit_requests": "0"},
        {"ratelimit_policy": '"default";q=100;w=60'},
    ],
)
def test_what_says_nothing(fields):
    assert said(**fields) is None


# -- turns -----------------------------------------------------------------------------------------


@pytest.fixture
async def asking(server):
    """A maker of models at the same server."""
    made = []

    def make(modes="t0", **options):
        options.setdefault("api_key", "some-key")
        made.append(OpenAIModel("toy", base_url=server.address(modes), **options))
        return made[-1]

    yield make
    for model in made:
        await model.aclose()


async def test_an_endpoint_without_limits_is_not_waited_for(asking, granted):
    model = asking()
    for _ in range(3):
        turn = model.try_turn(10**9)
        assert turn is not None
        await model.generate(QUESTION, granted(9))
        turn.end()


async def test_a_limit_is_one_for_all_models_that_state_it(asking):
    first, second = asking(requests_per_minute=1), asking(requests_per_minute=1)
    other_limit, other_key = asking(requests_per_minute=2), asking(api_key="k", tokens_per_minute=9)
    turn = first.try_turn(1)
    assert turn is not None
    assert second.try_turn(1) is None
    assert other_limit.try_turn(1) is not None
    assert other_key.try_turn(1) is not None
    turn.end()
    assert second.try_turn(1) is not None


async def test_a_call_that_was_made_has_used_its_turn(asking, granted):
    model = asking(tokens_per_minute=10_000)
    turn = model.try_turn(9_000)
    reply = await model.generate(QUESTION, granted(99))
    turn.end()
    used = reply["usage"]["prompt_tokens"] + reply["usage"]["completion_tokens"]
    assert model.try_turn(10_001 - used) is None
    assert model.try_turn(10_000 - used) is not None


async def test_a_lost_call_has_used_all_its_turn(asking, granted):
    model = asking("drop", tokens_per_minute=10_000)
    turn = model.try_turn(9_000)
    with pytest.raises(BackendError):
        await model.generate(QUESTION, granted(99))
    turn.end()
    assert model.try_turn(1_001) is None
    assert model.try_turn(1_000) is not None


async def test_a_refusal_halts_every_model_of_that_key_and_name(asking, granted):
    told, same, other_key = (
        asking("status429,after600"),
        asking("status429,after600"),
        asking("status429,after600", api_key="another"),
    )
    with pytest.raises(BackendError):
        await told.generate(QUESTION, granted(9))
    assert same.try_turn(1) is None
    assert other_key.try_turn(1) is not None
    with pytest.raises(BackendError, match=r"no more calls for 600 s, .* can wait .60 s") as info:
        await same.turn(1, within=60)
    assert (info.value.sent, info.value.retryable) == (False, False)


async def test_overload_with_a_time_halts_everybody_and_without_one_nobody(asking, granted):
    for modes, halted in (("status503,after600", True), ("status503", False)):
        model = asking(modes)
        with pytest.raises(BackendError):
            await model.generate(QUESTION, granted(9))
        assert (model.try_turn(1) is None) is halted


async def test_what_replies_say_is_kept_to(asking, granted):
    model = asking("limit3,period600000,told,w1")
    for _ in range(3):
        await model.generate(QUESTION, granted(9))
    assert model.try_turn(1) is None  # the last reply said that none is left
    with pytest.raises(BackendError, match=r"no more calls for \d+ s"):
        await model.turn(1, within=60)
    model = asking("limit3,told,w1")
    for _ in range(9):
        turn = await model.turn(1)  # until there is one again
        await model.generate(QUESTION, granted(9))
        turn.end()


async def test_a_turn_belongs_to_its_task(asking, granted):
    model = asking(requests_per_minute=100, tokens_per_minute=1000)

    async def one():
        turn = model.try_turn(400)
        await model.generate(QUESTION, granted(9))
        turn.end()

    await asyncio.gather(one(), one())
    assert model.try_turn(900) is not None  # each has settled its own


async def test_without_a_key_there_is_no_turn():
    model = OpenAIModel("toy", base_url="https://api.openai.com/v1")
    with pytest.raises(ConfigurationError, match="needs an API key"):
        model.try_turn(1)
