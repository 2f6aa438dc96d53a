"""Every way a Chat Completions server can fail, and what becomes of it."""

from __future__ import annotations

import socket
import time
import traceback

import httpx2
import pytest

from longthought.errors import BackendError
from longthought.orchestrator.models import OpenAIModel
from longthought.orchestrator.models.openai_errors import Faults, _retry_after

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
        ("status400", 400, False, "refused with 400"),
        ("status404", 404, False, "refused with 404"),
        ("status408", 408, True, "refused with 408"),
        ("status409", 409, True, "refused with 409"),
        ("status422", 422, False, "refused with 422"),
        ("status429", 429, True, "refused with 429"),
        ("status500", 500, True, "refused with 500"),
        ("status503", 503, True, "refused with 503"),
        ("context", 400, False, "does not fit the model's context window"),
        ("echo-key", 401, False, r"refused the API key \(401\): .* Bearer \*\*\*"),
        ("drop", None, True, "the connection was lost"),
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
    assert error.retry_after == (7.0 if "status" in modes else None)
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


@pytest.mark.parametrize("stream", [True, False])
async def test_silence_runs_into_the_timeout(server, granted, stream):
    error = await fault(granted, server.address("hang"), timeout=0.05, stream=stream)
    assert "no answer in time" in str(error)
    assert (error.retryable, error.sent) == (True, True)


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
