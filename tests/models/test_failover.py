"""Several endpoints of one model: calls go where there is room, past what fails, and come back."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longthought.errors import BackendError, ConfigurationError, InvalidInput, QuestionRefused
from longthought.orchestrator.definition import Retry
from longthought.orchestrator.models import Failover, OpenAIModel
from longthought.types import Capabilities
from tests.models.standings import failures, in_flight
from tests.models.strangers import stranger

QUICK = Retry(base=0.01)
REQUEST: Any = {"model": "m", "messages": [{"role": "user", "content": "?"}]}
REPLY: Any = {
    "message": {"role": "assistant", "content": "yes"},
    "finish_reason": "stop",
    "usage": {"completion_tokens": 1},
    "model": "m",
}


class Grant:
    tokens = 100

    async def top_up(self, wanted: int) -> int:
        return self.tokens


class Endpoint:
    """A model whose calls end when and how the test says."""

    def __init__(self, name: str = "m", slots: int = 2, **able: Any) -> None:
        self.name, self.slots = name, slots
        self.capabilities = Capabilities(**able)
        self.under_way: list[asyncio.Future[Any]] = []
        self.calls = 0
        self.closed = 0

    async def generate(self, request: Any, grant: Any, emit: Any = None) -> Any:
        self.calls += 1
        future = asyncio.get_running_loop().create_future()
        self.under_way.append(future)
        try:
            return await future
        finally:
            self.under_way.remove(future)

    def count_prompt(self, request: Any) -> int | None:
        return 7

    def fingerprint(self) -> dict[str, Any]:
        return {"kind": "openai", "name": self.name, "endpoint": f"at {id(self)}"}

    async def aclose(self) -> None:
        self.closed += 1


class Clock:
    """Seconds that pass when the test says."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def both(*endpoints: Endpoint, clock: Clock | None = None, **more: Any) -> Failover:
    return Failover(endpoints, clock=clock or Clock(), jitter=lambda low, high: high, **more)


def down(**fields: Any) -> BackendError:
    return BackendError("down", **{"retryable": True, "status": 503, **fields})


async def begin(model: Failover) -> asyncio.Task[Any]:
    task = asyncio.create_task(model.generate(REQUEST, None))
    await asyncio.sleep(0)
    return task


async def end(task: asyncio.Task[Any], endpoint: Endpoint, how: Any = REPLY) -> Any:
    """End the first call under way at an endpoint; what came of the task."""
    future = endpoint.under_way[0]
    future.set_exception(how) if isinstance(how, Exception) else future.set_result(how)
    [outcome] = await asyncio.gather(task, return_exceptions=True)
    return outcome


# -- which endpoint -----------------------------------------------------------------------------


async def test_a_call_goes_where_the_most_slots_are_free():
    small, large = Endpoint(slots=1), Endpoint(slots=4)
    model = both(small, large)
    tasks = [await begin(model) for _ in range(5)]
    assert (small.calls, large.calls) == (1, 4)
    assert in_flight(model) == [1, 4]
    assert model.slots == 5
    for task, endpoint in zip(tasks, [small, *[large] * 4], strict=True):
        assert await end(task, endpoint) == REPLY
    assert in_flight(model) == [0, 0]


async def test_an_endpoint_that_fails_is_left_out_and_the_error_is_told():
    first, second = Endpoint(), Endpoint()
    clock = Clock()
    model = both(first, second, clock=clock)
    error = await end(await begin(model), first, down(retry_after=7.0))
    assert isinstance(error, BackendError)
    assert (error.status, error.retry_after, str(error)) == (503, 0.0, "down")
    for _ in range(3):
        await end(await begin(model), second)
    assert (first.calls, second.calls) == (1, 3)
    clock.now += 6.9
    await end(await begin(model), second)
    clock.now += 0.2
    await end(await begin(model), first)
    assert failures(model) == [0, 0]


async def test_one_call_at_a_time_tries_an_endpoint_that_was_out():
    first, second = Endpoint(slots=8), Endpoint(slots=8)
    clock = Clock()
    model = both(first, second, clock=clock)
    await end(await begin(model), first, down())
    clock.now += 1.1
    trial = await begin(model)
    others = [await begin(model) for _ in range(4)]
    assert (first.calls, second.calls) == (2, 4)
    await end(trial, first, down())
    assert failures(model) == [2, 0]
    clock.now += 1.1  # the second time out is twice as long
    others.append(await begin(model))
    assert first.calls == 2
    clock.now += 1.0
    trial = await begin(model)
    assert first.calls == 3
    await end(trial, first)
    assert failures(model) == [0, 0]
    for task in others:
        await end(task, second)


async def test_the_time_out_doubles_up_to_a_cap():
    first, second = Endpoint(), Endpoint()
    clock = Clock()
    model = both(first, second, clock=clock, longest=6.0)
    seconds = []
    for _ in range(5):
        await end(await begin(model), first, down())
        out = model.status()[0]["out"]
        seconds.append(out)
        clock.now += out
    assert seconds == [1.0, 2.0, 4.0, 6.0, 6.0]


async def test_of_calls_that_fail_together_one_counts():
    first, second = Endpoint(slots=8), Endpoint(slots=1)
    model = both(first, second)
    tasks = [await begin(model) for _ in range(9)]
    assert (first.calls, second.calls) == (8, 1)
    for future in list(first.under_way):
        future.set_exception(down())
    second.under_way[0].set_result(REPLY)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(one, BackendError) for one in outcomes) == 8
    assert failures(model) == [1, 0]
    assert model.status()[0]["out"] == 1.0
    assert in_flight(model) == [0, 0]


async def test_a_reply_that_was_begun_before_an_outage_does_not_end_it():
    first, second = Endpoint(slots=4), Endpoint(slots=1)
    model = both(first, second)
    early = await begin(model)
    other = await begin(model)
    late = await begin(model)
    assert (first.calls, second.calls) == (2, 1)
    first.under_way[1].set_exception(down())
    await asyncio.gather(late, return_exceptions=True)
    await end(early, first)
    assert failures(model) == [1, 0]
    await end(other, second)


async def test_while_all_are_out_the_one_due_first_is_asked():
    first, second = Endpoint(), Endpoint()
    clock = Clock()
    model = both(first, second, clock=clock)
    await end(await begin(model), first, down(retry_after=30.0))
    error = await end(await begin(model), second, down(retry_after=50.0))
    assert error.retry_after == 30.0
    task = await begin(model)
    assert (first.calls, second.calls) == (2, 1)
    await end(task, first)
    assert failures(model) == [0, 1]


async def test_an_error_that_is_the_requests_own_leaves_the_endpoint_in():
    first, second = Endpoint(), Endpoint()
    model = both(first, second)
    refused = BackendError("too long", status=400)
    assert await end(await begin(model), first, refused) is refused
    assert refused.retry_after is None
    question = QuestionRefused("question", "is none")
    assert await end(await begin(model), first, question) is question
    assert (first.calls, failures(model), in_flight(model)) == (2, [0, 0], [0, 0])


async def test_a_refusal_shows_that_an_endpoint_is_back():
    first, second = Endpoint(), Endpoint()
    clock = Clock()
    model = both(first, second, clock=clock)
    await end(await begin(model), first, down())
    clock.now += 1.0
    await end(await begin(model), first, BackendError("no such field", status=400))
    assert failures(model) == [0, 0]


async def test_a_cancelled_call_says_nothing_and_leaves_no_trace():
    first, second = Endpoint(), Endpoint()
    clock = Clock()
    model = both(first, second, clock=clock)
    await end(await begin(model), first, down())
    clock.now += 1.0
    trial = await begin(model)
    trial.cancel()
    await asyncio.gather(trial, return_exceptions=True)
    assert (in_flight(model), failures(model)) == ([0, 0], [1, 0])
    await end(await begin(model), first)
    assert failures(model) == [0, 0]


# -- the face -----------------------------------------------------------------------------------


async def test_it_is_one_model():
    first = Endpoint(context_window=100, seeds=True, continues=True, structured_output=False)
    second = Endpoint(slots=3, seeds=True, context_window=50)
    third = Endpoint(seeds=True)
    model = both(first, second, third)
    assert (model.name, model.slots, model.count_prompt(REQUEST)) == ("m", 7, 7)
    assert model.capabilities == Capabilities(
        seeds=True, context_window=50, structured_output=False
    )
    made = model.fingerprint()
    assert (made["kind"], made["name"], len(made["endpoints"])) == ("openai", "m", 3)
    await model.aclose()
    assert [one.closed for one in (first, second, third)] == [1, 1, 1]


def test_endpoints_have_to_be_of_one_model():
    with pytest.raises(InvalidInput, match="no endpoint"):
        Failover([])
    with pytest.raises(InvalidInput, match=r"several names: a, b.*served_as"):
        Failover([Endpoint("a"), Endpoint("b")])
    for seconds in (0.0, -1.0, 61.0):
        with pytest.raises(InvalidInput, match="cooldown"):
            Failover([Endpoint()], cooldown=seconds)


def test_a_missing_key_is_found_before_the_first_call():
    model = Failover(
        [
            OpenAIModel("x", base_url="http://127.0.0.1:1/v1"),
            OpenAIModel("x", base_url="https://api.openai.com/v1"),
        ]
    )
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        model.check()


def test_no_secret_is_in_its_fingerprint():
    url = "http://me:hunter22@127.0.0.1:1/v1"
    model = Failover([OpenAIModel("x", base_url=url, api_key="sk-secret")] * 2)
    assert "hunter22" not in f"{model.fingerprint()}{model!r}{model.status()}"
    assert "sk-secret" not in f"{model.fingerprint()}{model!r}{model.status()}"


# -- turns at endpoints that take so many calls a minute ----------------------------------------


async def test_turns_are_taken_at_the_endpoint_that_has_one():
    with stranger() as first, stranger() as second:
        model = Failover(
            [
                OpenAIModel("m", base_url=first.url, slots=8, requests_per_minute=2),
                OpenAIModel("m", base_url=second.url, slots=8, requests_per_minute=4),
            ]
        )

        async def call() -> bool:
            turn = model.try_turn(10)
            if turn is None:
                return False
            await model.generate(REQUEST, Grant())
            turn.end()
            return True

        done = await asyncio.gather(*(call() for _ in range(8)))
        await model.aclose()
    assert done.count(True) == 6
    assert (first.calls, second.calls) == (2, 4)
    assert in_flight(model) == [0, 0]


async def test_a_turn_that_is_not_used_is_given_back():
    first, second = Endpoint(slots=1), Endpoint(slots=1)
    model = both(first, second)
    turns = [model.try_turn(10), await model.turn(10), model.try_turn(10)]
    assert in_flight(model) == [2, 1]
    for turn in turns:
        assert turn is not None
        turn.end()
        turn.end()
    assert in_flight(model) == [0, 0]


async def test_a_turn_at_an_endpoint_that_has_gone_out_meanwhile_leads_elsewhere():
    first, second = Endpoint(), Endpoint()
    model = both(first, second)
    failing = await begin(model)
    turn = model.try_turn(10), model.try_turn(10)
    assert in_flight(model) == [2, 1]  # the last turn is at the first
    await end(failing, first, down())
    task = await begin(model)
    assert (first.calls, second.calls, in_flight(model)) == (1, 1, [0, 2])
    await end(task, second)
    for one in turn:
        assert one is not None
        one.end()
    assert in_flight(model) == [0, 0]


# -- any order of events ------------------------------------------------------------------------

EVENTS = st.lists(
    st.one_of(
        st.just(("begin", 0, 0.0)),
        st.tuples(
            st.sampled_from(["well", "down", "later", "refused", "cancel"]),
            st.integers(0, 50),
            st.just(0.0),
        ),
        st.tuples(st.just("pass"), st.just(0), st.floats(0.0, 20.0)),
    ),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(events=EVENTS, sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4))
async def test_whatever_happens_the_counts_are_right(events, sizes):
    clock = Clock()
    endpoints = [Endpoint(slots=slots) for slots in sizes]
    model = Failover(endpoints, clock=clock, jitter=random.Random(0).uniform)
    calls: list[tuple[asyncio.Task[Any], Endpoint, asyncio.Future[Any]]] = []
    for event, which, seconds in events:
        if event == "begin":
            before = model.status()
            open_ones = [not one["failures"] for one in before]
            task = await begin(model)
            chosen = next(e for e in endpoints if len(e.under_way) > sum(c[1] is e for c in calls))
            calls.append((task, chosen, chosen.under_way[-1]))
            at = endpoints.index(chosen)
            if any(open_ones):  # one that is out is not asked while another is well
                assert before[at]["out"] == 0.0
        elif event == "pass":
            clock.now += seconds
        elif calls:
            task, _, future = calls.pop(which % len(calls))
            how = {"down": down(), "later": down(status=429, retry_after=3.0)}
            how["refused"] = BackendError("no", status=400)
            if event == "cancel":
                task.cancel()
            elif event == "well":
                future.set_result(REPLY)
            else:
                future.set_exception(how[event])
            await asyncio.gather(task, return_exceptions=True)
        assert in_flight(model) == [len(endpoint.under_way) for endpoint in endpoints]
    for task, _, _ in calls:
        task.cancel()
    await asyncio.gather(*(task for task, _, _ in calls), return_exceptions=True)
    assert in_flight(model) == [0] * len(endpoints)
