"""``backtrack``: depth-first search over steps of thought, with a verifier at every step.

A step that the verifier turns down is a dead end: the search returns to the last good state and
tries another continuation; when a state has no continuations left it is given up too, and the
search goes one state further back. Dead ends stay in the trace.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from longthought.errors import InvalidInput
from longthought.orchestrator.strategies.policy import Ask, Outcome, Pick, State, brief
from longthought.orchestrator.strategies.so_far import SO_FAR
from longthought.orchestrator.strategies.spread import Models, Spread, spread
from longthought.types import JSONObject, Sampling

__all__ = ["Backtrack", "backtrack"]

_ROOT = ""


@dataclass(frozen=True, slots=True)
class Backtrack:
    """Depth-first over steps; ``width`` continuations per state, ``depth`` steps at most.

    ``restarts`` more attempts begin at the question when everything below it was tried.
    ``stop`` ends a step: the model is asked to stop there. Each attempt from the question has the
    model whose turn it is in ``models``, for all its steps.
    """

    width: int
    depth: int
    steps: int
    restarts: int
    stop: tuple[str, ...]
    temperature: float | None
    models: Spread = field(default_factory=Spread)

    @property
    def name(self) -> str:
        """``backtrack``."""
        return "backtrack"

    def spec(self) -> JSONObject:
        """Name and parameters."""
        pairs: JSONObject = {
            "name": "backtrack",
            "width": self.width,
            "depth": self.depth,
            "steps": self.steps,
            "restarts": self.restarts,
            "stop": list(self.stop),
            "temperature": self.temperature,
        }
        models = self.models.to_json()
        return {**pairs, "models": models} if models else pairs

    def start(self, question: str, seed: int) -> State:
        """At the question, with nothing tried."""
        return {
            "seed": seed,
            "path": [_ROOT],
            "tried": {_ROOT: 0},
            "forgiven": {},
            "asked": 0,
            "pending": None,
            "told": [],
            "dead_ends": 0,
            "solved": None,
            "restarts": 0,
            "exhausted": None,
        }

    def ask(self, state: State, room: int) -> list[Ask]:
        """One continuation of the last good state."""
        if room < 1 or state["pending"] is not None or self.done(state) is not None:
            return []
        at = state["path"][-1]
        number = state["tried"][at]
        state["tried"][at] = number + 1
        name = f"{at}.{number}" if at else f"r{state['restarts']}.{number}"
        sampling: Sampling = {"seed": state["seed"] + state["asked"]}
        if self.stop:
            sampling["stop"] = list(self.stop)
        if self.temperature is not None:
            sampling["temperature"] = self.temperature
        state["asked"] += 1
        state["pending"] = name
        model = self.models.at(state["restarts"])
        return [Ask(name, "step", parent=at or None, sampling=sampling, model=model)]

    def tell(self, state: State, outcome: Outcome) -> None:
        """Go deeper after a good step, back after a bad one."""
        match outcome["type"]:
            case "told":
                state["pending"] = None
                state["told"].append(brief(outcome))
                self._move(state, outcome)
            case "cancelled":
                state["pending"] = None
            case "rejected":
                state["solved"] = None
                self._dead_end(state)
            case "exhausted":
                state["exhausted"] = outcome["kind"]
            case "limit_raised":
                state["exhausted"] = None

    def done(self, state: State) -> Pick | None:
        """The branch that reached an answer, or the end of everything there is to try."""
        support = _support(state)
        if state["solved"] is not None:
            return Pick(state["solved"], "solved", support=support)
        if state["exhausted"]:
            return Pick(self._furthest(state), state["exhausted"], final=True, support=support)
        if state["pending"] is None and (not state["path"] or state["asked"] >= self.steps):
            reason = "all_tried" if not state["path"] else "steps"
            return Pick(self._furthest(state), reason, final=True, support=support)
        return None

    def best(self, state: State) -> Pick:
        """The branch that reached an answer, or the one that got furthest."""
        solved = state["solved"]
        ask = solved if solved is not None else self._furthest(state)
        return Pick(ask, SO_FAR, support=_support(state))

    def _move(self, state: State, outcome: Outcome) -> None:
        good = outcome["status"] == "finished" and outcome["passed"] is not False
        if outcome["status"] == "exhausted":
            # no dead end: the step was not taken, and may be once the limit is raised
            state["exhausted"] = outcome.get("reason") or "budget"
            state["forgiven"][state["path"][-1]] = state["forgiven"].get(state["path"][-1], 0) + 1
        elif not good:
            self._dead_end(state)
        elif outcome["final"]:
            state["solved"] = outcome["ask"]
            state["path"].append(outcome["ask"])
            state["tried"][outcome["ask"]] = self.width
        elif len(state["path"]) > self.depth:
            self._dead_end(state)
        else:
            state["path"].append(outcome["ask"])
            state["tried"][outcome["ask"]] = 0

    def _dead_end(self, state: State) -> None:
        state["dead_ends"] += 1
        path, tried, forgiven = state["path"], state["tried"], state["forgiven"]
        while path and tried[path[-1]] - forgiven.get(path[-1], 0) >= self.width:
            path.pop()
        if not path and state["restarts"] < self.restarts:
            state["restarts"] += 1
            path.append(_ROOT)
            tried[_ROOT] = 0

    def _furthest(self, state: State) -> str | None:
        """The best that is there: a final branch, else the longest one that stood up."""
        able = [o for o in state["told"] if o["status"] == "finished"]
        ranked = sorted(
            able, key=lambda o: (o["final"], o["passed"] is not False, o["ask"].count("."))
        )
        return ranked[-1]["ask"] if ranked else None


def _support(state: State) -> JSONObject:
    names = ("dead_ends", "restarts")
    return {"steps": state["asked"], **{name: state[name] for name in names}}


def backtrack(
    *,
    width: int = 3,
    depth: int = 16,
    steps: int = 256,
    restarts: int = 0,
    stop: str | tuple[str, ...] = ("\n",),
    temperature: float | None = None,
    models: Models | None = None,
) -> Backtrack:
    """Depth-first search over steps; needs a verifier that judges unfinished candidates.

    ``width`` 1 switches backtracking off: the first bad step ends the attempt. With each restart it
    is the next one's turn of ``models``, see :func:`sample`.

    Raises:
        InvalidInput: a figure is not positive (``restarts`` may be 0), or of ``models``.
    """
    for name, value in (("width", width), ("depth", depth), ("steps", steps)):
        if value < 1:
            raise InvalidInput(name, f"{value} is too few", "Use 1 or more")
    if restarts < 0:
        raise InvalidInput("restarts", f"{restarts} is too few", "Use 0 or more")
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    return Backtrack(width, depth, steps, restarts, stops, temperature, spread(models))
