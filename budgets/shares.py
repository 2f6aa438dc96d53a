"""Who shares a pool: what each run may take of it, and what is kept back for its last answer.

A *member* is what stands directly below a pool, a run or a smaller pool; a *run* may stand further
down. Three rules keep one greedy run from taking everything:

* what is free is divided by members first and by the callers of each member then;
* of those who wait, the member goes first that has used least;
* what a member has not yet used of its even part stays free for it as long as it is there, even
  while it asks for nothing. The even part is what members that have left did not use, divided by
  those that are there.

And each run keeps back a part for its last answer, which nobody else can take.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from longthought.budgets.accounts import Account, Cap

__all__ = ["Shares", "order_of"]

_KEPT_SHARE = 10
"""At most a tenth of a limit is kept back for all last answers together."""
_STATED_SHARE = 2
"""At most half of it where the user has said how much each needs."""


class Shares:
    """The members and runs of one pool; kept by the pool, read by the waiting line."""

    __slots__ = ("_account", "_drawn", "_members", "_nested")

    def __init__(self, account: Account) -> None:
        self._account = account
        self._members: dict[Account, None] = {}
        self._drawn: dict[Account, list[int]] = {}
        """The runs here and below, and what each has taken of what is kept for last answers."""
        self._nested: set[Account] = set()

    # -- who is there -----------------------------------------------------------------------------

    def joined(self, member: Account) -> None:
        """A run or a smaller pool begins here."""
        self._members[member] = None

    def entered(self, run: Account, nested: bool) -> None:
        """A run begins here or below; a ``nested`` one is waited for by another run."""
        self._drawn[run] = [0] * len(run.spent)
        if nested:
            self._nested.add(run)
        self._account.refit()

    def left(self, account: Account) -> None:
        """A member or a run is over."""
        self._members.pop(account, None)
        self._nested.discard(account)
        if self._drawn.pop(account, None) is not None:
            self._account.refit()

    @property
    def runs(self) -> int:
        """How many runs are there."""
        return len(self._drawn)

    # -- last answers -----------------------------------------------------------------------------

    def kept(self, kind: int, limit: int, each: int) -> tuple[int, int]:
        """What is kept back of a limit for all last answers, and for one of them."""
        runs = max(1, len(self._drawn))
        stated = self._account.budget.final_answer is not None
        most = limit // (_STATED_SHARE if stated else _KEPT_SHARE)
        share = min(each, most // runs)
        drawn = sum(min(share, drawn[kind]) for drawn in self._drawn.values())
        return runs * share - drawn, share

    def drew(self, run: Account, amount: Sequence[int]) -> None:
        """A run takes of what is kept back for it; what is negative it gives back."""
        drawn = self._drawn.get(run)
        if drawn is not None:
            drawn[:] = [a + b for a, b in zip(drawn, amount, strict=True)]
            self._account.refit()

    def most(self, cap: Cap, run: Account, allowance: bool) -> int:
        """The part of a limit that is open to a run, its own last answer included if so."""
        if not allowance:
            return cap.limit - cap.kept
        drawn = self._drawn.get(run)
        own = cap.share - min(cap.share, drawn[cap.kind]) if drawn is not None else cap.share
        return cap.limit - cap.kept + own

    # -- even parts -------------------------------------------------------------------------------

    def free(self, cap: Cap, run: Account, member: Account, allowance: bool) -> int:
        """What a run may take now; ``member`` is the one it belongs to, perhaps itself."""
        account, kind, members = self._account, cap.kind, self._members
        free = self.most(cap, run, allowance) - account.spent[kind] - account.reserved[kind]
        # a run that another one waits for must not wait for that one
        if allowance or len(members) < 2 or run in self._nested:
            return free
        used = sum([other.spent[kind] for other in members])
        even = (cap.limit - cap.kept - account.spent[kind] + used) // len(members)
        owed = 0
        for other in members:
            # those who wait are in line, and stand before whoever has used more
            if other is not member and not other.waiting:
                unused = even - other.spent[kind] - other.reserved[kind]
                owed += max(0, unused)
        return min(free, max(free - owed, even - member.spent[kind] - member.reserved[kind]))

    def contenders(self, member: Account) -> int:
        """How many members want something now, ``member`` included."""
        return 1 + sum([1 for other in self._members if other.waiting and other is not member])


def order_of(accounts: Sequence[Account]) -> tuple[float, ...]:
    """How much of each pool above a caller its member has used, the largest pool first."""
    order, member = [], accounts[0]
    for account in accounts:
        if account.shares is not None:
            parts = [
                (member.spent[cap.kind] + member.reserved[cap.kind]) / cap.limit
                for cap in account.caps
                if cap.limit
            ]
            order.append(max(parts, default=0.0))
        member = account
    return tuple(reversed(order))
