"""Several servers under one queue, each with a prefix cache that has no room for all contexts."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import OrderedDict
from collections.abc import AsyncIterator
from itertools import pairwise, takewhile
from operator import eq
from typing import Any, Self

import pytest

from longthought import Store, Workflow, strategies
from longthought.orchestrator.definition import Retry
from longthought.orchestrator.models import BackendSettings, Failover, OpenAIModel, resolve_model
from longthought.orchestrator.traces import utilisation
from longthought.tools import tool

CAPACITY = 14_000
TURNS = 4
LONG = "some words " * 700


@tool(effect="pure")
async def look(page: int) -> str:
    """Read a long page.

    Args:
        page: its number.
    """
    return f"{page} {LONG}"


class CachingServer:
    """A server that keeps so many tokens of prompts, and says what it found of each.

    Attributes:
        computed: tokens of prompts that it did not find.
        sent: all prompts.
        most: calls that it had at once.
        branches: by the first page that a conversation looked at, how often it was sent here.
    """

    def __init__(self, name: str, capacity: int = CAPACITY, dies_after: int = 0) -> None:
        self.name, self.capacity, self.dies_after = name, capacity, dies_after
        self.held: OrderedDict[str, None] = OrderedDict()
        self.sent: list[str] = []
        self.calls = self.computed = self.in_flight = self.most = 0
        self.branches: dict[str, int] = {}
        self.open: set[asyncio.StreamWriter] = set()
        self.listener: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self.listener = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        port = self.listener.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.die()

    def die(self) -> None:
        if self.listener is not None:
            self.listener.close()
        for writer in self.open:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                size = int(head.partition("content-length:")[2].split()[0])
                body = json.loads(await reader.readexactly(size))
                await self.answer(body["messages"], writer)
        self.open.discard(writer)
        writer.close()

    async def answer(self, messages: list[Any], writer: asyncio.StreamWriter) -> None:
        self.calls += 1
        number = self.calls
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        if self.calls == self.dies_after:
            self.die()
        try:
            for _ in range(20):
                await asyncio.sleep(0)
            text = json.dumps(messages)
            self.sent.append(text)
            found = max((common(one, text) for one in self.held), default=0)
            prompt, cached = len(text) // 4, found // 4
            self.computed += prompt - cached
            self.keep(text)
            calls = [call for one in messages for call in one.get("tool_calls") or []]
            if calls:
                first = f"{calls[0]['id']}"
                self.branches[first] = self.branches.get(first, 0) + 1
            usage = {
                "prompt_tokens": prompt,
                "completion_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": cached},
            }
            self.write(writer, self.message(len(calls), number), usage)
        finally:
            self.in_flight -= 1

    def message(self, turn: int, number: int) -> dict[str, Any]:
        if turn == TURNS:
            return {"role": "assistant", "content": "The answer is 42"}
        page = {"name": "look", "arguments": json.dumps({"page": number})}
        call = {"id": f"{self.name}-{number}", "type": "function", "function": page}
        return {"role": "assistant", "content": None, "tool_calls": [call]}

    def keep(self, text: str) -> None:
        for one in [one for one in self.held if text.startswith(one[:-1])]:
            del self.held[one]
        self.held[text] = None
        while sum(map(len, self.held)) > 4 * self.capacity:
            self.held.popitem(last=False)

    def write(self, writer: asyncio.StreamWriter, message: Any, usage: Any) -> None:
        finish = "tool_calls" if message.get("tool_calls") else "stop"
        choice = {"index": 0, "message": message, "finish_reason": finish}
        reply = {"id": "1", "object": "chat.completion", "created": 1, "model": "toy"}
        body = json.dumps({**reply, "choices": [choice], "usage": usage}).encode()
        head = f"HTTP/1.1 200 -\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        writer.write(head.encode() + b"\r\n\r\n" + body)


def common(one: str, other: str) -> int:
    """Length of the beginning that two texts share."""
    return sum(1 for _ in takewhile(bool, map(eq, one, other)))


def computed_anew(*servers: CachingServer) -> int:
    """Tokens that were computed more than once, wherever the first time was."""
    sent = sorted(text for one in servers for text in one.sent)
    once = sum(len(text) - common(before, text) for before, text in pairwise(["", *sent]))
    return sum(one.computed for one in servers) - once // 4


class Together:
    """Several endpoints as one model and nothing else: one line, one sum of memories."""

    def __init__(self, model: Failover) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        if name in ("members", "placing", "prefix_cache"):
            raise AttributeError(name)
        return getattr(self._model, name)


@pytest.fixture
async def store(tmp_path: Any) -> AsyncIterator[Store]:
    async with Store(directory=tmp_path) as opened:
        yield opened


def endpoints(*servers: CachingServer, slots: int = 4, **more: Any) -> Failover:
    models = [
        OpenAIModel(
            "toy",
            base_url=one.url,
            api_key="any",
            slots=slots,
            stream=False,
            context_capacity=CAPACITY,
            **more,
        )
        for one in servers
    ]
    return Failover(models)


async def solved(model: Any, store: Store, samples: int = 4) -> tuple[Any, Any]:
    """A run, and what the controller holds after it."""
    workflow = Workflow(
        "farm",
        model=model,
        tools=[look],
        strategy=strategies.sample(samples),
        store=store,
        parallel=samples,
        max_output_tokens=50,
        retry=Retry(6, base=0.0),
    )
    run = await workflow.run("How many?")
    view: Any = workflow._shared_controller().view()
    await workflow.aclose()
    return run, view["backends"]["toy" if "toy" in view["backends"] else "own/toy"]


def nothing_is_held(shown: Any) -> None:
    for one in [shown, *shown.get("endpoints", {}).values()]:
        assert (one["in_use"], one.get("leases", 0), one.get("charged", 0)) == (0, 0, 0)


async def test_each_endpoint_has_its_leases_so_that_less_is_computed_anew(store: Store) -> None:
    """Against one sum of both memories: three of four branches on one server do not fit there."""
    async with CachingServer("a") as a, CachingServer("b") as b:
        run, shown = await solved(Together(endpoints(a, b)), store)
        assert run.status == "completed"
        together = computed_anew(a, b)
    async with CachingServer("a") as a, CachingServer("b") as b:
        run, shown = await solved(endpoints(a, b), store)
        apart = computed_anew(a, b)
        names = {a.url, b.url}
    assert run.status == "completed"
    assert run.support["samples"] == 4
    # Each branch stays with its endpoint, but for one of three that began where two have room.
    assert len(set(a.branches) & set(b.branches)) <= 1
    assert max(a.most, b.most) <= 4
    assert a.calls
    assert b.calls
    assert set(shown["endpoints"]) == names
    nothing_is_held(shown)
    # What is left is the context of the one that moved.
    assert 0 < apart < together / 2, (apart, together)
    use = utilisation(await store.read(run.id)).backends["toy"]
    assert use.recomputed_tokens == pytest.approx(apart, rel=0.05)
    assert set(use.endpoints) == names
    assert sum(one.permits for one in use.endpoints.values()) == use.permits == 4 * (TURNS + 1)
    assert sum(one.leases["ended"] for one in use.endpoints.values()) == use.leases["ended"] > 0


async def test_no_server_is_sent_more_calls_than_it_has_slots(store: Store) -> None:
    async with CachingServer("a") as a, CachingServer("b") as b, CachingServer("c") as c:
        servers = (a, b, c)
        run, shown = await solved(endpoints(*servers, slots=1), store, 8)
    assert run.support["samples"] == 8
    assert [one.most for one in servers] == [1, 1, 1]
    nothing_is_held(shown)


async def test_a_server_that_dies_takes_no_run_with_it(store: Store) -> None:
    async with CachingServer("a", dies_after=6) as a, CachingServer("b") as b:
        run, shown = await solved(endpoints(a, b, slots=2), store)
    assert run.status == "completed"
    assert run.support["samples"] == 4
    assert a.calls == 6
    assert b.most <= 2
    nothing_is_held(shown)
    finished = [
        event
        for event in (await store.read(run.id)).events
        if event.type == "effect_finished" and event.body["kind"] == "model"
    ]
    assert len({event.key for event in finished}) == len(finished) == 4 * (TURNS + 1)
    # Those that were answered, and the two that it had read when it died: nobody knows what those
    # have cost, so each is charged what was reserved for it.
    assert a.calls + b.calls == 4 * (TURNS + 1) + 2
    assert run.spent["model_calls"] == a.calls + b.calls


async def test_where_it_may_go_is_where_it_has_a_turn(store: Store) -> None:
    async with CachingServer("a") as a, CachingServer("b") as b:
        model = endpoints(a, b)
        model._endpoints[0].model._rates = (2, None)  # type: ignore[attr-defined]
        run, shown = await solved(model, store, 3)
    assert run.status == "completed"
    assert a.calls <= 2
    assert a.calls + b.calls == 3 * (TURNS + 1)
    nothing_is_held(shown)


@pytest.mark.parametrize(("kind", "learns"), [("vllm", True), ("sglang", True), (None, False)])
async def test_a_single_server_shows_how_much_it_keeps(
    store: Store, kind: str | None, learns: bool
) -> None:
    """Nobody has said how large its memory is; what it did not find again tells."""
    async with CachingServer("a", capacity=9_000) as a:
        profile = BackendSettings(kind=kind, base_url=a.url, slots=4, stream=False)
        run, shown = await solved(resolve_model("own/toy", backends={"own": profile}), store)
    assert run.status == "completed"
    assert ("capacity" in shown) is learns
    assert shown.get("capacity", 0) < 13_000
    nothing_is_held(shown)
