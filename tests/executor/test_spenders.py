"""Whoever spends reserves and settles: what the scopes say is what a real server received."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from benchmarks.protocol_server import ProtocolServer
from longthought import Budget, Context, Store, Workflow, answers, strategies, tool
from longthought.budgets import Pool, PriceBook, Reservation, Scope
from longthought.orchestrator.definition import Retry
from longthought.orchestrator.models.openai import OpenAIModel
from longthought.orchestrator.models.scripted import call, says
from longthought.orchestrator.recorded import Recorded
from longthought.types import Candidate, JSONObject, Verdict
from tests.executor.copies import copy_prefix
from tests.executor.workflows import looking, turns_of

AT_ONCE = Retry(attempts=5, base=0.0, cap=0.0)


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many reservations were taken and how each ended, whoever took them."""
    counts = dict.fromkeys(("taken", "ended"), 0)
    take, end = Scope._take, Reservation._end

    def taken(self: Scope, granted: Any, allowance: bool) -> Reservation:
        counts["taken"] += 1
        return take(self, granted, allowance)

    def ended(self: Reservation, actual: Any) -> Any:
        counts["ended"] += 1
        return end(self, actual)

    monkeypatch.setattr(Scope, "_take", taken)
    monkeypatch.setattr(Reservation, "_end", ended)
    return counts


class Asking:
    """A verifier that asks the model itself before it is content."""

    def spec(self) -> JSONObject:
        return {"kind": "asking"}

    async def judge(self, candidate: Candidate, context: Any) -> Verdict:
        await context.model([{"role": "user", "content": f"Is {candidate.answer} right?"}])
        return Verdict(1.0, True)


class State(TypedDict, total=False):
    answer: Any


def everything(held: dict[str, Any]) -> Any:
    async def work(state: State, runtime: Runtime[Context]) -> State:
        ctx = held["ctx"] = runtime.context
        found = await ctx.explore(strategies.sample(4), budget=Budget(tokens=500_000))
        await ctx.model("And once more, on its own.")
        await ctx.tool("consult", text="what now")
        await ctx.verify("The answer is 42")
        held["view"] = ctx.session.scope.view()
        return {"answer": found.answer}

    graph: Any = StateGraph(State, context_schema=Context)
    graph.add_node("work", work)
    graph.add_edge(START, "work")
    graph.add_edge("work", END)
    return graph


@pytest.fixture
async def asking(sqlite_store: Store, server: ProtocolServer) -> AsyncIterator[Any]:
    held: dict[str, Any] = {}

    @tool(effect="pure")
    async def add(a: int, b: int) -> int:
        """Add two numbers.

        Args:
            a: one number.
            b: the other.
        """
        return a + b

    @tool(effect="read", cost_usd=0.002)
    async def consult(text: str) -> str:
        """Ask a model from inside a tool."""
        await held["ctx"].model(f"Consulted: {text}")
        return "noted"

    made: list[Workflow] = []

    def make(modes: str) -> tuple[Workflow, dict[str, Any]]:
        model = OpenAIModel("toy", base_url=server.address(modes), api_key=f"key {modes}")
        workflow = Workflow(
            "everything",
            model=model,
            tools=[add, consult],
            answer=answers.number(),
            verifier=Asking(),
            graph=everything(held),
            budget=Budget(tokens=1_000_000, usd=5, tool_calls=100),
            branch_budget=Budget(tokens=400_000),
            prices=PriceBook.from_json({"as_of": "2026-01-01", "prices": {"toy": PRICE}}),
            retry=AT_ONCE,
            store=sqlite_store,
        )
        made.append(workflow)
        return workflow, held

    yield make
    for workflow in made:
        await workflow.aclose()


PRICE = {"input": "1", "output": "2"}


def parts(scope: JSONObject, kind: str) -> int:
    """What the innermost scopes below have spent together."""
    children = scope.get("children", [])
    if not children:
        return int(scope.get("spent", {}).get(kind, 0))
    return sum(parts(child, kind) for child in children)


@pytest.mark.parametrize("modes", ["t1", "t1,status503@30,"], ids=["well", "refusing"])
async def test_what_the_scopes_say_is_what_the_server_received(
    asking: Any, server: ProtocolServer, ledger: dict[str, int], modes: str, sqlite_store: Store
) -> None:
    """Samples, tool turns, a judge's calls, a tool's own call, a node's, and every retry."""
    workflow, held = asking(modes)
    with Pool("batch", Budget(tokens=2_000_000)) as pool:
        run = await workflow.run("Add up.", pool=pool)
        assert run.status == "completed", run.error
        sent = server.counts["prompt_tokens"] + server.counts["completion_tokens"]
        assert run.spent["tokens"] == pool.spent.tokens == sent
        assert run.spent["model_calls"] == server.counts["calls"]
        view = held["view"]
    # what stands in no branch: the node's call, that of its tool, and of its verifier
    loose = view["spent"]["model_calls"] - parts(view, "model_calls")
    assert loose >= 3
    assert parts(view, "model_calls") >= 4 * 3  # two turns and a judge's call for each sample
    tools = run.spent["tool_calls"]
    assert ledger["taken"] == ledger["ended"] == server.counts["calls"] + tools
    charged = Recorded.of(await sqlite_store.read(run.id)).charged
    assert (charged.tokens, charged.model_calls) == (sent, server.counts["calls"])
    prompts, said = server.counts["prompt_tokens"], server.counts["completion_tokens"]
    assert charged.nanodollars == prompts * 1_000 + said * 2_000 + 2_000_000


async def test_a_read_that_died_with_its_process_counts_against_the_limit(
    sqlite_store: Store,
) -> None:
    """Killed in the middle of a free read, again and again: the limit on calls is not passed."""

    def script(request: Any) -> Any:
        if turns_of(request) < 1:
            return says("looking", call("lookup", name="a"))
        return "The answer is 7"

    workflow = looking(
        sqlite_store, script=script, strategy=strategies.single(), budget=Budget(tool_calls=3)
    )
    run = await workflow.run("q")
    assert run.spent["tool_calls"] == 1
    for killed in range(1, 5):
        recording = await sqlite_store.read(run.id)
        started = [
            e.seq
            for e in recording.events
            if e.type == "effect_started" and e.body["kind"] == "tool"
        ]
        if killed > 3:
            break
        copy = await copy_prefix(sqlite_store, recording, started[-1])
        run = await workflow.resume(copy)
        assert run.spent["tool_calls"] == min(3, killed + 1)
        assert (await workflow.replay(copy)).answer == run.answer == "7"
    finished = [e.body for e in recording.events if e.type == "effect_finished"]
    assert [body["status"] for body in finished if body["kind"] == "tool"] == ["budget"]
