"""Runs against an endpoint of which a share of all replies is broken, in every way there is."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from benchmarks.protocol_server import ProtocolServer
from longthought import Budget, Store, Workflow, answers, strategies
from longthought.budgets import Scope, caution
from longthought.errors import BackendError, InvalidInput
from longthought.orchestrator import runs
from longthought.orchestrator.definition import Retry
from longthought.orchestrator.models.openai import OpenAIModel
from longthought.orchestrator.models.scripted import ScriptedModel
from longthought.types import JSONObject, ModelRequest
from tests.executor.workflows import add

AT_ONCE = Retry(attempts=5, base=0.0, cap=0.0)
SHORT = 0.25
KEYS = itertools.count()
"""A key of its own for each test: what one was told of a rate limit holds for all of the key."""


@pytest.fixture
def scopes(monkeypatch: pytest.MonkeyPatch) -> list[Scope]:
    """The budget scope of every attempt."""
    made: list[Scope] = []

    def make(*arguments: Any, **options: Any) -> Scope:
        made.append(Scope(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(runs, "Scope", make)
    return made


Make = Callable[..., Workflow]


@pytest.fixture
async def asking(sqlite_store: Store, server: ProtocolServer) -> AsyncIterator[Make]:
    """A maker of workflows that ask the server under an address that says how to behave."""
    made: list[Workflow] = []

    def make(modes: str, *, url: str = "", retry: Retry = AT_ONCE, **options: Any) -> Workflow:
        own = {name: options.pop(name) for name in ("strategy", "budget") if name in options}
        options.setdefault("slots", 64)
        address = url or server.address(modes)
        model = OpenAIModel("toy", base_url=address, api_key=f"key-{next(KEYS)}", **options)
        settings = {"strategy": strategies.sample(16), "budget": Budget(tokens=1_000_000), **own}
        made.append(
            Workflow(
                "faulty",
                model=model,
                tools=[add],
                answer=answers.number(),
                retry=retry,
                store=sqlite_store,
                **settings,
            )
        )
        return made[-1]

    yield make
    for workflow in made:
        await workflow.aclose()


def sent(server: ProtocolServer) -> int:
    return server.counts["prompt_tokens"] + server.counts["completion_tokens"]


def nothing_is_held(workflow: Workflow, scopes: list[Scope]) -> None:
    view = workflow._shared_controller().view()
    assert not view["branches"], view
    for backend in view["backends"].values():
        assert (backend["in_use"], backend["waiting"]) == (0, 0), view
    for scope in scopes:
        assert not scope.reserved, scope.view()
        assert not scope.waiting, scope.view()


# -- the faults ------------------------------------------------------------------------------------

NOTHING_LOST = [
    "status408",
    "status409",
    "status429",
    "status429,after0",
    "status500",
    "status502",
    "status503,after0",
    "context",
    "bad-arguments",
    "no-tool",
]
"""After these the server has told all that was used, or said with a status that it was nothing."""

SOMETHING_LOST = [
    "drop",
    "stale",
    "reset",
    "truncated",
    "broken-off",
    "malformed",
    "empty",
    "odd",
    "error",
    "hang",
    "alive",
    "stall",
]


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("fault", [*NOTHING_LOST, *SOMETHING_LOST])
async def test_a_share_of_faults_fails_no_run_and_is_charged_as_it_was(
    asking: Make,
    server: ProtocolServer,
    scopes: list[Scope],
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    stream: bool,
) -> None:
    monkeypatch.setattr(caution, "_FIRST_PAUSE", 0.001)
    kind, _, more = fault.partition(",")
    silent = fault in ("hang", "alive", "stall")
    options = {"timeout": SHORT, "connect_timeout": 60} if silent else {}
    charged = calls = 0
    modes = f"t1,{kind}@,{more}"
    workflow = asking(modes, stream=stream, **options)
    for share in (10, 30):
        server.shares.usual = share
        result = await workflow.run("Add up.", seed=share)
        assert (result.status, result.answer) == ("completed", "42"), result.error
        assert result.support["of"] == 16
        nothing_is_held(workflow, scopes)
        charged += result.spent["tokens"]
        calls += result.spent["model_calls"]
    assert server.shares.drawn[modes] > 0
    if fault in NOTHING_LOST:
        assert (charged, calls) == (sent(server), server.counts["calls"])
    else:
        assert charged >= sent(server)


def set_at_zero(moment: asyncio.Event, happened: Iterator[int], event: JSONObject) -> None:
    if next(happened) == 0:
        moment.set()


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_every_fault_at_once_and_cancelled_anywhere(
    asking: Make, server: ProtocolServer, scopes: list[Scope], stream: bool
) -> None:
    at_once = (fault.partition(",")[0] for fault in (*NOTHING_LOST, *SOMETHING_LOST))
    faults = [fault for fault in at_once if fault not in ("hang", "alive", "stall", "status429")]
    workflow = asking("t1," + ",".join(f"{fault}@2" for fault in faults), stream=stream)
    draw = random.Random(7)
    for seed in range(4):
        moment, happened = asyncio.Event(), itertools.count(draw.randint(-40, -1))
        watch = partial(set_at_zero, moment, happened)
        run_id = f"cancelled-{seed}-{stream}"
        task = asyncio.create_task(workflow.run("Add up.", seed=seed, run_id=run_id, watch=watch))
        await moment.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        nothing_is_held(workflow, scopes)
        result = await workflow.run("Add up.", seed=seed)
        assert (result.status, result.answer) == ("completed", "42"), result.error
        nothing_is_held(workflow, scopes)


# -- what faults come to ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("modes", "calls", "says"),
    [
        ("status500", 5, "toy: refused with 500 (status 500)"),
        ("status429,after0", 5, "toy: refused with 429 (status 429)"),
        ("status401", 1, "toy: the server refused the API key (401): refused with 401"),
        ("status403", 1, "toy: the server denies access with this API key (403): "),
        ("status404", 1, "toy: the server has no such address or model; check base_url"),
        ("context", 1, "toy: the conversation does not fit the model's context window: "),
        ("malformed", 5, "toy: a piece of the stream is not JSON"),
        ("drop", 5, "toy: the connection was lost before a reply"),
    ],
)
async def test_a_run_whose_every_call_fails_says_why(
    asking: Make, server: ProtocolServer, scopes: list[Scope], modes: str, calls: int, says: str
) -> None:
    workflow = asking(modes, strategy=strategies.sample(3))
    result = await workflow.run("Add up.")
    assert (result.status, result.answer) == ("incomplete", None)
    assert says in str(result.error)
    assert server.counts["calls"] == result.spent["model_calls"] == 3 * calls
    nothing_is_held(workflow, scopes)
    replayed = await workflow.replay(result.id)
    assert (replayed.status, replayed.error) == (result.status, result.error)


@pytest.mark.parametrize(
    ("modes", "says"),
    [("t1,bad-arguments", "JSON"), ("t1,no-tool", "There is no tool 'subtract'. Tools: add.")],
)
async def test_the_model_is_told_what_was_wrong_with_its_call(
    asking: Make, server: ProtocolServer, modes: str, says: str
) -> None:
    result = await asking(modes, strategy=strategies.single()).run("Add up.")
    assert (result.status, result.answer) == ("completed", "42")
    told = server.received[-1]["messages"][-1]
    assert told["role"] == "tool"
    assert says in told["content"]


async def test_a_context_that_is_full_ends_its_branch_alone(
    asking: Make, server: ProtocolServer
) -> None:
    workflow = asking("t1,context@20")
    result = await workflow.run("Add up.")
    assert (result.status, result.answer) == ("completed", "42")
    assert 0 < result.support["samples"] < result.support["of"] == 16


@pytest.mark.parametrize("modes", ["status429,after3600", "status503,after3600"])
async def test_a_wish_that_is_too_long_ends_the_call_at_once(
    asking: Make, server: ProtocolServer, scopes: list[Scope], modes: str
) -> None:
    workflow = asking(modes, retry=Retry(longest_wait=60))
    result = await workflow.run("Add up.")
    assert result.status == "incomplete"
    assert "wants no call for 3600 s, which is longer than this call can wait (60 s)" in str(
        result.error
    )
    assert server.counts["calls"] == result.spent["model_calls"] == 16  # none was tried again
    again = await workflow.run("Add up.")  # the endpoint has not been forgotten
    assert "takes no more calls for" in str(again.error)
    assert (server.counts["calls"], again.spent.get("model_calls", 0)) == (16, 0)
    nothing_is_held(workflow, scopes)


async def test_nobody_waits_past_the_end_of_the_run(asking: Make, server: ProtocolServer) -> None:
    workflow = asking("status503,after200", budget=Budget(wall=100))
    result = await workflow.run("Add up.")
    assert "longer than this call can wait (100 s)" in str(result.error)
    assert server.counts["calls"] == 16


async def test_a_wish_beyond_the_cap_is_kept_to(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept, real = [], asyncio.sleep

    async def sleep(seconds: float, *result: Any) -> Any:
        if seconds == 70:
            slept.append(seconds)
            return None
        return await real(seconds, *result)

    def faults(request: ModelRequest, attempt: int) -> Exception | None:
        busy = BackendError("busy", status=503, retryable=True, retry_after=70)
        return busy if attempt < 2 else None

    monkeypatch.setattr(asyncio, "sleep", sleep)
    model = ScriptedModel(lambda request: "It is 7", faults=faults)
    retry = Retry(3, base=0.0, cap=30.0)
    workflow = Workflow("patient", model=model, retry=retry, store=sqlite_store)
    assert (await workflow.run("What is it?")).status == "completed"
    assert slept == [70, 70]


async def test_cancelling_ends_a_pause_at_once(
    asking: Make, server: ProtocolServer, scopes: list[Scope]
) -> None:
    workflow = asking("status503,after200", strategy=strategies.sample(4), retry=Retry())
    task = asyncio.create_task(workflow.run("Add up."))
    scheduler = workflow._shared_controller()
    while not (server.counts["refused"] and scheduler.in_use("toy") == 0):
        await asyncio.sleep(0.001)
    task.cancel()  # one or more wait for another try, the others for their turn
    with pytest.raises(asyncio.CancelledError):
        await task
    nothing_is_held(workflow, scopes)


async def test_a_try_that_cannot_be_paid_for_ends_the_call(
    asking: Make, server: ProtocolServer, scopes: list[Scope]
) -> None:
    budget = Budget(tokens=3000, final_answer=0)  # each lost call costs all that it may have used
    workflow = asking("drop", strategy=strategies.single(), budget=budget)
    result = await workflow.run("Add up.")
    assert (result.status, result.stop_reason) == ("incomplete", "tokens")
    assert 0 < server.counts["calls"] == result.spent["model_calls"] < AT_ONCE.attempts
    assert 0 < result.spent["tokens"] <= 3000
    nothing_is_held(workflow, scopes)


async def test_a_name_is_looked_up_for_more_calls_than_there_are_threads(
    asking: Make, server: ProtocolServer, scopes: list[Scope]
) -> None:
    loop, free = asyncio.get_running_loop(), threading.Event()
    with ThreadPoolExecutor(2) as threads:
        loop.set_default_executor(threads)
        busy = loop.run_in_executor(None, free.wait)
        url = server.address("t0").replace("127.0.0.1", "localhost")
        workflow = asking("t0", url=url, strategy=strategies.sample(64), slots=64)
        result = await workflow.run("Add up.")
        assert (result.status, result.support["samples"]) == ("completed", 64), result.error
        nothing_is_held(workflow, scopes)
        free.set()
        await busy


# -- rate limits -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("modes", "first", "second"),
    [("limit16", 96, 96), ("limit4", 160, 96), ("limit16,told", 56, 8)],
)
async def test_a_server_over_its_limit_refuses_few_and_all_samples_succeed(
    asking: Make,
    server: ProtocolServer,
    scopes: list[Scope],
    modes: str,
    first: int,
    second: int,
) -> None:
    workflow = asking(f"t0,{modes}", strategy=strategies.sample(64))
    for most in (first, second):  # of the first 64 calls at once 48 are too many
        server.counts.clear()
        result = await workflow.run("Add up.")
        assert (result.status, result.support["samples"]) == ("completed", 64), result.error
        assert server.counts["calls"] - server.counts["limited"] == 64
        assert server.counts["limited"] <= most
        nothing_is_held(workflow, scopes)


@pytest.mark.parametrize(
    ("field", "value"),
    [("attempts", 0), ("base", -1.0), ("cap", float("nan")), ("longest_wait", -1)],
)
def test_a_way_to_try_again_that_makes_no_sense_is_refused(field: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=rf"^retry\.{field}: "):
        Retry(**{field: value})
