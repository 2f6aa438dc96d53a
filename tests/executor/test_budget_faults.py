"""Budgets against servers that play foul, over HTTP; runs against failures of all kinds."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.protocol_server import ProtocolServer, protocol_server
from longthought import Budget, Candidate, Store, Workflow, answers, strategies, tool, verifiers
from longthought.budgets import Pool, PriceBook, Scope
from longthought.errors import BackendError, BackendRefused, UnpricedModel
from longthought.orchestrator import runs
from longthought.orchestrator.definition import Retry
from longthought.orchestrator.models.openai import OpenAIModel
from longthought.orchestrator.models.scripted import ScriptedModel, call, rng, says
from longthought.types import Capabilities, Grant, JSONObject, ModelReply, ModelRequest
from tests.executor.workflows import add
from tests.moved_time import MovedTime

AT_ONCE = Retry(attempts=3, base=0.0, cap=0.0)


@pytest.fixture
def server() -> Iterator[ProtocolServer]:
    with protocol_server() as running:
        yield running


@pytest.fixture
def scopes(monkeypatch: pytest.MonkeyPatch) -> list[Scope]:
    """The budget scope of every attempt."""
    made: list[Scope] = []

    def make(*arguments: Any, **options: Any) -> Scope:
        made.append(Scope(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(runs, "Scope", make)
    return made


def nothing_is_held(workflow: Workflow, scopes: list[Scope]) -> None:
    view = workflow._shared_controller().view()
    assert not view["branches"], view
    for backend in view["backends"].values():
        assert (backend["in_use"], backend["waiting"]) == (0, 0), view
    for scope in scopes:
        assert not scope.reserved, scope.view()
        assert not scope.waiting, scope.view()


def asking(server: ProtocolServer, modes: str, store: Store, **options: Any) -> Workflow:
    """A workflow that asks the server under an address that says how to behave."""
    model = OpenAIModel(
        "toy",
        base_url=server.address(modes),
        api_key="any",
        stream=options.pop("stream", True),
        slots=options.pop("slots", 64),
        capabilities=options.pop("capabilities", None),
    )
    return Workflow(
        "faults",
        model=model,
        tools=[add],
        answer=answers.number(),
        retry=AT_ONCE,
        store=store,
        **options,
    )


def sent(server: ProtocolServer) -> int:
    stats = server.stats()
    return int(stats.get("prompt_tokens", 0) + stats.get("completion_tokens", 0))


# -- what servers say and do -----------------------------------------------------------------------


@pytest.mark.parametrize("modes", ["t2", "t2,hidden", "t2,reasoning", "t1,p3", "flaky2,t1"])
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_what_is_charged_is_what_the_server_sent(
    server: ProtocolServer, sqlite_store: Store, scopes: list[Scope], modes: str, stream: bool
) -> None:
    workflow = asking(server, modes, sqlite_store, stream=stream, budget=Budget(tokens=100_000))
    result = await workflow.run("Add up.")
    assert (result.status, result.answer) == ("completed", "42")
    assert result.spent["tokens"] == sent(server)
    assert "overrun" not in result.spent
    nothing_is_held(workflow, scopes)
    replayed = await workflow.replay(result.id)
    assert replayed.spent["tokens"] == result.spent["tokens"]
    await workflow.aclose()


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_without_a_usage_no_less_than_was_sent_is_charged(
    server: ProtocolServer, sqlite_store: Store, stream: bool
) -> None:
    limit = 20_000
    options = {"stream": stream, "budget": Budget(tokens=limit), "max_output_tokens": 256}
    workflow = asking(server, "t2,no-usage", sqlite_store, **options)
    result = await workflow.run("Add up.")
    assert result.status == "completed"
    assert sent(server) <= result.spent["tokens"] <= limit
    await workflow.aclose()


async def test_a_stream_that_ignores_the_maximum_is_cut(
    server: ProtocolServer, sqlite_store: Store, scopes: list[Scope]
) -> None:
    limit = 600
    budget = Budget(tokens=limit, final_answer=0)
    workflow = asking(server, "w5000,ignore-max", sqlite_store, budget=budget)
    result = await workflow.run("Go on and on.")
    over = result.spent["tokens"] - limit
    assert over <= 1  # the token by which it was noticed
    assert result.spent.get("overrun", {}).get("tokens", 0) == max(over, 0)
    nothing_is_held(workflow, scopes)
    await workflow.aclose()


async def test_a_whole_reply_beyond_the_maximum_is_charged_and_reported(
    server: ProtocolServer, sqlite_store: Store, scopes: list[Scope]
) -> None:
    limit = 600
    budget = Budget(tokens=limit, final_answer=0)
    workflow = asking(server, "w5000,ignore-max", sqlite_store, stream=False, budget=budget)
    result = await workflow.run("Go on and on.")
    assert result.spent["tokens"] == sent(server) > limit
    assert result.spent["overrun"]["tokens"] == result.spent["tokens"] - limit
    nothing_is_held(workflow, scopes)
    await workflow.aclose()


async def test_a_server_that_cannot_be_held_to_a_limit_is_refused(
    server: ProtocolServer, sqlite_store: Store
) -> None:
    workflow = asking(
        server,
        "w5000,ignore-max",
        sqlite_store,
        stream=False,
        capabilities={"honours_max_tokens": False},
        budget=Budget(tokens=600),
    )
    with pytest.raises(BackendRefused):
        await workflow.run("Go on and on.")
    assert server.stats().get("calls", 0) == 0
    await workflow.aclose()


async def test_dollars_without_a_price_are_refused(
    server: ProtocolServer, sqlite_store: Store
) -> None:
    workflow = asking(server, "t0", sqlite_store, budget=Budget(usd=1))
    with pytest.raises(UnpricedModel):
        await workflow.run("Add up.")
    assert server.stats().get("calls", 0) == 0
    assert await sqlite_store.list_runs() == []
    priced = PriceBook.load().extended({"toy": {"input": 1, "output": 2}})
    workflow = asking(server, "t0", sqlite_store, budget=Budget(usd="0.01"), prices=priced)
    result = await workflow.run("Add up.")
    assert result.status == "completed"
    assert 0 < result.spent["usd"] <= 0.01
    await workflow.aclose()


@pytest.mark.parametrize("modes", ["status429", "status500"])
async def test_refusals_are_tried_again_and_end_the_branch_alone(
    server: ProtocolServer, sqlite_store: Store, scopes: list[Scope], modes: str
) -> None:
    workflow = asking(server, modes, sqlite_store, budget=Budget(tokens=10_000))
    result = await workflow.run("Add up.")
    assert (result.status, result.answer) == ("incomplete", None)
    assert server.stats()["calls"] == AT_ONCE.attempts == result.spent["model_calls"]
    assert result.spent["tokens"] == 0  # an answer with a status says that nothing was generated
    nothing_is_held(workflow, scopes)
    await workflow.aclose()


async def test_refused_calls_count_against_a_limit_on_calls(
    server: ProtocolServer, sqlite_store: Store, scopes: list[Scope]
) -> None:
    budget = Budget(model_calls=5)
    strategy = strategies.sample(16, wave=1)
    workflow = asking(server, "status503", sqlite_store, budget=budget, strategy=strategy)
    result = await workflow.run("Add up.")
    assert (result.status, result.stop_reason) == ("incomplete", "model_calls")
    assert server.stats()["calls"] == result.spent["model_calls"] == 5
    nothing_is_held(workflow, scopes)
    await workflow.aclose()


# -- limits under load -----------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_sixty_four_branches_use_a_token_limit_and_never_pass_it(
    server: ProtocolServer, sqlite_store: Store, scopes: list[Scope], stream: bool
) -> None:
    limit = 20_000
    workflow = asking(
        server,
        "w40",
        sqlite_store,
        stream=stream,
        strategy=strategies.sample(2000),
        parallel=64,
        max_output_tokens=128,
        budget=Budget(tokens=limit),
    )
    result = await workflow.run("Add up.")
    assert (result.status, result.stop_reason) == ("incomplete", "tokens")
    assert result.answer is not None
    assert 0.9 * limit <= result.spent["tokens"] <= limit
    assert sent(server) == result.spent["tokens"]
    nothing_is_held(workflow, scopes)
    await workflow.aclose()


async def test_an_exhausted_run_goes_on_with_a_raised_budget(
    server: ProtocolServer, sqlite_store: Store
) -> None:
    workflow = asking(
        server,
        "w40",
        sqlite_store,
        strategy=strategies.sample(24),
        parallel=4,
        max_output_tokens=64,
        budget=Budget(tokens=800),
    )
    first = await workflow.run("Add up.")
    assert (first.status, first.stop_reason) == ("incomplete", "tokens")
    calls = server.stats()["calls"]
    more = await workflow.resume(first.id, budget=Budget(tokens=50_000))
    assert (more.status, more.stop_reason) == ("completed", "all_samples")
    assert more.model_calls == server.stats()["calls"] - calls < 24
    assert more.spent["tokens"] == sent(server)
    found = (await sqlite_store.read(first.id)).events
    inputs = [e.body["input"] for e in found if e.type == "fold" and e.key]  # of the search
    assert inputs.count("exhausted") == inputs.count("limit_raised") == 1
    assert (await workflow.replay(first.id)).answer == more.answer
    await workflow.aclose()


async def test_at_the_wall_limit_the_best_answer_is_there(
    sqlite_store: Store, scopes: list[Scope], monkeypatch: pytest.MonkeyPatch
) -> None:
    time, ended = MovedTime(monkeypatch), list[str]()
    never = asyncio.Event()

    def passes(event: JSONObject) -> None:
        """The limit passes when the third has answered."""
        if event["event"] == "branch_ended":
            ended.append(event["branch"])
            time.ahead = 100.0 if len(ended) == 3 else time.ahead

    async def some_hang(request: ModelRequest) -> str:
        if request["sampling"]["seed"] >= 3:
            await never.wait()
        return "The answer is 7"

    workflow = Workflow(
        "wall",
        model=ScriptedModel(some_hang),
        answer=answers.number(),
        strategy=strategies.sample(6),
        budget=Budget(wall=100, tokens=10_000),
        store=sqlite_store,
    )
    result = await workflow.run("What is it?", watch=passes)
    assert (result.status, result.stop_reason, result.answer) == ("incomplete", "wall", "7")
    assert result.support["samples"] == 3
    nothing_is_held(workflow, scopes)
    replayed = await workflow.replay(result.id)
    assert (replayed.answer, replayed.spent["tokens"]) == ("7", result.spent["tokens"])


# -- failures --------------------------------------------------------------------------------------

BROKEN = [
    "drop",
    "status500",
    "status429",
    "status400",
    "malformed",
    "truncated",
    "broken-off",
    "empty",
    "odd",
    "error",
    "context",
]


class Roulette:
    """A model that is another server for some requests: broken in one way or another."""

    name = "toy"
    slots = 16
    capabilities = Capabilities()

    def __init__(self, server: ProtocolServer, share: float, stream: bool) -> None:
        self.share = share
        self.capabilities = Capabilities(streams=stream)

        def at(modes: str) -> OpenAIModel:
            url = server.address(modes)
            return OpenAIModel("toy", base_url=url, api_key="any", stream=stream)

        self.good = at("t2")
        self.broken = [at(f"t2,{mode}") for mode in BROKEN]

    async def generate(self, request: ModelRequest, grant: Grant, emit: Any = None) -> ModelReply:
        draw = rng(request)
        model = draw.choice(self.broken) if draw.random() < self.share else self.good
        return await model.generate(request, grant, emit)

    def count_prompt(self, request: ModelRequest) -> int | None:
        return None

    def fingerprint(self) -> dict[str, Any]:
        return {"kind": "roulette", "name": self.name}

    async def aclose(self) -> None:
        for model in (self.good, *self.broken):
            await model.aclose()


@pytest.mark.parametrize("share", [0.1, 0.3])
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_broken_replies_never_harm_other_samples(
    server: ProtocolServer, sqlite_store: Store, scopes: list[Scope], share: float, stream: bool
) -> None:
    model = Roulette(server, share, stream)
    workflow = Workflow(
        "roulette",
        model=model,
        tools=[add],
        answer=answers.number(),
        strategy=strategies.sample(16),
        retry=AT_ONCE,
        budget=Budget(tokens=1_000_000),
        store=sqlite_store,
    )
    spent = calls = 0
    for seed in range(6):
        result = await workflow.run("Add up.", seed=100 * seed)
        assert (result.status, result.answer) == ("completed", "42"), (seed, result)
        assert result.support["samples"] >= 1
        assert result.support["of"] == 16
        nothing_is_held(workflow, scopes)
        replayed = await workflow.replay(result.id)
        assert (replayed.answer, replayed.support) == (result.answer, result.support)
        assert replayed.spent["tokens"] == result.spent["tokens"]
        spent += result.spent["tokens"]
        calls += result.spent["model_calls"]
    assert spent >= sent(server)  # replies that broke off are charged, too
    assert calls == server.stats()["calls"]
    await workflow.aclose()


class Mishap(Exception):
    """What nobody expects."""


@pytest.mark.parametrize("share", [0.1, 0.3])
async def test_mishaps_in_models_tools_and_verifiers_leave_siblings_alone(
    sqlite_store: Store, scopes: list[Scope], share: float
) -> None:
    def unlucky(*what: object) -> random.Random | None:
        draw = random.Random(repr(what))
        return draw if draw.random() < share else None

    def faults(request: ModelRequest, attempt: int) -> Exception | None:
        draw = unlucky("model", request["messages"][1:], request["sampling"], attempt)
        if draw is None:
            return None
        kinds = [
            BackendError("overloaded", status=503, retryable=True),
            BackendError("lost", retryable=True),
            BackendError("never sent", retryable=True, sent=False),
            BackendError("bad request", status=400),
            Mishap("in the adapter"),
        ]
        return draw.choice(kinds)

    @tool(effect="read")
    async def look(number: int) -> int:
        """Look.

        Args:
            number: where.
        """
        if unlucky("tool", number):
            raise Mishap("in the tool")
        return number

    def script(request: ModelRequest) -> Any:
        if len(request["messages"]) == 1:
            return says("looking", call("look", number=rng(request).randint(0, 10**6)))
        return f"The answer is {rng(request).choice([7, 7, 7, 8])}"

    async def verify(candidate: Candidate) -> bool:
        if unlucky("verifier", repr(candidate.messages)):
            raise Mishap("in the verifier")
        return candidate.answer == "7"

    workflow = Workflow(
        "mishaps",
        model=ScriptedModel(script, faults=faults),
        tools=[look],
        answer=answers.number(),
        verifier=verifiers.callable(verify),
        strategy=strategies.sample(16, select=strategies.best()),
        retry=AT_ONCE,
        budget=Budget(tokens=100_000),
        store=sqlite_store,
    )
    for seed in range(20):
        result = await workflow.run("What is it?", seed=100 * seed)
        assert (result.status, result.answer) == ("completed", "7"), (seed, result)
        nothing_is_held(workflow, scopes)
        replayed = await workflow.replay(result.id)
        assert (replayed.answer, replayed.spent["tokens"]) == ("7", result.spent["tokens"])


@pytest.mark.parametrize("modes", ["hang", "slow,w400", "t3"])
async def test_a_cancelled_run_leaves_nothing_and_the_next_one_works(
    server: ProtocolServer, sqlite_store: Store, scopes: list[Scope], modes: str
) -> None:
    begun = asyncio.Event()
    strategy = strategies.sample(8)
    options = {"strategy": strategy, "budget": Budget(tokens=100_000), "slots": 4}
    workflow = asking(server, modes, sqlite_store, **options)

    def watch(event: Any) -> None:
        if event["event"] == "branch":
            begun.set()

    task = asyncio.create_task(workflow.run("Add up.", run_id="cancelled", watch=watch))
    await begun.wait()
    while not server.stats().get("calls", 0):  # a round trip to the server each time
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    nothing_is_held(workflow, scopes)
    while server.stats().get("in_flight", 0):  # the server has seen the connections close
        await asyncio.sleep(0)
    assert (await sqlite_store.row("cancelled")).status == "cancelled"
    await workflow.aclose()
    options["budget"] = Budget(tokens=100_000)
    again = asking(server, "t1", sqlite_store, **options)
    assert (await again.run("Add up.")).status == "completed"
    nothing_is_held(again, scopes)
    await again.aclose()


class WrongTurn(ScriptedModel):
    """Its turns do not know where to go."""

    places = None

    def try_turn(self, tokens: int, *, tries: int = 0) -> WrongTurn:
        return self

    def go(self, endpoint: str) -> bool:
        raise RuntimeError("no way")

    def end(self) -> None:
        """There is nothing to give back."""


class Endless(ScriptedModel):
    """Its replies do not say how they ended."""

    async def generate(self, *arguments: Any) -> ModelReply:
        reply = await super().generate(*arguments)
        del reply["finish_reason"]  # type: ignore[misc]
        return reply


@pytest.mark.parametrize(("model", "sent"), [(WrongTurn, False), (Endless, True)])
async def test_an_adapters_mistake_holds_nothing_of_a_pool(
    store: Store, model: type[ScriptedModel], sent: bool
) -> None:
    pool = Pool("shared", Budget(tokens=10_000))
    workflow = Workflow(
        "faults", model=model(lambda _: "1"), strategy=strategies.sample(2), store=store
    )
    result = await workflow.run("1?", pool=pool)
    assert result.status == "incomplete"
    nothing_is_held(workflow, [pool])
    assert bool(pool.spent.tokens) is sent


async def test_a_reply_that_cannot_be_used_is_a_failure_of_the_backend(store: Store) -> None:
    """It fails its branch on record, is paid for, and is not asked for again."""
    model = Endless(lambda _: "1")
    workflow = Workflow(
        "faults", model=model, strategy=strategies.sample(2), retry=AT_ONCE, store=store
    )
    result = await workflow.run("1?", budget=Budget(tokens=10_000))
    problem = "the reply cannot be used: KeyError: 'finish_reason'"
    assert problem in (result.error or "")
    assert (result.status, model.calls) == ("incomplete", 2)
    assert result.spent["tokens"]
    recording = await store.read(result.id)
    ends = [event for event in recording.events if event.type == "effect_finished"]
    assert [event.body["status"] for event in ends] == ["error", "error"]
    assert all(recording.get(event.body["result"])["error"] == problem for event in ends)
    assert sum(event.body["charged"]["tokens"] for event in ends) == result.spent["tokens"]
    again = await workflow.replay(result.id)
    assert (again.error, again.spent["tokens"]) == (result.error, result.spent["tokens"])
    nothing_is_held(workflow, [])
