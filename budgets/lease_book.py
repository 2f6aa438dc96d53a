"""Who has a lease on context memory, what it is charged, and what the sum of all charges may be.

A lease is charged what its context will need, not what it needs now: contexts grow, and a set that
fits today thrashes the cache tomorrow. A start that branches share is charged once, and so is what
several starts begin with: a system prompt under many questions.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from longthought.errors import InvalidInput
from longthought.types import LeaseChange

__all__ = [
    "GROWTH",
    "Lease",
    "LeaseBook",
    "LeaseEvent",
    "Starts",
    "added",
    "check_slots",
    "check_tokens",
]

Starts: TypeAlias = tuple[tuple[Hashable, int], ...]
"""Shared starts with their tokens: each goes on from the one before it and is longer."""

GROWTH = 256
"""Tokens that a context is expected to grow by at least in its next call."""


@dataclass(slots=True, eq=False)
class Lease:
    """The right of one branch to context memory.

    Attributes:
        branch: whose it is.
        run: the run of the branch, for fairness.
        context: tokens, the shared start included.
        prefix: what the start is shared by, None if by nobody.
        before: the shorter starts that this one begins with.
        charge: tokens charged for its own part.
        generating, queued: permits that it holds, and that it waits for.
        since: when the branch last generated or began to act.
        tool, shape: what it waits for, as far as known.
        acting: whether it waits for a tool.
    """

    branch: Hashable
    run: Hashable
    context: int
    prefix: Hashable
    prefix_tokens: int
    before: Starts = ()
    charge: float = 0.0
    generating: int = 0
    queued: int = 0
    since: float = 0.0
    tool: str = ""
    shape: Hashable = None
    acting: bool = False

    @property
    def idle(self) -> bool:
        """Whether it neither holds a permit nor waits for one."""
        return not self.generating and not self.queued


@dataclass(frozen=True, slots=True)
class LeaseEvent:
    """Something happened to a lease: ``taken``, ``parked``, ``resumed``, ``shed`` or ``ended``.

    ``resumed`` is a lease taken by a branch that had lost one; ``tokens`` is the context.
    """

    kind: LeaseChange
    branch: Hashable
    at: float
    tokens: int


class LeaseBook:
    """Leases by branch, and sums that are kept up to date.

    ``mean`` is the learned mean length of a context over the life of a branch. Where contexts that
    generate lie ``apart`` they are charged nothing, and one that waits just what it has: it will
    grow elsewhere.
    """

    __slots__ = (
        "_ended",
        "_fading",
        "_leases",
        "_prefixes",
        "_seen",
        "actual",
        "apart",
        "charged",
    )

    def __init__(self, *, apart: bool = False) -> None:
        self.apart = apart
        self._leases: dict[Hashable, Lease] = {}
        self._prefixes: dict[Hashable, list[int]] = {}
        self.charged = 0.0
        self.actual = 0
        self._seen = self._fading = 0.0
        self._ended = 0

    def __len__(self) -> int:
        return len(self._leases)

    def __iter__(self) -> Iterator[Lease]:
        return iter(self._leases.values())

    def get(self, branch: Hashable) -> Lease | None:
        """The lease of a branch, None if it has none."""
        return self._leases.get(branch)

    @property
    def mean(self) -> float:
        """Mean context of a branch over its life. Before branches have ended it is a forecast."""
        if not self._fading:
            return 0.0
        # Branches seen so far are young, and contexts grow.
        return self._seen / self._fading * (1 + 1 / (1 + self._ended / 4))

    @property
    def held(self) -> float:
        """Tokens of memory that leases take now."""
        return self.charged if self.apart else self.actual

    def learn(self, context: int) -> None:
        """A call ended with a context of so many tokens."""
        self._seen = self._seen * 0.995 + context
        self._fading = self._fading * 0.995 + 1

    def ended(self) -> None:
        """A branch has ended, so contexts of every age have been seen."""
        self._ended += 1

    def need(
        self, context: int, prefix: Hashable, prefix_tokens: int, before: Starts = ()
    ) -> float:
        """Tokens that a new lease would be charged, what is new of its shared start included."""
        need = self._own(context, prefix_tokens)
        for start, tokens in added(before, prefix, prefix_tokens):
            held = self._prefixes.get(start)
            need += max(0, tokens - (held[1] if held else 0))
        return need

    def open(self, lease: Lease) -> None:
        """Enter a new lease."""
        for start, tokens in added(lease.before, lease.prefix, lease.prefix_tokens):
            held = self._prefixes.setdefault(start, [0, 0])
            held[0] += 1
            grown = max(0, tokens - held[1])
            held[1] += grown
            self.charged += grown
            self.actual += grown
        self._leases[lease.branch] = lease
        lease.charge = self._charge(lease)
        self.charged += lease.charge
        self.actual += self._actual(lease)

    def grow(self, lease: Lease, context: int) -> None:
        """The context of a lease has another length; its charge follows, also what was learned."""
        self.actual -= self._actual(lease)
        lease.context = max(context, lease.prefix_tokens)
        self.actual += self._actual(lease)
        charge = self._charge(lease)
        self.charged += charge - lease.charge
        lease.charge = charge

    def close(self, lease: Lease) -> None:
        """Strike a lease out."""
        del self._leases[lease.branch]
        self.charged -= lease.charge
        self.actual -= self._actual(lease)
        for start, _ in added(lease.before, lease.prefix, lease.prefix_tokens):
            held = self._prefixes[start]
            held[0] -= 1
            if not held[0]:
                del self._prefixes[start]
                self.charged -= held[1]
                self.actual -= held[1]
        if not self._leases:
            self.charged, self.actual = 0.0, 0  # no rounding is carried on

    def _charge(self, lease: Lease) -> float:
        if self.apart:
            return 0.0 if lease.generating else float(lease.context)
        return self._own(lease.context, lease.prefix_tokens)

    def _own(self, context: int, prefix_tokens: int) -> float:
        return max(context + GROWTH - prefix_tokens, self.mean - prefix_tokens, GROWTH)

    def _actual(self, lease: Lease) -> int:
        return lease.context + GROWTH - lease.prefix_tokens


def added(before: Starts, prefix: Hashable, prefix_tokens: int) -> Iterator[tuple[Hashable, int]]:
    """Each shared start, the longest last, with the tokens that it adds to the one before it."""
    if prefix is None:
        return
    done = 0
    for start, tokens in (*before, (prefix, prefix_tokens)):
        if tokens > done:
            yield start, tokens - done
            done = tokens


def check_slots(slots: int) -> int:
    """A number of slots that a caller gave.

    Raises:
        InvalidInput: it is no whole number from 1.
    """
    if isinstance(slots, bool) or not isinstance(slots, int) or slots < 1:
        raise InvalidInput("slots", f"{slots!r} is no number of slots", "use an int from 1")
    return slots


def check_tokens(field: str, tokens: int) -> int:
    """A number of tokens that a caller gave.

    Raises:
        InvalidInput: it is no whole number from 0.
    """
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 0:
        raise InvalidInput(field, f"{tokens!r} is no number of tokens", "use an int from 0")
    return tokens
