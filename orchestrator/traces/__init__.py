"""Reading traces: what happened as a tree, and what the answer rests on. Nothing here runs."""

from longthought.orchestrator.traces.budget import RunBudget, run_budget
from longthought.orchestrator.traces.so_far import best_in_trace
from longthought.orchestrator.traces.steps import Step
from longthought.orchestrator.traces.tree import BranchNode, RunTree, SearchNode, run_tree
from longthought.orchestrator.traces.use import BackendUse, Utilisation, quantile
from longthought.orchestrator.traces.utilisation import Trace, UtilisationReader, utilisation
from longthought.orchestrator.traces.why import Explanation, explain

__all__ = [
    "BackendUse",
    "BranchNode",
    "Explanation",
    "RunBudget",
    "RunTree",
    "SearchNode",
    "Step",
    "Trace",
    "Utilisation",
    "UtilisationReader",
    "best_in_trace",
    "explain",
    "quantile",
    "run_budget",
    "run_tree",
    "utilisation",
]
