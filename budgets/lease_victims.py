"""Which leases go when there is no room for another, or contexts outgrow the memory."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from operator import attrgetter

from longthought.budgets.lease_book import Lease, LeaseBook
from longthought.budgets.lease_queue import EVERYBODY
from longthought.budgets.tool_waits import ToolWaits

__all__ = ["least_worth_keeping", "too_many"]


def least_worth_keeping(
    leases: LeaseBook,
    waits: ToolWaits,
    excess: float,
    *,
    now: float,
    tau: float,
    capacity: float,
    takes_from: frozenset[Hashable] | None,
) -> list[Lease] | None:
    """Idle leases with ``excess`` tokens of charge together, None if that many may not go.

    Those may that cost more to keep than to compute anew: longer than ``tau`` seconds. Of
    ``takes_from``, runs that took more than their share, all may that do not generate.
    """
    generating = sum(lease.context for lease in leases if lease.generating) / capacity
    # Nothing generates and nothing fits: any room is better than an engine that does nothing.
    price = tau if generating else 0.0
    idle = []
    for lease in leases:
        if lease.generating:
            continue
        keeping = waits.keeping(lease, now, generating)
        # Who is owed room may have it from those that wait for a permit, too: branches that
        # come back at once would otherwise keep their leases for ever.
        owed = takes_from is not None and (takes_from is EVERYBODY or lease.run in takes_from)
        if owed or (not lease.queued and (keeping > price or not price)):
            idle.append((keeping, lease))
    idle.sort(key=_most_to_keep)
    chosen: list[Lease] = []
    for _, lease in idle:
        if excess <= 0:
            break
        chosen.append(lease)
        excess -= lease.charge
    return None if excess > 0 and len(chosen) < len(leases) else chosen


def too_many(leases: LeaseBook, waits: ToolWaits, most: float, now: float) -> Iterator[Lease]:
    """Leases that have to go, one after the other, until no more than ``most`` tokens are held.

    The oldest first. Where contexts that generate lie apart nothing but those that wait needs the
    room: whoever is expected back last goes first, before all others what does not fit at all.
    """
    if leases.held <= most:
        return
    idle = [lease for lease in leases if lease.idle]
    if leases.apart:
        idle.sort(key=lambda one: (one.context <= most, -waits.keeping(one, now, 1.0), one.since))
    else:
        idle.sort(key=attrgetter("since"))
    for lease in idle:
        if leases.held <= most:
            return
        yield lease


def _most_to_keep(rated: tuple[float, Lease]) -> tuple[int, float, float]:
    return (rated[1].queued, -rated[0], rated[1].since)
