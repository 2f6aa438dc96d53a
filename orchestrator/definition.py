"""What a workflow is made of, and the fingerprint by which a changed one is recognised."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from longthought.budgets import Budget
from longthought.errors import InvalidInput
from longthought.orchestrator.graphs.placed import Builder, Compiled, compile_graph, graph_shape
from longthought.orchestrator.strategies import Policy, models_used
from longthought.storage import canonical
from longthought.tools import Tool
from longthought.types import JSONObject, Model, Sampling, Verifier
from longthought.verifiers import AnswerKind
from longthought.verifiers.json_answers import JSONKind

__all__ = ["Definition", "Retry"]

FINAL_PROMPT = "Give your final answer now, as briefly as you can."
STEP_PROMPT = "Go on with the next step."
ANSWER_LEAD = "\n\nThe answer:"
ANSWER_PROMPT = "That is enough thinking. Give your answer now."
ACT_PROMPT = "That is enough thinking. Give your answer now, or call the tool that you need."
THINK_ON_LEAD = "\n\nWait,"
THINK_ON_PROMPT = (
    "Wait. Think on before you answer: check what you have so far, and look for what you missed."
)
CONTINUE_PROMPT = "Go on exactly where you stopped, and repeat nothing."


@dataclass(frozen=True, slots=True)
class Retry:
    """How a failed model call is tried again: full jitter, or the server's own wish.

    ``attempts`` counts the first one; ``base`` and ``cap`` are seconds. A server's wish is kept to
    even if it is longer than ``cap``; one that is longer than ``longest_wait`` seconds, or than the
    run's ``wall`` has left, ends the call at once.

    Raises:
        InvalidInput: there is no attempt, or a time is negative.
    """

    attempts: int = 4
    base: float = 0.5
    cap: float = 30.0
    longest_wait: float = 300.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise InvalidInput("retry.attempts", f"{self.attempts} is too few", "Use 1 or more")
        for name in ("base", "cap", "longest_wait"):
            if not getattr(self, name) >= 0:
                problem = f"{getattr(self, name)!r} is no time"
                raise InvalidInput(f"retry.{name}", problem, "Use seconds from 0")


@dataclass(frozen=True, slots=True)
class Definition:
    """The parts of a workflow. ``Workflow`` builds it; a session reads it."""

    name: str
    models: Sequence[Model]
    strategy: Policy
    tools: Sequence[Tool] = ()
    answer: AnswerKind | None = None
    verifier: Verifier | None = None
    system: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    budget: Budget = field(default_factory=Budget)
    branch_budget: Budget | None = None
    """Limits on each branch of every search."""
    output: JSONObject | None = None
    """The schema of a typed answer, as backends are sent it."""
    typed: JSONKind | None = None
    """What finds and checks a typed answer."""
    output_retries: int = 1
    """How often a branch is told what is wrong with its typed answer, and asked again."""
    parallel: int | None = None
    """Branches in flight at once; the slots of the models a policy asks unless given."""
    max_turns: int = 32
    """Tool turns of one branch before it has to answer."""
    max_output_tokens: int = 4096
    """Output tokens of one reply when a limit has to be divided and the user set none."""
    retry: Retry = field(default_factory=Retry)
    early_start: bool = True
    """Whether tools may start before the reply that asks for them has ended."""
    tell_left: tuple[float, ...] = ()
    """Shares of a limit, ascending, from which on a branch is told what is left."""
    park_after: float | None = 60.0
    """Seconds: a run that sleeps longer is parked; None keeps every sleep in the process."""
    graph: Builder | None = None
    source: str = ""
    """Where the definition can be found again: ``module:attribute``."""

    asked_for: tuple[str, ...] = ()
    """The names by which the models were given, as ``openai/NAME``."""

    _compiled: list[Compiled] = field(default_factory=list, repr=False, compare=False)

    def parts(self) -> JSONObject:
        """Everything that shapes what a run asks for, as JSON."""
        more = {"output_retries": self.output_retries}
        return {
            "name": self.name,
            "models": [model.fingerprint() for model in self.models],
            "strategy": self.strategy.spec(),
            "tools": [tool.spec.fingerprint() for tool in self.tools],
            "answer": self.answer.spec() if self.answer else None,
            "verifier": self.verifier.spec() if self.verifier else None,
            "system": self.system,
            "sampling": dict(self.sampling),
            "output": self.output,
            "max_turns": self.max_turns,
            "graph": graph_shape(self.graph) if self.graph else None,
            **(more if self.typed is not None and self.output_retries != 1 else {}),
            **({"tell_left": list(self.tell_left)} if self.tell_left else {}),
        }

    def tells_schema(self, model: Model, *, step: bool = False) -> bool:
        """Whether a branch of this model is told the form of the answer in its system prompt."""
        return self.output is not None and (step or not model.capabilities.structured_output)

    def output_for(self, model: Model, *, step: bool = False) -> JSONObject | None:
        """The schema that goes with a request to this model, None where there is none to send."""
        return None if self.tells_schema(model, step=step) else self.output

    def slots(self, policy: Policy) -> int:
        """Branches in flight at once for a policy: the slots of all models that it asks."""
        models = {self.models[index].name: self.models[index] for index in models_used(policy)}
        return self.parallel or sum(model.slots for model in models.values())

    def compiled(self) -> Compiled:
        """The graph of a run, every node wrapped; compiled once."""
        if not self._compiled:
            from longthought.orchestrator.graphs.run import run_graph  # it needs the definition

            self._compiled.append(compile_graph(self.graph or run_graph(), name=self.name))
        return self._compiled[0]

    def fingerprint(self) -> str:
        """SHA-256 over :meth:`parts`, 64 hexadecimal digits."""
        return hashlib.sha256(canonical(self.parts()).encode()).hexdigest()

    def model_names(self) -> list[tuple[str, ...]]:
        """What each model may be called: its own name, and the one it was asked for by."""
        asked = self.asked_for or tuple(model.name for model in self.models)
        return [(model.name, name) for model, name in zip(self.models, asked, strict=True)]

    def model_kinds(self) -> dict[str, Any]:
        """Model name to kind, for the price book."""
        return {model.name: model.fingerprint().get("kind") for model in self.models}
