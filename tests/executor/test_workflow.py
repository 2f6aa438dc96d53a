"""Workflows as their users run them."""

from __future__ import annotations

import asyncio
import math
from typing import Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from longthought import (
    Budget,
    Context,
    Pool,
    Store,
    ToolContext,
    Verdict,
    Workflow,
    strategies,
    verifiers,
)
from longthought import answers as answer_kinds
from longthought.errors import BackendError, InvalidInput, QuestionRefused
from longthought.orchestrator import nodes
from longthought.orchestrator.definition import Retry
from longthought.orchestrator.graphs import run as run_module
from longthought.orchestrator.models.scripted import ScriptedModel, call, rng, says
from longthought.orchestrator.traces import run_tree
from longthought.tools import tool
from longthought.types import Candidate, JSONObject, JudgeContext
from tests.executor.workflows import looking, lookup, turns_of, two_lookups


def test_run_sync_works_with_and_without_a_loop(tmp_path: Any) -> None:
    workflow = looking(f"sqlite:///{tmp_path / 'a.db'}")
    assert workflow.run_sync("q").status == "completed"

    async def inside() -> str:
        return workflow.run_sync("q").status

    assert asyncio.run(inside()) == "completed"


async def test_stream_shows_what_happens_and_ends_with_the_result(sqlite_store: Store) -> None:
    seen = [item async for item in looking(sqlite_store).stream("q")]
    kinds = {item["event"] for item in seen}
    assert {"branch", "delta", "tool", "branch_ended", "result"} <= kinds
    assert seen[-1]["status"] == "completed"


async def test_a_failing_sample_leaves_its_siblings_alone(sqlite_store: Store) -> None:
    def faulty(request: Any, attempt: int) -> Exception | None:
        broken = request["sampling"]["seed"] in (1, 2)
        return BackendError("broken for good") if broken else None

    model = ScriptedModel(lambda request: "The answer is 7", faults=faulty)
    workflow = Workflow(
        "w",
        model=model,
        answer=answer_kinds.number(),
        strategy=strategies.sample(4),
        store=sqlite_store,
    )
    result = await workflow.run("q")
    assert (result.status, result.answer) == ("completed", "7")
    assert (result.support["samples"], result.support["of"]) == (2, 4)
    assert (await workflow.replay(result.id)).support == result.support


def broken(request: Any, attempt: int) -> Exception:
    return BackendError(f"broken for seed {request['sampling']['seed']}", status=400)


async def test_a_run_whose_samples_all_failed_says_why(sqlite_store: Store) -> None:
    model = ScriptedModel(lambda request: "never said", faults=broken)
    workflow = looking(sqlite_store, model=model)
    result = await workflow.run("q")
    assert (result.status, result.stop_reason) == ("incomplete", "all_samples")
    assert result.error == "BackendError: broken for seed 0"
    assert result.to_json()["error"] == result.error
    assert (await workflow.replay(result.id)).error == result.error
    assert run_tree(await sqlite_store.read(result.id)).error == result.error


async def test_a_run_with_an_answer_or_without_failures_has_no_error(sqlite_store: Store) -> None:
    silent = looking(sqlite_store, script=lambda request: "")
    result = await silent.run("q")
    assert (result.answer, result.error) == (None, None)

    def some(request: Any, attempt: int) -> Exception | None:
        return broken(request, attempt) if request["sampling"]["seed"] == 0 else None

    model = ScriptedModel(lambda request: "The answer is 7", faults=some)
    result = await looking(sqlite_store, model=model).run("q")
    assert (result.answer, result.error) == ("7", None)


async def test_a_search_that_could_not_go_on_says_why(sqlite_store: Store) -> None:
    def after_one_step(request: Any, attempt: int) -> Exception | None:
        return broken(request, attempt) if request.get("continue_last") else None

    model = ScriptedModel(lambda request: "1 + 1 = 2\nThe answer is 2", faults=after_one_step)
    search = strategies.backtrack(width=1)
    kind, checked = answer_kinds.number(), verifiers.equations()
    workflow = Workflow(
        "w", model=model, answer=kind, verifier=checked, strategy=search, store=sqlite_store
    )
    result = await workflow.run("q")
    assert (result.stop_reason, result.answer) == ("all_tried", "2")
    assert result.status == "incomplete"  # the thought it was taken from did not come to its end
    assert (result.error or "").startswith("BackendError: broken for seed")
    assert (await workflow.replay(result.id)).error == result.error


async def test_a_recording_without_the_error_still_replays(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ScriptedModel(lambda request: "never said", faults=broken)
    workflow = looking(sqlite_store, model=model)
    with monkeypatch.context() as once:  # before it was recorded
        once.setattr(run_module, "_first_failure", lambda search: None)
        old = await workflow.run("q")
    assert old.error is None
    again = await workflow.replay(old.id)
    assert again.status == "incomplete"
    assert again.error == "BackendError: broken for seed 0"


async def test_failures_that_may_pass_are_tried_again(sqlite_store: Store) -> None:
    def faulty(request: Any, attempt: int) -> Exception | None:
        return BackendError("busy", status=429, retryable=True) if attempt < 2 else None

    model = ScriptedModel(two_lookups, faults=faulty)
    workflow = looking(sqlite_store, model=model, retry=Retry(base=0.001, cap=0.002))
    result = await workflow.run("q")
    assert result.status == "completed"
    assert model.calls == 3 * 12
    assert result.spent["model_calls"] == 36


async def test_an_adapter_that_crashes_fails_its_branch_alone(sqlite_store: Store) -> None:
    def script(request: Any) -> str:
        if request["sampling"]["seed"] == 0:
            raise RuntimeError("a mistake in the adapter")
        return "The answer is 7"

    workflow = looking(sqlite_store, script=script)
    result = await workflow.run("q")
    assert (result.answer, result.support["samples"]) == ("7", 3)


async def test_a_cancelled_run_can_be_resumed(store: Store) -> None:
    reached = asyncio.Event()
    hold = asyncio.Event()

    async def slow(request: Any) -> Any:
        if turns_of(request) == 1 and request["sampling"]["seed"] == 2:
            reached.set()
            await hold.wait()
        return two_lookups(request)

    workflow = looking(store, script=slow)
    task = asyncio.create_task(workflow.run("q", run_id="mine", run_key=b"k" * 16))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await store.row("mine")).status == "cancelled"
    assert (await workflow.replay("mine")).status == "cancelled"
    hold.set()
    done = await workflow.resume("mine")
    assert done.status == "completed"
    whole = await workflow.run("q", run_key=b"k" * 16)
    assert done.answer == whole.answer
    assert done.model_calls < whole.model_calls
    assert done.spent["tokens"] >= whole.spent["tokens"]
    controller = workflow._shared_controller()
    assert controller.in_use("scripted") == 0
    assert controller.view()["branches"] == {}


def own_graph() -> Any:
    """reason <-> act -> judge on its own, then a search with another policy."""

    async def search(state: Any, runtime: Runtime[Context]) -> JSONObject:
        found = await runtime.context.explore(strategies.sample(3))
        alone = state["candidate"].answer
        return {"answer": f"{alone} then {found.answer} by {found.pick.stop_reason}"}

    class Own(nodes.Thought, total=False):
        answer: str

    graph: Any = StateGraph(Own, context_schema=Context)
    graph.add_node("reason", nodes.reason)
    graph.add_node("act", nodes.act)
    graph.add_node("judge", nodes.judge)
    graph.add_node("search", search)
    graph.add_edge(START, "reason")
    graph.add_conditional_edges("reason", nodes.after_reason, ["act", "judge"])
    graph.add_edge("act", "reason")
    graph.add_edge("judge", "search")
    graph.add_edge("search", END)
    return graph


async def test_a_graph_of_ones_own_from_our_nodes(store: Store) -> None:
    def script(request: Any) -> Any:
        return says("x", call("lookup", name="ab")) if turns_of(request) == 0 else "It is 5"

    workflow = looking(store, script=script, graph=own_graph())
    result = await workflow.run("q")
    assert result.answer == "5 then 5 by all_samples"
    again = await workflow.replay(result.id)
    assert (again.answer, again.model_calls, again.tool_calls) == (result.answer, 0, 0)


class AskingVerifier:
    """A judge that asks the model and a tool."""

    name = "asking"

    def spec(self) -> JSONObject:
        return {"kind": self.name}

    async def judge(self, candidate: Candidate, context: JudgeContext) -> Verdict:
        reply = await context.model([{"role": "user", "content": f"judge {candidate.answer}"}])
        found = await context.tool("lookup", {"name": "x" * 3})
        good = "good" in str(reply["message"]["content"]) and found["data"] == 3
        return Verdict(float(good), good, "as the model says")


async def test_a_judging_model_is_recorded_and_charged(store: Store) -> None:
    def script(request: Any) -> str:
        text = request["messages"][-1]["content"]
        if text.startswith("judge"):
            return "good" if text == "judge 42" else "bad"
        return f"The answer is {rng(request).choice([1, 42])}"

    workflow = looking(
        store, script=script, verifier=AskingVerifier(), strategy=strategies.best_of(16)
    )
    result = await workflow.run("q")
    assert (result.status, result.answer, result.stop_reason) == ("completed", "42", "first_pass")
    kinds = [e.key for e in (await store.read(result.id)).events if e.type == "effect_finished"]
    assert sum(key.endswith("/0:verify#0:model") for key in kinds) >= 1
    again = await workflow.replay(result.id)
    assert (again.answer, again.model_calls) == ("42", 0)


async def test_a_rejected_pick_goes_back_to_the_same_policy(store: Store) -> None:
    """Majority picks what the verifier turned down: verify sends it back, more are asked."""

    class Picky:
        name = "picky"

        def spec(self) -> JSONObject:
            return {"kind": self.name}

        async def judge(self, candidate: Candidate, context: JudgeContext) -> Verdict:
            return Verdict(1.0, candidate.answer == "3")

    def script(request: Any) -> str:
        return f"The answer is {request['sampling']['seed']}"

    strategy = strategies.sample(6, wave=1, stop=_AnyAnswer(), select=strategies.best())
    workflow = looking(store, script=script, verifier=Picky(), strategy=strategy)
    result = await workflow.run("q")
    assert (result.status, result.answer) == ("completed", "3")
    events = (await store.read(result.id)).events
    rejected = [e.body["data"]["ask"] for e in events if e.body.get("input") == "rejected"]
    assert rejected == ["s0", "s1", "s2"]
    assert (await workflow.replay(result.id)).answer == "3"


class _AnyAnswer:
    def spec(self) -> JSONObject:
        return {"name": "any"}

    def stop(self, outcomes: Any) -> str | None:
        return "any" if outcomes else None


async def test_a_refused_question_reaches_the_caller(store: Store) -> None:
    def script(request: Any) -> str:
        raise QuestionRefused("question", "is no puzzle", "Write 4 7 8 8 -> 24")

    with pytest.raises(QuestionRefused, match="no puzzle"):
        await looking(store, script=script).run("hello", run_id="refused")
    assert (await store.row("refused")).status == "failed"


@pytest.mark.parametrize("question", ["", "  \n", []])
async def test_an_empty_question_is_refused(sqlite_store: Store, question: Any) -> None:
    with pytest.raises(InvalidInput, match="question"):
        await looking(sqlite_store).run(question)
    assert await sqlite_store.list_runs() == []


@pytest.mark.parametrize(
    "options",
    [
        {"model": []},
        {"model": "nothing/like-this"},
        {"name": ""},
        {"tools": [lookup, lookup]},
        {"parallel": 0},
        {"output": 5},
    ],
)
def test_bad_parts_are_refused(options: Any) -> None:
    with pytest.raises(InvalidInput):
        Workflow(**{"model": ScriptedModel("x"), **options})


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"parallel": 1.5}, "parallel"),
        ({"max_turns": math.nan}, "max_turns"),
        ({"max_turns": "3"}, "max_turns"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": "many"}, "max_output_tokens"),
        ({"output_retries": "x"}, "output_retries"),
        ({"park_after": "60"}, "park_after"),
        ({"park_after": math.nan}, "park_after"),
        ({"branch_budget": 5}, "branch_budget"),
        ({"sampling": 5}, "sampling"),
        ({"sampling": {"max_tokens": -1}}, "sampling.max_tokens"),
        ({"sampling": {"max_tokens": 1.5}}, "sampling.max_tokens"),
        ({"sampling": {"temperature": math.nan}}, "sampling.temperature"),
        ({"sampling": {"temperature": "hot"}}, "sampling.temperature"),
    ],
)
def test_bad_numbers_are_refused_by_name(options: Any, named: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Workflow(**{"model": ScriptedModel("x"), **options})
    assert refused.value.field == named


async def test_what_is_no_budget_or_pool_is_refused(sqlite_store: Store) -> None:
    workflow = looking(sqlite_store)
    for options in ({"budget": 500}, {"budget": {"tokens": 500}}, {"pool": 500}):
        with pytest.raises(InvalidInput, match=r"is no (budget|pool)"):
            await workflow.run("q", **options)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="budget: 500 is no budget"):
        await workflow.raise_limit("nobody", 500)  # type: ignore[arg-type]
    with Pool("over") as pool:
        pass
    with pytest.raises(InvalidInput, match="'over' is closed"):
        await workflow.run("q", pool=pool)
    assert await sqlite_store.list_runs() == []


@tool(effect="write")
async def pay(amount: int, context: ToolContext) -> str:
    """Pay somebody.

    Args:
        amount: dollars.
    """
    context.deps["paid"].append(amount)  # type: ignore[index]
    if context.deps["crash"]:  # type: ignore[index]
        context.deps["reached"].set()  # type: ignore[index]
        await asyncio.Event().wait()  # the process dies here, as far as the run can tell
    return f"paid {amount}"


def paying(request: Any) -> Any:
    if turns_of(request) == 0:
        return says("paying", call("pay", amount=5))
    return f"done: {request['messages'][-1]['content']}"


@pytest.mark.parametrize("decision", ["done", "again"])
async def test_a_write_of_unknown_outcome_waits_for_a_person(store: Store, decision: str) -> None:
    workflow = Workflow("pay", model=ScriptedModel(paying), tools=[pay], store=store)
    deps: dict[str, Any] = {"paid": [], "crash": True, "secret": "hunter2"}
    deps["reached"] = asyncio.Event()
    task = asyncio.create_task(workflow.run("pay", run_id="p", deps=deps))
    await deps["reached"].wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    deps["crash"] = False
    waits = await workflow.resume("p", deps=deps)
    assert (waits.status, waits.stop_reason) == ("needs_attention", "unknown_outcome")
    assert deps["paid"] == [5]
    key = "/2.explore/search/s0/2.act#0:tool"
    assert key in str(waits.error)
    await workflow.signal("p", f"decide:{key}", decision)
    done = await workflow.resume("p", deps=deps)
    assert done.status == "completed"
    assert deps["paid"] == ([5] if decision == "done" else [5, 5])
    assert ("not known" in done.text) == (decision == "done")
    assert (await workflow.replay("p")).text == done.text
    recording = await store.read("p")
    assert "hunter2" not in str([recording.get(i) for i in recording._bodies])


async def test_the_last_answer_is_paid_from_what_was_kept_back(sqlite_store: Store) -> None:
    """The budget ends the only line of thought in the middle: it is asked once more."""

    def script(request: Any) -> Any:
        if request["messages"][-1]["role"] == "user" and turns_of(request):
            return "The answer is 9"
        return says("x" * 150, call("lookup", name="a" * 50))

    workflow = looking(
        sqlite_store,
        script=script,
        strategy=strategies.single(),
        budget=Budget(tokens=2_000, final_answer=900),
    )
    result = await workflow.run("q")
    assert (result.status, result.answer) == ("incomplete", "9")
    assert result.stop_reason == "tokens"
    assert result.spent["tokens"] <= 2_000
    assert (await workflow.replay(result.id)).answer == "9"


async def test_concurrent_runs_share_one_store_and_the_slots(sqlite_store: Store) -> None:
    model = ScriptedModel(two_lookups, slots=4)
    workflow = looking(sqlite_store, model=model)
    results = await asyncio.gather(*(workflow.run(f"q{i}") for i in range(20)))
    assert {result.status for result in results} == {"completed"}
    assert model.peak <= 4


def test_the_graph_can_be_drawn() -> None:
    picture = Workflow("w", model=ScriptedModel("x")).graph.get_graph().draw_mermaid()
    for node in ("route", "explore", "verify", "backtrack", "answer"):
        assert node in picture


async def test_effects_inside_a_tool_stand_inside_its_call(store: Store) -> None:
    """A tool that asks the model itself takes no number that a replay would not take."""

    @tool(effect="read")
    async def research(topic: str, context: ToolContext) -> str:
        """Ask the model about something.

        Args:
            topic: what.
        """
        ctx: Any = context.deps
        reply = await ctx[0].model(f"about {topic}")
        return str(reply["message"]["content"])

    class State(nodes.RunState, total=False):
        answer: str

    async def work(state: State, runtime: Runtime[Context]) -> State:
        ctx = runtime.context
        ctx.deps.append(ctx)
        first = (await ctx.tool("research", topic="a")).content
        second = str((await ctx.model("then"))["message"]["content"])
        return {"answer": f"{first}; {second}"}

    graph: Any = StateGraph(State, context_schema=Context)
    graph.add_node("work", work)
    graph.add_edge(START, "work")
    graph.add_edge("work", END)
    model = ScriptedModel(lambda request: f"re: {request['messages'][-1]['content']}")
    workflow = Workflow("tools", model=model, tools=[research], graph=graph, store=store)
    first = await workflow.run("q", deps=[])
    assert first.answer == "re: about a; re: then"
    again = await workflow.replay(first.id, deps=[])
    assert (again.answer, again.model_calls) == (first.answer, 0)


class Answer(TypedDict, total=False):
    answer: Any


async def test_a_reply_is_the_same_live_and_replayed_in_any_form(sqlite_store: Store) -> None:
    """Its keys stand in the same order, so that an answer may be made of all of it."""

    async def work(state: Answer, runtime: Runtime[Context]) -> Answer:
        first = await runtime.context.model("one", tools=["lookup"])
        return {"answer": f"{first} {list(first)}"}

    def script(request: Any) -> Any:
        return says("looking", call("lookup", name="b"))

    graph: Any = StateGraph(Answer, context_schema=Context)
    graph.add_node("work", work)
    graph.add_edge(START, "work")
    graph.add_edge("work", END)
    workflow = looking(sqlite_store, script=script, graph=graph)
    result = await workflow.run("q")
    assert result.status == "completed"
    again = await workflow.replay(result.id)
    assert (again.answer, again.model_calls) == (result.answer, 0)
