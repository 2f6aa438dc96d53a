"""Permits and leases on the embedded engine: which rows are kept, counted in positions."""

from __future__ import annotations

import random

import pytest

from benchmarks.conversations import LONG, Conversation
from benchmarks.leases import ARMS, Leases, engine_with, highest_rate, play
from longthought.budgets import BranchState
from longthought.orchestrator.models.embedded import Network
from longthought.orchestrator.models.embedded.engine import Engine, Row, Step
from longthought.orchestrator.models.embedded.network import Shape
from longthought.orchestrator.models.embedded.sampling import Draw

SHAPE = Shape(vocabulary=200, positions=200, width=16, layers=1, heads=1)
LENGTH, NEW, DRAWN = 100, 4, 10
BYTES = 2 * 4 * SHAPE.width  # of one position
ROOM = int(2.5 * (LENGTH + DRAWN))  # tokens: rows of two branches, but not of three


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Backend:
    """One place, room for the rows of two branches, and leases for as many; the rest is real."""

    def __init__(self, **options: bool) -> None:
        network = Network.random(SHAPE, seed=3)
        self.engine = Engine(network, slots=1, cache_bytes=ROOM * BYTES)
        self.clock = Clock()
        self.rows = Leases(self.engine, capacity=ROOM, now=self.clock, **options)
        self.tokens: dict[str, list[int]] = {}
        self.cached = 0

    async def turn(self, branch: str) -> int:
        """Positions computed of the prompt when a branch generates and then waits for a tool."""
        known = self.tokens.get(branch)
        if known is None:
            prompt = [ord(branch), *range(1, LENGTH)]
        else:
            self.rows.returned(branch)
            prompt = [*known, *range(NEW)]
        row = Row(list(prompt), Draw(0.0), DRAWN, lambda token: False)
        self.tokens[branch] = prompt

        def deliver(steps: list[Step]) -> None:
            prompt.extend(step.token for step in steps)

        before = self.engine.counters.positions
        await self.rows.generate(branch, row, deliver)
        self.engine.wait_idle()
        self.rows.acts(branch, "search")
        return self.engine.counters.positions - before - (DRAWN - 1)

    def leased(self) -> set[str]:
        """The branches that have a lease."""
        scheduler = self.rows.controller._backends["engine"].scheduler
        return {branch for branch in "abc" if scheduler.leased(branch)}

    async def crowd(self, count: int = 6) -> None:
        """Others, without leases, fill the cache many times."""
        for other in range(count):
            row = Row([150 + other, *range(1, LENGTH)], Draw(0.0), 1, lambda token: False)
            await self.engine.run(row, lambda steps: None)


async def test_a_leased_branch_that_waits_computes_only_what_is_new() -> None:
    backend = Backend()
    assert await backend.turn("a") == LENGTH
    for _ in range(3):
        await backend.crowd()
        # what is new, and the last token drawn, which was still to be computed
        assert await backend.turn("a") == NEW + 1
    backend.engine.close()


async def test_a_parked_branch_computes_all_of_it_again_and_is_kept_from_then_on() -> None:
    backend = Backend()
    await backend.turn("a")
    backend.rows.controller.branch("a").move(BranchState.PARKED)
    await backend.crowd()
    assert backend.leased() == set()
    assert await backend.turn("a") == LENGTH + DRAWN + NEW
    assert backend.leased() == {"a"}
    await backend.crowd()
    assert await backend.turn("a") == NEW + 1
    backend.engine.close()


async def test_rows_given_up_make_room_first() -> None:
    """The parked branch was the last that used its rows; those used longest ago stay."""
    backend = Backend(tells=False)  # so that only giving up makes the difference
    await backend.turn("a")
    await backend.turn("b")
    backend.engine.release(backend.tokens["b"])
    await backend.crowd(1)
    assert await backend.turn("a") == NEW + 1
    assert await backend.turn("b") == LENGTH + DRAWN + NEW
    backend.engine.close()


async def test_who_needs_a_lease_takes_it_from_who_waits_and_the_rows_follow() -> None:
    backend = Backend()
    for second, branch in enumerate("ab"):
        backend.clock.now = float(second)
        await backend.turn(branch)
    backend.clock.now = 2.0
    await backend.turn("c")  # one has to give way: who waits longest of tools that nobody knows
    assert backend.leased() == {"b", "c"}
    await backend.crowd()
    assert await backend.turn("b") == NEW + 1
    assert await backend.turn("c") == NEW + 1
    await backend.crowd()
    assert await backend.turn("a") == LENGTH + DRAWN + NEW
    backend.engine.close()


async def test_a_branch_that_has_ended_keeps_nothing() -> None:
    backend = Backend()
    await backend.turn("a")
    backend.rows.returned("a")
    backend.rows.ended("a")
    await backend.crowd()
    assert backend.leased() == set()
    assert "a" not in backend.rows.controller.view()["branches"]  # type: ignore[operator]
    assert len(backend.engine.prefixes) == 2
    backend.engine.close()


@pytest.mark.parametrize("arm", list(ARMS))
async def test_every_arm_generates_and_gives_all_places_back(arm: str) -> None:
    playing = ARMS[arm](engine_with(LONG.shape, LONG.room), LONG.room)
    window = {"wait": 0.01, "warm": 0.1, "seconds": 0.3}
    found = await play(playing, LONG, branches=3, seed=0, **window)
    assert found.tokens >= 0 <= found.again <= found.known
    assert playing.engine.in_flight == 0
    if isinstance(playing, Leases):
        assert playing.controller.in_use("engine") == 0


def test_conversations_are_the_same_for_every_arm() -> None:
    def drawn() -> list[tuple[str, float, int]]:
        one = Conversation("b", random.Random("0 0"))
        one.grow_old()
        found = []
        for _ in range(12):
            tool, waits = one.wait()
            row = one.ask()
            one.tokens += [0] * row.limit
            found.append((tool, waits, len(row.prompt) + row.limit))
            one.answered()
        return found

    assert drawn() == drawn()
    assert {tool for tool, _, _ in drawn()} == {"search", "tests", "build"}


def test_the_bound_is_met_by_branches_that_are_never_held_up() -> None:
    """Tools take 16 s and 64 tokens 1 s: each of 64 branches draws as many every 17 s."""
    rates = {1: 64.0, 2: 128.0, 4: 256.0, 8: 512.0}  # each row as fast as one alone
    assert round(highest_rate(rates, wait=16.0)) == round(64 * 64 / 17)
    assert highest_rate(rates, wait=0.0) == pytest.approx(512)
    slower = rates | {4: 200.0, 8: 300.0}  # in larger batches each row is slower
    assert 200 < highest_rate(slower, wait=16.0) < 64 * 64 / 17
    assert highest_rate(slower | {2: 10.0}, wait=16.0) == pytest.approx(
        highest_rate(slower | {2: 2 / 3 * 64 + 1 / 3 * 200}, wait=16.0)
    )  # the mean of batches of one and of four
