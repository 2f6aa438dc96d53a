"""Which contexts a backend's prefix cache holds, as far as a client can tell.

The cache of an engine evicts what was used least recently. A client that knows the size of the
memory and sends all requests knows the order of use, and so what is left. The scheduler asks here
before it believes that a context is still there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence

__all__ = ["ContextCache"]


_MOST = 8192
"""Idle contexts that are remembered, where memory is thought to be boundless."""


class ContextCache:
    """A mirror of a least-recently-used cache, in tokens.

    What is in use is never evicted. ``capacity`` may change at any time.
    """

    __slots__ = ("_idle", "_idle_tokens", "_used", "_used_tokens", "capacity")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._used: dict[Hashable, list[int]] = {}
        self._idle: OrderedDict[Hashable, int] = OrderedDict()
        self._used_tokens = self._idle_tokens = 0

    @property
    def free(self) -> int:
        """Tokens that neither running requests nor idle contexts occupy."""
        return self.capacity - self._used_tokens - self._idle_tokens

    @property
    def used(self) -> int:
        """Tokens of all contexts that are there."""
        return self._used_tokens + self._idle_tokens

    def resize(self, capacity: int) -> None:
        """The memory is of another size than was thought."""
        self.capacity = capacity
        self._evict()

    def resident(self, key: Hashable) -> int:
        """Tokens of a context that are still there."""
        if key in self._used:
            return self._used[key][1]
        return self._idle.get(key, 0)

    def use(self, key: Hashable, tokens: int) -> int:
        """A request with that context begins; returns the tokens of it that are there."""
        found = self.resident(key)
        self.take(key)
        users, before = self._used.get(key, (0, 0))
        tokens = max(tokens, before)
        self._used[key] = [users + 1, tokens]
        self._used_tokens += tokens - before
        self._evict()
        return min(found, tokens)

    def found(self, pieces: Sequence[tuple[Hashable, int]]) -> int:
        """How much is there of a context with these pieces, up to the first gap."""
        found = 0
        for key, tokens in pieces:
            there = self.resident(key)
            if there < tokens:
                return found + there
            found += tokens
        return found

    def use_all(self, pieces: Sequence[tuple[Hashable, int]]) -> int:
        """A request begins whose context has these pieces, in order; returns what is there of it.

        What comes after a gap is computed anew, whether it is there or not.
        """
        whole, expected = True, 0
        for key, tokens in pieces:
            found = self.use(key, tokens)
            expected += found if whole else 0
            whole = whole and found >= tokens
        return expected

    def leave(self, key: Hashable, tokens: int) -> None:
        """A request ends; its context, now so long, is the most recently used."""
        users, before = self._used.pop(key)
        tokens = max(tokens, before)
        self._used_tokens -= before
        if users > 1:
            self._used[key] = [users - 1, tokens]
            self._used_tokens += tokens
        else:
            self._idle[key] = tokens
            self._idle_tokens += tokens
        self._evict()

    def take(self, key: Hashable) -> None:
        """Forget an idle context."""
        self._idle_tokens -= self._idle.pop(key, 0)

    def clear(self) -> None:
        """Forget all idle contexts."""
        self._idle.clear()
        self._idle_tokens = 0

    def oldest(self) -> Iterator[tuple[Hashable, int]]:
        """Idle contexts with their tokens, the one that goes first first."""
        return iter(self._idle.items())

    def _evict(self) -> None:
        while len(self._idle) > _MOST:
            self._idle_tokens -= self._idle.popitem(last=False)[1]
        excess = -self.free
        while excess > 0 and self._idle:
            key, tokens = next(iter(self._idle.items()))
            gone = min(excess, tokens)
            excess -= gone
            self._idle_tokens -= gone
            if gone == tokens:
                del self._idle[key]
            else:
                self._idle[key] = tokens - gone
