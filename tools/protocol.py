"""What a tool is: its specification, a call of it, its result, and the protocol they meet in."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Literal, Protocol, TypeAlias, get_args, runtime_checkable

from longthought.errors import InvalidInput, Provisional
from longthought.types import JSON, JSONObject, ToolDefinition

__all__ = [
    "Approval",
    "Effect",
    "Tool",
    "ToolCall",
    "ToolContext",
    "ToolResult",
    "ToolSpec",
    "ToolStatus",
    "ValidatingTool",
    "pending",
]

Effect: TypeAlias = Literal["pure", "read", "write", "irreversible"]
"""What a call does to the world.

``pure``: the same arguments give the same result; ``read``: looks, changes nothing; ``write``:
changes something; ``irreversible``: changes something that cannot be changed back. Pure and read
calls may be repeated after a crash, the others only under an idempotency key.
"""

Approval: TypeAlias = Literal["never", "first", "always"]
"""Whether a person is asked before a call: never, before the first call of a run, or each time."""

ToolStatus: TypeAlias = Literal[
    "ok",
    "tool_error",
    "bad_args",
    "truncated_args",
    "timeout",
    "cancelled",
    "denied",
    "budget",
    "sandbox_unavailable",
    "unknown_outcome",
    "unknown_tool",
    "pending",
]
"""How a call ended; the set is closed. Everything but ``ok`` is told to the model as text.

``pending`` is no end: the call was begun and is finished from outside, by a signal. In a run it is
never recorded as a result; the branch waits.
"""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
MIN_RESULT_CHARS = 100  # room for the notice that says how much was cut


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """What is known about a tool before it is called.

    ``parameters`` is a JSON schema of an object. ``timeout_s`` limits one attempt (seconds),
    ``max_result_chars`` the text the model reads (characters), ``max_concurrency`` the calls of
    this tool in flight at once (None: no limit), ``retries`` the further attempts after a failure
    that may pass. ``cost_usd`` is what one call costs. ``idempotent`` says that the tool accepts an
    idempotency key, so that a write may be repeated under it. ``version`` is the hash of the source
    where there is one, ``options`` whatever else identifies the tool (a folder name, a limit).
    A call that nobody has approved ``approval_timeout_s`` seconds after it was asked for is denied
    (None: it waits for ever).

    Raises:
        InvalidInput: a value cannot be used; ``field`` names it.
    """

    name: str
    description: str
    parameters: JSONObject
    effect: Effect = "write"
    timeout_s: float = 30.0
    max_result_chars: int = 8000
    max_concurrency: int | None = None
    retries: int = 0
    approval: Approval = "never"
    cost_usd: float = 0.0
    idempotent: bool = False
    version: str = ""
    options: JSONObject = field(default_factory=dict)
    approval_timeout_s: float | None = None

    def __post_init__(self) -> None:
        where = f"tool {self.name!r}"
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            fix = "Use 1 to 64 letters, digits, '_' or '-', beginning with a letter or '_'"
            raise InvalidInput("tool name", f"{self.name!r} cannot be used", fix)
        if not self.description.strip():
            raise InvalidInput(where, "has no description", "The model chooses by it: write one")
        if self.effect not in get_args(Effect):
            raise InvalidInput(f"{where} effect", f"{self.effect!r} is none of {get_args(Effect)}")
        if self.approval not in get_args(Approval):
            problem = f"{self.approval!r} is none of {get_args(Approval)}"
            raise InvalidInput(f"{where} approval", problem)
        if not (math.isfinite(self.timeout_s) and self.timeout_s > 0):
            raise InvalidInput(f"{where} timeout", f"{self.timeout_s!r} is no number of seconds")
        limit = self.approval_timeout_s
        if limit is not None and not (math.isfinite(limit) and limit > 0):
            raise InvalidInput(f"{where} approval_timeout", f"{limit!r} is no number of seconds")
        if self.max_result_chars < MIN_RESULT_CHARS:
            problem = f"{self.max_result_chars} is below {MIN_RESULT_CHARS} characters"
            raise InvalidInput(f"{where} max_result_chars", problem)
        if self.max_concurrency is not None and self.max_concurrency < 1:
            raise InvalidInput(f"{where} max_concurrency", f"{self.max_concurrency} is below 1")
        if not (math.isfinite(self.cost_usd) and self.cost_usd >= 0):
            raise InvalidInput(f"{where} cost_usd", f"{self.cost_usd!r} is no amount of dollars")
        if self.retries < 0:
            raise InvalidInput(f"{where} retries", f"{self.retries} is below 0")
        if self.retries and not self.repeatable:
            fix = 'Declare effect="read" if it changes nothing, or idempotent=True'
            raise InvalidInput(f"{where} retries", f"a {self.effect} must not be repeated", fix)

    @property
    def repeatable(self) -> bool:
        """Whether a call may be made again without doing its effect twice."""
        return self.effect in ("pure", "read") or self.idempotent

    @property
    def droppable(self) -> bool:
        """Whether nobody is the worse for a call whose result is dropped: it may start early."""
        looks = self.effect in ("pure", "read")
        return looks and not self.cost_usd and self.approval == "never"

    def definition(self) -> ToolDefinition:
        """The tool as the model sees it."""
        return {
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters,
        }

    def fingerprint(self) -> JSONObject:
        """What identifies the tool in a trace: every field that is not at its default.

        ``max_concurrency`` is left out: it changes when a call runs, never what it means.
        """
        pairs = _given(self)
        pairs.pop("max_concurrency", None)
        return pairs


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call, its arguments parsed. ``idempotency_key`` is the same when it is made again."""

    call_id: str
    name: str
    arguments: JSONObject
    idempotency_key: str = ""

    def to_json(self) -> JSONObject:
        """JSON form as recorded in a trace; fields at their defaults are left out."""
        return _given(self)

    @classmethod
    def from_json(cls, value: Mapping[str, JSON]) -> ToolCall:
        """The call written by :meth:`to_json`."""
        return cls(**value)


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a call gave. Every call yields one; nothing a tool does raises through a branch.

    ``content`` is what the model reads, ``data`` the JSON value that code reads; it is None where
    the tool returned plain text. When ``truncated``, ``content`` was cut and ``total_chars`` is its
    full length in characters. ``wait_s`` is the time from call to result (seconds), ``attempt``
    the number of the attempt that gave this result, from 1. ``layers`` names the active layers of
    isolation. ``retryable`` says that the same call may succeed later and may be made again.
    ``timeout_s`` is how long a :func:`pending` call is waited for (seconds; None: for ever).
    """

    status: ToolStatus
    content: str
    data: JSON = None
    truncated: bool = False
    total_chars: int = 0
    wait_s: float = 0.0
    cost_usd: float = 0.0
    attempt: int = 1
    layers: list[str] = field(default_factory=list)
    retryable: bool = False
    timeout_s: float | None = None

    @property
    def ok(self) -> bool:
        """Whether the call did what was asked."""
        return self.status == "ok"

    def to_json(self) -> JSONObject:
        """JSON form as recorded in a trace; fields at their defaults are left out."""
        return _given(self)

    @classmethod
    def from_json(cls, value: Mapping[str, JSON]) -> ToolResult:
        """The result written by :meth:`to_json`."""
        return cls(**value)


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What a tool may know of its call. ``deps`` are the run's objects, which are not recorded.

    ``run_id``, ``signal`` and ``key`` say how a call that is :func:`pending` is finished: with a
    signal of that name, for that key, to that run. They are empty outside a run.
    """

    call_id: str = ""
    idempotency_key: str = ""
    deps: object | None = None
    run_id: str = ""
    signal: str = ""
    key: str = ""


class EarlyContext(ToolContext):
    """That of a call which may be dropped: where its result is to go is not known yet.

    Raises:
        Provisional: whoever calls asks for that. The call is made again in its place.
    """

    __slots__ = ()

    def __getattribute__(self, name: str) -> object:
        if name in ("run_id", "signal", "key"):
            raise Provisional(name)
        return super().__getattribute__(name)


def pending(ask: JSON = None, *, timeout: float | None = None) -> ToolResult:
    """What a tool returns that has begun something which ends elsewhere, perhaps days later.

    The run parks until the result is sent as the signal ``context.signal`` for ``context.key``.
    ``ask`` is shown to whoever looks at what the run waits for. After ``timeout`` seconds without a
    result the call has the status ``timeout``.

    Raises:
        InvalidInput: ``timeout`` is no number of seconds.
    """
    if timeout is not None and not (math.isfinite(timeout) and timeout > 0):
        raise InvalidInput("timeout", f"{timeout!r} is no number of seconds", "Use one above 0")
    text = "This call was begun; its result comes later."
    return ToolResult("pending", text, ask, timeout_s=timeout)


@runtime_checkable
class Tool(Protocol):
    """Anything a branch can call. Most are made by :func:`longthought.tools.tool`."""

    @property
    def spec(self) -> ToolSpec:
        """What is known about the tool before it is called."""
        ...

    async def call(self, arguments: JSONObject, context: ToolContext) -> object:
        """Do it. Returns text, a JSON-able value, or a :class:`ToolResult`; may raise anything."""
        ...

    async def aclose(self) -> None:
        """Release processes, connections and files. May be called more than once."""
        ...


@runtime_checkable
class ValidatingTool(Tool, Protocol):
    """A tool that checks arguments by more than the outline of its JSON schema."""

    def validate(self, arguments: JSONObject) -> None:
        """Check the arguments without running the tool.

        Raises:
            InvalidInput: they cannot be used; the message is written for the model.
        """
        ...


def _given(value: ToolSpec | ToolCall | ToolResult) -> JSONObject:
    """The fields of a dataclass that are required or not at their defaults, in order."""
    pairs: JSONObject = {}
    for one in fields(value):
        default = one.default if one.default_factory is MISSING else one.default_factory()
        given = getattr(value, one.name)
        if default is MISSING or given != default:
            pairs[one.name] = given
    return pairs
