"""Slots and leases of whole runs against a real HTTP server: cancelled, killed, restarted.

Whatever happens, slots and leases come back, every call that reached the server is charged once,
and the run is gone on with.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.protocol_server import ProtocolServer, protocol_server
from longthought import Budget, Store, Workflow, answers, strategies
from longthought.budgets import Controller
from longthought.errors import Fenced
from longthought.orchestrator.definition import Retry
from longthought.orchestrator.models.openai import OpenAIModel
from longthought.orchestrator.models.scripted import ScriptedModel, call, says
from longthought.orchestrator.places import Frame, Places
from longthought.orchestrator.recorded import Recorded
from longthought.orchestrator.seats import Seats
from longthought.orchestrator.traces import utilisation
from longthought.tools import tool
from longthought.types import Candidate, JSONObject, JudgeContext, Verdict

ROOT = Path(__file__).resolve().parents[2]
CAPACITY = 50_000
BLOCKED: list[asyncio.Event] = []


@tool(effect="pure")
async def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: one number.
        b: the other.
    """
    for event in BLOCKED:
        event.set()
        await asyncio.Event().wait()
    return a + b


@tool(name="add", effect="pure", approval="always")
async def approved_add(a: int, b: int) -> int:
    """Add two numbers, if a person says so.

    Args:
        a: one number.
        b: the other.
    """
    return a + b


class Waiting:
    """A verifier that waits where something blocks: the branch is ready meanwhile."""

    name = "waiting"

    def spec(self) -> JSONObject:
        return {"kind": self.name}

    async def judge(self, candidate: Candidate, context: JudgeContext) -> Verdict:
        for event in BLOCKED:
            event.set()
            await asyncio.Event().wait()
        return Verdict(1.0, True)


@pytest.fixture
def server() -> Iterator[ProtocolServer]:
    BLOCKED.clear()
    with protocol_server() as running:
        yield running
    BLOCKED.clear()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store(directory=tmp_path) as opened:
        yield opened


def model_at(address: str, name: str = "toy", **more: Any) -> OpenAIModel:
    options: dict[str, Any] = {"slots": 1, "context_capacity": CAPACITY, "stream": True}
    return OpenAIModel(name, base_url=address, api_key="any", **(options | more))


def asking(store: Store, *addresses: str, **settings: Any) -> Workflow:
    """One sample of each model at these addresses, or as many as are asked for."""
    names = ("toy", "other")[: len(addresses)]
    models = [model_at(at, name) for at, name in zip(addresses, names, strict=True)]
    options: dict[str, Any] = {
        "model": models,
        "tools": [add],
        "answer": answers.number(),
        "strategy": strategies.sample(len(names), models=list(names)),
        "budget": Budget(tokens=1_000_000, wall=600),
        "parallel": 4,
        "max_output_tokens": 200,
        "retry": Retry(4, base=0.0),
        "store": store,
    }
    return Workflow("leased", **(options | settings))


def held(workflow: Workflow) -> dict[str, tuple[int, ...]]:
    """Slots in use, calls that wait, leases and tokens charged to them, by backend."""
    view: Any = workflow._shared_controller().view()
    return {
        name: (one["in_use"], one["waiting"], one.get("leases", 0), one.get("charged", 0))
        for name, one in view["backends"].items()
    }


def nothing_is_held(workflow: Workflow) -> None:
    assert set(held(workflow).values()) == {(0, 0, 0, 0)}
    assert workflow._shared_controller().view()["branches"] == {}


def states(workflow: Workflow) -> list[str]:
    branches: Any = workflow._shared_controller().view()["branches"]
    return sorted(branches.values())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


async def resumed(store: Store, server: ProtocolServer, run: str, **settings: Any) -> None:
    """Go on with a run at a server that is well; every call that reached it is charged once."""
    BLOCKED.clear()
    workflow = asking(store, server.address("t1"), **settings)
    result = await workflow.resume(run, force=True)
    assert (result.status, result.answer) == ("completed", "42"), result.error
    assert result.spent["model_calls"] == server.counts["calls"]
    nothing_is_held(workflow)
    recording = await store.read(run)
    found = utilisation(recording)
    assert found.permit_seconds_during_tools == 0
    assert found.tool_seconds_in_generation == 0
    finished = [e for e in recording.events if e.type == "effect_finished"]
    assert len({e.key for e in finished}) == len({(e.key, e.body["result"]) for e in finished})
    replay = await workflow.replay(run)
    assert (replay.model_calls, replay.answer) == (0, "42")
    await workflow.aclose()


async def cancelled(workflow: Workflow, condition: Callable[[], bool], **options: Any) -> None:
    """Cancel a run as soon as something holds; nothing is left of it."""
    task = asyncio.create_task(workflow.run("Add up.", run_id="r", **options))
    await until(lambda: condition() or task.done())
    assert not task.done(), task
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    nothing_is_held(workflow)
    await workflow.aclose()


# -- cancelled in every state ----------------------------------------------------------------------


async def test_cancelled_while_it_generates(store: Store, server: ProtocolServer) -> None:
    workflow = asking(store, server.address("t1,hang"))
    await cancelled(workflow, lambda: server.counts["calls"] == 1)
    await resumed(store, server, "r")


async def test_cancelled_while_it_streams(store: Store, server: ProtocolServer) -> None:
    workflow, seen = asking(store, server.address("t0,w500,slow")), asyncio.Event()

    def watch(event: JSONObject) -> None:
        if event["event"] == "delta":
            seen.set()

    await cancelled(workflow, seen.is_set, watch=watch)
    await resumed(store, server, "r")


async def test_cancelled_while_it_waits_for_a_slot(store: Store, server: ProtocolServer) -> None:
    two = {"strategy": strategies.sample(2, models=["toy"])}
    workflow = asking(store, server.address("t1,hang"), **two)
    await cancelled(
        workflow,
        lambda: server.counts["calls"] == 1 and states(workflow) == ["generating", "queued"],
    )
    await resumed(store, server, "r", **two)


async def test_cancelled_while_its_tool_runs(store: Store, server: ProtocolServer) -> None:
    workflow = asking(store, server.address("t1"))
    BLOCKED.append(asyncio.Event())
    await cancelled(workflow, lambda: BLOCKED[0].is_set() and states(workflow) == ["acting"])
    assert workflow._shared_controller().tool_times.seen("add") == 0, "it was cut short"
    await resumed(store, server, "r")


async def test_cancelled_while_it_is_ready(store: Store, server: ProtocolServer) -> None:
    workflow = asking(store, server.address("t1"), verifier=Waiting())
    blocked = asyncio.Event()

    def watch(event: JSONObject) -> None:
        if event["event"] == "tool":  # the tool goes through, the verifier does not
            asyncio.get_running_loop().call_soon(BLOCKED.append, blocked)

    task = asyncio.create_task(workflow.run("Add up.", run_id="r", watch=watch))
    await until(lambda: blocked.is_set() or task.done())
    assert states(workflow) in (["ready"], ["acting"])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    nothing_is_held(workflow)
    await workflow.aclose()
    await resumed(store, server, "r", verifier=Waiting())


async def test_cancelled_while_a_branch_is_parked(store: Store, server: ProtocolServer) -> None:
    """One branch waits for a person, the other one keeps the run alive."""
    both = (server.address("t1"), server.address("t1,hang"))
    workflow = asking(store, *both, tools=[approved_add])
    await cancelled(
        workflow,
        lambda: server.counts["calls"] == 2 and states(workflow) == ["generating", "parked"],
    )
    again = asking(store, *[server.address("t1")] * 2, tools=[approved_add])
    result = await again.resume("r")
    assert result.status == "parked"
    nothing_is_held(again)
    for wait in result.waiting:
        await again.signal("r", wait["name"], "yes", key=wait["key"])
    result = await again.resume("r")
    assert (result.status, result.answer) == ("completed", "42")
    assert result.spent["model_calls"] == server.counts["calls"]
    nothing_is_held(again)
    await again.aclose()


# -- killed and restarted --------------------------------------------------------------------------

KILLED = """
import asyncio, sys
from tests.executor.test_leases import asking
from longthought import Store

async def main(directory, address):
    async with Store(directory=directory) as store:
        def watch(event):
            if event["event"] == "delta":
                print("streaming", flush=True)
        await asking(store, address).run("Add up.", run_id="r", watch=watch)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_client_that_is_killed_in_mid_stream(
    store: Store, server: ProtocolServer, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path), server.address("t0,w500,slow")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "streaming\n"
        client.send_signal(signal.SIGKILL)
    await until(lambda: server.counts["lost"] == 1)
    before = await store.read("r")
    [started] = [event for event in before.events if event.type == "effect_started"]
    await resumed(store, server, "r")
    after = await store.read("r")
    assert [event.hash for event in after.events[: before.length]] == [
        event.hash for event in before.events
    ]
    finished = [event for event in after.events if event.type == "effect_finished"]
    charged = sum(event.body["charged"].get("tokens", 0) for event in finished)
    ended = after.ended()
    assert ended is not None
    spent = after.get(ended.body["outcome"])["spent"]
    assert spent["tokens"] == charged + started.body["reserved"]["tokens"]


async def test_a_backend_that_is_restarted_in_mid_stream(store: Store) -> None:
    """Branches in every state when it goes; it comes back at its address with nothing in memory."""
    with socket.socket() as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        kept.bind(("127.0.0.1", 0))
        port = kept.getsockname()[1]
        seen, calls = asyncio.Event(), 0

        def watch(event: JSONObject) -> None:
            if event["event"] == "delta":
                seen.set()

        retry = Retry(1000, base=0.001, cap=0.01)
        with protocol_server(port) as first:
            address = first.address("t1,w40,slow")
            workflow = asking(
                store,
                address,
                strategy=strategies.sample(4, models=["toy"]),
                model=[model_at(address, slots=2)],
                retry=retry,
            )
            task = asyncio.create_task(workflow.run("Add up.", run_id="r", watch=watch))
            await until(seen.is_set)
        calls += first.counts["calls"]
        with protocol_server(port) as second:
            result = await task
            calls += second.counts["calls"]
        assert result.status == "completed", result.error
        nothing_is_held(workflow)
        recording = await store.read("r")
        # Those that found nobody there never left, and are not charged. What had left when the
        # first server went, and was not read by it, may be: two slots, two calls at most.
        assert calls <= result.spent["model_calls"] <= calls + 2
        found = utilisation(recording)
        assert found.permit_seconds_during_tools == 0
        use = found.backends["toy"]
        assert use.permits >= calls
        assert use.leases["taken"] + use.leases["resumed"] == (
            use.leases["ended"] + use.leases["parked"] + use.leases["shed"]
        )
        assert (await workflow.replay("r")).model_calls == 0
        await workflow.aclose()


# -- what the controller is told -------------------------------------------------------------------


async def test_the_controller_learns_contexts_tools_and_the_wall(
    store: Store, server: ProtocolServer
) -> None:
    workflow = asking(store, server.address("t3"), strategy=strategies.sample(3, models=["toy"]))
    result = await workflow.run("Add up.", tenant="blue")
    assert result.status == "completed"
    recording = await store.read(result.id)
    finished = [event.body for event in recording.events if event.type == "effect_finished"]
    models = [body for body in finished if body["kind"] == "model"]
    tools = [body for body in finished if body["kind"] == "tool"]
    assert all(len(body["permits"]) == 1 for body in models)
    assert all(body["ran"][0] <= body["ran"][1] for body in tools)
    usage = [recording.get(body["result"])["usage"] for body in models]
    known = [body.get("known", 0) for body in models]
    assert all(a <= b["prompt_tokens"] for a, b in zip(known, usage, strict=True))
    assert sum(1 for tokens in known if tokens) >= 9, "all but first calls go on with a context"
    seen = workflow._shared_controller().tool_times.seen("add")
    assert 8.5 < seen <= 9
    assert recording.manifest()["tenant"] == "blue"
    await workflow.aclose()


async def test_scheduling_is_no_part_of_what_was_asked(
    store: Store, server: ProtocolServer
) -> None:
    """The same run with and without leases, slots and a tenant: the same keys and requests."""
    asked = []
    for more in ({"context_capacity": None}, {"slots": 3, "context_capacity": 1200}):
        workflow = asking(
            store,
            server.address("t2"),
            model=[model_at(server.address("t2"), **more)],
            strategy=strategies.sample(3, models=["toy"]),
        )
        tenant = "blue" if "slots" in more else None
        run = await workflow.run("Add up.", tenant=tenant, run_key=b"sixteen bytes ok")
        recording = await store.read(run.id)
        finished = [event for event in recording.events if event.type == "effect_finished"]
        asked.append(sorted((event.key, event.body["request"]) for event in finished))
        await workflow.aclose()
    assert asked[0] == asked[1]


async def test_a_capacity_that_becomes_known_later_is_taken_over(store: Store) -> None:
    model = ScriptedModel(lambda request: "The answer is 1")
    workflow = Workflow("late", model=model, answer=answers.number(), store=store)
    await workflow.run("1?")
    view: Any = workflow._shared_controller().view()
    assert "capacity" not in view["backends"]["scripted"]
    model.context_capacity = 5000
    run = await workflow.run("1?")
    view = workflow._shared_controller().view()
    assert view["backends"]["scripted"]["capacity"] == 5000
    use = utilisation(await store.read(run.id)).backends["scripted"]
    assert use.leases == {"taken": 1, "ended": 1}


async def test_what_an_earlier_attempt_had_begun_goes_before_new_branches() -> None:
    controller = Controller()
    places = {"/1.explore/search/s0/1.reason": 1, "/3.finish": 1}
    seats = Seats(controller, "r", Recorded(places=places))
    begun = [seats.at(f"/1.explore/search/{name}").slot.resumed for name in ("s0", "s1")]
    assert begun == [True, False]
    frame = Frame(Places(), "/7.finish", None)
    assert seats.of(frame, "/7.finish#0:model").slot.resumed
    assert seats.of(frame, "/7.finish#1:model") is seats.at("/finish")
    seats.release()
    assert controller.view()["branches"] == {}


async def test_an_attempt_that_was_taken_over_takes_nothing_along() -> None:
    """It is stopped a little later than the next one begins, and has the same places."""
    controller = Controller()
    controller.backend("toy", 1, capacity=CAPACITY)
    old, new = (Seats(controller, "r", Recorded(), tenant=tenant) for tenant in (None, "blue"))
    seats = [attempt.at("/1.explore/search/s0") for attempt in (old, new)]
    assert seats[0].slot is not seats[1].slot
    assert seats[1].slot.tenant == "blue"
    old.release()
    async with controller.permit("toy", seats[1].slot, context=100):
        pass
    new.release()
    view: Any = controller.view()
    assert (view["branches"], view["backends"]["toy"]["leases"]) == ({}, 0)


async def test_a_run_is_taken_over_while_its_old_attempt_still_runs(store: Store) -> None:
    """In one process, with one controller: the old one ends first, the new one goes on."""
    begun, gate = 0, asyncio.Event()

    @tool(effect="read")
    async def look(name: str) -> str:
        """Look at something."""
        nonlocal begun
        begun += 1
        await gate.wait()
        return name

    def script(request: Any) -> Any:
        if any(message["role"] == "tool" for message in request["messages"]):
            return "The answer is 7"
        return says("I look", call("look", name="a"))

    model = ScriptedModel(script, slots=1, context_capacity=CAPACITY)
    workflow = Workflow("own", model=model, tools=[look], answer=answers.number(), store=store)
    old = asyncio.create_task(workflow.run("What is it?", run_id="r"))
    await until(lambda: begun == 1 or old.done())
    new = asyncio.create_task(workflow.resume("r", force=True))
    await until(lambda: begun == 2 or new.done())
    gate.set()
    with pytest.raises(Fenced):
        await old
    result = await new
    assert (result.status, result.answer) == ("completed", "7"), result.error
    nothing_is_held(workflow)
