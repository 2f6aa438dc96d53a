"""Fair shares of what is given out in turns, by start-time fair queueing."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Hashable
from itertools import count

from longthought.errors import InvalidInput

__all__ = ["FairShares"]


class _Ranks:
    """Parties by what they got, the least first: a grant is not to look at all of them."""

    __slots__ = ("_keys", "_numbers", "_order")

    def __init__(self) -> None:
        self._keys: dict[Hashable, tuple[float, int]] = {}
        self._order: list[tuple[float, int, Hashable]] = []
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, party: Hashable) -> bool:
        return party in self._keys

    @property
    def least(self) -> float:
        """What the one furthest behind got, 0 without any."""
        return self._order[0][0] if self._order else 0.0

    def put(self, party: Hashable, got: float) -> None:
        """A party comes."""
        key = self._keys[party] = got, next(self._numbers)
        insort(self._order, (*key, party))

    def take(self, party: Hashable) -> float:
        """A party goes; returns what it got."""
        key = self._keys.pop(party)
        del self._order[bisect_left(self._order, key)]
        return key[0]

    def above(self, level: float) -> set[Hashable]:
        """Those that got more."""
        return {party for _, _, party in self._order[self._until(level) :]}

    def drop(self, level: float) -> None:
        """Those that got no more go."""
        until = self._until(level)
        for _, _, party in self._order[:until]:
            del self._keys[party]
        del self._order[:until]

    def _until(self, level: float) -> int:
        return bisect_left(self._order, (level, math.inf))


class FairShares:
    """What every party got, divided by its weight, since it last had nothing to do.

    Who comes back after a pause starts level with the one that is furthest behind: nobody saves up
    while it wants nothing. A party that is ahead of the furthest behind by more than ``quantum``
    stands back until the others have caught up.
    """

    __slots__ = ("_ranks", "_resting", "_wanting", "_weights", "quantum")

    def __init__(self, quantum: float) -> None:
        self.quantum = quantum
        self._ranks, self._resting = _Ranks(), _Ranks()
        """Those that want something; those that do not, and got more than one that does."""
        self._wanting: dict[Hashable, int] = {}
        self._weights: dict[Hashable, float] = {}

    def __len__(self) -> int:
        """How many parties are remembered."""
        return len(self._ranks) + len(self._resting)

    def weigh(self, party: Hashable, weight: float) -> None:
        """Give a party a weight other than 1.

        Raises:
            InvalidInput: the weight is not a positive number.
        """
        if not 0 < weight < float("inf"):
            raise InvalidInput(
                "weight", f"{weight} is not positive", "use 1, or 2 for twice as much"
            )
        self._weights[party] = weight

    def join(self, party: Hashable) -> None:
        """One more of a party's tickets waits or is served."""
        if party not in self._wanting:
            self._wanting[party] = 0
            got = self._resting.take(party) if party in self._resting else 0.0
            self._ranks.put(party, max(got, self._ranks.least))
        self._wanting[party] += 1

    def leave(self, party: Hashable) -> None:
        """One ticket less; without any the party is forgotten, unless it got more than others.

        When nobody wants anything all are: there is nobody to be ahead of.
        """
        self._wanting[party] -= 1
        if not self._wanting[party]:
            del self._wanting[party]
            self._resting.put(party, self._ranks.take(party))
            # what is kept when nobody wants anything would be kept for ever
            self._resting.drop(self._ranks.least if self._ranks else math.inf)

    def charge(self, party: Hashable, amount: float) -> None:
        """A party got something."""
        if party in self._ranks:
            got = self._ranks.take(party)
            self._ranks.put(party, got + amount / self._weights.get(party, 1.0))

    def ahead(self) -> set[Hashable]:
        """Parties that stand back now."""
        return self._ranks.above(self._ranks.least + self.quantum)
