"""Which of several endpoints a call goes to: where its prompt is held, unless others wait less.

A server that has read the beginning of a prompt finds it again and reads the rest alone. So a
branch stays where it was served last, and new branches of a run go where their common beginning
is. That is worth waiting a little for, and no more: past that the least loaded endpoint has it.

:func:`ranked` is the whole rule, without state; :class:`Holdings` is what is known of the past.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple, TypeAlias

__all__ = ["SLACK", "Held", "Holdings", "Standing", "ranked"]

SLACK = 0.5
"""How much more loaded than the least loaded an endpoint may be that holds a prefix, in slots."""
_MOST = 8192

Held: TypeAlias = Literal["branch", "run", "nothing"]
"""What an endpoint holds of a call's prompt: all but its end, what the run's branches share."""


class Standing(NamedTuple):
    """One endpoint as it stands now; ``in_flight`` counts calls beyond its slots, too."""

    open: bool
    in_flight: int
    slots: int

    @property
    def load(self) -> float:
        """Calls in flight for each slot; above 1 the rest waits at the server."""
        return self.in_flight / self.slots


def ranked(
    standings: Sequence[Standing],
    home: int | None = None,
    kin: Collection[int] = (),
    slack: float = SLACK,
) -> list[int]:
    """The endpoints that a call may go to, by their places in ``standings``, the best first.

    ``home`` served the branch last and is first if it has a free slot, or is at most ``slack``
    more loaded than the least loaded. Else, of those in ``kin``, which have served the run, the
    least loaded within that slack is first. All others follow by load, the first listed of equals.
    Those that are not open are left out.
    """
    order = sorted(
        (place for place, standing in enumerate(standings) if standing.open),
        key=lambda place: standings[place].load,
    )
    if len(order) < 2:
        return order
    most = standings[order[0]].load + slack
    if home is not None and home in order:
        standing = standings[home]
        if standing.in_flight < standing.slots or standing.load <= most:
            return [home, *(place for place in order if place != home)]
    for place in order:
        if standings[place].load > most:
            break
        if place in kin:
            return [place, *(other for other in order if other != place)]
    return order


class Holdings:
    """Which endpoint served a branch last, and which have served a run.

    Nobody says when a branch is over: of more than ``most`` branches, or runs, those that were not
    heard of for longest are forgotten. Not safe for threads; whoever has it has a lock.
    """

    def __init__(self, endpoints: int, most: int = _MOST) -> None:
        self._most = most
        self._lives = [0] * endpoints
        """How often each endpoint has lost what it held."""
        self._homes: dict[str, tuple[int, int]] = {}
        self._kin: dict[str, dict[int, int]] = {}

    def home(self, branch: str) -> int | None:
        """The endpoint that served a branch last, None if it is not known or holds nothing more."""
        place, life = self._homes.get(branch, (-1, -1))
        return place if place >= 0 and self._lives[place] == life else None

    def kin(self, run: str) -> list[int]:
        """The endpoints that have served a run and still hold something."""
        served = self._kin.get(run, {})
        return [place for place, life in served.items() if self._lives[place] == life]

    def held(self, run: str, branch: str, place: int) -> Held:
        """What an endpoint holds of the next prompt of a branch."""
        if self.home(branch) == place:
            return "branch"
        return "run" if place in self.kin(run) else "nothing"

    def served(self, run: str, branch: str, place: int) -> None:
        """A call of a branch goes to an endpoint."""
        life = self._lives[place]
        self._homes.pop(branch, None)
        self._homes[branch] = (place, life)
        served = self._kin.pop(run, {})
        self._kin[run] = served
        served[place] = life
        for known in (self._homes, self._kin):
            if len(known) > self._most:
                del known[next(iter(known))]

    def lost(self, place: int) -> None:
        """An endpoint has gone: when it comes back it holds nothing of before."""
        self._lives[place] += 1
