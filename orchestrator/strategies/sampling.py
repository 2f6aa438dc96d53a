"""``single`` and ``sample``: one line of thought, and N of them side by side."""

from __future__ import annotations

from dataclasses import dataclass, field

from longthought.errors import InvalidInput
from longthought.orchestrator.strategies.policy import Ask, Outcome, Pick, State, brief
from longthought.orchestrator.strategies.selectors import Best, Majority, Selector
from longthought.orchestrator.strategies.so_far import SO_FAR
from longthought.orchestrator.strategies.spread import Models, Spread, spread
from longthought.orchestrator.strategies.stoppers import FirstPass, Never, Stopper
from longthought.types import JSONObject, Sampling

__all__ = ["Sample", "best_of", "sample", "single"]


@dataclass(frozen=True, slots=True)
class Sample:
    """N samples in waves, a stopper that may end them early, a selector that picks.

    A failed sample never kills its siblings: the pick says how many of N it rests on. Sample *i* is
    asked of the model whose turn it is in ``models``.
    """

    n: int
    wave: int
    stopper: Stopper
    selector: Selector
    temperature: float | None = None
    label: str = "sample"
    models: Spread = field(default_factory=Spread)

    @property
    def name(self) -> str:
        """``single`` or ``sample``."""
        return self.label

    def spec(self) -> JSONObject:
        """Name and parameters."""
        pairs: JSONObject = {
            "name": self.label,
            "n": self.n,
            "wave": self.wave,
            "stop": self.stopper.spec(),
            "select": self.selector.spec(),
            "temperature": self.temperature,
        }
        models = self.models.to_json()
        return {**pairs, "models": models} if models else pairs

    def start(self, question: str, seed: int) -> State:
        """Nothing asked, nothing told."""
        return {
            "n": self.n,
            "seed": seed,
            "asked": 0,
            "pending": 0,
            "told": [],
            "rejected": [],
            "exhausted": None,
        }

    def ask(self, state: State, room: int) -> list[Ask]:
        """The next wave, once the one before is back. Within a wave as many as there is room."""
        if state["exhausted"] or self._stopped(state):
            return []
        wave_left = self.wave - (state["asked"] % self.wave)
        if state["pending"] and wave_left == self.wave:
            return []
        count = min(room, wave_left, state["n"] - state["asked"])
        asks = []
        for _ in range(count):
            number = state["asked"]
            state["asked"] += 1
            state["pending"] += 1
            sampling, model = self._sampling(state, number), self.models.at(number)
            asks.append(Ask(f"s{number}", sampling=sampling, model=model))
        return asks

    def tell(self, state: State, outcome: Outcome) -> None:
        """Count a sample that came back; note what was rejected or ran out."""
        match outcome["type"]:
            case "told":
                state["pending"] -= 1
                state["told"].append(brief(outcome))
            case "cancelled":
                state["pending"] -= len(outcome["asks"])
                state["n"] += len(
                    outcome["asks"]
                )  # if the pick is rejected, others take their place
            case "rejected":
                state["rejected"].append(outcome["ask"])
            case "exhausted":
                state["exhausted"] = outcome["kind"]
            case "limit_raised":
                state["exhausted"] = None
                whole = [o for o in state["told"] if o["status"] != "exhausted"]
                state["n"] += len(state["told"]) - len(whole)  # those cut short are asked anew
                state["told"] = whole

    def done(self, state: State) -> Pick | None:
        """The selector's choice, when the stopper, N or the budget says that it is time."""
        reason = self._stopped(state)
        if reason is None and state["exhausted"]:
            reason = state["exhausted"]
        last = state["asked"] >= state["n"] and not state["pending"]
        if reason is None and last:
            reason = _limit_hit(state) or "all_samples"
        if reason is None:
            return None
        return self._pick(state, reason, final=last or bool(state["exhausted"]))

    def best(self, state: State) -> Pick:
        """The selector's choice among the samples that have come back."""
        return self._pick(state, SO_FAR, final=False)

    def _pick(self, state: State, reason: str, *, final: bool) -> Pick:
        able = [o for o in state["told"] if o["ask"] not in state["rejected"]]
        selection = self.selector.select(able or state["told"])
        returned = sum(1 for outcome in state["told"] if outcome["status"] == "finished")
        support = {**selection.support, "samples": returned, "of": state["asked"]}
        return Pick(selection.ask, reason, final=final, support=support)

    def _stopped(self, state: State) -> str | None:
        able = [o for o in state["told"] if o["ask"] not in state["rejected"]]
        return self.stopper.stop(able)

    def _sampling(self, state: State, number: int) -> Sampling:
        sampling: Sampling = {"seed": state["seed"] + number}
        if self.temperature is not None:
            sampling["temperature"] = self.temperature
        return sampling


def _limit_hit(state: State) -> str | None:
    """The limit that cut a sample short, or left it unjudged, if one did."""
    cut = [o["reason"] for o in state["told"] if o["status"] != "failed" and o["reason"]]
    return cut[0] if cut else None


def single(*, temperature: float | None = None, models: Models | None = None) -> Sample:
    """One sample, taken as it is; ``models`` is the one to ask, the first unless given."""
    return Sample(1, 1, Never(), Best(), temperature, "single", spread(models))


def sample(
    n: int,
    *,
    wave: int | None = None,
    stop: Stopper | None = None,
    select: Selector | None = None,
    temperature: float | None = None,
    models: Models | None = None,
) -> Sample:
    """N samples side by side, ``wave`` at a time (4 with a stopper, else all at once).

    ``select`` is the majority vote unless given. ``models`` are the models that take turns, by name
    or index: ``("large", "small")``, weights as in ``{"small": 3, "large": 1}``, or ``"all"``; the
    workflow's first one alone unless given.

    Raises:
        InvalidInput: ``n`` or ``wave`` is not positive, or ``models`` cannot be used.
    """
    if n < 1:
        raise InvalidInput("sample", f"{n} samples", "Ask for 1 or more")
    size = wave if wave is not None else (4 if stop is not None else n)
    if size < 1:
        raise InvalidInput("wave", f"waves of {size}", "Use 1 or more")
    return Sample(
        n,
        min(size, n),
        stop or Never(),
        select or Majority(),
        temperature,
        models=spread(models),
    )


def best_of(
    n: int,
    *,
    wave: int | None = None,
    temperature: float | None = None,
    models: Models | None = None,
) -> Sample:
    """Best-of-N with a verifier: stops at the first sample that passes, else takes the best."""
    return sample(
        n, wave=wave, stop=FirstPass(), select=Best(), temperature=temperature, models=models
    )
