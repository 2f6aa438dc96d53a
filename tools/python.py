"""The tool ``python``: runs code in Monty, a Python interpreter with no way out of its process.

Monty knows most of the language and a part of the standard library. It has no access to files,
network, environment or other processes; time, memory and recursion are limited. The workers are
separate processes, so a crash there does no harm here.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from longthought.errors import InvalidInput
from longthought.tools.imports import without_unused_imports
from longthought.tools.loops import PerLoop
from longthought.tools.protocol import ToolContext, ToolResult, ToolSpec
from longthought.types import JSONObject

if TYPE_CHECKING:
    import pydantic_monty

__all__ = ["PythonTool", "python"]

LAYERS = ["monty"]
MAX_CODE_CHARS = 100_000
MAX_OUTPUT_BYTES = 1_000_000
MAX_RECURSION = 500
START_S = 20.0  # for the worker process to start, on top of the code's own time
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)

MODULES = (
    "asyncio base64 bisect collections copy csv dataclasses datetime decimal functools hashlib "
    "itertools json math pathlib random re time tomllib typing"
)
_DESCRIPTION = (
    "Run Python code and return what it prints and the value of its last expression. "
    "Every call starts afresh: no variables are kept. There are no files, no network and no "
    f"installed packages. Modules: {MODULES.replace(' ', ', ')}. "
    "Not available: yield, del, class inheritance, input, numpy, sympy, fractions."
)
_FENCE = re.compile(r"\s*```[\w+-]*[ \t]*\n(.*?)\n?```\s*", re.DOTALL)
_NO_MODULE = re.compile(r"No module named '([\w.]+)'")
_TOO_LONG = re.compile(r"^TimeoutError: \w+ time limit exceeded")
_NOT_YET = re.compile(r"does not yet support (.+)")


def python(*, seconds: float = 5.0, memory_mb: int = 64, seed: int = 0) -> PythonTool:
    """The tool ``python``. Its effect is pure: no clock, no real randomness, nothing outside.

    Each call runs in a fresh session of a pool of workers, started on first use. ``seconds`` of
    running time and ``memory_mb`` megabytes are what one call may use. ``random`` starts from
    ``seed``, the clock stands still at the beginning of 2026, sleeping returns at once. Imports
    that are not used are left out, since programs often import what Monty lacks and never use it.
    Close the tool with ``aclose`` when you are done; the workers also end with this process.

    Raises:
        InvalidInput: a limit is not above zero.
    """
    return PythonTool(seconds=seconds, memory_mb=memory_mb, seed=seed)


class PythonTool:
    """See :func:`python`."""

    def __init__(self, *, seconds: float = 5.0, memory_mb: int = 64, seed: int = 0) -> None:
        if not 0 < seconds < float("inf"):
            raise InvalidInput("seconds", f"{seconds!r} is not above zero")
        if memory_mb < 1:
            raise InvalidInput("memory_mb", f"{memory_mb!r} is below 1")
        options: JSONObject = {"seconds": seconds, "memory_mb": memory_mb, "seed": seed}
        code = {"type": "string", "description": "The program. Print what you want to see."}
        self.spec = ToolSpec(
            name="python",
            description=_DESCRIPTION,
            parameters={
                "type": "object",
                "properties": {"code": code},
                "required": ["code"],
                "additionalProperties": False,
            },
            effect="pure",
            timeout_s=seconds + START_S,
            version="1",
            options=options,
        )
        self._limits: pydantic_monty.ResourceLimits = {
            "max_feed_duration_secs": seconds,
            "max_memory": memory_mb * 1024 * 1024,
            "max_recursion_depth": MAX_RECURSION,
        }
        self._policy: pydantic_monty.OSPolicy = {
            "datetime": EPOCH,
            "sleep": "zero",
            "random_start": {"seed": seed},
        }
        self._pool: pydantic_monty.AsyncMonty | None = None
        self._starting = PerLoop(asyncio.Lock)

    def validate(self, arguments: JSONObject) -> None:
        """Check that there is code, and nothing else.

        Raises:
            InvalidInput: the message is written for the model.
        """
        if unknown := sorted(set(arguments) - {"code"}):
            raise InvalidInput("arguments", f"{', '.join(unknown)}: there is no such argument")
        code = arguments.get("code")
        if not isinstance(code, str) or not code.strip():
            raise InvalidInput("arguments", "code: a program as text is needed")
        if len(code) > MAX_CODE_CHARS:
            raise InvalidInput("arguments", f"code: longer than {MAX_CODE_CHARS} characters")

    async def call(self, arguments: JSONObject, context: ToolContext) -> ToolResult:
        """Run the code in a fresh session. Failures of the code are results, not exceptions."""
        self.validate(arguments)
        code = without_unused_imports(_unfenced(arguments["code"]))
        try:
            pool = await self._started()
        except (ImportError, OSError, RuntimeError) as error:
            text = f"The Python sandbox could not be started: {error}"
            return ToolResult("sandbox_unavailable", text, retryable=True)
        # Cancelling this task ends the worker that runs the code; the pool starts another.
        return await self._run(pool, code)

    async def aclose(self) -> None:
        """End the worker processes. A later call starts new ones."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.__aexit__(None, None, None)

    async def _started(self) -> pydantic_monty.AsyncMonty:
        async with self._starting.get():
            if self._pool is None:
                import pydantic_monty

                pool = pydantic_monty.AsyncMonty()
                self._pool = await pool.__aenter__()
            return self._pool

    async def _run(self, pool: pydantic_monty.AsyncMonty, code: str) -> ToolResult:
        import pydantic_monty

        printed = pydantic_monty.CollectString(max_bytes=MAX_OUTPUT_BYTES)
        try:
            async with pool.checkout(limits=self._limits, os_policy=self._policy) as session:
                value = await session.feed_run(code, print_callback=printed)
            return _succeeded(printed.output, value)
        except pydantic_monty.MontyCrashedError as error:
            if error.timed_out:
                return self._too_long(printed.output)
            return _failed(printed.output, "the sandbox stopped while running the code", None)
        except (pydantic_monty.MontySyntaxError, pydantic_monty.MontyRuntimeError) as error:
            if _TOO_LONG.search(str(error)):
                return self._too_long(printed.output)
            return _failed(printed.output, _told(error), _missing(str(error)))
        except (pydantic_monty.MontyError, ValueError, OverflowError, RecursionError) as error:
            text = f"the last value cannot be shown ({error}); print the part you need"
            return _failed(printed.output, text, None)

    def _too_long(self, printed: str) -> ToolResult:
        seconds = self._limits.get("max_feed_duration_secs") or 0.0
        problem = f"TimeoutError: the code ran longer than {seconds:g} s and was stopped"
        return replace(_failed(printed, problem, None), status="timeout")


def _unfenced(code: str) -> str:
    """The code without the Markdown fence models like to put around it."""
    found = _FENCE.fullmatch(code)
    return found[1] if found else code


def _succeeded(printed: str, value: Any) -> ToolResult:
    """What was printed, then the value of the last expression if it has one."""
    shown = "" if value is None else _shown(value)
    between = "\n" if printed and shown and not printed.endswith("\n") else ""
    text = f"{printed}{between}{shown}"
    if not text:
        text = "(nothing was printed, and the last line has no value)"
    return ToolResult("ok", text, {"output": printed, "value": _plain(value)}, layers=LAYERS)


def _failed(printed: str, problem: str, missing: str | None) -> ToolResult:
    """The problem last, where a model looks for it; what was printed before it is kept."""
    before = printed if not printed or printed.endswith("\n") else printed + "\n"
    data: JSONObject = {"output": printed, "error": problem}
    if missing:
        data["missing"] = missing
    # Bounded from the front, so that the cap on results never cuts the error itself away.
    return ToolResult("tool_error", before[-4000:] + problem, data, layers=LAYERS)


def _told(error: pydantic_monty.MontySyntaxError | pydantic_monty.MontyRuntimeError) -> str:
    """Line, type and message of an error, and what to do about a feature that is missing."""
    frames = error.traceback()
    line = f"line {frames[-1].line}: " if frames else ""
    text = f"{line}{error.display('type-msg')}"
    missing = _missing(str(error))
    if missing and missing.startswith("module "):
        text += f". Available modules: {MODULES.replace(' ', ', ')}"
    elif missing:
        text += ". Write it without that feature"
    return text


def _missing(message: str) -> str | None:
    """The feature an error says is missing, in a few words."""
    module = _NO_MODULE.search(message)
    if module:
        return f"module {module[1]}"
    feature = _NOT_YET.search(message)
    return feature[1].strip() if feature else None


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _plain(value: Any) -> Any:
    """The value as JSON where it is plain data, else as the text that shows it."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else repr(value)
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {_shown(key): _plain(one) for key, one in value.items()}
    return repr(value)
