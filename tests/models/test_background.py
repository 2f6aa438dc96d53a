"""Replies that the provider works on by itself, against a real server on loopback."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from longthought import Budget, Store, Workflow, strategies
from longthought.errors import BackendError, ConfigurationError, InvalidInput
from longthought.orchestrator.models import BackendSettings, OpenAIModel, resolve_model
from longthought.orchestrator.models.backends import RequestParameters
from longthought.orchestrator.models.failover import Failover
from longthought.orchestrator.models.openai import background
from longthought.orchestrator.models.scheduling import tell_scheduling
from longthought.orchestrator.models.scripted import ScriptedModel
from longthought.orchestrator.recorded import Recorded
from longthought.storage import audit
from longthought.types import Scheduling
from tests.executor.workflows import add
from tests.models.background_server import BackgroundServer, background_server
from tests.moved_time import MovedTime

QUESTION: Any = {"model": "toy", "messages": [{"role": "user", "content": "Add é."}]}
FOREVER = 10**9


@pytest.fixture(autouse=True)
def _looks_at_once(monkeypatch):
    monkeypatch.setattr(background, "_FIRST_LOOK", 0.001)
    monkeypatch.setattr(background, "_LONGEST_LOOK", 0.001)


@pytest.fixture
async def store(tmp_path) -> AsyncIterator[Store]:
    async with Store(f"sqlite:///{tmp_path}/runs.db", directory=tmp_path) as opened:
        yield opened


def model_at(server: BackgroundServer, window: Any = "2h", **options: Any) -> OpenAIModel:
    sending = None if window is None else RequestParameters(background=window)
    return OpenAIModel(
        "toy", base_url=server.url, api_key="k", api="responses", parameters=sending, **options
    )


async def asked(server, granted, window: Any = "2h", tokens=99, emit=None, **options):
    model = model_at(server, window, **options)
    tell_scheduling(Scheduling("run", "branch"))
    try:
        return await model.generate(QUESTION, granted(tokens), emit)
    finally:
        await model.aclose()


def workflow_at(server: BackgroundServer, store: Store, window: Any, **more: Any) -> Workflow:
    return Workflow("behind", model=model_at(server, window), tools=[add], store=store, **more)


# -- one reply ----------------------------------------------------------------------------------


@pytest.mark.parametrize("window", ["soonest", "2h", "8h"])
@pytest.mark.parametrize("modes", ["t0", "t1,p2", "t0,reasoning", "t0,hidden"])
async def test_a_reply_is_the_one_that_is_had_in_the_foreground(granted, window, modes):
    with background_server(modes) as server:
        reply = await asked(server, granted, window)
        plain = await asked(server, granted, None)
        body = server.begun[0]
    assert reply == plain
    assert body["background"] is True
    assert body["background_options"]["completion_window"] == window
    assert body["stream"] is (window == "soonest")
    assert server.called_off == []


async def test_hours_are_looked_at_until_it_has_ended(granted):
    with background_server(looks=3) as server:
        reply = await asked(server, granted)
    assert reply["finish_reason"] == "stop"
    assert [path for _, path, _, _ in server.requests("GET")] == ["/responses/resp_1"] * 3
    assert len(server.begun) == 1


@pytest.mark.parametrize("breaks", [[1], [4], [9], [5, 1, 1, 3]])
async def test_a_stream_goes_on_where_it_broke_off(granted, breaks):
    pieces: list[str] = []
    with background_server() as server:
        server.breaks = list(breaks)
        reply = await asked(server, granted, "soonest", emit=lambda d: pieces.append(d.text))
        plain = await asked(server, granted, None)
        rejoined = [int(query["starting_after"]) for _, _, query, _ in server.requests("GET")]
    assert reply == plain
    assert "".join(pieces) == reply["message"]["content"]
    assert len(server.begun) == 2  # one of them by the plain call
    assert rejoined == [sum(breaks[: n + 1]) - 1 for n in range(len(breaks))]


@pytest.mark.parametrize("old", [True, False])
async def test_a_stream_that_cannot_be_gone_on_with_is_looked_at(granted, old):
    with background_server("t1,p2") as server:
        server.breaks, server.old = [5, *[0] * 20], old
        reply = await asked(server, granted, "soonest")
        server.breaks = []
        plain = await asked(server, granted, None)
        looks = [query for _, _, query, _ in server.requests("GET") if not query]
    assert reply == plain
    assert len(looks) == 2


async def test_a_look_that_fails_loses_nothing(granted):
    with background_server() as server:
        server.trouble = 3
        reply = await asked(server, granted)
    assert reply["finish_reason"] == "stop"
    assert len(server.begun) == 1
    assert server.called_off == []


async def test_a_provider_that_says_nothing_of_it_is_not_waited_for_forever(granted):
    with background_server() as server:
        server.trouble = FOREVER
        with pytest.raises(BackendError, match="lost sight of") as caught:
            await asked(server, granted, timeout=1.0)
    assert (caught.value.status, caught.value.retryable, caught.value.sent) == (None, True, True)
    assert server.called_off == ["/responses/resp_1/cancel"]


async def test_a_reply_that_is_kept_no_longer_is_a_failure_that_costs(granted):
    with background_server() as server:
        server.gone = True
        with pytest.raises(BackendError, match="kept no longer") as caught:
            await asked(server, granted)
    assert (caught.value.status, caught.value.sent) == (None, True)


@pytest.mark.parametrize("window", ["soonest", "2h"])
async def test_a_reply_that_is_cancelled_is_called_off(granted, window):
    with background_server(looks=FOREVER) as server:
        server.breaks, server.old = [3], True
        call = asyncio.create_task(asked(server, granted, window))
        await asyncio.to_thread(server.looked.wait)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert server.called_off == ["/responses/resp_1/cancel"]


async def test_a_stream_that_is_cut_is_called_off_and_costs_what_the_provider_says(granted):
    with background_server("t0,ignore-max") as server:
        reply = await asked(server, granted, "soonest", tokens=5)
    assert reply["finish_reason"] == "cut"
    assert server.called_off == ["/responses/resp_1/cancel"]
    assert reply["usage"]["completion_tokens"] == 7
    assert reply["usage"]["prompt_tokens"] > 0


# -- in a run -----------------------------------------------------------------------------------


async def test_the_calls_of_a_branch_have_one_continuation_id(store):
    with background_server("t2") as server:
        workflow = workflow_at(server, store, "2h", strategy=strategies.sample(3))
        run = await workflow.run("How many?")
        await workflow.aclose()
        bodies = server.begun
    ids: dict[str, list[int]] = {}
    for body in bodies:
        turns = sum(item.get("type") == "function_call_output" for item in body["input"])
        ids.setdefault(body["background_options"]["continuation_id"], []).append(turns)
    assert run.status == "completed"
    assert [sorted(turns) for turns in ids.values()] == [[0, 1, 2]] * 3
    assert all(run.id not in name for name in ids)


async def test_a_trace_is_the_same_but_for_the_ids(store):
    async def keys(window: Any) -> list[Any]:
        with background_server("t1") as server:
            workflow = workflow_at(server, store, window)
            run = await workflow.run("How many?")
            await workflow.aclose()
        recording = await store.read(run.id)
        found = [(event.type, event.key) for event in recording.events]
        return [one for one in found if one[0] != "effect_topped_up"]

    assert await keys("2h") == await keys("soonest") == await keys(None)


async def test_a_run_that_is_out_of_time_calls_its_replies_off(store, monkeypatch):
    time = MovedTime(monkeypatch)
    with background_server(looks=FOREVER) as server:
        workflow = workflow_at(
            server, store, "8h", strategy=strategies.sample(2), budget=Budget(wall=30)
        )
        started = asyncio.create_task(workflow.run("How many?"))
        while len({path for _, path, _, _ in server.requests("GET")}) < 2:  # both are waited for
            await asyncio.sleep(0.001)
        time.ahead = 30.0
        run = await started
        await workflow.aclose()
    assert (run.status, run.stop_reason) == ("incomplete", "wall")
    assert sorted(server.called_off) == [f"/responses/resp_{n}/cancel" for n in (1, 2)]


class _Crashed:
    """A copy of a store from the moment when a reply was waited for: what a dead process leaves."""

    def __init__(self, tmp_path: Any) -> None:
        self.directory = tmp_path / "left"
        self.directory.mkdir()

    async def run(self, server: BackgroundServer, store: Store, tmp_path: Any, **more: Any) -> str:
        looks, server.looks = server.looks, FOREVER
        workflow = workflow_at(server, store, "2h", **more)
        started = asyncio.create_task(workflow.run("How many?", run_id="r1"))
        await asyncio.to_thread(server.looked.wait)
        with (
            sqlite3.connect(tmp_path / "runs.db") as source,
            sqlite3.connect(self.directory / "runs.db") as copy,
        ):
            source.backup(copy)
        source.close()
        copy.close()
        started.cancel()
        with pytest.raises(asyncio.CancelledError):
            await started
        await workflow.aclose()
        server.looks = looks
        for kept in server.kept.values():
            kept["off"] = False  # the process that died had no time for it
        return "r1"

    def store(self) -> Store:
        url = f"sqlite:///{self.directory}/runs.db"
        return Store(url, directory=self.directory)


async def resumed(server: BackgroundServer, left: _Crashed, **more: Any) -> Any:
    async with left.store() as store:
        workflow = workflow_at(server, store, "2h", **more)
        run = await workflow.resume("r1", force=True)
        again = await workflow.replay("r1")
        await workflow.aclose()
        assert (again.answer, again.status) == (run.answer, run.status)
        assert not (await audit(store, "r1")).findings
        return run, (await store.read("r1")).events


async def test_a_run_that_crashed_picks_its_reply_up_and_pays_once(store, tmp_path):
    left = _Crashed(tmp_path)
    with background_server("t1") as server:
        await left.run(server, store, tmp_path)
        assert len(server.begun) == 1
        run, events = await resumed(server, left)
    assert run.status == "completed"
    assert len(server.begun) == 2  # the first call, and the one behind its tool
    first = next(event for event in events if event.type == "effect_started")
    handles = [event.body["handle"] for event in events if event.type == "effect_topped_up"]
    assert handles == ["resp_1", "resp_2"]
    ends = [
        event
        for event in events
        if event.type == "effect_finished" and event.body["kind"] == "model"
    ]
    assert not ends[0].body.get("charged", {}).get("tokens")
    # it stays charged at what was reserved for it, which is at least what it has cost
    assert run.spent["model_calls"] == 2
    last = ends[1].body["charged"]["tokens"]
    assert run.spent["tokens"] == first.body["reserved"]["tokens"] + last


async def test_what_a_reply_used_beyond_its_reservation_is_charged_too(store, tmp_path):
    left = _Crashed(tmp_path)
    with background_server("t0") as server:
        await left.run(server, store, tmp_path)
        usage = server.kept["resp_1"]["ended"]["usage"]
        usage["output_tokens"] = 10**6
        run, events = await resumed(server, left)
    ended = next(event for event in events if event.type == "effect_finished")
    reserved = next(event for event in events if event.type == "effect_started").body["reserved"]
    used = usage["input_tokens"] + 10**6
    assert run.spent["tokens"] == used
    assert ended.body["charged"]["tokens"] == used - reserved["tokens"]
    assert run.spent["model_calls"] == 1


@pytest.mark.parametrize("how", ["gone", "fails", "off"])
async def test_a_reply_that_is_not_to_be_had_any_more_is_asked_anew(store, tmp_path, how):
    left = _Crashed(tmp_path)
    with background_server("t0") as server:
        await left.run(server, store, tmp_path)
        name, kept = server.kept.popitem()
        if how != "gone":
            failed = {"status": "failed", "error": {"message": "it broke"}}
            kept["ended"] |= failed if how == "fails" else {"status": "cancelled"}
            server.kept[name] = kept
        else:
            server.kept["other"] = kept
        run, _ = await resumed(server, left)
    assert run.status == "completed"
    assert len(server.begun) == 2
    assert run.spent["model_calls"] == 2


def test_another_try_is_not_mistaken_for_the_one_before():
    """A try that failed is no more to be had, nor one before the last."""
    key, events = "k", []

    def told(event_type: str, **body: Any) -> dict[str, tuple[str, int]]:
        event = SimpleNamespace(type=event_type, key=key, seq=len(events), body={"at": 0.0, **body})
        events.append(event)
        return Recorded.of(SimpleNamespace(events=events)).handles

    told("attempt_started")
    assert told("effect_started", kind="model", reserved={}, grant=9) == {}
    assert told("effect_topped_up", reserved={}, grant=9, handle="a") == {key: ("a", 9)}
    assert told("effect_started", kind="model", reserved={}, grant=9, attempt=2) == {}
    assert told("effect_topped_up", reserved={}, grant=9, handle="b") == {key: ("b", 9)}
    assert told("effect_topped_up", reserved={}) == {}
    told("effect_topped_up", reserved={}, grant=9, handle="c")
    assert told("effect_finished", kind="model", charged={}) == {}


# -- what a profile may say ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "field", "said"),
    [
        ({"kind": "openai", "background": "2h"}, "background", 'Set api = "responses"'),
        ({"kind": "openai", "background": "1h", "api": "responses"}, "background", "soonest, 2h"),
        ({"kind": "openai", "background": True, "api": "responses"}, "background", "no window"),
        ({"kind": "vllm", "background": "2h", "api": "responses"}, "background", "openai do"),
        (
            {"kind": "openai", "background": "2h", "api": "responses", "service_tier": "flex"},
            "service_tier",
            "beside a window of 2h",
        ),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(written, field, said):
    with pytest.raises(ConfigurationError, match=said) as caught:
        BackendSettings(**written)
    assert caught.value.field == field


def test_a_profile_makes_a_model_of_it():
    settings = BackendSettings(
        kind="openai", api="responses", background="soonest", service_tier="flex"
    )
    model = resolve_model("mine/gpt-5", backends={"mine": settings})
    assert (model.takes_scheduling, model.capabilities.streams) == (True, True)
    hours = BackendSettings(kind="openai", api="responses", background="8h")
    assert not resolve_model("mine/gpt-5", backends={"mine": hours}).capabilities.streams


def test_a_model_made_by_hand_is_checked_too():
    with pytest.raises(ConfigurationError, match="Responses alone"):
        OpenAIModel("toy", base_url="http://h/v1", parameters=RequestParameters(background="2h"))


async def test_it_is_no_part_of_a_request(granted):
    with background_server() as server, pytest.raises(InvalidInput, match="of the backend"):
        await asked(server, granted, None, extra_body={"background": True})
    assert server.asked == []


async def test_any_of_several_endpoints_may_have_the_reply(granted):
    with background_server() as empty, background_server(looks=0) as server:
        begun = await asked(server, granted)
        models = [model_at(empty), model_at(server), ScriptedModel("no", name="toy")]
        both = Failover(models)
        assert await both.pick_up(QUESTION, "resp_1", 99) == begun
        assert await both.pick_up(QUESTION, "resp_2", 99) is None
        assert [path for _, path, _, _ in empty.requests("GET")] == [
            "/responses/resp_1",
            "/responses/resp_2",
        ]
        await both.aclose()


async def test_a_thought_that_is_too_short_is_so_too_when_it_is_picked_up(granted):
    question = {**QUESTION, "sampling": {"min_thinking_tokens": 10_000}}
    with background_server("t0,reasoning", looks=0) as server:
        await asked(server, granted)
        model = model_at(server)
        reply = await model.pick_up(question, "resp_1", 99)
        await model.aclose()
    assert reply is not None
    assert reply["thought_short"] is True
