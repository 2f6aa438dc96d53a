"""Who has a lease on context memory, what it is charged, and what the sum of all charges may be.

A lease is charged what its context will need, not what it needs now: contexts grow, and a set that
fits today thrashes the cache tomorrow. A start that sibling branches share is charged once.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from longthought.errors import InvalidInput

__all__ = ["Lease", "LeaseBook", "LeaseEvent", "check_tokens"]

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

    kind: str
    branch: Hashable
    at: float
    tokens: int


class LeaseBook:
    """Leases by branch, and sums that are kept up to date.

    ``mean`` is the learned mean length of a context over the life of a branch.
    """

    __slots__ = (
        "_begun",
        "_ended",
        "_fading",
        "_leases",
        "_prefixes",
        "_seen",
        "actual",
        "charged",
    )

    def __init__(self) -> None:
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

    def learn(self, context: int) -> None:
        """A call ended with a context of so many tokens."""
        self._seen = self._seen * 0.995 + context
        self._fading = self._fading * 0.995 + 1

    def ended(self) -> None:
        """A branch has ended, so contexts of every age have been seen."""
        self._ended += 1

    def need(self, context: int, prefix: Hashable, prefix_tokens: int) -> float:
        """Tokens that a new lease would be charged, a shared start included if it is new."""
        own = self._own(context, prefix_tokens)
        held = self._prefixes.get(prefix)
        return own + max(0, prefix_tokens - (held[1] if held else 0))

    def open(self, lease: Lease) -> None:
        """Enter a new lease."""
        if lease.prefix is not None and lease.prefix_tokens:
            held = self._prefixes.setdefault(lease.prefix, [0, 0])
            held[0] += 1
            grown = max(0, lease.prefix_tokens - held[1])
            held[1] += grown
            self.charged += grown
            self.actual += grown
        self._leases[lease.branch] = lease
        lease.charge = self._own(lease.context, lease.prefix_tokens)
        self.charged += lease.charge
        self.actual += self._actual(lease)

    def grow(self, lease: Lease, context: int) -> None:
        """The context of a lease has another length; its charge follows, also what was learned."""
        self.actual -= self._actual(lease)
        lease.context = max(context, lease.prefix_tokens)
        self.actual += self._actual(lease)
        charge = self._own(lease.context, lease.prefix_tokens)
        self.charged += charge - lease.charge
        lease.charge = charge

    def close(self, lease: Lease) -> None:
        """Strike a lease out."""
        del self._leases[lease.branch]
        self.charged -= lease.charge
        self.actual -= self._actual(lease)
        if lease.prefix is not None and lease.prefix_tokens:
            held = self._prefixes[lease.prefix]
            held[0] -= 1
            if not held[0]:
                del self._prefixes[lease.prefix]
                self.charged -= held[1]
                self.actual -= held[1]
        if not self._leases:
            self.charged, self.actual = 0.0, 0  # no rounding is carried on

    def _own(self, context: int, prefix_tokens: int) -> float:
        return max(context + GROWTH - prefix_tokens, self.mean - prefix_tokens, GROWTH)

    def _actual(self, lease: Lease) -> int:
        return lease.context + GROWTH - lease.prefix_tokens


def check_tokens(field: str, tokens: int) -> int:
    """A number of tokens that a caller gave.

    Raises:
        InvalidInput: it is no whole number from 0.
    """
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 0:
        raise InvalidInput(field, f"{tokens!r} is no number of tokens", "use an int from 0")
    return tokens
