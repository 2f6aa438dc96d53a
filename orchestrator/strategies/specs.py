"""A policy from its recorded spec, to work a search out again from its trace alone."""

from __future__ import annotations

from longthought.orchestrator.strategies.backtracking import Backtrack
from longthought.orchestrator.strategies.policy import Policy
from longthought.orchestrator.strategies.sampling import Sample
from longthought.orchestrator.strategies.selectors import Best, Majority, Selector, Weighted
from longthought.orchestrator.strategies.spread import Spread
from longthought.orchestrator.strategies.stoppers import Beta, FirstPass, Never, Stopper
from longthought.types import JSON, JSONObject

__all__ = ["policy_of"]


def policy_of(spec: JSONObject) -> Policy | None:
    """The policy that has this spec; None if it is none of ours, or of another version."""
    try:
        made = _made(spec)
    except (LookupError, TypeError, ValueError):
        return None
    return made if made is not None and made.spec() == spec else None


def _made(spec: JSONObject) -> Policy | None:
    models = Spread(tuple(spec.get("models", (0,))))
    match spec["name"]:
        case "single" | "sample":
            stopper, selector = _stopper(spec["stop"]), _selector(spec["select"])
            n, wave, warmth = spec["n"], spec["wave"], spec["temperature"]
            return Sample(n, wave, stopper, selector, warmth, spec["name"], models)
        case "backtrack":
            names = ("width", "depth", "steps", "restarts", "temperature")
            figures = {name: spec[name] for name in names}
            return Backtrack(stop=tuple(spec["stop"]), models=models, **figures)
    return None


def _stopper(spec: JSON) -> Stopper:
    if spec["name"] == "beta":
        return Beta(spec["threshold"])
    stoppers: dict[str, Stopper] = {"never": Never(), "first_pass": FirstPass()}
    return stoppers[spec["name"]]


def _selector(spec: JSON) -> Selector:
    if spec["name"] == "majority":
        return Majority(spec.get("fallback", False))
    selectors: dict[str, Selector] = {"best": Best(), "weighted": Weighted()}
    return selectors[spec["name"]]
