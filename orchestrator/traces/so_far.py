"""The best answer so far of a recorded run, worked out from its trace alone."""

from __future__ import annotations

from longthought.orchestrator.strategies import Ask, Policy, State
from longthought.orchestrator.strategies.policy import Outcome, Pick
from longthought.orchestrator.strategies.selectors import Best
from longthought.orchestrator.strategies.so_far import SO_FAR, BestSoFar, best_pick
from longthought.orchestrator.strategies.specs import policy_of
from longthought.storage import Event, Recording
from longthought.types import JSON, JSONObject

__all__ = ["best_in_trace"]


def best_in_trace(recording: Recording) -> BestSoFar | None:
    """What the search begun last that has an answer would settle on now; None if none has.

    The recorded inputs are fed to the strategy that the manifest names. Where it is none of ours,
    or a graph of one's own explores with another one, the branch with the best verdict counts.
    """
    for inputs in reversed(_searches(recording).values()):
        told = _told(recording, inputs)
        policy = policy_of(_strategy(recording))
        pick = _folded(recording, policy, inputs, told) if policy is not None else None
        if pick is None:
            selection = Best().select(list(told.values()))
            pick = Pick(selection.ask, SO_FAR, support={**selection.support, "samples": len(told)})
        chosen = told.get(pick.ask) if pick.ask is not None else None
        if chosen is not None and chosen["answer"] is not None:
            return BestSoFar(
                chosen["ask"],
                chosen["answer"],
                score=chosen["score"],
                passed=chosen["passed"],
                final=chosen["final"],
                support=pick.support,
            )
    return None


def _searches(recording: Recording) -> dict[str, list[Event]]:
    """The inputs of each search, by its place."""
    found: dict[str, list[Event]] = {}
    for event in recording.events:
        if event.type == "fold" and event.key:
            found.setdefault(event.key, []).append(event)
    return found


def _told(recording: Recording, inputs: list[Event]) -> dict[str, Outcome]:
    """The outcomes of the branches that were told, as far as they were not deleted."""
    told: dict[str, Outcome] = {}
    for event in inputs:
        data = event.body["data"]
        if event.body["input"] == "tell" and recording.has(data["outcome"]):
            told[data["ask"]] = recording.get(data["outcome"])
    return told


def _strategy(recording: Recording) -> JSONObject:
    spec: JSONObject = recording.manifest()["workflow"].get("strategy") or {}
    return spec


def _folded(
    recording: Recording, policy: Policy, inputs: list[Event], told: dict[str, Outcome]
) -> Pick | None:
    """The best of a policy that was fed what was recorded; None if it is not what was recorded."""
    state = policy.start("", recording.manifest()["seed"])
    for event in inputs:
        if not _fed(policy, state, event.body["input"], event.body["data"], told):
            return None
    return best_pick(policy, state)


def _fed(policy: Policy, state: State, name: str, data: JSON, told: dict[str, Outcome]) -> bool:
    match name:
        case "ask":
            asks: list[Ask] = policy.ask(state, data["room"])
            return bool([ask.id for ask in asks] == data["asks"])
        case "tell":
            if data["ask"] not in told:
                return False
            policy.tell(state, told[data["ask"]])
        case "cancel":
            policy.tell(state, {"type": "cancelled", "asks": data["asks"]})
        case "rejected":
            policy.tell(state, {"type": "rejected", "ask": data["ask"]})
        case "exhausted":
            policy.tell(state, {"type": "exhausted", **data})
        case "limit_raised":
            policy.tell(state, {"type": "limit_raised"})
    return True
