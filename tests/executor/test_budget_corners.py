"""Limits, and what users meet. Every test states what should hold."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from longthought import Budget, Context, Pool, Store, Workflow, strategies
from longthought.budgets import PriceBook, Scope
from longthought.errors import InvalidInput, LongthoughtError
from longthought.orchestrator.models.scripted import ScriptedModel, call, says
from longthought.orchestrator.traces import run_budget
from longthought.tools import ToolResult, tool
from tests.executor.workflows import looking, turns_of


class State(TypedDict, total=False):
    question: str
    pick: str
    answer: str


def one_node(node: Any) -> Any:
    graph: Any = StateGraph(State, context_schema=Context)
    graph.add_node("only", node)
    graph.add_edge(START, "only")
    graph.add_edge("only", END)
    return graph


def seven(request: Any) -> str:
    return "The answer is 7"


async def test_no_tool_calls_is_a_sensible_wish(sqlite_store: Store) -> None:
    """budgets/limits.py: "No tool calls ... is a sensible wish"."""
    result = await looking(sqlite_store, script=seven, tools=[], budget=Budget(tool_calls=0)).run(
        "q"
    )
    assert (result.status, result.answer) == ("completed", "7")


async def test_used_up_tool_calls_do_not_end_the_thinking(sqlite_store: Store) -> None:
    def script(request: Any) -> Any:
        return says("x", call("lookup", name="a")) if turns_of(request) == 0 else "The answer is 7"

    result = await looking(
        sqlite_store, script=script, parallel=1, budget=Budget(tool_calls=1)
    ).run("q")
    assert result.support["samples"] == 4


async def test_zero_dollars_admit_free_models(sqlite_store: Store) -> None:
    result = await looking(sqlite_store, script=seven, tools=[], budget=Budget(usd=0)).run("q")
    assert (result.status, result.answer) == ("completed", "7")


async def test_a_raised_limit_serves_ones_own_graph(sqlite_store: Store) -> None:
    async def work(state: State, runtime: Runtime[Context]) -> State:
        reply = await runtime.context.model("say it " * 20)
        return {"answer": str(reply["message"]["content"])}

    def workflow(tokens: int) -> Workflow:
        return looking(
            sqlite_store, script=seven, graph=one_node(work), budget=Budget(tokens=tokens)
        )

    first = await workflow(20).run("q")
    assert first.status == "incomplete"
    more = await workflow(20).resume(first.id, budget=Budget(tokens=10_000))
    assert (more.status, more.answer) == ("completed", "The answer is 7")


async def test_a_raised_limit_stays_in_force(sqlite_store: Store) -> None:
    async def work(state: State, runtime: Runtime[Context]) -> State:
        ctx = runtime.context
        await ctx.suspend("first")
        await ctx.model("say it " * 100)
        await ctx.suspend("second")
        reply = await ctx.model("say it " * 100)
        return {"answer": str(reply["message"]["content"])}

    workflow = looking(sqlite_store, script=seven, graph=one_node(work), budget=Budget(tokens=150))
    first = await workflow.run("q")
    await workflow.signal(first.id, "first", True)
    second = await workflow.resume(first.id, budget=Budget(tokens=10_000))
    assert second.status == "parked"
    await workflow.signal(first.id, "second", True)
    third = await workflow.resume(first.id)  # the limit was raised already
    assert (third.status, third.answer) == ("completed", "The answer is 7")


async def test_raising_a_limit_twice(sqlite_store: Store) -> None:
    """The first time the last answer was given on a short line of thought, then on a longer one."""

    def script(request: Any) -> Any:
        if request["messages"][-1]["content"].startswith("Give your final"):
            return "The answer is 9"
        seed = request["sampling"]["seed"]
        if seed == 0 or turns_of(request) > 4:
            return "thinking " * 1000
        return says("x " * 20, call("lookup", name="a"))

    def workflow() -> Workflow:
        return looking(
            sqlite_store,
            script=script,
            strategy=strategies.sample(2),
            parallel=1,
            budget=Budget(tokens=300, final_answer=100),
        )

    def limits(tokens: int) -> Budget:
        return Budget(tokens=tokens, final_answer=100)

    result = await workflow().run("q")
    for tokens in (600, 900, 1500, 2000, 3000):
        result = await workflow().resume(result.id, budget=limits(tokens))
        assert result.status in ("completed", "incomplete"), (tokens, result)
        assert result.spent["tokens"] <= tokens
        assert (await workflow().replay(result.id)).answer == result.answer


def priced() -> PriceBook:
    book = PriceBook.load()
    return replace(book, free=()).extended({"scripted": {"input": 1000.0, "output": 1000.0}})


async def test_a_dollar_limit_keeps_a_last_answer_back_too(sqlite_store: Store) -> None:
    def script(request: Any) -> Any:
        if str(request["messages"][-1]["content"]).startswith("Give your final"):
            return "The answer is 9"
        return says("x " * 30, call("lookup", name="a"))

    workflow = looking(
        sqlite_store,
        script=script,
        strategy=strategies.single(),
        prices=priced(),
        budget=Budget(usd=5),
        max_turns=100,
    )
    result = await workflow.run("q")
    assert result.status == "incomplete"
    assert result.answer == "9", "5 % of the dollars were kept back and never used"


async def test_backtracking_names_the_limit_that_ended_it(sqlite_store: Store) -> None:
    workflow = looking(
        sqlite_store,
        script=lambda request: "thinking " * 100 + "The answer is 7",
        tools=[],
        strategy=strategies.backtrack(width=1, depth=3),
        budget=Budget(tokens=20, final_answer=0),
    )
    result = await workflow.run("q")
    assert (result.status, result.stop_reason) == ("incomplete", "tokens")
    more = await workflow.resume(result.id, budget=Budget(tokens=10_000, final_answer=0))
    assert (more.status, more.answer) == ("completed", "7")


async def test_a_pool_is_one_budget_over_many_runs(sqlite_store: Store) -> None:
    pool = Scope("pool", Budget(tokens=1_000, final_answer=0))
    workflow = looking(sqlite_store, script=seven, tools=[], strategy=strategies.sample(4))
    results = await asyncio.gather(*(workflow.run(f"q{i}", pool=pool) for i in range(30)))
    spent = sum(result.spent["tokens"] for result in results)
    assert spent == pool.spent.tokens
    assert 900 <= spent <= 1_000
    assert pool.reserved.tokens == 0
    assert "children" not in pool.view()
    assert {result.status for result in results} == {"completed", "incomplete"}


async def never(request: Any) -> str:
    await asyncio.Event().wait()
    return ""


async def test_wall_holds_in_ones_own_graph(sqlite_store: Store) -> None:
    """The model never answers: only the limit ends the run."""

    async def work(state: State, runtime: Runtime[Context]) -> State:
        await runtime.context.model("again")
        return {"answer": "done"}

    workflow = looking(sqlite_store, script=never, graph=one_node(work), budget=Budget(wall=0.1))
    result = await workflow.run("q")
    assert (result.status, result.stop_reason) == ("incomplete", "wall")
    assert (await workflow.replay(result.id)).status == "incomplete"


async def test_wall_holds_for_the_last_answer(sqlite_store: Store) -> None:
    async def script(request: Any) -> Any:
        if str(request["messages"][-1]["content"]).startswith("Give your final"):
            return await never(request)
        return says("x " * 60, call("lookup", name="a"))

    workflow = looking(
        sqlite_store,
        script=script,
        strategy=strategies.single(),
        budget=Budget(tokens=800, final_answer=300, wall=0.5),
    )
    result = await workflow.run("q")
    assert result.status == "incomplete"
    assert (await workflow.replay(result.id)).status == "incomplete"


async def test_no_last_answer_is_asked_for_when_wall_has_ended_the_search(
    sqlite_store: Store,
) -> None:
    """The search ends before the limit; what is left until then is for ending, not for asking."""
    finals = 0

    async def script(request: Any) -> Any:
        nonlocal finals
        if str(request["messages"][-1]["content"]).startswith("Give your final"):
            finals += 1
            return await never(request)
        if request["sampling"].get("seed", 0) == 0:
            return says("looking", call("lookup", name=f"n{turns_of(request)}"))
        return await never(request)

    workflow = looking(
        sqlite_store,
        script=script,
        strategy=strategies.sample(2),
        budget=Budget(wall=0.5),
        branch_budget=Budget(model_calls=2),
    )
    result = await workflow.run("q")
    assert (result.status, result.stop_reason) == ("incomplete", "wall")
    assert (finals, result.spent["model_calls"]) == (0, 3)


@tool(effect="read")
async def odd(name: str) -> ToolResult:
    """Odd.

    Args:
        name: any.
    """
    return ToolResult("ok", "fine", cost_usd=float(name))


@pytest.mark.parametrize("cost", ["-1", "nan", "inf"])
async def test_a_tool_with_an_odd_cost_breaks_nothing(sqlite_store: Store, cost: str) -> None:
    def script(request: Any) -> Any:
        return says("x", call("odd", name=cost)) if turns_of(request) == 0 else "The answer is 7"

    result = await looking(
        sqlite_store, script=script, tools=[odd], strategy=strategies.single()
    ).run("q")
    assert (result.status, result.answer) == ("completed", "7"), result


# -- what users meet ---------------------------------------------------------------------------


async def test_a_tool_with_an_argument_called_name(sqlite_store: Store) -> None:
    async def work(state: State, runtime: Runtime[Context]) -> State:
        return {"answer": (await runtime.context.tool("lookup", name="abc")).content}

    result = await looking(sqlite_store, graph=one_node(work)).run("q")
    assert result.answer == "3", result.error


async def test_a_state_with_a_field_called_pick(sqlite_store: Store) -> None:
    async def work(state: State, runtime: Runtime[Context]) -> State:
        return {"answer": "yes", "pick": "mine"}

    result = await looking(sqlite_store, graph=one_node(work)).run("q")
    assert (result.status, result.answer) == ("completed", "yes"), result.error


BAD_QUESTIONS: list[Any] = [
    5,
    None,
    {"role": "user", "content": "x"},
    [{"content": "x"}],
    ["x"],
    [{"role": "user"}],
    [{"role": "user", "content": 5}],
    [{"role": "user", "content": b"x"}],
]


@pytest.mark.parametrize("question", BAD_QUESTIONS, ids=repr)
async def test_a_bad_question_is_refused_before_a_run_begins(
    sqlite_store: Store, question: Any
) -> None:
    try:
        with pytest.raises(InvalidInput, match="question"):
            await looking(sqlite_store, script=seven).run(question)
    finally:
        rows = [(row.status, row.lease_until > 0) for row in await sqlite_store.list_runs()]
        assert rows == []


GOOD_QUESTIONS: list[Any] = [
    "nul \0 and surrogate \ud800 and 😀",
    [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "what?"},
                {"type": "image_url", "image_url": {"url": "data:x"}},
            ],
        }
    ],
    [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "q2"},
    ],
    "long " * 200_000,
]


@pytest.mark.parametrize("question", GOOD_QUESTIONS, ids=range(len(GOOD_QUESTIONS)))
async def test_all_sorts_of_questions(sqlite_store: Store, question: Any) -> None:
    class Plain(ScriptedModel):
        def count_prompt(self, request: Any) -> int | None:
            return None

    model = Plain(seven)
    workflow = looking(sqlite_store, model=model, tools=[], budget=Budget(tokens=20_000_000))
    first = await workflow.run(question)
    assert (first.status, first.answer) == ("completed", "7"), first
    assert (await workflow.replay(first.id)).answer == "7"


class BadParent:
    name = "bad"

    def __init__(self, what: str) -> None:
        self.what = what

    def spec(self) -> Any:
        return {"name": "bad"}

    def start(self, question: str, seed: int) -> Any:
        return {"asked": 0, "odd": {1, 2} if self.what == "state" else 0}

    def ask(self, state: Any, room: int) -> Any:
        if state["asked"]:
            return []
        state["asked"] = 1
        more = {"parent": "nobody"} if self.what == "parent" else {}
        more |= {"model": 3} if self.what == "model" else {}
        return [strategies.Ask("a\nb" if self.what == "newline" else "a", **more)]

    def tell(self, state: Any, outcome: Any) -> None:
        if self.what == "tell":
            raise ValueError("mistake in tell")

    def done(self, state: Any) -> Any:
        return None


@pytest.mark.parametrize("what", ["parent", "model", "newline", "state", "tell"])
async def test_a_policy_with_a_mistake_is_named(sqlite_store: Store, what: str) -> None:
    workflow = looking(sqlite_store, script=seven, tools=[], strategy=BadParent(what))
    async with asyncio.timeout(60):
        try:
            result = await workflow.run("q")
            text = str(result.error)
        except LongthoughtError as error:
            text = str(error)
    assert "bad" in text, text


async def test_a_paid_tool_beside_a_slow_one_frees_nothing_before_it_is_on_record(
    sqlite_store: Store,
) -> None:
    """s0: a paid call (1 dollar reserved, 1 cent used) beside a slow one. s1 then pays as well.

    It waits, since what s0's call did not use is held until its result is on record.
    """
    from longthought.orchestrator.recorded import Recorded

    used, reached, hold = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @tool(effect="read", cost_usd=1.0)
    async def paid(name: str) -> ToolResult:
        """Paid.

        Args:
            name: any.
        """
        if name == "1":
            reached.set()
            await hold.wait()
        used.set()
        return ToolResult("ok", "fine", cost_usd=0.01)

    @tool(effect="read")
    async def slow(name: str) -> str:
        """Slow.

        Args:
            name: any.
        """
        await hold.wait()
        return "x"

    async def script(request: Any) -> Any:
        seed = request["sampling"]["seed"]
        if turns_of(request) == 0:
            if seed == 1:
                await used.wait()
            calls = [call("paid", name=str(seed))]
            return says("x", *calls, *([call("slow", name="x")] if seed == 0 else []))
        return "The answer is 7"

    workflow = looking(
        sqlite_store,
        script=script,
        tools=[paid, slow],
        strategy=strategies.sample(2),
        budget=Budget(usd=1.5, final_answer=0),
    )
    run = await workflow.start("q", run_id="r")
    while not (reached.is_set() or run.view()["scopes"].get("waiting")):
        await asyncio.sleep(0.001)
    charged = Recorded.of(await sqlite_store.read("r")).charged  # the process dies here
    hold.set()
    await run.result()
    assert charged.usd <= 1.5


async def test_a_model_that_hands_out_one_message_again_and_again(sqlite_store: Store) -> None:
    """A user's model returns a constant; steps must not write into it."""
    shared = {"role": "assistant", "content": "step"}

    class Constant(ScriptedModel):
        async def generate(self, request: Any, grant: Any, emit: Any = None) -> Any:
            reply = await super().generate(request, grant, emit)
            return {**reply, "message": shared}

    workflow = looking(
        sqlite_store,
        model=Constant(lambda r: "step\nmore"),
        tools=[],
        strategy=strategies.backtrack(width=1, depth=3, steps=3),
    )
    await workflow.run("q")
    assert shared == {"role": "assistant", "content": "step"}


async def test_a_cancelled_run_costs_on_record_what_it_costs_in_its_pool(
    sqlite_store: Store,
) -> None:
    """And one that goes on in the same pool is not charged again for what was never used."""
    model = ScriptedModel(lambda request: "so " * 200 + "7", token_delay=0.002)
    workflow = Workflow("cancelled", model=model, store=sqlite_store)
    pool = Pool("batch", Budget(tokens=1_000, final_answer=0))
    run = await workflow.start("q", pool=pool)
    while "reserved" not in run.view()["scopes"]:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run.result()
    told = run_budget(await sqlite_store.read(run.id))
    assert told.spent == pool.spent
    assert told.spent.model_calls == 1
    assert told.spent.output_tokens < 200
    before = pool.spent.tokens
    done = await workflow.resume(run.id, pool=pool)
    assert done.status == "completed"
    assert pool.spent.tokens == done.spent["tokens"] == before + 206


@pytest.mark.parametrize("ask", [{"share": float("nan")}, {"a set"}])
async def test_a_wait_that_cannot_be_recorded_is_refused_and_ends_the_run(
    sqlite_store: Store, ask: Any
) -> None:
    async def only(state: State, runtime: Runtime[Context]) -> State:
        return {"answer": await runtime.context.suspend("go", ask)}

    workflow = Workflow(
        "asking", graph=one_node(only), model=ScriptedModel(seven), store=sqlite_store
    )
    with pytest.raises(InvalidInput, match="ask: is not JSON"):
        await workflow.run("q", run_id="asks")
    assert (await sqlite_store.row("asks")).status == "failed"


async def test_a_time_that_is_no_number_is_refused_by_name(sqlite_store: Store) -> None:
    async def only(state: State, runtime: Runtime[Context]) -> State:
        seconds: Any = "5"
        await runtime.context.sleep(seconds)
        return {}

    workflow = Workflow(
        "sleeping", graph=one_node(only), model=ScriptedModel(seven), store=sqlite_store
    )
    with pytest.raises(InvalidInput, match="seconds: '5' is no time to wait"):
        await workflow.run("q")
