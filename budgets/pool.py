"""Pools: one budget over many runs, and over smaller pools."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self, cast

from longthought.budgets.accounts import Account, as_amount
from longthought.budgets.amounts import Amount
from longthought.budgets.ledger import Scope
from longthought.budgets.limits import Budget, check_budget
from longthought.budgets.shares import Shares
from longthought.errors import InvalidInput
from longthought.types import JSONObject

__all__ = ["Pool"]

_TAKEN = ("run", "search", "branch")


class Pool(Scope):
    """One budget over a batch of runs: ``Workflow.run(..., pool=pool)``, ``resume``, ``wake``.

    Runs at once share what is free evenly, and none can take what another has not yet used of its
    even part; what a run does not use is free again when it ends. A run that finds the pool used
    up ends with its best answer so far, and a ``stop_reason`` like ``pool.tokens``. Of each limit
    a tenth at most, or ``final_answer`` tokens for each run, is kept back for their last answers.

    It lives in one process and one thread. What earlier attempts at a resumed run have used counts
    once. As a context manager it takes no more runs afterwards.

    Raises:
        InvalidInput: the name stands for something else, or the budget limits time, which each run
            counts for itself.
    """

    __slots__ = ("_ids", "_seen")

    def __init__(
        self,
        name: str = "pool",
        budget: Budget | None = None,
        parent: Pool | None = None,
        *,
        on_change: Callable[[], None] | None = None,
    ) -> None:
        if (
            not isinstance(name, str)
            or name in _TAKEN
            or not name.isprintable()
            or "." in name
            or not name.strip()
        ):
            raise InvalidInput("pool", f"cannot be called {name!r}", "Use a short name of its own")
        check_budget("budget", budget)
        for field in ("wall", "thinking"):
            if budget is not None and getattr(budget, field) is not None:
                fix = "Give each run its own: Workflow(budget=...)"
                raise InvalidInput(f"pool.{field}", "time is not shared by runs", fix)
        self._ids: dict[Account, str] = {}
        self._seen: dict[str, Amount] = {}
        """What each run that is over, or has left, has used: it counts here already."""
        super().__init__(name, budget, parent, on_change=on_change)

    def child(  # type: ignore[override]
        self,
        name: str,
        budget: Budget | None = None,
        *,
        on_change: Callable[[], None] | None = None,
    ) -> Pool:
        """A smaller pool inside this one."""
        return Pool(name, budget, self, on_change=on_change)

    @property
    def runs(self) -> int:
        """How many runs are under way here and below."""
        return self.shares.runs

    def view(self) -> JSONObject:
        """The tree as :meth:`Scope.view` shows it, and how many runs are under way."""
        return {**super().view(), "runs": self.runs}

    def begin_run(self, run: str, budget: Budget, spent: Amount, *, nested: bool = False) -> Scope:
        """See :meth:`Scope.begin_run`; what counts here already is not counted again."""
        scope = Scope(run, budget, self, level="run", spent=spent)
        account = scope.accounts[0]
        member = account
        for pool in self._levels():
            pool.enter(run, account, spent, nested)
            pool.shares.joined(member)
            member = pool.accounts[0]
        self._changed()
        return scope

    def uncounted(self, run: str, spent: Amount) -> Amount:
        """What of that a run has ``spent`` does not count here yet."""
        seen = self._seen.get(run, Amount()).vector
        return as_amount([max(0, a - b) for a, b in zip(spent.vector, seen, strict=True)])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(force=error is not None)

    # -- between pools and their runs; not for callers ---------------------------------------------

    def enter(self, run: str, account: Account, spent: Amount, nested: bool) -> None:
        """A run begins here or below; of what it has ``spent`` that counts which is new here."""
        new = self.uncounted(run, spent)
        self._seen.pop(run, None)
        self.accounts[0].move((), new.vector)
        self._ids[account] = run
        self.shares.entered(account, nested)

    def leave(self, account: Account, spent: Amount) -> None:
        """A run or a pool here or below is over."""
        run = self._ids.pop(account, None)
        if run is not None:
            self._seen[run] = spent
        self.shares.left(account)
        if not self.runs and isinstance(self.parent, Pool):
            self.parent.shares.left(self.accounts[0])  # what it holds of its part is for all

    def adopt(self, child: Scope) -> None:
        """Enter a run or a smaller pool that begins here.

        Raises:
            InvalidInput: this pool is closed.
        """
        if self._closed:
            fix = "Begin runs inside its with block, or make a new pool"
            raise InvalidInput("pool", f"{self.name!r} is closed", fix)
        super().adopt(child)

    def disown(self, child: Scope) -> None:
        """Forget a run or a pool that is over; called by its :meth:`close`."""
        super().disown(child)
        account = child.accounts[0]
        for pool in self._levels():
            pool.leave(account, child.spent)
        self._changed()  # what it did not use is there for others

    @property
    def shares(self) -> Shares:
        """Who shares this pool."""
        return cast("Shares", self.accounts[0].shares)

    def _account(self, account: Account) -> Account:
        account.shares = Shares(account)
        account.refit()
        return account

    def _levels(self) -> list[Pool]:
        levels: list[Pool] = []
        pool: Scope | None = self
        while isinstance(pool, Pool):
            levels.append(pool)
            pool = pool.parent
        return levels
