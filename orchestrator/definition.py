"""What a workflow is made of, and the fingerprint by which a changed one is recognised."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from longthought.budgets import Budget
from longthought.orchestrator.graphs.placed import Builder, Compiled, compile_graph, graph_shape
from longthought.orchestrator.strategies import Policy
from longthought.storage import canonical
from longthought.tools import Tool
from longthought.types import JSONObject, Model, Sampling, Verifier
from longthought.verifiers import AnswerKind

__all__ = ["Definition", "Retry"]

FINAL_PROMPT = "Give your final answer now, as briefly as you can."
STEP_PROMPT = "Go on with the next step."


@dataclass(frozen=True, slots=True)
class Retry:
    """How a failed model call is tried again: full jitter, or the server's own wish.

    ``attempts`` counts the first one; ``base`` and ``cap`` are seconds.
    """

    attempts: int = 4
    base: float = 0.5
    cap: float = 30.0


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
    output: JSONObject | None = None
    parallel: int | None = None
    """Branches in flight at once; the slots of the first model unless given."""
    max_turns: int = 32
    """Tool turns of one branch before it has to answer."""
    max_output_tokens: int = 4096
    """Output tokens of one reply when a limit has to be divided and the user set none."""
    retry: Retry = field(default_factory=Retry)
    graph: Builder | None = None
    source: str = ""
    """Where the definition can be found again: ``module:attribute``."""

    _compiled: list[Compiled] = field(default_factory=list, repr=False, compare=False)

    def parts(self) -> JSONObject:
        """Everything that shapes what a run asks for, as JSON."""
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
        }

    def compiled(self) -> Compiled:
        """The graph of a run, every node wrapped; compiled once."""
        if not self._compiled:
            from longthought.orchestrator.graphs.run import run_graph  # it needs the definition

            self._compiled.append(compile_graph(self.graph or run_graph(), name=self.name))
        return self._compiled[0]

    def fingerprint(self) -> str:
        """SHA-256 over :meth:`parts`, 64 hexadecimal digits."""
        return hashlib.sha256(canonical(self.parts()).encode()).hexdigest()

    def model_kinds(self) -> dict[str, Any]:
        """Model name to kind, for the price book."""
        return {model.name: model.fingerprint().get("kind") for model in self.models}
