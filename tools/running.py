"""Running a tool: raw arguments to checked ones, a call to a result that never raises."""

from __future__ import annotations

import asyncio
import json
import time
import unicodedata
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import NoReturn

from pydantic_core import to_jsonable_python

from longthought.errors import InvalidInput, LongthoughtError
from longthought.tools.loops import PerLoop
from longthought.tools.protocol import (
    EarlyContext,
    Tool,
    ToolCall,
    ToolContext,
    ToolResult,
    ToolSpec,
)
from longthought.types import JSON, FinishReason, JSONObject

__all__ = ["Redact", "late_result", "parse_arguments", "redactor", "run_tool", "told_result"]

ReplyTo = tuple[str, str, str]
"""A run, and the name and key of the signal by which it hears of a result."""

Redact = Callable[[str], str]
"""A function that takes secrets out of a text before the run sees it."""

MAX_RAW_CHARS = 1_000_000
MAX_DATA_CHARS = 100_000
MAX_ERROR_CHARS = 2_000
BACKOFF_S = 0.05
MAX_BACKOFF_S = 2.0

# The same next time, whatever we do: a mistake in the arguments or in the tool's code.
_LASTING = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    InvalidInput,
    LookupError,
    NotImplementedError,
    TypeError,
    ValueError,
)


def parse_arguments(
    tool: Tool | ToolSpec, raw: str, *, finish_reason: FinishReason | None = None
) -> JSONObject | ToolResult:
    """The arguments a model wrote as JSON text, checked, or the result that tells it what is wrong.

    The arguments come back as written, so that checking them again gives the same. A text that
    does not parse is ``truncated_args`` after ``finish_reason`` ``length`` or ``cut``, else
    ``bad_args``. An empty one stands for no arguments.
    """
    if len(raw) > MAX_RAW_CHARS:
        return ToolResult("bad_args", f"The arguments exceed {MAX_RAW_CHARS} characters.")
    cut = finish_reason in ("length", "cut")
    if not raw.strip() and not cut:
        raw = "{}"
    try:
        arguments = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        if cut:
            text = (
                "The arguments were cut off because the reply reached its length limit. "
                "The tool was not called. Write a shorter call."
            )
            return ToolResult("truncated_args", text)
        return ToolResult("bad_args", f"The arguments are not valid JSON: {_json_problem(error)}.")
    if not isinstance(arguments, dict):
        kind = type(arguments).__name__
        return ToolResult("bad_args", f"The arguments must be a JSON object, not {kind}.")
    return _checked(tool, arguments) or arguments


async def run_tool(
    tool: Tool,
    call: ToolCall,
    *,
    timeout: float | None = None,  # noqa: ASYNC109 (a status comes of it, not an exception)
    deps: object | None = None,
    redact: Redact | None = None,
    reply_to: ReplyTo | None = None,
    early: bool = False,
) -> ToolResult:
    """Call a tool and turn whatever happens into a result.

    Each attempt is limited by the tool's own ``timeout_s``; ``timeout`` (seconds) limits everything
    together: waiting for one of ``max_concurrency`` places, attempts and the pauses between them.
    Failures that may pass are tried again ``retries`` times, for repeatable tools alone. Text is
    cut to ``max_result_chars``. ``redact`` sees every text and all data first. ``reply_to`` is
    where the result of a call that is left pending goes; of one that is ``early`` it is not known
    yet.

    Raises:
        asyncio.CancelledError: the calling task was cancelled.
        ControlFlow: raised by the tool to steer the run; it is no failure. Of an ``early`` call
            :class:`~longthought.errors.Provisional`, if it asks where its result is to go.
    """
    started = time.monotonic()
    spec = tool.spec
    result = _checked(tool, call.arguments)
    if result is None:
        kind = EarlyContext if early else ToolContext
        context = kind(call.call_id, call.idempotency_key, deps, *(reply_to or ()))
        job = _Job(tool, call.arguments, context)
        limit = asyncio.timeout(timeout)
        try:
            async with limit, _place(tool):
                result = await _attempts(job)
        except TimeoutError:
            if not limit.expired():  # never from the tool: attempts turn that into a result
                raise
            result = _timed_out(spec, timeout or 0.0, job.attempt)
        result = replace(result, cost_usd=result.cost_usd or spec.cost_usd * job.attempt)
    result = _presented(result, spec.max_result_chars, redact)
    return replace(result, wait_s=round(time.monotonic() - started, 6))


def told_result(spec: ToolSpec, value: JSON) -> ToolResult:
    """The result of a pending call, from what was sent for it.

    ``{"error": text}`` says that it failed; anything else is what the tool would have returned.
    """
    if isinstance(value, dict) and value.keys() == {"error"} and isinstance(value["error"], str):
        result = ToolResult("tool_error", value["error"])
    else:
        result = _result_of(value)
    return _presented(result, spec.max_result_chars, None)


def late_result(spec: ToolSpec, seconds: float) -> ToolResult:
    """The result of a pending call for which nothing was sent within so many seconds."""
    return _timed_out(spec, seconds, 1)


def redactor(secrets: Iterable[str]) -> Redact:
    """A :data:`Redact` that replaces known secrets by ``[redacted]``; empty ones are ignored."""
    # Longest first: a secret that contains another must not leave its own rest behind.
    known = sorted({secret for secret in secrets if secret}, key=len, reverse=True)

    def redact(text: str) -> str:
        for secret in known:
            text = text.replace(secret, "[redacted]")
        return text

    return redact


@dataclass(slots=True)
class _Job:
    """One call on its way: how many attempts were begun is needed even when it is cut short."""

    tool: Tool
    arguments: JSONObject
    context: ToolContext
    attempt: int = 0


async def _attempts(job: _Job) -> ToolResult:
    """Attempt after attempt until one succeeds, fails for good, or none is left."""
    spec = job.tool.spec
    while True:
        job.attempt += 1
        result = await _attempt(job)
        if not result.retryable or job.attempt > spec.retries:
            return result
        await asyncio.sleep(min(BACKOFF_S * 2 ** (job.attempt - 1), MAX_BACKOFF_S))


async def _attempt(job: _Job) -> ToolResult:
    """One attempt. Only cancellation from outside and what steers the run pass through."""
    spec = job.tool.spec
    task = asyncio.current_task()
    cancels = task.cancelling() if task else 0
    limit = asyncio.timeout(spec.timeout_s)
    try:
        async with limit:
            value = await job.tool.call(job.arguments, job.context)
            return replace(_result_of(value), attempt=job.attempt)
    except asyncio.CancelledError:
        if task is None or task.cancelling() > cancels:
            raise
        return ToolResult("cancelled", f"{spec.name} cancelled itself.", attempt=job.attempt)
    except (Exception, SystemExit) as error:
        if isinstance(error, TimeoutError) and limit.expired():
            return _timed_out(spec, spec.timeout_s, job.attempt)
        lasting = isinstance(error, (*_LASTING, SystemExit))
        passing = bool(getattr(error, "retryable", not lasting))
        return ToolResult(
            "tool_error",
            _describe(error),
            attempt=job.attempt,
            retryable=passing and spec.repeatable,
        )


def _timed_out(spec: ToolSpec, seconds: float, attempt: int) -> ToolResult:
    """The result of a call that took too long."""
    text = f"{spec.name} did not finish within {seconds:g} s."
    if spec.effect in ("write", "irreversible"):
        text += " It may or may not have taken effect."
    return ToolResult("timeout", text, attempt=max(attempt, 1), retryable=spec.repeatable)


def _describe(error: BaseException) -> str:
    """Type and message of an exception, no traceback: it would tell the model about our machine."""
    try:
        message = str(error).strip()
    except Exception:
        message = "(its message cannot be shown)"
    if isinstance(error, LongthoughtError) and message:
        text = message
    else:
        text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return text if len(text) <= MAX_ERROR_CHARS else text[:MAX_ERROR_CHARS] + " ..."


# Semaphores by tool for each loop. The tool is kept beside its semaphore so that its id stays its.
_places: PerLoop[dict[int, tuple[Tool, asyncio.Semaphore]]] = PerLoop(dict)


def _place(tool: Tool) -> AbstractAsyncContextManager[None]:
    """One of the tool's places on the running loop."""
    limit = tool.spec.max_concurrency
    if limit is None:
        return nullcontext()
    places = _places.get()
    if id(tool) not in places:
        places[id(tool)] = (tool, asyncio.Semaphore(limit))
    return places[id(tool)][1]


def _checked(tool: Tool | ToolSpec, arguments: JSONObject) -> ToolResult | None:
    """A ``bad_args`` result when the arguments cannot be used."""
    # isinstance with ValidatingTool says the same at a hundred times the cost.
    validate = getattr(tool, "validate", None)
    if validate is None:
        spec = tool if isinstance(tool, ToolSpec) else tool.spec
        problem = _outline_problem(spec.parameters, arguments)
    else:
        try:
            validate(arguments)
            return None
        except InvalidInput as error:
            problem = error.problem
        except Exception as error:  # a tool's own check may fail in any way
            problem = _describe(error)
    return ToolResult("bad_args", f"The arguments cannot be used: {problem}.") if problem else None


def _outline_problem(schema: JSONObject, arguments: JSONObject) -> str:
    """What is wrong by the outline of a schema: names missing, names unknown."""
    missing = [name for name in schema.get("required", ()) if name not in arguments]
    if missing:
        return f"{', '.join(missing)}: is missing"
    if schema.get("additionalProperties") is False:
        unknown = [name for name in arguments if name not in schema.get("properties", {})]
        if unknown:
            return f"{', '.join(unknown)}: there is no such argument"
    return ""


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _json_problem(error: Exception) -> str:
    """What a JSON parser complained of, without the document."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos + 1}"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _result_of(value: object) -> ToolResult:
    """A tool's return value as a result: text for the model, JSON for code."""
    if isinstance(value, ToolResult):
        return replace(value, data=_jsonable(value.data)[0])
    if isinstance(value, str):
        return ToolResult("ok", value)
    data, text = _jsonable(value)
    return ToolResult("ok", str(value) if text is None else text, data)


def _jsonable(value: object) -> tuple[JSON, str | None]:
    """A value as JSON data, None when too long to be kept, and as text, None when not JSON-able."""
    if value is None:
        return None, "null"
    try:
        # JSON has no NaN and no Infinity: they become text.
        data = json.loads(json.dumps(to_jsonable_python(value)), parse_constant=str)
        text = json.dumps(data, ensure_ascii=False)
    except (ValueError, TypeError, RecursionError):
        return None, None
    return data if len(text) <= MAX_DATA_CHARS else None, text


def _presented(result: ToolResult, limit: int, redact: Redact | None) -> ToolResult:
    """The result with secrets taken out, the text encodable and cut to the limit."""
    content = _encodable(result.content)
    data = _each_text(result.data, _encodable)
    if redact is not None:
        content, data = redact(content), _each_text(data, redact)
    total = len(content)
    if total <= limit:
        return replace(result, content=content, data=data)
    content = _cut(content, limit)
    return replace(result, content=content, data=data, truncated=True, total_chars=total)


def _cut(text: str, limit: int) -> str:
    """The beginning of a text and a notice, together at most ``limit`` characters."""
    notice = f"\n[cut: the result has {len(text)} characters, these are the first {{}}]"
    end = max(limit - len(notice) - len(str(limit)), 0)
    # Not between a letter and the marks that belong to it; a few steps back are always enough.
    for _ in range(16):
        if end == 0 or not _belongs_to_previous(text[end]):
            break
        end -= 1
    return text[:end] + notice.format(end)


def _belongs_to_previous(character: str) -> bool:
    """Combining marks, joiners and variation selectors are no character of their own."""
    return unicodedata.category(character) in ("Mn", "Me", "Mc") or character == "\u200d"


def _encodable(text: str) -> str:
    """The text without lone surrogates, which neither a database nor a server accepts."""
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()


def _each_text(value: JSON, change: Redact) -> JSON:
    """A JSON value with every text in it, keys too, changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_each_text(one, change) for one in value]
    if isinstance(value, dict):
        return {change(key): _each_text(one, change) for key, one in value.items()}
    return value
