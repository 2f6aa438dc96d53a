"""Runs on several real servers, of which some refuse, die, or go out in the middle of one."""

from __future__ import annotations

import asyncio
import threading
from contextlib import ExitStack
from typing import Any

import pytest

from benchmarks.protocol_server import protocol_server
from longthought import Store, Workflow, strategies
from longthought.errors import BackendError
from longthought.orchestrator.definition import Retry
from longthought.orchestrator.models import Failover, OpenAIModel
from tests.models.standings import failures, in_flight
from tests.models.strangers import Stranger, stranger

QUICK = Retry(base=0.01)


def endpoint(url: str, slots: int = 4) -> OpenAIModel:
    return OpenAIModel("toy", base_url=url, slots=slots)


async def solved(
    model: Failover, store: Store, samples: int = 16, retry: Retry = QUICK, **options: Any
) -> Any:
    workflow = Workflow(model=model, strategy=strategies.sample(samples), store=store, retry=retry)
    try:
        return await workflow.run("How many?", **options)
    finally:
        await workflow.aclose()


@pytest.fixture
async def store(tmp_path):
    async with Store(f"sqlite:///{tmp_path}/runs.db", directory=tmp_path) as opened:
        yield opened


async def test_nothing_is_lost_when_a_server_dies_in_mid_run(store):
    with ExitStack() as dying, protocol_server() as lives:
        dies = dying.enter_context(protocol_server())
        model = Failover([endpoint(dies.address("w30,slow")), endpoint(lives.address())])
        ended = 0

        def watch(event: dict[str, Any]) -> None:
            nonlocal ended
            ended += event["event"] == "branch_ended"
            if ended == 2:
                dying.close()

        run = await solved(model, store, watch=watch)
    assert (run.status, run.support["samples"]) == ("completed", 16)
    assert dies.counts["calls"] >= 1
    assert in_flight(model) == [0, 0]


async def test_nothing_is_lost_when_a_server_refuses_every_third_call(store):
    with stranger() as flaky, stranger() as good:
        flaky.refusal, flaky.refuse_every = (503, {"retry-after": "0"}), 3
        model = Failover([endpoint(flaky.url), endpoint(good.url)], cooldown=0.001)
        run = await solved(model, store, 24)
    assert (run.status, run.support["samples"]) == ("completed", 24)
    refused = flaky.calls // 3
    assert refused
    assert run.model_calls == 24 + refused == flaky.calls + good.calls
    assert run.spent["model_calls"] == 24 + refused  # what failed is charged, once


async def test_an_endpoint_that_goes_out_before_a_call_leaves_uses_up_no_try(store):
    class GoesOut(Failover):
        """The endpoint of the first permit fails for somebody else before its call leaves."""

        def bind(self, endpoint, inner):
            turn = super().bind(endpoint, inner)
            if not endpoint.outages and not any(one["failures"] for one in self.status()):
                self._failed(endpoint, 0, BackendError("down", retryable=True, status=503))
            return turn

    with stranger() as one, stranger() as other:
        model = GoesOut([endpoint(one.url), endpoint(other.url)], cooldown=60.0)
        run = await solved(model, store, 1, retry=Retry(attempts=1))
    assert (run.status, run.support["samples"]) == ("completed", 1)
    assert run.model_calls == run.spent["model_calls"] == one.calls + other.calls == 1
    assert in_flight(model) == [0, 0]


async def test_a_server_that_wants_no_calls_gets_none_until_its_time(store):
    with stranger() as busy, stranger() as good:
        busy.refusal = (429, {"retry-after": "30"})
        model = Failover([endpoint(busy.url), endpoint(good.url)])
        run = await solved(model, store, 16)
    assert (run.status, run.support["samples"]) == ("completed", 16)
    assert 1 <= busy.calls <= 4  # those that left before the first was refused
    assert model.status()[0]["out"] > 2.0  # as the server said, not as the first failure has it
    assert run.spent["model_calls"] == 16 + busy.calls


async def test_calls_come_back_after_the_time_out(store):
    with stranger() as back, stranger() as good:
        back.refusal = (500, {})
        model = Failover([endpoint(back.url, 1), endpoint(good.url, 1)], cooldown=0.001)
        await solved(model, store, 4)
        back.refusal = None
        before = back.calls
        model.status()
        run = await solved(model, store, 12)
    assert run.support["samples"] == 12
    assert back.calls > before + 1
    assert failures(model) == [0, 0]


async def test_a_cancelled_run_leaves_no_call_behind(store):
    with protocol_server() as first, protocol_server() as second:
        model = Failover([endpoint(first.address("hang")), endpoint(second.address("hang"))])
        task = asyncio.create_task(solved(model, store, 8))
        while sum(in_flight(model)) < 8:
            await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert in_flight(model) == [0, 0]
        assert failures(model) == [0, 0]


def test_several_event_loops_share_it(tmp_path):
    url = f"sqlite:///{tmp_path}/runs.db"
    with stranger() as first, stranger() as second:
        model = Failover([endpoint(first.url, 2), endpoint(second.url, 2)])
        problems: list[BaseException] = []

        async def made() -> None:
            async with Store(url, directory=tmp_path):
                pass

        async def work(number: int) -> None:
            async with Store(url, directory=tmp_path) as own:
                run = await solved(model, own, 8)
                assert run.support["samples"] == 8

        def thread(number: int) -> None:
            try:
                asyncio.run(work(number))
            except BaseException as problem:
                problems.append(problem)

        asyncio.run(made())
        threads = [threading.Thread(target=thread, args=(number,)) for number in range(3)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    assert problems == []
    assert in_flight(model) == [0, 0]
    assert first.calls + second.calls == 24
    assert min(first.calls, second.calls) > 0


async def test_a_run_is_replayed_without_its_endpoints(store):
    with stranger() as first, stranger() as second:
        model = Failover([endpoint(first.url), endpoint(second.url)])
        run = await solved(model, store, 4)
    workflow = Workflow(model=model, strategy=strategies.sample(4), store=store, retry=QUICK)
    again = await workflow.replay(run.id)
    assert (again.answer, again.model_calls) == (run.answer, 0)
    urls = [first.url, second.url]
    manifest = (await store.read(run.id)).manifest()
    [made] = manifest["workflow"]["models"]
    assert [one["endpoint"] for one in made["endpoints"]] == urls


def test_strangers_are_what_the_tests_take_them_for():
    server = Stranger()
    status, reply = server.reply({"max_tokens": 1, "n": 2})
    assert (status, len(reply["choices"])) == (200, 2)
    server.server_close()
