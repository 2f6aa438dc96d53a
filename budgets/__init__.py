"""Budgets: limits, the ledger that keeps them, clocks, prices and generation slots."""

from longthought.budgets.admission import admit
from longthought.budgets.amounts import KINDS, Amount, Kind
from longthought.budgets.clocks import ClockKind, Clocks, union_seconds
from longthought.budgets.controller import Branch, Controller, Permit
from longthought.budgets.estimate import PromptEstimator
from longthought.budgets.ledger import Reservation, Scope
from longthought.budgets.limits import Budget
from longthought.budgets.pool import Pool
from longthought.budgets.prices import FREE, Price, PriceBook, call_bound, cost, usage_amount
from longthought.budgets.scheduler import SlotScheduler
from longthought.budgets.states import BranchState

__all__ = [
    "FREE",
    "KINDS",
    "Amount",
    "Branch",
    "BranchState",
    "Budget",
    "ClockKind",
    "Clocks",
    "Controller",
    "Kind",
    "Permit",
    "Pool",
    "Price",
    "PriceBook",
    "PromptEstimator",
    "Reservation",
    "Scope",
    "SlotScheduler",
    "admit",
    "call_bound",
    "cost",
    "union_seconds",
    "usage_amount",
]
