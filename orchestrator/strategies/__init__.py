"""Strategies as pure policies: what to ask for, when to stop, which answer to take."""

from longthought.orchestrator.strategies.backtracking import Backtrack, backtrack
from longthought.orchestrator.strategies.policy import Ask, Outcome, Pick, Policy, State
from longthought.orchestrator.strategies.sampling import Sample, best_of, sample, single
from longthought.orchestrator.strategies.selectors import Selector, best, majority, weighted
from longthought.orchestrator.strategies.stoppers import Stopper, beta, first_pass, never

__all__ = [
    "Ask",
    "Backtrack",
    "Outcome",
    "Pick",
    "Policy",
    "Sample",
    "Selector",
    "State",
    "Stopper",
    "backtrack",
    "best",
    "best_of",
    "beta",
    "first_pass",
    "majority",
    "never",
    "sample",
    "single",
    "weighted",
]
