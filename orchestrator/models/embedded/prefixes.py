"""The prefix cache: keys and values of token sequences that may come back longer.

Sequences are kept in order, so that the one which shares the longest start with a prompt is a
neighbour of the place where the prompt would stand. Whole sequences are evicted by least recent use
when their arrays outgrow a bound in bytes; what is evicted is computed again on return. Whoever
knows better says of a sequence that it must stay, or that it may go first.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from .network import Floats

__all__ = ["Prefix", "PrefixCache", "shared_start"]

Tokens: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Prefix:
    """Keys and values of a sequence, each (layers, heads, positions, head width)."""

    tokens: Tokens
    keys: Floats
    values: Floats

    @property
    def nbytes(self) -> int:
        """Size of the arrays in bytes."""
        return self.keys.nbytes + self.values.nbytes


class PrefixCache:
    """Least-recently-used store of prefixes, none of which another one begins with.

    Not thread-safe: one thread owns it.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.nbytes = 0
        self._stored: OrderedDict[Tokens, Prefix] = OrderedDict()
        self._sorted: list[Tokens] = []
        self._kept: set[Tokens] = set()

    def __len__(self) -> int:
        return len(self._stored)

    def find(self, tokens: Sequence[int]) -> tuple[int, Prefix | None]:
        """How many leading tokens are stored, and a prefix that holds at least that many."""
        nearest, depth = self._nearest(tokens)
        if nearest is None:
            return 0, None
        self._stored.move_to_end(nearest)
        return depth, self._stored[nearest]

    def depth(self, tokens: Sequence[int]) -> int:
        """How many leading tokens are stored."""
        return self._nearest(tokens)[1]

    def covers(self, tokens: Sequence[int]) -> bool:
        """Whether all these tokens are stored, alone or as part of a longer sequence."""
        return self.depth(tokens) == len(tokens)

    def add(self, prefix: Prefix) -> None:
        """Store a sequence; one that it extends is dropped, it is part of it.

        Where all others are kept it is here beyond the limit until the next one comes: whoever had
        those kept may say that one of them goes, and keep this one.
        """
        tokens = prefix.tokens
        if not tokens or self.covers(tokens) or prefix.nbytes > self.limit_bytes:
            return
        beginning = self._beginning(tokens)
        if beginning is not None:
            self._drop(beginning)
        insort(self._sorted, tokens)
        self._stored[tokens] = prefix
        self.nbytes += prefix.nbytes
        self._make_room(tokens)

    def keep(self, tokens: Sequence[int]) -> None:
        """Do not evict the sequence that these tokens begin with, until it comes back.

        Where all that fits is kept it goes. Nothing happens where no sequence ends within the
        tokens: it was evicted, or a longer one holds its rows.
        """
        beginning = self._beginning(tokens)
        if beginning is not None:
            self._kept.add(beginning)
            self._make_room(beginning)
            if self.nbytes > self.limit_bytes:
                self._drop(beginning)

    def unkeep(self, tokens: Sequence[int]) -> None:
        """The sequence that these tokens begin with may be evicted again."""
        beginning = self._beginning(tokens)
        if beginning is not None:
            self._kept.discard(beginning)
            self._make_room()

    def release(self, tokens: Sequence[int]) -> bool:
        """The sequence that these tokens begin with goes first; whether it had been kept.

        If it was not, and holds fewer of them than all but the last, it is a start that others may
        share, of a sequence that was evicted: nothing happens.
        """
        beginning = self._beginning(tokens)
        if beginning is None:
            return False
        kept = beginning in self._kept
        if kept or len(beginning) >= len(tokens) - 1:
            self._kept.discard(beginning)
            self._stored.move_to_end(beginning, last=False)
            self._make_room()
        return kept

    def come_back(self, tokens: Sequence[int]) -> bool:
        """Whoever kept a sequence has its rows again; false if what these tokens begin with was
        not kept. What lies here is then of no more use, and goes first.
        """
        return bool(self._kept) and self._beginning(tokens) in self._kept and self.release(tokens)

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self._stored.clear()
        self._sorted.clear()
        self.nbytes = 0

    def _make_room(self, newest: Tokens | None = None) -> None:
        """Evict what is not kept, but for the newest, until no more is here than may be."""
        while self.nbytes > self.limit_bytes:
            goes = (one for one in self._stored if one != newest and one not in self._kept)
            tokens = next(goes, None)
            if tokens is None:
                return
            self._drop(tokens)

    def _nearest(self, tokens: Sequence[int]) -> tuple[Tokens | None, int]:
        """The sequence that shares the longest start with these tokens, and its length."""
        wanted = tuple(tokens)
        place = bisect_left(self._sorted, wanted)
        nearest, depth = None, 0
        for one in self._sorted[max(0, place - 1) : place + 1]:
            shared = shared_start(one, wanted)
            if shared > depth:
                nearest, depth = one, shared
        return nearest, depth

    def _beginning(self, tokens: Sequence[int]) -> Tokens | None:
        """The sequence that these tokens begin with, the whole of it; there is one at most."""
        nearest, depth = self._nearest(tokens)
        return nearest if nearest is not None and depth == len(nearest) else None

    def _drop(self, tokens: Tokens) -> None:
        self.nbytes -= self._stored.pop(tokens).nbytes
        self._kept.discard(tokens)
        del self._sorted[bisect_left(self._sorted, tokens)]


def shared_start(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens at their beginning two sequences of the same type have in common."""
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    while low < high:  # the first `low` agree, and not all of `high`
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
