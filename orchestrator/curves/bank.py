"""The bank: the samples of every question, read from the recorded runs that drew them."""

from __future__ import annotations

from dataclasses import dataclass, field

from longthought.errors import TraceError
from longthought.orchestrator.curves.costs import Cost, costs_of
from longthought.orchestrator.curves.questions import Question
from longthought.storage import Event, Recording
from longthought.types import JSONObject

__all__ = ["LIMITS", "Answered", "Banked", "Draw", "read_answer", "read_samples"]

LIMITS = frozenset(
    (
        "tokens",
        "output_tokens",
        "usd",
        "wall",
        "thinking",
        "thinking_tokens",
        "model_calls",
        "branches",
        "budget",
    )
)
"""Stop reasons that name a limit: the question ran out of it."""


@dataclass(frozen=True, slots=True)
class Draw:
    """One sample. ``status`` is finished, failed or exhausted; ``answer`` is canonical or None.

    ``score`` and ``passed`` are the verifier's, None without one.
    """

    answer: str | None = None
    status: str = "finished"
    score: float | None = None
    passed: bool | None = None
    cost: Cost = field(default_factory=lambda: Cost(samples=1))

    def outcome(self, verified: bool) -> JSONObject:
        """What a policy is told of it, but for the name of the Ask; see ``Outcome``."""
        return {
            "type": "told",
            "status": self.status,
            "answer": self.answer,
            "final": True,
            "score": self.score if verified else None,
            "passed": self.passed if verified else None,
            "tokens": int(self.cost.tokens),
        }


@dataclass(frozen=True, slots=True)
class Banked:
    """The samples of one question, in the order in which they were asked for.

    ``problem`` says why the question counts as unanswered; then no sample holds an answer.
    """

    question: Question
    run: str
    draws: tuple[Draw, ...]
    problem: str = ""

    @property
    def failed(self) -> int:
        """How many samples did not come back."""
        return sum(draw.status != "finished" for draw in self.draws)


@dataclass(frozen=True, slots=True)
class Answered:
    """What one run of a question came to, whichever way it took."""

    question: Question
    run: str
    answer: str | None
    cost: Cost
    problem: str = ""


def read_samples(
    question: Question, run: str, recording: Recording | None, problem: str, *, count: int
) -> Banked:
    """The first ``count`` samples of a recorded search for independent samples.

    They stand in the order of their Asks: the order in which they came back would put short ones
    first. A question with a ``problem`` keeps its costs and loses its answers; it has neither
    without a recording.

    Raises:
        TraceError: the run ended well and holds fewer samples.
    """
    draws = _draws(recording) if recording is not None else []
    if len(draws) < count and not problem:
        raise TraceError(f"run {run} holds {len(draws)} samples, not {count}")
    if recording is not None and all(draw.status == "failed" for draw in draws[:count]):
        problem = problem or _reason(recording) or "no sample came back"
    if problem:
        draws = [Draw(status="exhausted", cost=draw.cost) for draw in draws]
    missing = [Draw(status="exhausted", cost=Cost())] * (count - len(draws))
    return Banked(question, run, (*draws[:count], *missing), problem)


def read_answer(
    question: Question, run: str, recording: Recording | None, problem: str
) -> Answered:
    """The answer of a recorded run and what it cost; no answer if there is a ``problem``."""
    if recording is None:
        return Answered(question, run, None, Cost(), problem)
    costs = costs_of(recording)
    ended, answer = recording.ended(), None
    if not problem and ended is not None and ended.body.get("outcome"):
        answer = recording.get(ended.body["outcome"]).get("answer")
    failed = [e for e in recording.events if e.type == "branch_ended" and e.body["how"] == "failed"]
    if answer is None and len(failed) == len(costs) - 1:
        problem = problem or _reason(recording)
    return Answered(question, run, answer, sum(costs.values(), Cost()), problem)


def _draws(recording: Recording) -> list[Draw]:
    """All samples of a run, in the order in which they were asked for.

    Those that a limit cut short come last: others may have taken their place when it was raised.
    """
    told: dict[str, Event] = {}
    asked: list[str] = []
    for event in recording.events:
        if event.type == "fold" and event.body["input"] == "ask":
            asked += [f"{event.key}/{ask}" for ask in event.body["data"]["asks"]]
        elif event.type == "fold" and event.body["input"] == "tell":
            told[f"{event.key}/{event.body['data']['ask']}"] = event
    costs = costs_of(recording)
    draws = []
    for place in asked:
        if place in told:
            outcome = recording.get(told[place].body["data"]["outcome"])
            draws.append(_draw(outcome, costs[place]))
        else:
            draws.append(Draw(status="exhausted", cost=costs[place]))
    return sorted(draws, key=lambda draw: draw.status == "exhausted")


def _draw(outcome: JSONObject, cost: Cost) -> Draw:
    finished = outcome["status"] == "finished"
    return Draw(
        answer=outcome["answer"] if finished else None,
        status=outcome["status"],
        score=outcome["score"],
        passed=outcome["passed"],
        cost=cost,
    )


def _reason(recording: Recording) -> str:
    """Why the last branch that failed did."""
    for event in reversed(recording.events):
        if event.type == "branch_ended" and event.body["how"] == "failed":
            return str(event.body.get("reason", ""))
    return ""
