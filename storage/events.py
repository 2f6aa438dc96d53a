"""The trace format: one class per event type, and the union of them that *is* the format.

``docs/trace-format.md`` is this module in prose. Format version 1. Fields are only ever added, with
a default, so that every older trace stays readable. On the hot path events are plain dictionaries;
these classes check them where a trace enters or leaves: audit, export, tests.

Names used below: a *payload id* is a salted content address (``digests.py``); a *place* is where an
effect stands in the graphs (``docs/trace-format.md``, keys); ``at`` is wall time in seconds since
the epoch; amounts count tokens, nano-dollars and calls.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from longthought.types import JSONObject

__all__ = [
    "EVENT_TYPES",
    "FORMAT_VERSION",
    "AttemptStarted",
    "BranchEnded",
    "EffectFinished",
    "EffectStarted",
    "EffectToppedUp",
    "Fold",
    "PayloadDeleted",
    "RunEnded",
    "RunStarted",
    "SignalReceived",
    "TraceEvent",
    "describe_invalid",
    "parse_event",
]

FORMAT_VERSION = 1

EffectKind: TypeAlias = Literal[
    "model", "tool", "verify", "now", "random", "patch", "signal", "sleep", "left"
]
"""What kind of question to the outside world an effect is."""

Status: TypeAlias = Literal[
    "completed", "incomplete", "parked", "needs_attention", "failed", "cancelled"
]
"""How an attempt left its run. All but the first two can be resumed."""


LeaseChange: TypeAlias = list[str | float]
"""What happened to a lease on context memory (``taken``, ``parked``, ``resumed``, ``shed`` or
``ended``), at which backend, when, and the tokens of the context."""


class _Event(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    seq: int = Field(ge=1)
    key: str = ""
    at: float


class RunStarted(_Event):
    """The manifest: what runs, with what, under which limits. Always the first event."""

    type: Literal["run_started"]
    format: Literal[1]
    run: str
    """The run's id: it binds the chain to the run, so that two runs cannot change places."""
    longthought: str
    workflow: str
    fingerprint: str
    manifest: str
    """Payload id: workflow parts, question, seed, budget, prices, models and their fingerprints."""
    parent: JSONObject | None = None
    """For a fork: the run and the event it starts from."""


class AttemptStarted(_Event):
    """A process took the run over; everything up to the next one of these is its work."""

    type: Literal["attempt_started"]
    attempt: int = Field(ge=1)
    owner: str
    fingerprint: str = ""
    """The workflow's fingerprint in this process, when it differs from the manifest's."""
    lost: bool = False
    """Whether the attempt before it came to no end and did not give the run back: it died, or was
    taken over."""


class EffectStarted(_Event):
    """Committed before a paid call or a write leaves the process."""

    type: Literal["effect_started"]
    kind: EffectKind
    request: str
    """Payload id of the canonical request; also the request hash within a run."""
    reserved: JSONObject = Field(default_factory=dict)
    """Amount charged if the outcome never becomes known."""
    grant: int | None = None
    """Output tokens granted to a model call."""
    idempotency_key: str | None = None
    attempt: int = 1
    """The n-th try of this effect; earlier tries without an end stay charged."""


class EffectToppedUp(_Event):
    """A reservation changed: more, committed before it may be used, or a try was given back.

    Or it did not change, and ``handle`` is the id under which a provider works on the reply.
    """

    type: Literal["effect_topped_up"]
    reserved: JSONObject
    grant: int | None = None
    handle: str | None = None


class EffectFinished(_Event):
    """The answer of the outside world. From here on the run may act on it."""

    type: Literal["effect_finished"]
    kind: EffectKind
    request: str
    result: str
    """Payload id of the result; also the result hash within a run."""
    status: str = "ok"
    charged: JSONObject = Field(default_factory=dict)
    """Amount settled: what the backend reported, or the reservation where nothing is known."""
    overrun: JSONObject = Field(default_factory=dict)
    clock: list[float] = Field(default_factory=list)
    """Queued, started, ended: wall time in seconds since the epoch."""
    permits: list[list[float]] = Field(default_factory=list)
    """Of a model call, for each try that had a slot: asked, granted, released (seconds since the
    attempt began, on a monotonic clock), and how many slots the backend had."""
    ran: list[float] = Field(default_factory=list)
    """Of a tool call: when the tool itself began and ended, on the same clock."""
    known: int = 0
    """Of a model call: tokens of its prompt that had been computed before."""
    lease: list[LeaseChange] = Field(default_factory=list)
    """What happened to the leases of this line of thought since its last event: what, backend,
    when (on that clock), tokens."""
    attempt: int = 1
    early: JSONObject = Field(default_factory=dict)
    """Of a tool that began before the reply that asks for it had ended: ``seconds`` by how much,
    and how many pieces (``tokens``) of it were still to come."""
    replayable: bool = True
    """False when the record was redacted and the run cannot be replayed from it."""


class Fold(_Event):
    """One input of a policy, in the order in which the policy received it.

    ``ask``: data holds ``room`` and ``asks`` (a list of Ask ids), the first of a search also the
    ``limits`` of the search and of each branch, if they have any. ``tell``: ``ask`` and ``outcome``
    (payload id). ``exhausted``: ``scope`` and ``kind``. ``cancel``, ``limit_raised`` (all limits in
    force; without a key it is the run's, with one that search is told), ``rejected``.
    """

    type: Literal["fold"]
    input: Literal["ask", "tell", "cancel", "exhausted", "limit_raised", "rejected"]
    data: JSONObject


class BranchEnded(_Event):
    """How a branch ended; ``key`` is its place."""

    type: Literal["branch_ended"]
    how: Literal["finished", "failed", "cancelled", "parked"]
    reason: str = ""
    told: bool = True
    """False for a result that arrived after the policy was done: charged, never told."""
    lease: list[LeaseChange] = Field(default_factory=list)
    """What happened to its leases since its last effect, as in an effect."""


class SignalReceived(_Event):
    """A signal entered the run; ``key`` is the waiting place it answers, if it named one."""

    type: Literal["signal"]
    signal: str
    name: str
    value: str
    """Payload id."""


class PayloadDeleted(_Event):
    """The tombstone of deleted payloads: the chain still verifies, the run cannot be replayed."""

    type: Literal["payload_deleted"]
    payloads: list[str]
    reason: str
    links: dict[str, list[str]] = Field(default_factory=dict)
    """What the deleted payloads named: for a message of a conversation, the conversation before."""


class RunEnded(_Event):
    """An attempt came to an end that it knew of. The last event of a finished run."""

    type: Literal["run_ended"]
    status: Status
    stop_reason: str
    outcome: str | None = None
    """Payload id: answer, what it rests on, what was spent."""
    waiting: list[JSONObject] = Field(default_factory=list)
    """For a parked run: name and place of each signal it waits for; of a sleep, and of a wait with
    a deadline, also ``until``."""
    leases: dict[str, list[LeaseChange]] = Field(default_factory=dict)
    """What happened to leases and stands in no other event, by place."""


TraceEvent: TypeAlias = Annotated[
    RunStarted
    | AttemptStarted
    | EffectStarted
    | EffectToppedUp
    | EffectFinished
    | Fold
    | BranchEnded
    | SignalReceived
    | PayloadDeleted
    | RunEnded,
    Field(discriminator="type"),
]

_ADAPTER: TypeAdapter[TraceEvent] = TypeAdapter(TraceEvent)

_COLUMNS = frozenset(("seq", "type", "key"))

EVENT_TYPES = (
    "run_started",
    "attempt_started",
    "effect_started",
    "effect_topped_up",
    "effect_finished",
    "fold",
    "branch_ended",
    "signal",
    "payload_deleted",
    "run_ended",
)


def parse_event(seq: int, type_: str, key: str, body: JSONObject) -> TraceEvent:
    """One stored event as its class.

    Raises:
        ValueError: it is no event of this format (``pydantic.ValidationError`` is one).
    """
    if not isinstance(body, dict) or not _COLUMNS.isdisjoint(body):
        raise ValueError("an event's body is an object without seq, type and key")
    return _ADAPTER.validate_python({**body, "seq": seq, "type": type_, "key": key})


def describe_invalid(error: ValidationError) -> str:
    """The first thing that is wrong with a value, without the value."""
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else first["msg"]
