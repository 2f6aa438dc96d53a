"""Raising the limits of a run that is under way or parked.

A raise is a signal, durable before anybody acts on it. The attempt under way, in whichever process,
takes it in with its next heartbeat; a run at rest has it in force when it goes on. What is then in
force is recorded as ``limit_raised``. To a run that a pool has ended, room in a pool is the same.
"""

from __future__ import annotations

import math

from longthought.budgets import Budget, Kind, Scope
from longthought.budgets.amounts import KINDS, NANODOLLARS_PER_DOLLAR
from longthought.budgets.limits import check_budget
from longthought.errors import InvalidInput, split_reason
from longthought.orchestrator.checks import check_pool
from longthought.orchestrator.recorded import Recorded
from longthought.orchestrator.results import ENDED
from longthought.storage import Recording, Store
from longthought.types import JSON, JSONObject

__all__ = [
    "RAISE",
    "check_raise",
    "ended_by_pool",
    "limits_in_force",
    "raise_of",
    "raised_since",
    "room_again",
    "send_raise",
]

RAISE = "raise_limit"
"""The name of the signal; its value is a budget of the limits to raise."""


def limits_in_force(
    recording: Recording,
    index: Recorded,
    *,
    manifest: JSONObject | None = None,
    signals: bool = True,
) -> Budget:
    """The limits of a run: its own, raised by what is recorded, and by signals taken in since."""
    limits = Budget.from_json(index.raised or (manifest or recording.manifest())["budget"])
    for event in index.signals if signals else ():
        if event.body["name"] == RAISE and event.seq > index.raised_at:
            limits = limits.raised(raise_of(recording.get(event.body["value"])))
    return limits


def raise_of(value: JSON) -> Budget:
    """The limits that a signal raises; none if it is not understood."""
    try:
        return Budget.from_json(value)
    except (InvalidInput, TypeError):
        return Budget()


async def send_raise(store: Store, run_id: str, to: Budget) -> Budget:
    """Raise limits of a run; returns those that will be in force.

    Raises:
        RunNotFound: there is no such run.
        InvalidInput: nothing is given, a limit would be lower or new, or the run has ended.
    """
    check_budget("budget", to)
    if not to.to_json():
        raise InvalidInput("budget", "raises nothing", "Give a limit, as --tokens 20000")
    sent = await store.waiting_values(run_id, RAISE)  # first: what is taken in since is on record
    recording = await store.read(run_id)
    ended = recording.ended()
    if ended is not None and ended.body["status"] in ENDED:
        raise InvalidInput(
            "run",
            f"{run_id} has ended ({ended.body['status']})",
            f"Go on with: longthought resume {run_id}, and the limit",
        )
    limits = limits_in_force(recording, Recorded.of(recording))
    for value in sent:
        limits = limits.raised(raise_of(value))
    limits.check_raise(to)
    await store.send_signal(run_id, RAISE, to.to_json())
    return limits.raised(to)


def check_raise(recording: Recording, budget: Budget) -> None:
    """Check new limits for a recorded run before anything is taken over.

    Raises:
        InvalidInput: one is lower than before, or limits what had no limit.
    """
    try:
        limits_in_force(recording, Recorded.of(recording)).check_raise(budget)
    except InvalidInput as error:
        if (reason := ended_by_pool(recording)) is None:
            raise
        fix = f"{reason} ended it: raise the limit of that pool, and resume with pool="
        raise InvalidInput(error.field, error.problem, fix) from error


def ended_by_pool(recording: Recording) -> str | None:
    """The limit of a pool that ended a run, as its stop reason names it."""
    ended = recording.ended()
    if ended is None or ended.body["status"] != "incomplete":
        return None
    reason = str(ended.body["stop_reason"])
    scope, kind = split_reason(reason)
    inside = scope in ("run", "search", "branch")
    return None if inside or _kind_of(kind) is None else reason


def room_again(recording: Recording, pool: Scope) -> str | None:
    """The limit of a pool that ended a run, if ``pool`` has room for it by now; else None."""
    reason = ended_by_pool(recording)
    if reason is None:
        return None
    kind = _kind_of(split_reason(reason)[1])
    assert kind is not None  # noqa: S101 - else no pool has ended it
    index = Recorded.of(recording)
    room = pool.room_for(recording.run_id, index.charged, kind)
    return reason if room is None or room >= _needed(recording, index, reason) else None


def _needed(recording: Recording, index: Recorded, reason: str) -> int:
    """The least that an effect has found no room for under that limit, since limits were raised."""
    needs = []
    for event in index.finished.values():
        if event.seq <= index.raised_at or event.body["status"] != "budget":
            continue
        refused = recording.get(event.body["result"])
        if refused.get("reason", refused["kind"]) == reason:
            unit = NANODOLLARS_PER_DOLLAR if refused["kind"] == "usd" else 1
            needs.append(math.ceil(refused["needed"] * unit))
    return max(1, min(needs, default=1))


def _kind_of(name: str) -> Kind | None:
    """What a limit counts that errors and stop reasons call by this name."""
    kind = "nanodollars" if name == "usd" else name
    return next((one for one in KINDS if one == kind), None)


async def raised_since(store: Store, run_id: str, pool: Scope | None = None) -> bool | str:
    """Whether limits of a run at rest were raised and no attempt has put that in force.

    If not, the limit of a pool that ended it, where ``pool`` has room again; else False.

    Raises:
        InvalidInput: the pool is none.
        RunNotFound: there is no such run.
    """
    check_pool(pool)
    if await store.waiting_signals(run_id, RAISE) > 0:
        return True
    recording = await store.read(run_id)
    index = Recorded.of(recording)
    if limits_in_force(recording, index) != limits_in_force(recording, index, signals=False):
        return True
    return pool is not None and (room_again(recording, pool) or False)
