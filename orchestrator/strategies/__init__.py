"""Strategies as pure policies: what to ask for, when to stop, which answer to take."""

from longthought.orchestrator.strategies.backtracking import Backtrack, backtrack
from longthought.orchestrator.strategies.policy import Ask, Outcome, Pick, Policy, State
from longthought.orchestrator.strategies.sampling import Sample, best_of, sample, single
from longthought.orchestrator.strategies.selectors import Selector, best, majority, weighted
from longthought.orchestrator.strategies.spread import Models, Spread, bound, models_used
from longthought.orchestrator.strategies.stoppers import Stopper, beta, first_pass, never

__all__ = [
    "Ask",
    "Backtrack",
    "Models",
    "Outcome",
    "Pick",
    "Policy",
    "Sample",
    "Selector",
    "Spread",
    "State",
    "Stopper",
    "backtrack",
    "best",
    "best_of",
    "beta",
    "bound",
    "first_pass",
    "majority",
    "models_used",
    "never",
    "sample",
    "single",
    "weighted",
]
