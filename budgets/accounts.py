"""Accounts: the running figures of one scope. Only the ledger and its waiting line change them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from longthought.budgets.amounts import KINDS, NANODOLLARS_PER_DOLLAR, Amount
from longthought.budgets.limits import Budget
from longthought.errors import BudgetExhausted

if TYPE_CHECKING:
    from longthought.budgets.shares import Shares

__all__ = ["Account", "Cap", "as_amount", "impossible"]


class Cap(NamedTuple):
    """One limit: index of its kind in ``KINDS``, the limit, and what last answers keep of it.

    ``share`` is what one last answer keeps: less than ``kept`` where many runs share the limit.
    """

    kind: int
    limit: int
    kept: int
    share: int

    def open_to(self, allowance: bool) -> int:
        """The part of the limit that a caller with or without the allowance may use."""
        return self.limit - self.kept + self.share if allowance else self.limit - self.kept


class Account:
    """Figures of one scope as plain lists in the order of ``KINDS``.

    ``waiting`` counts the waiters and ``open`` the reservations here and below; ``notify`` is
    called after every change. ``shares`` says who shares a pool, None for all else. ``inside`` is
    true below a run, as in a search and a branch.
    """

    __slots__ = (
        "budget",
        "caps",
        "inside",
        "name",
        "notify",
        "open",
        "reserved",
        "shares",
        "spent",
        "waiting",
    )

    def __init__(
        self,
        name: str,
        budget: Budget,
        notify: Callable[[], None] | None,
        *,
        inside: bool = False,
    ) -> None:
        self.name = name
        self.inside = inside
        self.notify = notify
        self.spent = [0] * len(KINDS)
        self.reserved = [0] * len(KINDS)
        self.waiting = 0
        self.open = 0
        self.shares: Shares | None = None
        self.limit_by(budget)

    def limit_by(self, budget: Budget) -> None:
        """Put new limits in force."""
        self.budget = budget
        self.refit()

    def refit(self) -> None:
        """See anew what is kept back of each limit."""
        budget, shares, caps = self.budget, self.shares, []
        for index, kind in enumerate(KINDS):
            limit = budget.limit(kind)
            if limit is not None:
                kept = share = budget.kept_back(kind)
                if shares is not None:
                    kept, share = shares.kept(index, limit, share)
                caps.append(Cap(index, limit, kept, share))
        self.caps = caps

    def opens_to(self, caller: Account) -> bool:
        """Whether the last answer of ``caller`` may use what is kept back here.

        A scope keeps it for an answer of its own, and a pool for those of its runs: what is inside
        a run has no part in either.
        """
        return self is caller or not caller.inside

    def move(self, reserved: Sequence[int], spent: Sequence[int]) -> None:
        """Add to what is reserved and spent; negative figures take away."""
        mine, gone = self.reserved, self.spent
        for kind, figure in enumerate(reserved):
            if figure:
                mine[kind] += figure
        for kind, figure in enumerate(spent):
            if figure:
                gone[kind] += figure

    def overrun(self) -> list[int]:
        """By how much spent and reserved together stand above each limit."""
        over = [0] * len(KINDS)
        for cap in self.caps:
            kind = cap.kind
            over[kind] = max(0, self.spent[kind] + self.reserved[kind] - cap.limit)
        return over

    def exhausted_by(self, cap: Cap, needed: int) -> BudgetExhausted:
        """The error that says this limit cannot give what is needed; money in dollars."""
        if KINDS[cap.kind] == "nanodollars":
            unit = NANODOLLARS_PER_DOLLAR
            return BudgetExhausted("usd", self.name, cap.limit / unit, needed / unit)
        return BudgetExhausted(KINDS[cap.kind], self.name, cap.limit, needed)


def impossible(
    accounts: Sequence[Account], need: Sequence[int], allowance: bool
) -> BudgetExhausted | None:
    """The error if ``need`` would not fit even if every reservation came back unspent."""
    run = accounts[0]
    for account in accounts:
        spent, shares = account.spent, account.shares
        allowance = allowance and account.opens_to(accounts[0])
        for cap in account.caps:
            wanted = need[cap.kind]
            if not wanted:
                continue
            most = cap.open_to(allowance) if shares is None else shares.most(cap, run, allowance)
            if spent[cap.kind] + wanted > most:
                return account.exhausted_by(cap, wanted)
        if shares is None:
            run = account
    return None


def as_amount(figures: Sequence[int]) -> Amount:
    """An amount from figures in the order of ``KINDS``."""
    return Amount(*figures)
