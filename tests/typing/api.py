"""Checked by mypy, never run: the types of the public face."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, assert_type

from pydantic import BaseModel

from longthought import (
    Budget,
    Candidate,
    Context,
    Message,
    Model,
    PriceBook,
    Result,
    Store,
    ToolContext,
    Usage,
    Verdict,
    Workflow,
    __version__,
    answers,
    errors,
    strategies,
    tool,
    tools,
    verifiers,
)
from longthought.orchestrator.models import OpenAIModel, ScriptedModel, resolve_model
from longthought.orchestrator.strategies import Ask, Outcome, Pick, Policy, State
from longthought.orchestrator.traces import Explanation, RunTree, explain, run_tree
from longthought.storage import Recording
from longthought.tools import Tool
from longthought.types import JSONObject, Verifier
from longthought.verifiers import AnswerKind

assert_type(__version__, str)


@tool(effect="read")
async def population(city: str, context: ToolContext) -> int:
    """Inhabitants of a city."""
    return len(city)


class Twice:
    """A policy of one's own is one by its shape."""

    name = "twice"

    def spec(self) -> JSONObject:
        return {"name": self.name}

    def start(self, question: str, seed: int) -> State:
        return {"asked": 0, "told": []}

    def ask(self, state: State, room: int) -> list[Ask]:
        return [Ask("a")]

    def tell(self, state: State, outcome: Outcome) -> None:
        return None

    def done(self, state: State) -> Pick | None:
        return Pick("a", "done")


policy: Policy = Twice()
models: list[Model] = [resolve_model("embedded"), ScriptedModel(["hi"]), OpenAIModel("openai/x")]
kind: AnswerKind = answers.number(tolerance=0.1)
judge: Verifier = verifiers.puzzle(integers=True)
hands: list[Tool] = [population, tools.calculator(), tools.python(), tools.search(Path("notes"))]
conversation: list[Message] = [{"role": "user", "content": "How many?"}]

workflow = Workflow(
    "typed",
    model=models,
    tools=hands,
    answer=kind,
    verifier=judge,
    strategy=strategies.sample(8, wave=4, stop=strategies.beta(0.95), select=strategies.best()),
    budget=Budget(usd=0.05, tokens=40_000, wall=60),
    prices=PriceBook.load(),
)
other = Workflow("own policy", strategy=policy)


class Invoice(BaseModel):
    """What a typed answer may be."""

    total: float


typed = Workflow("typed", output=Invoice, output_retries=2)
by_schema = Workflow("schema", output={"type": "object"}, answer=answers.json(Invoice))
in_turn: list[Policy] = [
    strategies.single(models="small"),
    strategies.sample(4, models=("small", 0)),
    strategies.best_of(4, models={"small": 3, "large": 1}),
    strategies.backtrack(models=[0, 1]),
]


async def uses(context: Context, store: Store) -> None:
    run = await workflow.run(conversation, seed=1, budget=Budget(tokens=10), deps=object())
    assert_type(run, Result)
    assert_type(run.answer, str | None)
    assert_type(run.status, str)
    assert_type(run.output, Any)
    assert_type(run.spent, dict[str, Any])
    assert_type(await workflow.resume(run.id, force=True), Result)
    assert_type(await workflow.replay(run.id), Result)
    assert_type(workflow.run_sync("?"), Result)
    assert_type(workflow.stream("?"), AsyncIterator[dict[str, Any]])
    assert_type(workflow.recorded_in(store), Workflow)
    assert_type(await context.now(), float)
    assert_type(await context.verify("text"), Verdict)
    assert_type((await context.explore(policy)).candidate, Candidate | None)
    recording = await store.read(run.id)
    assert_type(recording, Recording)
    assert_type(run_tree(recording), RunTree)
    assert_type(explain(recording), Explanation)


def told(error: errors.Diverged) -> tuple[str, str]:
    return error.key, error.difference


assert_type(Usage(1, 2) + Usage(3), Usage)
