"""The ledger against a plain model of itself, in any order of operations."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from longthought.budgets import Amount, Budget, Reservation, Scope
from longthought.errors import BudgetExhausted

figures = st.integers(0, 60)
LIMITS = {"run": (100, 7), "search": (80, None), "left": (40, 3), "right": (None, None)}
PARENTS = {"search": "run", "left": "search", "right": "search"}


def path(name: str) -> list[str]:
    return [name, *path(PARENTS[name])] if name in PARENTS else [name]


class Rules(RuleBasedStateMachine):
    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.scopes: dict[str, Scope] = {}
        for name, (tokens, calls) in LIMITS.items():
            budget = Budget(tokens=tokens, model_calls=calls, final_answer=0 if tokens else None)
            self.scopes[name] = Scope(name, budget, self.scopes.get(PARENTS.get(name, "")))
        self.outstanding: dict[Reservation, tuple[str, Amount]] = {}
        self.spent = dict.fromkeys(LIMITS, Amount())
        self.overrun = False

    @rule(
        target=held, name=st.sampled_from(sorted(LIMITS)), tokens=figures, calls=st.integers(0, 2)
    )
    def reserve(self, name: str, tokens: int, calls: int) -> Reservation | None:
        amount = Amount(tokens=tokens, model_calls=calls)
        never = any(self.over(scope, amount, Amount()) for scope in path(name))
        now = any(self.over(scope, amount, self.reserved(scope)) for scope in path(name))
        try:
            reservation = self.scopes[name].try_reserve(amount)
        except BudgetExhausted:
            assert never
            return None
        assert not never
        assert (reservation is None) == now
        if reservation is not None:
            self.outstanding[reservation] = (name, amount)
        return reservation

    @rule(reservation=held, more=figures)
    def top_up(self, reservation: Reservation | None, more: int) -> None:
        if reservation is None or reservation.closed:
            return
        name, amount = self.outstanding[reservation]
        free = self.scopes[name].remaining("tokens")
        granted = reservation.top_up(Amount(tokens=more))
        assert granted.tokens == (more if free is None else min(more, free))
        self.outstanding[reservation] = (name, amount + granted)

    @rule(reservation=consumes(held), used=figures, how=st.sampled_from(["settle", "drop", "keep"]))
    def end(self, reservation: Reservation | None, used: int, how: str) -> None:
        if reservation is None or reservation.closed:
            return
        name, amount = self.outstanding.pop(reservation)
        assert reservation.amount == amount
        actual = {"drop": Amount(), "keep": amount}.get(how, Amount(tokens=used, model_calls=1))
        if how == "settle":
            self.overrun |= not actual.fits(amount)
            reservation.settle(actual)
        elif how == "drop":
            reservation.release()
        else:
            reservation.forfeit()
        for scope in path(name):
            self.spent[scope] += actual

    @rule(name=st.sampled_from(sorted(LIMITS)), used=st.integers(0, 5))
    def charge(self, name: str, used: int) -> None:
        self.overrun = True
        self.scopes[name].charge(Amount(tokens=used))
        for scope in path(name):
            self.spent[scope] += Amount(tokens=used)

    @invariant()
    def figures_agree(self) -> None:
        for name, scope in self.scopes.items():
            assert scope.spent == self.spent[name]
            assert scope.reserved == self.reserved(name)
            if not self.overrun:
                assert not scope.overrun

    def reserved(self, name: str) -> Amount:
        mine = (amount for at, amount in self.outstanding.values() if name in path(at))
        return sum(mine, Amount())

    def over(self, name: str, amount: Amount, reserved: Amount) -> bool:
        total, (tokens, calls) = amount + reserved + self.spent[name], LIMITS[name]
        too_many = tokens is not None and amount.tokens > 0 and total.tokens > tokens
        too_often = calls is not None and amount.model_calls > 0 and total.model_calls > calls
        return too_many or too_often


Rules.TestCase.settings = settings(deadline=None, max_examples=150, stateful_step_count=40)
TestRules = Rules.TestCase
