"""Tools that only look start while the reply that asks for them still streams, over HTTP.

The server stops behind the first call of a reply until it is told that the tool has started: what
was still to come then is counted, never timed.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from benchmarks.protocol_server import ProtocolServer, protocol_server
from longthought import Budget, Store, Workflow, answers, strategies
from longthought.budgets import Scope
from longthought.orchestrator import runs
from longthought.orchestrator.cli.show import print_tree
from longthought.orchestrator.definition import Retry
from longthought.orchestrator.models.openai import OpenAIModel
from longthought.orchestrator.models.scripted import ScriptedModel, call, says
from longthought.orchestrator.places import current_frame
from longthought.orchestrator.results import Result
from longthought.orchestrator.traces import run_tree
from longthought.tools import ToolContext, pending, tool
from tests.executor.early_worker import build

ROOT = Path(__file__).resolve().parents[2]
AT_ONCE = Retry(attempts=3, base=0.0, cap=0.0)


@pytest.fixture
def server() -> Iterator[ProtocolServer]:
    with protocol_server() as running:
        yield running


@pytest.fixture
def scopes(monkeypatch: pytest.MonkeyPatch) -> list[Scope]:
    made: list[Scope] = []

    def make(*arguments: Any, **options: Any) -> Scope:
        made.append(Scope(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(runs, "Scope", make)
    return made


async def run(workflow: Workflow, **options: Any) -> Result:
    """A run that does not wait for ever, should a tool not start early."""
    async with asyncio.timeout(60):
        return await workflow.run("Add up.", **options)


@dataclass
class Seen:
    """What reached the client, and which calls of the tool began and ended."""

    deltas: int = 0
    begun: list[int] = field(default_factory=list)
    at_begin: list[int] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def watch(self, event: dict[str, Any]) -> None:
        self.deltas += event["event"] == "delta" and event["kind"] == "tool_call"

    def adder(self, server: ProtocolServer | None, **options: Any) -> Any:
        """The tool ``add``: its first call lets the server go on, the gate lets it end."""

        async def add(a: int, b: int, note: str = "") -> int:
            """Add two numbers."""
            self.begun.append(b)
            self.at_begin.append(self.deltas)
            try:
                if server is not None:
                    await asyncio.to_thread(server.release)
                await self.gate.wait()
                return a + b
            finally:
                self.ended.append(b)

        return tool(**{"effect": "read", **options})(add)


def asking(server: ProtocolServer, modes: str, tools: list[Any], **options: Any) -> Workflow:
    model = OpenAIModel("toy", base_url=server.address(modes), api_key="any")
    options = {"retry": AT_ONCE, "answer": answers.number(), **options}
    return Workflow("early", model=model, tools=tools, **options)


def finished(recording: Any, kind: str = "tool") -> list[Any]:
    events = [event for event in recording.events if event.type == "effect_finished"]
    return [event for event in events if event.body["kind"] == kind]


def nothing_is_held(workflow: Workflow, scopes: list[Scope]) -> None:
    view = workflow._shared_controller().view()
    assert not view["branches"], view
    assert all((b["in_use"], b["waiting"]) == (0, 0) for b in view["backends"].values()), view
    for scope in scopes:
        assert not scope.reserved, scope.view()


async def test_the_first_of_three_starts_with_most_of_the_reply_to_come(
    server: ProtocolServer,
    sqlite_store: Store,
    scopes: list[Scope],
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen = Seen()
    seen.gate.set()
    workflow = asking(server, "t1,p3,long40,hold", [seen.adder(server)], store=sqlite_store)
    result = await run(workflow, watch=seen.watch)
    assert (result.status, result.answer) == ("completed", "42")
    assert sorted(seen.begun) == sorted(seen.ended) == [1, 2, 3]  # each once
    assert seen.begun[0] == 1
    assert seen.at_begin[0] <= 0.6 * seen.deltas
    recording = await sqlite_store.read(result.id)
    first, *_ = finished(recording)
    assert first.body["early"]["tokens"] >= 0.4 * seen.deltas
    steps = {step.key: step for step in run_tree(recording).searches[0].branches[0].steps}
    assert steps[first.key].early == first.body["early"]
    print_tree(run_tree(recording), clocks=True)
    assert "early by" in " ".join(capsys.readouterr().out.split())
    assert result.spent["tool_calls"] == 3
    nothing_is_held(workflow, scopes)
    replayed = await workflow.replay(result.id)
    assert (replayed.answer, replayed.model_calls, replayed.tool_calls) == ("42", 0, 0)
    assert len(seen.begun) == 3
    await workflow.aclose()


async def test_keys_and_requests_are_those_of_a_late_start(
    server: ProtocolServer, sqlite_store: Store
) -> None:
    found = []
    for early in (True, False):
        seen = Seen()
        seen.gate.set()
        tools, modes = [seen.adder(server)], "t1,p3,long40,hold"
        if not early:
            server.release()
        workflow = asking(server, modes, tools, store=sqlite_store, early_start=early)
        result = await run(workflow, run_key=bytes(16))
        recording = await sqlite_store.read(result.id)
        found.append(
            sorted((e.key, e.body["request"], e.body["result"]) for e in finished(recording))
        )
        assert any("early" in e.body for e in finished(recording)) == early
        # what one has recorded, the other replays
        other = asking(server, modes, tools, store=sqlite_store, early_start=not early)
        assert (await other.replay(result.id)).answer == "42"
        await workflow.aclose()
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "options",
    [
        {"effect": "write"},
        {"effect": "irreversible"},
        {"cost_usd": 0.001},
        {"approval": "always"},
    ],
    ids=str,
)
async def test_what_may_not_be_dropped_never_starts_early(
    server: ProtocolServer, sqlite_store: Store, options: dict[str, Any]
) -> None:
    seen = Seen()
    seen.gate.set()
    before: list[int] = []

    def watch(event: dict[str, Any]) -> None:
        seen.watch(event)
        if event["event"] == "delta" and seen.deltas == 4:  # the first call is complete
            loop = asyncio.get_running_loop()
            later = 50

            def wait() -> None:
                nonlocal later
                later -= 1
                if later:
                    loop.call_soon(wait)
                else:
                    before.extend(seen.begun)
                    server.release()

            wait()

    workflow = asking(
        server, "t1,p3,long40,hold", [seen.adder(None, **options)], store=sqlite_store
    )
    result = await run(workflow, watch=watch)
    if "approval" in options:
        assert result.status == "parked"
    else:
        assert (result.answer, len(seen.begun)) == ("42", 3)
    assert before == []
    recording = await sqlite_store.read(result.id)
    assert not any("early" in event.body for event in finished(recording))
    await workflow.aclose()


async def test_nothing_is_left_of_a_reply_whose_stream_died(
    server: ProtocolServer, sqlite_store: Store, scopes: list[Scope]
) -> None:
    seen = Seen()
    tools = [seen.adder(server)]
    workflow = asking(server, "t1,p3,long40,hold,truncated", tools, store=sqlite_store)
    result = await run(workflow)
    assert result.answer is None
    assert seen.begun
    assert seen.ended == seen.begun  # none runs any more
    assert (result.spent["model_calls"], result.spent["tool_calls"]) == (3, 0)
    assert not finished(await sqlite_store.read(result.id))
    nothing_is_held(workflow, scopes)
    await workflow.aclose()


async def test_a_retry_starts_its_own(
    server: ProtocolServer, sqlite_store: Store, scopes: list[Scope]
) -> None:
    seen = Seen()
    modes, tools = "t1,p3,long40,hold,truncated@first", [seen.adder(server)]
    workflow = asking(server, modes, tools, store=sqlite_store)

    def watch(event: dict[str, Any]) -> None:
        if event["event"] == "tool":
            seen.gate.set()

    result = await run(workflow, watch=watch)
    assert (result.answer, result.spent["tool_calls"]) == ("42", 3)
    assert result.spent["model_calls"] == 3
    assert sorted(seen.begun) == [1, 1, 2, 3]  # one in vain
    assert len(finished(await sqlite_store.read(result.id))) == 3
    nothing_is_held(workflow, scopes)
    await workflow.aclose()


async def test_a_reply_that_is_cut_does_not_count(
    server: ProtocolServer, sqlite_store: Store, scopes: list[Scope]
) -> None:
    """The second call is cut off, and the first made as if nothing had been started."""
    seen = Seen()
    workflow = asking(
        server,
        "t1,p3,long40,hold",
        [seen.adder(server)],
        store=sqlite_store,
        sampling={"max_tokens": 12},
    )

    def watch(event: dict[str, Any]) -> None:
        if event["event"] == "tool":
            seen.gate.set()

    result = await run(workflow, watch=watch)
    assert seen.begun == [1, 1]
    events = finished(await sqlite_store.read(result.id))
    assert sorted(event.body["status"] for event in events) == ["ok", "truncated_args"]
    assert not any("early" in event.body for event in events)
    assert result.spent["tool_calls"] == 1
    nothing_is_held(workflow, scopes)
    await workflow.aclose()


async def test_a_cancelled_run_leaves_nothing_and_goes_on_as_if_nothing_was(
    server: ProtocolServer, sqlite_store: Store, scopes: list[Scope]
) -> None:
    seen, begun = Seen(), asyncio.Event()

    @tool(effect="read")
    async def add(a: int, b: int, note: str = "") -> int:
        """Add two numbers."""
        begun.set()
        try:
            await seen.gate.wait()
            return a + b
        finally:
            seen.ended.append(b)

    workflow = asking(server, "t1,p1,hold", [add], store=sqlite_store)
    task = asyncio.create_task(run(workflow, run_id="cancelled"))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen.ended == [1]
    assert not finished(await sqlite_store.read("cancelled"))
    nothing_is_held(workflow, scopes)
    server.release()
    seen.gate.set()
    result = await workflow.resume("cancelled")
    assert (result.answer, result.spent["tool_calls"]) == ("42", 1)
    assert len(finished(await sqlite_store.read("cancelled"))) == 1
    await workflow.aclose()


async def test_killed_while_it_was_provisional_it_runs_once_more_and_is_recorded_once(
    server: ProtocolServer, sqlite_store: Store, tmp_path: Path
) -> None:
    url = server.address("t1,p1,hold")
    command = [sys.executable, "-m", "tests.executor.early_worker", url, str(tmp_path), "killed"]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
    }
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "started\n"
        process.kill()
    recording = await sqlite_store.read("killed")
    assert not finished(recording, "model")
    assert not finished(recording)
    server.release()
    starts: list[int] = []
    workflow = build(url, lambda: starts.append(1)).recorded_in(sqlite_store)  # type: ignore[func-returns-value]
    result = await workflow.resume("killed", force=True)
    assert (result.answer, result.spent["tool_calls"]) == ("42", 1)
    assert starts == [1]
    assert len(finished(await sqlite_store.read("killed"))) == 1
    replayed = await workflow.replay("killed")
    assert (replayed.answer, replayed.tool_calls, starts) == ("42", 0, [1])
    await workflow.aclose()


# -- against a script ---------------------------------------------------------------------------


def acting(*calls: Any) -> Any:
    def script(request: Any) -> Any:
        asked = any(message["role"] == "tool" for message in request["messages"])
        return "The answer is 7" if asked else says(None, *calls)

    return script


def scripted(store: Store, tools: list[Any], *calls: Any, **options: Any) -> Workflow:
    model = ScriptedModel(acting(*calls), token_delay=1e-6)
    return Workflow(
        "early", model=model, tools=tools, answer=answers.number(), store=store, **options
    )


async def test_a_read_behind_a_write_waits_for_it(sqlite_store: Store) -> None:
    order: list[str] = []

    @tool(effect="write")
    async def put(text: str) -> str:
        """Write."""
        order.append("put")
        return text

    @tool(effect="read")
    async def get(text: str) -> str:
        """Read."""
        order.append(f"get {text}")
        return text

    calls = (call("get", text="a"), call("put", text="x " * 20), call("get", text="b"))
    workflow = scripted(sqlite_store, [put, get], *calls)
    result = await run(workflow)
    assert order == ["get a", "put", "get b"]
    events = finished(await sqlite_store.read(result.id))
    assert ["early" in event.body for event in events] == [True, False, False]


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("limit", [0, 1, 2])
async def test_the_limit_on_tool_calls_holds(
    sqlite_store: Store, scopes: list[Scope], limit: int, early: bool
) -> None:
    """Also for calls of one reply: what waits for the call beside it is served when that ends."""
    seen = Seen()
    seen.gate.set()
    calls = [call("add", a=1, b=n, note="x " * 10) for n in range(3)]
    workflow = scripted(
        sqlite_store,
        [seen.adder(None)],
        *calls,
        budget=Budget(tool_calls=limit),
        early_start=early,
    )
    result = await run(workflow)
    assert (result.answer, len(seen.begun)) == ("7", limit)
    statuses = [e.body["status"] for e in finished(await sqlite_store.read(result.id))]
    assert sorted(statuses) == sorted(["ok"] * limit + ["budget"] * (3 - limit))
    assert result.spent["tool_calls"] == limit
    nothing_is_held(workflow, scopes)


async def test_a_tools_own_limit_on_calls_at_once_holds(sqlite_store: Store) -> None:
    running = most = 0

    @tool(effect="read", max_concurrency=1)
    async def look(text: str) -> str:
        """Look."""
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return text

    calls = [call("look", text=f"{n} " * 10) for n in range(3)]
    workflow = scripted(sqlite_store, [look], *calls, strategy=strategies.sample(3))
    result = await run(workflow)
    assert (result.spent["tool_calls"], most) == (9, 1)


async def test_bad_arguments_are_told_in_their_turn(sqlite_store: Store) -> None:
    seen = Seen()
    seen.gate.set()
    calls = (call("add", a="x", b=1), call("nobody"), call("add", a=1, b=2))
    workflow = scripted(sqlite_store, [seen.adder(None)], *calls)
    result = await run(workflow)
    events = finished(await sqlite_store.read(result.id))
    statuses = sorted(event.body["status"] for event in events)
    assert (seen.begun, statuses) == ([2], ["bad_args", "ok", "unknown_tool"])


async def test_a_tool_that_asks_for_an_effect_is_called_again_in_its_place(
    sqlite_store: Store,
) -> None:
    tries: list[str] = []

    @tool(effect="read")
    async def clock(text: str) -> str:
        """Look at the time, which is an effect."""
        tries.append(text)
        frame = current_frame()
        with frame.places.enter("inside"):
            return "late"

    workflow = scripted(sqlite_store, [clock], call("clock", text="a"), call("clock", text="b"))
    result = await run(workflow)
    assert tries == ["a", "a", "b"]
    events = finished(await sqlite_store.read(result.id))
    assert [(e.body["status"], "early" in e.body) for e in events] == [("ok", False)] * 2
    assert result.spent["tool_calls"] == 2


async def test_a_tool_that_asks_where_its_result_goes_is_begun_in_its_place(
    sqlite_store: Store, scopes: list[Scope]
) -> None:
    """Before the reply counts nobody can tell: it is stopped there, and no error is recorded."""
    tries: list[str] = []
    jobs: dict[str, tuple[str, str, str]] = {}

    @tool(effect="read")
    async def survey(place: str, context: ToolContext) -> object:
        """Look at something for long."""
        tries.append(place)
        jobs[place] = (context.run_id, context.signal, context.key)
        return pending({"place": place})

    places = ("a " * 20, "b " * 20)
    workflow = scripted(sqlite_store, [survey], *(call("survey", place=place) for place in places))
    parked = await run(workflow)
    assert tries[0] == places[0]
    assert len(tries) > len(places), "one was begun early"
    assert (parked.status, len(parked.waiting)) == ("parked", 2)
    assert sorted(jobs.values()) == sorted(
        (parked.id, "result:survey", wait["key"]) for wait in parked.waiting
    )
    assert not any("early" in e.body for e in finished(await sqlite_store.read(parked.id)))
    nothing_is_held(workflow, scopes)
    for run_id, signal, key in jobs.values():
        await workflow.signal(run_id, signal, "done", key=key)
    (done,) = await workflow.wake()
    assert (done.answer, done.spent["tool_calls"]) == ("7", 2)
    nothing_is_held(workflow, scopes)
    assert (await workflow.replay(parked.id)).answer == "7"


async def test_it_can_be_switched_off(sqlite_store: Store) -> None:
    seen = Seen()
    seen.gate.set()
    workflow = scripted(sqlite_store, [seen.adder(None)], call("add", a=1, b=2), early_start=False)
    result = await run(workflow, watch=seen.watch)
    assert seen.at_begin == [seen.deltas]
    (event,) = finished(await sqlite_store.read(result.id))
    assert "early" not in event.body
