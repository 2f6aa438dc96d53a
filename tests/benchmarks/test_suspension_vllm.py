"""The benchmark of a real engine, driven against a server that needs none."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from typing import Any

import pytest

from benchmarks import results, suspension_vllm
from benchmarks.protocol_agents import AgentClient, Call
from benchmarks.protocol_server import ProtocolServer, protocol_server
from benchmarks.suspension_vllm import ARMS, BLOCK, BLOCKS, Endpoint, Played, figures, workload
from longthought.types import JSONObject

AGENTS = 6


@pytest.fixture
def server():
    with protocol_server() as running:
        yield running


def played(server: ProtocolServer, modes: str = "t0") -> tuple[list[dict[str, Played]], list[Any]]:
    """Two repetitions, and the body of every call."""
    bodies: list[Any] = []
    server.received = bodies  # all of them, not the last alone
    shown: list[str] = []
    rounds = asyncio.run(
        suspension_vllm.measure(
            Endpoint(server.address(modes), "toy"), 0.5, 2, agents=AGENTS, show=shown.append
        )
    )
    assert len(shown) == 2
    return rounds, bodies


def test_every_arm_plays_the_same_turns_under_a_salt_of_its_own(server: ProtocolServer) -> None:
    rounds, bodies = played(server)
    calls = Counter(body["cache_salt"] for body in bodies)
    turns = [sum(map(len, workload(number, 0.0, AGENTS).jobs)) for number in range(2)]
    assert len({salt.split()[0] for salt in calls}) == 2
    for name in ARMS:
        assert sorted(n for salt, n in calls.items() if salt.endswith(name)) == sorted(turns)
    assert all(one[name].retries == 0 for one in rounds for name in ARMS)
    assert {body["min_tokens"] for body in bodies} == {suspension_vllm.OUTPUT}


def test_priorities_are_sent_by_one_arm_and_resumed_ones_go_first(server: ProtocolServer) -> None:
    _, bodies = played(server)
    levels: dict[str, set[tuple[bool, int | None]]] = {}
    for body in bodies:
        resumed = len(body["messages"]) > 1
        arm = body["cache_salt"].split()[1]
        levels.setdefault(arm, set()).add((resumed, body.get("priority")))
    assert levels["priority"] == {(False, 9), (True, 5)}
    for arm in ("hold", "fifo", "leases"):
        assert {level for _, level in levels[arm]} == {None}


def test_what_the_replies_report_is_what_is_counted(server: ProtocolServer) -> None:
    """This server says of every prompt that it found half of it."""
    rounds, _ = played(server)
    for one in rounds:
        for arm in one.values():
            assert 0.4 < arm.hit < 0.7
            assert arm.found + arm.again == arm.known
            assert arm.agents == AGENTS
    found = figures(0.5, rounds)
    assert found["r0.5_leases_hit_least"] <= found["r0.5_leases_hit"]
    assert found["r0.5_leases_hit"] <= found["r0.5_leases_hit_most"]
    assert found["r0.5_leases_recomputed_over_fifo"] == pytest.approx(1.0, abs=0.01)
    assert found["r0.5_retries"] == 0


def calls_of(url: str) -> AgentClient:
    """One agent that has come to its end."""

    async def main() -> AgentClient:
        client = AgentClient(Endpoint(url, "toy").client("s"), 1, 0)
        await client.play(workload(0, 0.0, 1))
        await client.model.aclose()
        return client

    return asyncio.run(main())


def test_a_call_that_is_lost_is_tried_again_and_counted(server: ProtocolServer) -> None:
    client = calls_of(server.address("t0,drop@first"))
    assert client.retries == 1
    assert len(client.calls) == len(workload(0, 0.0, 1).jobs[0])


def usage(cached: int) -> JSONObject:
    return {"prompt_tokens": 150, "cached_tokens": cached, "completion_tokens": 5}


def test_known_is_the_prompt_before_and_its_reply(server: ProtocolServer) -> None:
    before = 0
    for call in calls_of(server.address()).calls:
        assert call.known == before
        before = call.tokens.prompt_tokens + call.tokens.completion_tokens
    assert Call(100, 0.0, 1.0, usage(cached=30)).again == 70
    assert Call(100, 0.0, 1.0, usage(cached=128)).again == 0


def test_agents_have_contexts_of_3500_to_7000_tokens_that_do_not_fit_together() -> None:
    for seed in range(5):
        jobs = workload(seed, 1.0).jobs
        ends = [sum(turn.new + turn.output for turn in job) for job in jobs]
        assert min(ends) > 3_500
        assert max(ends) < 7_250
        assert sum(ends) > 2 * BLOCKS * BLOCK
        assert all(3 <= len(job) <= 6 for job in jobs)


@pytest.mark.parametrize("options", [[], ["--quick"], ["--quick", "--json"]])
def test_without_a_vllm_it_is_left_out(options, monkeypatch, capsys) -> None:
    monkeypatch.delenv(suspension_vllm.VARIABLE, raising=False)
    monkeypatch.setattr(sys, "argv", ["suspension_vllm", *options])
    monkeypatch.setattr(results, "_append", lambda *_: pytest.fail("nothing was measured"))
    suspension_vllm.main()
    told = capsys.readouterr()
    assert "--base-url" in told.out + told.err
    if "--json" in options:
        assert json.loads(told.out) == {"figures": {}}


def test_by_its_address_a_server_is_measured(server, monkeypatch, capsys) -> None:
    async def found(url: str) -> Endpoint:
        return Endpoint(url, "toy")

    monkeypatch.setattr(suspension_vllm, "found_at", found)
    url = server.address()
    monkeypatch.setattr(sys, "argv", ["suspension_vllm", "--quick", "--json", "--base-url", url])
    suspension_vllm.main()
    found_figures = json.loads(capsys.readouterr().out)["figures"]
    assert {"r0.5_leases_hit", "r0.5_leases_over_hold_least"} <= set(found_figures)


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(SystemExit, match="--base-url http://127"):
        asyncio.run(suspension_vllm.found_at("http://127.0.0.1:1/v1"))
