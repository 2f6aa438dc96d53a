"""Raising the limits of a run that is under way or parked.

A raise is a signal, durable before anybody acts on it. The attempt under way, in whichever process,
takes it in with its next heartbeat; a run at rest has it in force when it goes on. What is then in
force is recorded as ``limit_raised``.
"""

from __future__ import annotations

from longthought.budgets import Budget
from longthought.budgets.limits import check_budget
from longthought.errors import InvalidInput
from longthought.orchestrator.recorded import Recorded
from longthought.orchestrator.results import ENDED
from longthought.storage import Recording, Store
from longthought.types import JSON, JSONObject

__all__ = ["RAISE", "check_raise", "limits_in_force", "raise_of", "raised_since", "send_raise"]

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
    limits_in_force(recording, Recorded.of(recording)).check_raise(budget)


async def raised_since(store: Store, run_id: str) -> bool:
    """Whether limits of a run at rest were raised and no attempt has put that in force.

    Raises:
        RunNotFound: there is no such run.
    """
    if await store.waiting_signals(run_id, RAISE) > 0:
        return True
    recording = await store.read(run_id)
    index = Recorded.of(recording)
    return limits_in_force(recording, index) != limits_in_force(recording, index, signals=False)
