"""Running tools: every failure becomes a result, and nothing but cancellation comes through."""

import asyncio
import dataclasses
import datetime
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longthought.errors import Suspended
from longthought.tools import (
    ToolCall,
    ToolContext,
    ToolResult,
    ToolSpec,
    parse_arguments,
    redactor,
    run_tool,
    running,
    tool,
)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(running, "BACKOFF_S", 0)


TIMEOUT = 0.01


async def run(function, *, arguments=None, timeout=None, deps=None, redact=None, **options):
    call = ToolCall("c1", "it", arguments or {})
    it = tool(name="it", description="It.", **{"effect": "read"} | options)(function)
    return await run_tool(it, call, timeout=timeout, deps=deps, redact=redact)


async def run_briefly(function, *, within=None, **options):
    """Under a time limit of the tool's own, for functions that do not end by themselves."""
    call = ToolCall("c1", "it", {})
    it = tool(name="it", description="It.", **{"effect": "read", "timeout": TIMEOUT} | options)
    return await run_tool(it(function), call, timeout=within)


# --- arguments ---------------------------------------------------------------------------------


@tool(effect="read")
async def count(of: str, limit: int = 3) -> int:
    """Count."""
    return limit


@tool(effect="read")
async def nothing() -> str:
    """Nothing."""
    return ""


def test_arguments_come_back_as_written():
    assert parse_arguments(count, '{"of": "x", "limit": "4"}') == {"of": "x", "limit": "4"}
    assert parse_arguments(count.spec, '{"of": "x"}') == {"of": "x"}


@pytest.mark.parametrize("raw", ["", "  \n", "{}"])
def test_no_text_stands_for_no_arguments(raw):
    assert parse_arguments(nothing, raw, finish_reason="tool_calls") == {}


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ("", "of: is missing"),
        ("{", "not valid JSON"),
        ("[1]", "must be a JSON object, not list"),
        ("null", "must be a JSON object"),
        ('{"of": NaN}', "NaN is no JSON value"),
        ('{"of": "x", "limit": "many"}', "limit"),
        ('{"of": "x", "other": 1}', "other: there is no such argument"),
        ("[" * 100_000, "not valid JSON"),
        ('{"of": "' + "x" * 1_000_001 + '"}', "exceed"),
        ('{"of": "x", "limit": ' + "9" * 5000 + "}", "not valid JSON"),
    ],
)
def test_bad_arguments_say_what_is_wrong(raw, told):
    result = parse_arguments(count, raw)
    assert isinstance(result, ToolResult)
    assert result.status == "bad_args"
    assert told in result.content


@pytest.mark.parametrize("finish_reason", ["length", "cut"])
@pytest.mark.parametrize("raw", ["", '{"of": "x', '{"of"'])
def test_arguments_cut_by_a_limit_are_told_apart(raw, finish_reason):
    result = parse_arguments(count, raw, finish_reason=finish_reason)
    assert isinstance(result, ToolResult)
    assert result.status == "truncated_args"


def test_complete_arguments_count_even_when_the_reply_was_cut_after_them():
    assert parse_arguments(count, '{"of": "x"}', finish_reason="length") == {"of": "x"}


@given(st.text(max_size=200))
def test_any_text_is_answered(raw):
    result = parse_arguments(count, raw)
    assert isinstance(result, dict) or result.status == "bad_args"


class Plain:
    """A tool that is no function and does not check its arguments."""

    spec = ToolSpec(
        "plain",
        "Plain.",
        {"properties": {"a": {}}, "required": ["a"], "additionalProperties": False},
        effect="read",
    )

    async def call(self, arguments, context):
        return arguments["a"]

    async def aclose(self):
        pass


async def test_a_tool_without_its_own_check_gets_the_outline_of_its_schema():
    for arguments, told in [({}, "a: is missing"), ({"a": 1, "b": 2}, "b: there is no")]:
        result = await run_tool(Plain(), ToolCall("c", "plain", arguments))
        assert result.status == "bad_args"
        assert told in result.content
    assert (await run_tool(Plain(), ToolCall("c", "plain", {"a": "x"}))).content == "x"


# --- results -----------------------------------------------------------------------------------


@dataclasses.dataclass
class Point:
    x: int


@pytest.mark.parametrize(
    ("value", "content", "data"),
    [
        ("text", "text", None),
        (None, "null", None),
        (3, "3", 3),
        (True, "true", True),
        ({"a": [1, "é"]}, '{"a": [1, "é"]}', {"a": [1, "é"]}),
        (Point(2), '{"x": 2}', {"x": 2}),
        (datetime.date(2026, 1, 2), '"2026-01-02"', "2026-01-02"),
        (float("nan"), '"NaN"', "NaN"),
        ({1: 2}, '{"1": 2}', {"1": 2}),
    ],
)
async def test_values_become_text_for_the_model_and_json_for_code(value, content, data):
    async def give():
        return value

    result = await run(give)
    assert (result.status, result.content, result.data) == ("ok", content, data)


async def test_what_is_not_json_is_shown_as_text():
    result = await run(lambda: object)
    assert result.status == "ok"
    assert result.data is None
    assert "object" in result.content


async def test_circular_values_are_shown_as_text():
    async def give():
        circle: list = []
        circle.append(circle)
        return circle

    assert (await run(give)).content == "[[...]]"


async def test_a_tool_may_return_a_result_of_its_own():
    async def give():
        return ToolResult("denied", "no", {"why": Point(1)}, layers=["jail"], cost_usd=0.5)

    result = await run(give, cost_usd=0.1)
    assert (result.status, result.layers, result.cost_usd) == ("denied", ["jail"], 0.5)
    assert result.data == {"why": {"x": 1}}


async def test_long_results_are_cut_and_say_so():
    async def give():
        return "x" * 50_000

    result = await run(give, max_result_chars=500)
    assert result.truncated
    assert result.total_chars == 50_000
    assert len(result.content) <= 500
    shown = result.content.split("\n")[0]
    assert result.content.endswith(
        f"[cut: the result has 50000 characters, these are the first {len(shown)}]"
    )


async def test_a_result_at_the_limit_is_whole():
    async def give():
        return "x" * 500

    result = await run(give, max_result_chars=500)
    assert not result.truncated
    assert result.total_chars == 0


@pytest.mark.parametrize("unit", ["e\u0301", "👩\u200d👩\u200d👧", "漢", "a"])
async def test_cuts_do_not_split_a_character_from_its_marks(unit):
    async def give():
        return unit * 400

    result = await run(give, max_result_chars=300)
    body = result.content.split("\n[cut")[0]
    rest = (unit * 400)[len(body) :]
    assert rest[0] not in ("\u0301", "\u200d")


async def test_large_data_is_dropped_with_its_text():
    async def give():
        return ["x" * 1000] * 200

    result = await run(give)
    assert result.truncated
    assert result.data is None


async def test_lone_surrogates_and_nul_do_not_break_the_record():
    async def give():
        return {"a": "\ud800", "b": "\x00"}

    result = await run(give)
    json.dumps(result.to_json(), ensure_ascii=False).encode()


async def test_deps_and_context_reach_the_tool():
    async def give(context: ToolContext):
        return f"{context.call_id} {context.deps}"

    assert (await run(give, deps=7)).content == "c1 7"


async def test_cost_counts_every_attempt():
    async def fail():
        raise ConnectionError("down")

    result = await run(fail, retries=2, cost_usd=0.1)
    assert result.cost_usd == pytest.approx(0.3)
    assert result.attempt == 3


# --- failures ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "content"),
    [
        (ValueError("bad"), "ValueError: bad"),
        (KeyError("k"), "KeyError: 'k'"),
        (RuntimeError(), "RuntimeError"),
        (SystemExit(3), "SystemExit: 3"),
        (ExceptionGroup("many", [ValueError("x")]), "ExceptionGroup: many (1 sub-exception)"),
        (TimeoutError("its own"), "TimeoutError: its own"),
    ],
)
@pytest.mark.parametrize("threaded", [False, True])
async def test_exceptions_become_results_without_a_traceback(error, content, threaded):
    async def fail():
        raise error

    def fail_in_thread():
        raise error

    result = await run(fail_in_thread if threaded else fail)
    assert (result.status, result.content) == ("tool_error", content)
    assert "File" not in result.content


async def test_an_exception_that_cannot_be_shown():
    class Spiteful(Exception):
        def __str__(self):
            raise ValueError

    async def fail():
        raise Spiteful

    assert (await run(fail)).content.startswith("Spiteful")


async def test_very_long_messages_are_cut():
    async def fail():
        raise ValueError("x" * 100_000)

    assert len((await run(fail)).content) < 3000


async def test_failures_that_may_pass_are_tried_again():
    tries = []

    async def flaky():
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError("down")
        return "up"

    result = await run(flaky, retries=5)
    assert (result.status, result.content, result.attempt) == ("ok", "up", 3)


@pytest.mark.parametrize("error", [ValueError("x"), ZeroDivisionError("x"), TypeError("x")])
async def test_mistakes_are_not_tried_again(error):
    tries = []

    async def fail():
        tries.append(1)
        raise error

    result = await run(fail, retries=5)
    assert len(tries) == 1
    assert not result.retryable


async def test_an_error_may_say_itself_whether_it_passes():
    class Busy(ValueError):
        retryable = True

    tries = []

    async def fail():
        tries.append(1)
        raise Busy

    await run(fail, retries=1)
    assert len(tries) == 2


async def test_writes_are_never_retryable():
    async def fail():
        raise ConnectionError("lost")

    result = await run(fail, effect="write")
    assert (result.status, result.retryable, result.attempt) == ("tool_error", False, 1)


# --- time and cancellation ---------------------------------------------------------------------


async def never():
    await asyncio.Event().wait()


async def test_an_attempt_that_takes_too_long_is_a_timeout():
    result = await run_briefly(never, within=30)
    assert (result.status, result.retryable) == ("timeout", True)
    assert result.content == "it did not finish within 0.01 s."


async def test_timeouts_are_retried_for_reads_alone():
    assert (await run_briefly(never, retries=1)).attempt == 2
    result = await run_briefly(never, effect="write")
    assert not result.retryable
    assert "may or may not" in result.content


async def test_the_callers_timeout_covers_everything():
    result = await run(never, timeout=0.01, retries=100_000)
    assert result.status == "timeout"
    result = await run(never, timeout=0)
    assert result.status == "timeout"
    assert result.attempt == 1


async def test_a_tool_that_swallows_its_timeout_is_not_believed_to_have_timed_out():
    async def stubborn():
        try:
            await never()
        except asyncio.CancelledError:
            return "late"

    assert (await run_briefly(stubborn)).status in ("ok", "timeout")


async def test_cancellation_comes_through_and_reaches_the_tool():
    began, ended = asyncio.Event(), asyncio.Event()

    async def wait():
        began.set()
        try:
            await never()
        finally:
            ended.set()

    task = asyncio.create_task(run(wait, timeout=30))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_a_tool_that_cancels_itself_is_a_result():
    async def give_up():
        raise asyncio.CancelledError

    assert (await run(give_up)).status == "cancelled"


async def test_what_steers_the_run_comes_through():
    async def suspend():
        raise Suspended("name", "key")

    with pytest.raises(Suspended):
        await run(suspend)


async def test_places_are_limited_and_come_free_after_failures():
    inside, most = 0, 0

    @tool(effect="read", max_concurrency=2)
    async def busy() -> str:
        """Busy."""
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0)
        inside -= 1
        raise ValueError

    results = await asyncio.gather(*[run_tool(busy, ToolCall("c", "busy", {})) for _ in range(9)])
    assert most == 2
    assert {result.status for result in results} == {"tool_error"}


async def test_waiting_for_a_place_counts_against_the_callers_timeout():
    @tool(effect="read", max_concurrency=1)
    async def held() -> str:
        """Hold."""
        await never()
        return ""

    call = ToolCall("c", "held", {})
    first = asyncio.create_task(run_tool(held, call))
    await asyncio.sleep(0)
    result = await run_tool(held, call, timeout=0.01)
    assert (result.status, result.attempt) == ("timeout", 1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first


def test_places_belong_to_a_loop():
    @tool(effect="read", max_concurrency=1)
    async def one() -> str:
        """One."""
        await asyncio.sleep(0)
        return "ok"

    async def both():
        call = ToolCall("c", "one", {})
        return [r.status for r in await asyncio.gather(run_tool(one, call), run_tool(one, call))]

    assert asyncio.run(both()) == asyncio.run(both()) == ["ok", "ok"]


# --- secrets -----------------------------------------------------------------------------------


async def test_secrets_are_taken_out_of_text_and_data_and_errors():
    redact = redactor(["hunter2", "", "hunter2-long"])

    async def leak():
        return {"hunter2-long": ["a hunter2 b"]}

    async def fail():
        raise ValueError("password hunter2 refused")

    result = await run(leak, redact=redact)
    assert "hunter2" not in json.dumps(result.to_json())
    assert result.data == {"[redacted]": ["a [redacted] b"]}
    assert (await run(fail, redact=redact)).content == "ValueError: password [redacted] refused"
