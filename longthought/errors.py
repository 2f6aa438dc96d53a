"""Every exception of longthought. Each docstring says who raises it and what to do about it.

Errors carry fields, never log, and never contain a secret. ``LongthoughtError`` is the base of all
that callers may catch; the classes below ``ControlFlow`` steer a run and are never to be caught by
user code, which is why they do not derive from ``Exception``.
"""

from __future__ import annotations

__all__ = [
    "BackendError",
    "BackendRefused",
    "BudgetExhausted",
    "ConfigurationError",
    "ControlFlow",
    "Diverged",
    "EndpointOut",
    "Fenced",
    "InvalidInput",
    "KeepsCrashing",
    "LongthoughtError",
    "MissingExtra",
    "PolicyError",
    "Provisional",
    "QuestionRefused",
    "ReplayStopped",
    "RunBusy",
    "RunEnded",
    "RunNotFound",
    "SignalTimeout",
    "StorageError",
    "StoreTooNew",
    "Suspended",
    "TraceError",
    "UnknownOutcome",
    "UnlabelledConcurrency",
    "UnpricedModel",
]


class LongthoughtError(Exception):
    """Base of every error a caller may want to catch. The CLI prints it and exits with 1."""

    exit_code: int = 1


class InvalidInput(LongthoughtError):
    """Raised at the edges for an argument, option or definition that cannot be used.

    ``field`` names what is wrong, ``fix`` says what to write instead. The CLI exits with 2.
    """

    exit_code = 2

    def __init__(self, field: str, problem: str, fix: str = "") -> None:
        super().__init__(f"{field}: {problem}" + (f". {fix}" if fix else ""))
        self.field, self.problem, self.fix = field, problem, fix


class ConfigurationError(InvalidInput):
    """Raised when a configuration file, environment variable or stored setting cannot be used."""


class MissingExtra(ConfigurationError):
    """Raised when a feature needs a package that is not installed; names the extra to install."""


class QuestionRefused(InvalidInput):
    """Raised by a model that cannot take the question at all, before anything is charged.

    The embedded models raise it for text outside their grammar; ``fix`` says what they can do.
    """


class BackendError(LongthoughtError):
    """Raised by a model adapter when its backend failed.

    ``status`` is the HTTP status if there was one. ``retryable`` is true for faults that may pass
    (408, 409, 429, 5xx, lost connections); ``retry_after`` is the server's wish in seconds.
    ``sent`` is false when nothing left the process. The executor retries, charges, and in the end
    turns it into a failed branch, never into a failed run.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retryable: bool = False,
        retry_after: float | None = None,
        sent: bool = True,
    ) -> None:
        super().__init__(message)
        self.status, self.retryable, self.retry_after = status, retryable, retry_after
        self.sent = sent


class EndpointOut(BackendError):
    """Raised by a model of several endpoints when the one that a permit is for has gone out.

    Nothing was sent. The executor gets another permit; that uses up no try of the call.
    """

    def __init__(self) -> None:
        problem = "its endpoint went out before the call had left"
        super().__init__(problem, sent=False, retryable=True, retry_after=0.0)


class BackendRefused(InvalidInput):
    """Raised before dispatch for a backend that cannot be held to a hard limit.

    It neither honours ``max_tokens`` nor streams. Use another endpoint or lift the token limit.
    """


class UnpricedModel(InvalidInput):
    """Raised before dispatch for a model without a price under a dollar limit.

    Add its price to the price book (``[prices]`` in the configuration) or drop the ``usd`` limit.
    """


def limit_reason(scope: str, kind: str) -> str:
    """A limit as stop reasons name it: ``tokens`` of the run, ``pool.tokens`` of another scope."""
    return kind if scope == "run" else f"{scope}.{kind}"


def split_reason(reason: str) -> tuple[str, str]:
    """Scope and kind of a limit that :func:`limit_reason` has named."""
    scope, _, kind = reason.rpartition(".")
    return scope or "run", kind


class BudgetExhausted(LongthoughtError):
    """Raised by the ledger for an amount that can never be granted any more.

    ``kind`` is the limit (``tokens``, ``usd``, ``wall`` ...), ``scope`` the scope that holds it;
    ``reason`` names both where that is not the run: ``pool.tokens``, ``branch.tokens``.
    The executor ends the run with the best answer so far; user code sees it only inside its nodes.
    """

    def __init__(
        self, kind: str, scope: str, limit: float, needed: float, reason: str | None = None
    ) -> None:
        super().__init__(
            f"{kind} limit of {scope} reached: {limit:g} allowed, {needed:g} more needed"
        )
        self.kind, self.scope, self.limit, self.needed = kind, scope, limit, needed
        self.reason = limit_reason(scope, kind) if reason is None else reason


class StorageError(LongthoughtError):
    """Raised when the store cannot be read or written. Acknowledged work stands: resume later."""


class StoreTooNew(StorageError):
    """Raised on opening a store written by a newer version of longthought: upgrade the package."""


class TraceError(StorageError):
    """Raised when a stored trace does not have the documented form. Run ``longthought audit``."""


class RunNotFound(InvalidInput):
    """Raised for a run id that is not in the store; ``longthought runs`` lists those that are."""

    def __init__(self, run_id: str) -> None:
        super().__init__("run", f"no run {run_id!r} in this store", "`longthought runs` lists them")
        self.run_id = run_id


class RunBusy(LongthoughtError):
    """Raised by ``resume`` when another live process drives the run. Wait, or stop that process."""

    def __init__(self, run_id: str, owner: str, seconds_left: float) -> None:
        super().__init__(
            f"run {run_id} is driven by {owner}; its lease ends in {seconds_left:.0f} s. "
            "Wait for it, or take the run over with --force"
        )
        self.run_id, self.owner, self.seconds_left = run_id, owner, seconds_left


class RunEnded(LongthoughtError):
    """Raised by ``Store.claim`` for a run that has ended, perhaps just now: replay it instead."""

    def __init__(self, run_id: str, status: str) -> None:
        super().__init__(f"run {run_id} has ended ({status})")
        self.run_id, self.status = run_id, status


class RunMoved(LongthoughtError):
    """Raised by ``Store.claim`` for a run that another attempt has gone on with since it was seen.

    Nothing is lost: whoever was quicker drives it.
    """

    def __init__(self, run_id: str, attempt: int) -> None:
        super().__init__(f"run {run_id} is at attempt {attempt} already: another process woke it")
        self.run_id, self.attempt = run_id, attempt


class Fenced(StorageError):
    """Raised by the journal when another attempt has taken the run over. This attempt must end."""

    def __init__(self, run_id: str, attempt: int) -> None:
        super().__init__(f"attempt {attempt} of run {run_id} was taken over by another process")
        self.run_id, self.attempt = run_id, attempt


class Diverged(LongthoughtError):
    """Raised when a run asks for something else than its recording holds at the same place.

    ``key`` names the effect, ``difference`` shows what was recorded and what is asked now.
    A replay fails with it; a resume stops as ``needs_attention`` and loses nothing.
    """

    def __init__(self, key: str, difference: str) -> None:
        super().__init__(f"diverged at {key}: {difference}")
        self.key, self.difference = key, difference


class UnlabelledConcurrency(LongthoughtError):
    """Raised when two tasks record effects at one place of a graph without labels of their own.

    Their order would depend on timing. Put each into ``with ctx.label("name"):``; for a time limit
    use ``asyncio.timeout`` (``asyncio.wait_for`` runs its body in another task).
    """

    def __init__(self, place: str) -> None:
        super().__init__(
            f"two tasks record effects at {place!r} without labels; "
            'put each into its own `with ctx.label("name"):`'
        )
        self.place = place


class PolicyError(LongthoughtError):
    """Raised when a policy breaks its protocol: repeats an Ask id, or neither asks nor ends."""


class UnknownOutcome(LongthoughtError):
    """Raised on resume for a write that was started and may or may not have happened.

    The run waits as ``needs_attention`` until a person decides: ``longthought resume --decide``.
    """

    def __init__(self, key: str, tool: str) -> None:
        super().__init__(
            f"{key}: the call of {tool!r} was started and its outcome is not known. "
            f"Check whether it happened, then resume with --decide {key}=done (or =again)"
        )
        self.key, self.tool = key, tool


class KeepsCrashing(LongthoughtError):
    """Recorded of a run that wakers die on: attempt after attempt has ended with its process.

    Nothing more is recorded since, so going on leads to the same place. It waits as
    ``needs_attention``, nobody wakes it, and ``resume`` is the way on.
    """

    def __init__(self, run_id: str, attempts: int, owner: str) -> None:
        super().__init__(
            f"the last {attempts} attempts at run {run_id} died before they recorded anything, "
            f"the last one as {owner}. Find out what ends the process (its memory, a crash in a "
            f"tool, a node or a model), then go on with: longthought resume {run_id}"
        )
        self.run_id, self.attempts = run_id, attempts


class SignalTimeout(LongthoughtError):
    """Raised by ``ctx.suspend(timeout=...)`` in its place: no signal has come in time.

    Recorded, so that every replay comes to it too. Catch it and go another way.
    """

    def __init__(self, name: str, key: str, seconds: float) -> None:
        super().__init__(f"no signal {name!r} came within {seconds:g} s")
        self.name, self.key, self.seconds = name, key, seconds


class ControlFlow(BaseException):
    """Base of what steers a run. User code must let these pass; they are no failures."""


class Suspended(ControlFlow):
    """Raised by ``ctx.suspend`` in a branch whose signal has not come: the branch parks."""

    def __init__(self, name: str, key: str) -> None:
        super().__init__(name)
        self.name, self.key = name, key


class Provisional(ControlFlow):
    """Raised in a tool that was started early and asks for an effect: nothing may be recorded yet.

    The call is made again, in its place, when the reply that asks for it counts.
    """


class ReplayStopped(ControlFlow):
    """Raised in a replayed branch at the point where its recording was cancelled or parked."""
