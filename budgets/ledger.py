"""The ledger: a tree of scopes in which everything is reserved before it is spent.

For every scope and kind ``spent + reserved <= limit`` holds at every instant, as long as what is
settled stays within what was reserved. What a backend takes beyond its reservation is charged all
the same and shows as ``overrun``. A ledger belongs to one thread; it may be used from several event
loops one after the other. Time is no matter of the ledger, see :mod:`longthought.budgets.clocks`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from types import TracebackType
from typing import Self

from longthought.budgets.accounts import Account, as_amount, impossible
from longthought.budgets.amounts import KINDS, Amount, Kind, Vector
from longthought.budgets.limits import Budget
from longthought.budgets.waiting import Claims, Line, Waiter, Wish
from longthought.types import JSONObject

__all__ = ["Reservation", "Scope"]

_NOTHING: Vector = (0,) * len(KINDS)
_NO_BUDGET = Budget()
_NO_CLAIMS: Claims = set()


class Scope:
    """One level of the tree: pool, run, search or branch; a pool is a :class:`Pool`.

    Whatever is reserved or spent here counts in every scope above as well, so a child can never
    take more than its parent has. ``on_change`` is called, without arguments, after each change of
    the figures here or below; it may read the ledger and should not use it.

    Attributes:
        name: how errors and views call this scope.
        parent: the scope above, None at the top.
        level: what errors call it in place of its name, if that is given: ``branch``. One with a
            parent whose level is not ``run`` is inside a run.
        accounts: the figures of this scope and then of those above; for the ledger itself.
    """

    __slots__ = ("_children", "_closed", "_line", "accounts", "level", "name", "parent")

    def __init__(
        self,
        name: str,
        budget: Budget | None = None,
        parent: Scope | None = None,
        *,
        level: str = "",
        spent: Amount | None = None,
        on_change: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self.parent = parent
        self.level = level
        inside = parent is not None and level != "run"
        account = Account(level or name, budget or _NO_BUDGET, on_change, inside=inside)
        own = self._account(account)
        if spent is not None:
            own.move(_NOTHING, spent.vector)
        self.accounts: tuple[Account, ...] = (own, *(parent.accounts if parent else ()))
        self._line: Line = parent.line if parent else Line(own.shares is not None)
        self._children: dict[Scope, None] = {}
        self._closed = False
        if parent is not None:
            parent.adopt(self)

    def child(
        self,
        name: str,
        budget: Budget | None = None,
        *,
        level: str = "",
        spent: Amount | None = None,
        on_change: Callable[[], None] | None = None,
    ) -> Scope:
        """A scope inside this one; ``spent`` was spent in it before, and counts here already."""
        return Scope(name, budget, self, level=level, spent=spent, on_change=on_change)

    def begin_run(self, run: str, budget: Budget, spent: Amount, *, nested: bool = False) -> Scope:
        """The scope of a run inside this one.

        ``spent`` is what earlier attempts at it have used: it counts here now. A ``nested`` run is
        waited for by another one that has its scope here as well.
        """
        scope = Scope(run, budget, self, level="run", spent=spent)
        self.charge(spent)
        return scope

    def uncounted(self, run: str, spent: Amount) -> Amount:
        """What of that a run has ``spent`` would count here first if it were gone on with."""
        del run  # a scope remembers none
        return spent

    def room_for(self, run: str, spent: Amount, kind: Kind) -> int | None:
        """What :meth:`remaining` would be for a run that has ``spent`` so much and is gone on with.

        Nothing is begun or counted.
        """
        index = KINDS.index(kind)
        free = []
        scope: Scope | None = self
        while scope is not None:
            account = scope.accounts[0]
            used = account.spent[index] + account.reserved[index]
            used += scope.uncounted(run, spent).vector[index]
            free += [cap.open_to(False) - used for cap in account.caps if cap.kind == index]
            scope = scope.parent
        return max(0, min(free)) if free else None

    # -- reading ---------------------------------------------------------------------------------

    @property
    def budget(self) -> Budget:
        """The limits of this scope alone, as they are in force now."""
        return self.accounts[0].budget

    @property
    def spent(self) -> Amount:
        """What was settled or charged here and below."""
        return as_amount(self.accounts[0].spent)

    @property
    def reserved(self) -> Amount:
        """What is reserved here and below and not yet settled."""
        return as_amount(self.accounts[0].reserved)

    @property
    def overrun(self) -> Amount:
        """By how much spent and reserved together stand above the limits of this scope now."""
        return as_amount(self.accounts[0].overrun())

    @property
    def waiting(self) -> int:
        """Number of callers that wait for a reservation here or below."""
        return self.accounts[0].waiting

    @property
    def exhausted(self) -> str | None:
        """Name of a limit, here or above, that is spent to where only a final answer may go on.

        None as long as something is left of every limit. Money is called ``usd``.
        """
        for account in self.accounts:
            for cap in account.caps:
                if account.spent[cap.kind] >= cap.open_to(allowance=False):
                    return account.exhausted_by(cap, 1).kind
        return None

    def used_up(self, kinds: Collection[Kind]) -> tuple[str, str] | None:
        """The scope, here or above, and its limit of which nothing is left to work with.

        What is reserved in this scope counts as used; what others hold may come back. None as long
        as something is left of each of these kinds. Money is called ``usd``.
        """
        held = self.accounts[0].reserved
        for account in self.accounts:
            for cap in account.caps:
                used = account.spent[cap.kind] + held[cap.kind]
                if KINDS[cap.kind] in kinds and used >= cap.open_to(allowance=False):
                    return account.name, account.exhausted_by(cap, 1).kind
        return None

    @property
    def keeps_back(self) -> bool:
        """Whether this scope or one above keeps something back for a last answer."""
        return any(cap.share for account in self.accounts for cap in account.caps)

    def limited(self, kind: Kind) -> bool:
        """Whether this scope or one above limits a kind."""
        index = KINDS.index(kind)
        return any(cap.kind == index for account in self.accounts for cap in account.caps)

    @property
    def hard(self) -> bool:
        """Whether this scope or one above limits tokens, output tokens or dollars."""
        return any(account.budget.hard for account in self.accounts)

    def remaining(self, kind: Kind, *, allowance: bool = False) -> int | None:
        """How much of a kind could be reserved at this moment, all scopes above considered.

        Money in nano-dollars. None means without limit. Only with ``allowance`` does it include
        what this scope keeps back for a last answer of its own.
        """
        index = KINDS.index(kind)
        free = []
        for account in self.accounts:
            allowance = allowance and account.opens_to(self.accounts[0])
            used = account.spent[index] + account.reserved[index]
            free += [cap.open_to(allowance) - used for cap in account.caps if cap.kind == index]
        return max(0, min(free)) if free else None

    def view(self) -> JSONObject:
        """The whole tree below as JSON, as it stands now; parts that are empty are left out.

        ``left`` is what could still be reserved here of each limit of this scope, and ``kept_back``
        what it holds of it for last answers.
        """
        own = self.accounts[0]
        left = [0] * len(KINDS)
        kept = [0] * len(KINDS)
        for cap in own.caps:
            free = cap.open_to(allowance=False) - own.spent[cap.kind] - own.reserved[cap.kind]
            left[cap.kind], kept[cap.kind] = max(0, free), cap.kept
        pairs = {
            "name": self.name,
            "level": self.level,
            "limits": self.budget.to_json(),
            "spent": self.spent.to_json(),
            "reserved": self.reserved.to_json(),
            "left": {KINDS[cap.kind]: left[cap.kind] for cap in own.caps},
            "kept_back": as_amount(kept).to_json(),
            "overrun": self.overrun.to_json(),
            "waiting": self.waiting,
            "children": [child.view() for child in self._children],
        }
        return {name: value for name, value in pairs.items() if value or name == "name"}

    # -- reserving and spending ------------------------------------------------------------------

    def try_reserve(self, amount: Amount, *, allowance: bool = False) -> Reservation | None:
        """Reserve now or not at all.

        None means: not now, but perhaps when outstanding reservations have settled, or somebody who
        came earlier waits for the same. ``allowance`` opens what is kept for the last answer of
        this scope: what it keeps itself, and if it is a run what those above keep for it.

        Raises:
            BudgetExhausted: it could never fit, whatever comes back.
            RuntimeError: the scope is closed.
        """
        wish = self._wish(amount, amount, allowance)
        claims = self._line.pump() if len(self._line) else _NO_CLAIMS
        granted, _ = wish.served(self.accounts, allowance, claims, 0)
        return None if granted is None else self._take(granted, allowance)

    async def reserve(
        self, amount: Amount, *, minimum: Amount | None = None, allowance: bool = False
    ) -> Reservation:
        """Reserve, waiting in line until it fits; cancelling the caller leaves nothing behind.

        With ``minimum`` less than ``amount`` may be granted: all that is wanted when nobody else
        waits, else an even share of what is free, never below the minimum. All kinds are scaled
        together, so a call that gets half the output also reserves half its price.

        Raises:
            BudgetExhausted: not even the minimum can ever fit (any more).
            RuntimeError: the scope is closed.
            ValueError: a figure is negative or the minimum larger than the amount.
        """
        wish = self._wish(minimum if minimum is not None else amount, amount, allowance)
        if not len(self._line) and wish.is_plain(self.accounts, allowance):
            return self._take(wish.high, allowance)
        future: asyncio.Future[Reservation] = asyncio.get_running_loop().create_future()
        waiter = Waiter(self.accounts, wish, allowance, self._take, future)
        self._line.join(waiter)
        try:
            return await future
        except BaseException:
            self._line.withdraw(waiter)
            raise

    def charge(self, amount: Amount) -> Amount:
        """Count something as spent that was never reserved here: what a journal holds on resume.

        Never refuses. Returns how far some limit is passed by it, which ``overrun`` shows as well.
        """
        figures = amount.vector
        if min(figures) < 0:
            raise ValueError(f"cannot charge a negative amount: {amount}")
        return self._book(_NOTHING, figures, figures)

    # -- changing the tree -----------------------------------------------------------------------

    def raise_limit(self, budget: Budget) -> None:
        """Put higher limits in force; those who wait and now fit are served at once.

        What ``budget`` leaves out stays as it is, ``final_answer`` too.

        Raises:
            InvalidInput: a limit would be lower than before, since what was granted cannot be taken
                back, or new.
        """
        self.budget.check_raise(budget)
        self.accounts[0].limit_by(self.budget.raised(budget))
        self._changed()

    def close(self, *, force: bool = False) -> None:
        """Take a finished scope out of the tree; what it spent stays counted above.

        With ``force`` also one in which something is held: what it is settled at counts above, too.

        Raises:
            RuntimeError: something is still reserved or awaited here or below.
        """
        if not force and (self.accounts[0].open or self.waiting):
            raise RuntimeError(f"scope {self.name!r} still has reservations or waiters")
        self._closed = True
        if self.parent is not None:
            self.parent.disown(self)

    # -- between scopes and reservations; not for callers ------------------------------------------

    @property
    def line(self) -> Line:
        """The waiting line of the whole tree; for the ledger itself."""
        return self._line

    def adopt(self, child: Scope) -> None:
        """Enter a new child; called by its constructor."""
        if self._closed:
            raise RuntimeError(f"scope {self.name!r} is closed")
        self._children[child] = None

    def disown(self, child: Scope) -> None:
        """Forget a closed child; called by its :meth:`close`."""
        self._children.pop(child, None)

    def grow(self, wish: Wish, allowance: bool) -> Vector:
        """Serve a top-up from what is free now. Streams under way go before calls not begun."""
        granted, _ = wish.served(self.accounts, allowance, _NO_CLAIMS, 0)
        if granted is None or not any(granted):
            return _NOTHING
        for account in self.accounts:
            account.move(granted, _NOTHING)
        if allowance:
            self._draw(granted)
        self._notify()
        return granted

    def end(self, reserved: Vector, actual: Vector, allowance: bool) -> Amount:
        """Give a reservation back and charge what was used; returns the overrun."""
        if allowance:  # what was not used is there for another try
            back = [min(0, used - held) for used, held in zip(actual, reserved, strict=True)]
            self._draw(back)
        for account in self.accounts:
            account.open -= 1
        excess = [max(0, used - held) for used, held in zip(actual, reserved, strict=True)]
        return self._book([-figure for figure in reserved], actual, excess)

    def _wish(self, low: Amount, high: Amount, allowance: bool) -> Wish:
        if self._closed:
            raise RuntimeError(f"scope {self.name!r} is closed")
        wish = Wish(low.vector, high.vector)
        error = impossible(self.accounts, wish.low, allowance)
        if error is not None:
            raise error
        return wish

    def _account(self, account: Account) -> Account:
        """The figures of this scope; a pool's know who shares it."""
        return account

    def _take(self, granted: Vector, allowance: bool) -> Reservation:
        for account in self.accounts:
            account.move(granted, _NOTHING)
            account.open += 1
        if allowance:
            self._draw(granted)
        self._notify()
        return Reservation(self, granted, allowance)

    def _draw(self, amount: Sequence[int]) -> None:
        """Take of what the pools above keep for the run's last answer, or give it back."""
        run = self.accounts[0]
        for account in self.accounts:
            if account.shares is not None and account.opens_to(run):
                account.shares.drew(run, amount)

    def _book(
        self, reserved: Vector | list[int], spent: Vector, excess: Vector | list[int]
    ) -> Amount:
        for account in self.accounts:
            account.move(reserved, spent)
        overrun = [0] * len(KINDS)
        if any(excess):
            for account in self.accounts:
                for kind, over in enumerate(account.overrun()):
                    overrun[kind] = max(overrun[kind], min(over, excess[kind]))
        self._changed()
        return as_amount(overrun)

    def _changed(self) -> None:
        if len(self._line):
            self._line.pump()
        self._notify()

    def _notify(self) -> None:
        for account in self.accounts:
            if account.notify is not None:
                account.notify()


class Reservation:
    """An amount set aside for one call; ends by exactly one of settle, release and forfeit.

    As a context manager it forfeits what was not ended inside: what may have left the process
    counts as spent.
    """

    __slots__ = ("_allowance", "_closed", "_held", "scope")

    def __init__(self, scope: Scope, held: Vector, allowance: bool) -> None:
        self.scope = scope
        self._held = held
        self._allowance = allowance
        self._closed = False

    @property
    def amount(self) -> Amount:
        """What is set aside at this moment, top-ups included."""
        return Amount(*self._held)

    @property
    def closed(self) -> bool:
        """Whether it has been settled, released or forfeited."""
        return self._closed

    def top_up(self, more: Amount, *, minimum: Amount | None = None) -> Amount:
        """Set more aside while the call runs; never waits.

        Returns what was added: ``more`` if nobody waits, else a share of what is free, at least
        ``minimum`` or nothing at all.

        Raises:
            RuntimeError: the reservation has ended.
            ValueError: a figure is negative or the minimum larger than ``more``.
        """
        self._check_open()
        wish = Wish(minimum.vector if minimum else _NOTHING, more.vector)
        granted = self.scope.grow(wish, self._allowance)
        if any(granted):
            self._held = tuple(a + b for a, b in zip(self._held, granted, strict=True))
        return Amount(*granted)

    def settle(self, actual: Amount) -> Amount:
        """End with what was really used; all of it is charged, more than was reserved too.

        Returns the overrun: the part beyond the reservation that also passed a limit.

        Raises:
            RuntimeError: it has ended already.
            ValueError: a figure is negative.
        """
        figures = actual.vector
        if min(figures) < 0:
            raise ValueError(f"cannot settle at a negative amount: {actual}")
        return self._end(figures)

    def release(self) -> None:
        """End because nothing left the process: nothing is charged.

        Raises:
            RuntimeError: it has ended already.
        """
        self._end(_NOTHING)

    def forfeit(self) -> Amount:
        """End a call whose use is not known (failed, cancelled): charge all that was reserved.

        Returns what was charged.

        Raises:
            RuntimeError: it has ended already.
        """
        self._end(self._held)
        return self.amount

    def _end(self, actual: Vector) -> Amount:
        self._check_open()
        self._closed = True
        return self.scope.end(self._held, actual, self._allowance)

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError(f"this reservation in {self.scope.name!r} has already ended")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._closed:
            self.forfeit()
