"""Every way a Chat Completions server can fail, and what becomes of it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
import traceback

import httpx2
import pytest

from longthought.errors import BackendError, ConfigurationError
from longthought.orchestrator.models import OpenAIModel
from longthought.orchestrator.models.openai.faults import Faults, _retry_after

KEY = "sk-very-secret-key"
HEADER = "another-secret-value"
QUESTION = {"model": "toy", "messages": [{"role": "user", "content": "q"}]}


async def fault(granted, base_url, **options):
    """The error of one call, after a look that it gives no secret away."""
    headers = {"x-secret": HEADER}
    model = OpenAIModel("toy", base_url=base_url, api_key=KEY, extra_headers=headers, **options)
    try:
        with pytest.raises(BackendError) as info:
            await model.generate(QUESTION, granted(99))
    finally:
        await model.aclose()
    error = info.value
    shown = [repr(error), str(error), repr(vars(error)), *traceback.format_exception(error)]
    shown += [repr(model), repr(model.fingerprint())]
    assert not any(secret in text for text in shown for secret in (KEY, HEADER))
    assert error.__cause__ is None
    assert error.__context__ is None
    assert str(error).startswith("toy: ")
    return error


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("modes", "status", "retryable", "says"),
    [
        ("status307", 307, False, "sends its callers to 'http://127.*/completions'; set base_url"),
        ("status400", 400, False, "refused with 400"),
        ("status401", 401, False, r"the server refused the API key \(401\): refused with 401"),
        ("status403", 403, False, r"denies access with this API key \(403\)"),
        ("status404", 404, False, r"no such address or model; .* \(404\): refused with 404"),
        ("status408", 408, True, "refused with 408"),
        ("status409", 409, True, "refused with 409"),
        ("status422", 422, False, "refused with 422"),
        ("status425", 425, True, "refused with 425"),
        ("status429", 429, True, "refused with 429"),
        ("status429,after7", 429, True, "refused with 429"),
        ("status500", 500, True, "refused with 500"),
        ("status502", 502, True, "refused with 502"),
        ("status503,after7", 503, True, "refused with 503"),
        ("context", 400, False, "does not fit the model's context window"),
        ("echo-key", 401, False, r"refused the API key \(401\): .* Bearer \*\*\*"),
        ("drop", None, True, "the connection was lost before a reply"),
        ("reset", None, True, "the connection was lost"),
        ("malformed", None, True, "is not JSON"),
        ("truncated", None, True, "the connection was lost"),
        ("empty", None, True, "no choice|ended in mid-reply"),
        ("odd", None, True, "no known form"),
        ("error", 500, True, "the engine died"),
    ],
)
async def test_a_fault_of_the_server(server, granted, modes, status, retryable, says, stream):
    error = await fault(granted, server.address(modes), stream=stream)
    assert error.status == (None if stream and modes == "error" else status)
    assert error.retryable is retryable
    assert error.sent
    assert error.retry_after == (7.0 if "after" in modes else None)
    with pytest.raises(BackendError, match=says):
        raise error


async def test_a_stream_that_ends_properly_in_mid_reply(server, granted):
    error = await fault(granted, server.address("broken-off"))
    assert error.retryable
    assert "the stream ended in mid-reply" in str(error)


async def test_a_stream_may_lack_its_done(server, granted):
    model = OpenAIModel("toy", base_url=server.address("no-done"))
    assert (await model.generate(QUESTION, granted(99)))["finish_reason"] == "stop"
    await model.aclose()


async def test_a_stream_that_breaks_off_says_how_far_it_came(server, granted):
    error = await fault(granted, server.address("w40,truncated"))
    with pytest.raises(BackendError, match="lost in mid-reply, after 20 tokens"):
        raise error


@pytest.mark.parametrize("stream", [True, False])
async def test_a_connection_that_was_closed_meanwhile_is_replaced(server, granted, stream):
    model = OpenAIModel("toy", base_url=server.address("stale"), stream=stream, max_retries=0)
    calls = server.counts["calls"]
    for _ in range(3):
        assert (await model.generate(QUESTION, granted(99)))["usage"]["calls"] == 1
    assert server.counts["calls"] == calls + 5  # two of them met a connection that was over
    await model.aclose()


async def test_a_redirect_is_not_followed(server, granted):
    calls = server.stats().get("calls", 0)
    await fault(granted, server.address("status307"))  # with the key and all headers
    assert server.stats()["calls"] == calls + 1


# -- silence ---------------------------------------------------------------------------------------

FOR_EVER = float("inf")
SHORT = 0.2
LONGER = 2.0  # where tokens come before the silence: on a busy machine they may be slow


async def silence(server, granted, modes, **options):
    """The error of one call, after the server has seen its connection close."""
    before = server.counts["open"]
    model = OpenAIModel("toy", base_url=server.address(modes), **options)
    with pytest.raises(BackendError) as info:
        await model.generate(QUESTION, granted(99))
    while server.counts["open"] > before:
        await asyncio.sleep(0.001)
    await model.aclose()
    assert (info.value.retryable, info.value.sent, info.value.status) == (True, True, None)
    return str(info.value)


@pytest.mark.parametrize(
    ("modes", "limits", "says"),
    [
        ("hang", {"first_token_timeout": SHORT}, "no token within 0.2 s (first_token_timeout)"),
        ("alive", {"first_token_timeout": SHORT}, "no token within 0.2 s (first_token_timeout)"),
        ("alive", {"timeout": SHORT}, "no token within 0.2 s (first_token_timeout)"),
        (
            "stall,w40",
            {"timeout": LONGER, "first_token_timeout": FOR_EVER},
            "the reply stalled: 20 tokens, then none for 2 s (timeout)",
        ),
    ],
)
async def test_silence_in_a_stream_ends_it(server, granted, modes, limits, says):
    assert await silence(server, granted, modes, **limits) == f"toy: {says}"


@pytest.mark.parametrize("modes", ["hang", "alive", "stall,w40"])
async def test_silence_instead_of_a_whole_reply_ends_it(server, granted, modes):
    limits = {"timeout": SHORT, "first_token_timeout": 1e-9, "stream": False}
    said = await silence(server, granted, modes, **limits)
    assert said == "toy: no reply within 0.2 s (timeout)"


@pytest.mark.parametrize("stream", [True, False])
async def test_slow_tokens_are_no_silence(server, granted, stream):
    limits = {"timeout": LONGER, "first_token_timeout": LONGER} if stream else {"timeout": 60}
    model = OpenAIModel("toy", base_url=server.address("slow,w120"), stream=stream, **limits)
    reply = await model.generate(QUESTION, granted(199))  # 120 tokens, 20 ms apart: more than 2 s
    assert reply["usage"]["completion_tokens"] == 120
    await model.aclose()


async def test_a_usage_that_never_comes_costs_no_reply(server, granted):
    url = server.address("late-usage")
    model = OpenAIModel("toy", base_url=url, timeout=LONGER, first_token_timeout=60)
    reply = await model.generate(QUESTION, granted(99))
    assert reply["finish_reason"] == "stop"
    assert reply["usage"]["estimated"]
    await model.aclose()


async def test_a_connection_that_never_stands(granted):
    with socket.socket() as busy, contextlib.ExitStack() as held:
        busy.bind(("127.0.0.1", 0))
        busy.listen(0)
        for _ in range(4):  # all that wait for `accept`; further ones are not even answered
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(busy.getsockname())
        url = f"http://127.0.0.1:{busy.getsockname()[1]}/v1"
        error = await fault(granted, url, connect_timeout=SHORT)
        assert str(error) == "toy: no connection within 0.2 s (connect_timeout)"
        assert (error.retryable, error.sent) == (True, False)
        short = {"first_token_timeout": SHORT}  # which cannot be kept without a connection
        assert not (await fault(granted, url, **short)).sent


async def test_a_cancelled_call_is_no_fault(server, granted):
    model = OpenAIModel("toy", base_url=server.address("hang"), timeout=60)
    lost, in_flight = server.counts["lost"], server.counts["in_flight"]
    task = asyncio.create_task(model.generate(QUESTION, granted(99)))
    while server.counts["in_flight"] == in_flight:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    while server.counts["lost"] == lost:
        await asyncio.sleep(0.001)
    await model.aclose()


@pytest.mark.parametrize("field", ["connect_timeout", "first_token_timeout", "timeout"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), True, "60"])
def test_a_time_that_is_none(field, value):
    with pytest.raises(ConfigurationError, match=f"^{field}: "):
        OpenAIModel("toy", **{field: value})


# -- what is not sent, and when to come back -------------------------------------------------------


async def test_a_key_that_cannot_be_sent_is_not_shown(granted):
    for key in ("sk-hidden\nsk-hidden", "sk-hidden-ключ"):
        model = OpenAIModel("toy", base_url="http://127.0.0.1:1/v1", api_key=key)
        with pytest.raises(ConfigurationError, match=r"^api_key: ") as info:
            await model.generate(QUESTION, granted(9))
        assert "hidden" not in "".join(traceback.format_exception(info.value))
    headers = {"x-secret": "hidden\nvalue"}
    model = OpenAIModel("toy", base_url="http://127.0.0.1:1/v1", extra_headers=headers)
    with pytest.raises(ConfigurationError, match=r"^headers.x-secret: ") as info:
        await model.generate(QUESTION, granted(9))
    assert "hidden" not in "".join(traceback.format_exception(info.value))


async def test_blanks_around_a_key_are_no_part_of_it(server, granted):
    error = await fault(granted, server.address("echo-key"))
    model = OpenAIModel("toy", base_url=server.address("echo-key"), api_key=f" {KEY}\n")
    with pytest.raises(BackendError) as info:
        await model.generate(QUESTION, granted(9))
    assert str(info.value) == str(error)
    await model.aclose()


async def test_nothing_was_sent_where_nobody_listens(granted):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        error = await fault(granted, f"http://127.0.0.1:{held.getsockname()[1]}/v1")
    assert (error.retryable, error.sent) == (True, False)


async def test_an_overloaded_server_answers_later(server, granted):
    for _ in range(2):
        error = await fault(granted, server.address("flaky2"))
        assert (error.status, error.retry_after) == (503, 0.0)
    model = OpenAIModel("toy", base_url=server.address("flaky2"), max_retries=0)
    assert (await model.generate(QUESTION, granted(99)))["usage"]["calls"] == 1
    await model.aclose()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2.5"}, 2.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "1m30s"}, 90.0),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
    ],
)
def test_the_time_to_wait(headers, seconds):
    assert _retry_after(httpx2.Headers(headers)) == seconds


def test_a_date_to_wait_for(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1445412470.0)
    date = httpx2.Headers({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"})
    assert _retry_after(date) == 10.0


@pytest.mark.parametrize(
    ("error", "status", "retryable"),
    [
        ("broken", None, True),
        ({"message": "m"}, None, True),
        ({"message": "m", "code": 429}, 429, True),
        ({"message": "m", "code": "400"}, 400, False),
        ({"message": "m", "type": "invalid_request_error"}, None, False),
        ({"message": "m", "type": "server_error"}, None, True),
        ({"message": "m", "code": "rate_limit_exceeded"}, None, True),
        ({"message": "m", "code": 7}, None, False),
    ],
)
def test_an_error_object_without_a_status_of_its_own(error, status, retryable):
    told = Faults("toy").told(error)
    assert (told.status, told.retryable) == (status, retryable)


def test_a_long_message_is_shortened():
    assert len(str(Faults("toy").told({"message": "x" * 5000}))) < 1100
