"""What thinks and how it is judged: the same for every way that a curve compares."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from longthought import tools
from longthought.budgets import Budget, PriceBook
from longthought.errors import InvalidInput
from longthought.orchestrator.curves.questions import Question, QuestionSet
from longthought.orchestrator.curves.ways import Plan
from longthought.orchestrator.models.steps import step_stop
from longthought.orchestrator.workflow import Workflow
from longthought.storage import Store, canonical
from longthought.tools import Tool
from longthought.types import JSONObject, Model, Sampling, Verifier
from longthought.verifiers import AnswerKind

__all__ = ["Setup", "run_id", "setup_for"]

_TOOLS: Mapping[str, Callable[[], Tool]] = {"calculator": tools.calculator}


@dataclass(frozen=True, slots=True)
class Setup:
    """A model with all that goes with it; ``budget`` limits each run.

    ``options`` are those of the command line, which ``replay`` builds the same workflow from; they
    are kept in every run's manifest when they are given.
    """

    model: Model
    answer: AnswerKind
    verifier: Verifier | None = None
    system: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    budget: Budget = field(default_factory=Budget)
    prices: PriceBook | None = None
    options: JSONObject = field(default_factory=dict)

    @property
    def step_stop(self) -> tuple[str, ...]:
        """Where one step of thought ends."""
        judge = self.verifier.spec().get("kind") if self.verifier else None
        return step_stop(self._kind, judge)

    def workflow(self, plan: Plan, store: Store) -> Workflow:
        """The workflow that runs a plan.

        Raises:
            InvalidInput: the plan needs tools that the model cannot call.
        """
        if plan.tools and not self.model.capabilities.tools:
            raise InvalidInput("strategies", f"{self.model.name} cannot call tools")
        return Workflow(
            f"curve-{plan.name}",
            model=self.model,
            strategy=plan.policy,
            answer=self.answer,
            verifier=self.verifier if plan.verified else None,
            tools=[_TOOLS[name]() for name in plan.tools],
            system=self.system,
            sampling={**self.sampling, **plan.sampling},
            budget=self.budget,
            prices=self.prices,
            store=store,
        )

    def options_of(self, plan: Plan) -> JSONObject:
        """What a run of the plan keeps in its manifest; {} where nothing was given."""
        if not self.options:
            return {}
        options = {**self.options, **plan.options, "name": f"curve-{plan.name}"}
        if not plan.verified:
            options["verifier"] = "none"
        return options

    def seed(self, question: Question, number: int, seed: int) -> int:
        """Where the samples of a question begin to count their seeds, in [0, 2**31).

        ``number`` counts questions of the same text. Samples of two questions must not be drawn
        from equal seeds: the same random numbers would make their successes depend on each other.
        A recorded model counts through its samples with the seed, so it begins at 0.
        """
        if self._kind == "recorded":
            return 0
        text = canonical([question.text, number, seed])
        # a multiple of 1000 below 2**31, which every server takes
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % 2_147_000 * 1000

    @property
    def _kind(self) -> str:
        return str(self.model.fingerprint().get("kind", ""))


def setup_for(questions: QuestionSet, model: Model, **more: Any) -> Setup:
    """A model set up for a set: judged as the set says, and found again by ``replay``.

    ``more`` are fields of :class:`Setup`. A set that does not say its parts in the words of the
    command line leaves ``options`` empty.
    """
    options: JSONObject = {}
    if questions.options:
        options = {"cli": 1, "model": model.name, "verifier": "none", **questions.options}
    parts: JSONObject = {
        "answer": questions.answer,
        "verifier": questions.verifier,
        "options": options,
        **more,
    }
    return Setup(model, **parts)


def run_id(workflow: Workflow, question: Question, number: int, seed: int) -> str:
    """The name of the one run of a question under a workflow and a seed.

    Whatever shapes what is asked is in it, limits and gold answers are not: a curve that is begun
    again finds its runs, a changed setting is another bank.
    """
    parts = [question.text, number, workflow.definition.fingerprint(), seed]
    return f"curve-{hashlib.sha256(canonical(parts).encode()).hexdigest()[:24]}"
