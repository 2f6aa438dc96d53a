"""The prefix cache: keys and values of token sequences that may come back longer.

A trie finds the longest stored prefix of a prompt in one walk. Whole sequences are evicted by least
recent use when their arrays outgrow a bound in bytes; what is evicted is computed again on return.
Whoever knows better says of a sequence that it must stay, or that it may go first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from .network import Floats

__all__ = ["Prefix", "PrefixCache"]


@dataclass(frozen=True, slots=True)
class Prefix:
    """Keys and values of a sequence, each (layers, heads, positions, head width)."""

    tokens: tuple[int, ...]
    keys: Floats
    values: Floats

    @property
    def nbytes(self) -> int:
        """Size of the arrays in bytes."""
        return self.keys.nbytes + self.values.nbytes


@dataclass(slots=True)
class _Node:
    """A place in the trie. ``owners`` are the sequences that pass through it, ``end`` ends here."""

    children: dict[int, _Node] = field(default_factory=dict)
    owners: set[int] = field(default_factory=set)
    end: int | None = None


class PrefixCache:
    """Least-recently-used store of prefixes. Not thread-safe: one thread owns it."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.nbytes = 0
        self._root = _Node()
        self._stored: OrderedDict[int, Prefix] = OrderedDict()
        self._kept: set[int] = set()
        self._next = 0

    def __len__(self) -> int:
        return len(self._stored)

    def find(self, tokens: Sequence[int]) -> tuple[int, Prefix | None]:
        """How many leading tokens are stored, and a prefix that holds at least that many."""
        node, depth = self._walk(tokens)
        if depth == 0:
            return 0, None
        number = next(iter(node.owners))
        self._stored.move_to_end(number)
        return depth, self._stored[number]

    def depth(self, tokens: Sequence[int]) -> int:
        """How many leading tokens are stored."""
        return self._walk(tokens)[1]

    def covers(self, tokens: Sequence[int]) -> bool:
        """Whether all these tokens are stored, alone or as part of a longer sequence."""
        return self.depth(tokens) == len(tokens)

    def add(self, prefix: Prefix) -> None:
        """Store a sequence; those it extends are dropped, they are part of it.

        Where all others are kept it is here beyond the limit until the next one comes: whoever had
        those kept may say that one of them goes, and keep this one.
        """
        if not prefix.tokens or self.covers(prefix.tokens) or prefix.nbytes > self.limit_bytes:
            return
        number, self._next = self._next, self._next + 1
        node = self._root
        for token in prefix.tokens:
            if node.end is not None:
                self._drop(node.end)
            node = node.children.setdefault(token, _Node())
            node.owners.add(number)
        node.end = number
        self._stored[number] = prefix
        self.nbytes += prefix.nbytes
        self._make_room(number)

    def keep(self, tokens: Sequence[int]) -> None:
        """Do not evict the sequence that these tokens begin with, until it comes back.

        Where all that fits is kept it goes. Nothing happens where no sequence ends within the
        tokens: it was evicted, or a longer one holds its rows.
        """
        number = self._walk(tokens)[0].end
        if number is not None:
            self._kept.add(number)
            self._make_room(number)
            if self.nbytes > self.limit_bytes:
                self._drop(number)

    def unkeep(self, tokens: Sequence[int]) -> None:
        """The sequence that these tokens begin with may be evicted again."""
        number = self._walk(tokens)[0].end
        if number is not None:
            self._kept.discard(number)
            self._make_room()

    def release(self, tokens: Sequence[int]) -> bool:
        """The sequence that these tokens begin with goes first; whether it had been kept.

        If it was not, and holds fewer of them than all but the last, it is a start that others may
        share, of a sequence that was evicted: nothing happens.
        """
        node, depth = self._walk(tokens)
        kept = node.end in self._kept
        if node.end is not None and (kept or depth >= len(tokens) - 1):
            self._kept.discard(node.end)
            self._stored.move_to_end(node.end, last=False)
            self._make_room()
        return kept

    def come_back(self, tokens: Sequence[int]) -> bool:
        """Whoever kept a sequence has its rows again; false if what these tokens begin with was
        not kept. What lies here is then of no more use, and goes first.
        """
        number = self._walk(tokens)[0].end if self._kept else None
        return number in self._kept and self.release(tokens)

    def clear(self) -> None:
        """Forget everything."""
        self._root = _Node()
        self._kept.clear()
        self._stored.clear()
        self.nbytes = 0

    def _make_room(self, newest: int | None = None) -> None:
        """Evict what is not kept, but for the newest, until no more is here than may be."""
        while self.nbytes > self.limit_bytes:
            goes = (one for one in self._stored if one != newest and one not in self._kept)
            number = next(goes, None)
            if number is None:
                return
            self._drop(number)

    def _walk(self, tokens: Sequence[int]) -> tuple[_Node, int]:
        node = self._root
        for depth, token in enumerate(tokens):
            child = node.children.get(token)
            if child is None:
                return node, depth
            node = child
        return node, len(tokens)

    def _drop(self, number: int) -> None:
        prefix = self._stored.pop(number)
        self._kept.discard(number)
        self.nbytes -= prefix.nbytes
        node = self._root
        for token in prefix.tokens:
            child = node.children[token]
            child.owners.discard(number)
            if not child.owners:
                del node.children[token]
                return
            node = child
        node.end = None
