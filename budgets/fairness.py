"""Fair shares of what is given out in turns, by start-time fair queueing."""

from __future__ import annotations

from collections.abc import Hashable

from longthought.errors import InvalidInput

__all__ = ["FairShares"]


class FairShares:
    """What every party got, divided by its weight, since it last had nothing to do.

    Who comes back after a pause starts level with the one that is furthest behind: nobody saves up
    while it wants nothing. A party that is ahead of the furthest behind by more than ``quantum``
    stands back until the others have caught up.
    """

    __slots__ = ("_got", "_wanting", "_weights", "quantum")

    def __init__(self, quantum: float) -> None:
        self.quantum = quantum
        self._got: dict[Hashable, float] = {}
        self._wanting: dict[Hashable, int] = {}
        self._weights: dict[Hashable, float] = {}

    def __len__(self) -> int:
        """How many parties are remembered."""
        return len(self._got)

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
            least = min(
                (self._got[other] for other in self._wanting if other in self._got), default=0.0
            )
            self._got[party] = max(self._got.get(party, least), least)
        self._wanting[party] += 1

    def leave(self, party: Hashable) -> None:
        """One ticket less; without any the party is forgotten, unless it got more than others.

        When nobody wants anything all are: there is nobody to be ahead of.
        """
        self._wanting[party] -= 1
        if not self._wanting[party]:
            del self._wanting[party]
            if not self._wanting:  # what is kept would be kept for ever
                self._got.clear()
                return
            least = min(self._got[other] for other in self._wanting)
            for other in [other for other in self._got if other not in self._wanting]:
                if self._got[other] <= least:
                    del self._got[other]

    def charge(self, party: Hashable, amount: float) -> None:
        """A party got something."""
        if party in self._got:
            self._got[party] += amount / self._weights.get(party, 1.0)

    def ahead(self) -> set[Hashable]:
        """Parties that stand back now."""
        if len(self._wanting) < 2:
            return set()
        least = min(self._got[party] for party in self._wanting)
        return {party for party in self._wanting if self._got[party] - least > self.quantum}
