"""Reading traces: what happened as a tree, and what the answer rests on. Nothing here runs."""

from longthought.orchestrator.traces.steps import Step
from longthought.orchestrator.traces.tree import BranchNode, RunTree, SearchNode, run_tree
from longthought.orchestrator.traces.use import BackendUse, Utilisation, quantile
from longthought.orchestrator.traces.utilisation import Trace, UtilisationReader, utilisation
from longthought.orchestrator.traces.why import Explanation, explain

__all__ = [
    "BackendUse",
    "BranchNode",
    "Explanation",
    "RunTree",
    "SearchNode",
    "Step",
    "Trace",
    "Utilisation",
    "UtilisationReader",
    "explain",
    "quantile",
    "run_tree",
    "utilisation",
]
