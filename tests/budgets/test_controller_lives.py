"""Random lives of branches under the controller: permits, leases and tools, cancelled anywhere.

Branches are tasks that generate, act, park and come back; time is the test's own and goes on at
random, so that contexts are parked and shed while anything else happens. Whatever the order,
nothing is left with the controller, and what a branch's log tells of its leases fits together.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from longthought.budgets import Branch, BranchState, Controller
from longthought.budgets.states import FINAL_STATES, SLOT_STATES
from longthought.types import JSONObject

BACKENDS = ("x", "y")
HELD = ("taken", "resumed")


class Lives:
    """A controller with two backends, of which one may have a memory, and branches on it."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.clock = 0.0
        self.seen: Counter[str] = Counter()
        self.acting: set[str] = set()
        self.controller = Controller(
            now=lambda: self.clock, on_event=self.follow, max_passes=rng.choice((1, 64))
        )
        self.slots = {name: rng.randint(1, 3) for name in BACKENDS}
        for name in BACKENDS:
            size = rng.choice((None, 4_000, 30_000)) if name == "x" else None
            self.controller.backend(name, self.slots[name], capacity=size, prefill_rate=1000.0)
        self.holding = dict.fromkeys(BACKENDS, 0)
        self.branches: list[Branch] = []

    def follow(self, event: JSONObject) -> None:
        """No permit is got or kept while a tool runs; states change as they may."""
        branch, kind = str(event["branch"]), str(event["event"])
        self.seen[kind] += 1
        if kind == "state":
            (self.acting.add if event["to"] == "acting" else self.acting.discard)(branch)
        elif kind == "permit_acquired":
            assert branch not in self.acting

    async def turns(self, most: int = 3) -> None:
        for _ in range(self.rng.randrange(most + 1)):
            self.clock += self.rng.choice((0.0, 0.0, 0.5, 20.0))
            await asyncio.sleep(0)

    async def live(self, index: int) -> None:
        rng = self.rng
        branch = self.controller.branch(
            f"{index}",
            resumed=rng.random() < 0.3,
            run=f"run {index % 3}",
            tenant=rng.choice((None, "blue", "red")),
        )
        branch.log = []
        self.branches.append(branch)
        context, end = 0, BranchState.CANCELLED
        try:
            for _ in range(rng.randint(1, 5)):
                context = await self.generate(branch, context)
                await self.act(branch)
            end = rng.choice((BranchState.DONE, BranchState.FAILED))
        finally:
            branch.move(end)

    async def generate(self, branch: Branch, context: int) -> int:
        rng, name = self.rng, self.rng.choice(BACKENDS)
        context += rng.choice((10, 500, 2500))
        shared = {"prefix": "question", "prefix_tokens": 400} if rng.random() < 0.3 else {}
        deadline = self.clock + 10 if rng.random() < 0.2 else None
        more: dict[str, Any] = {**shared, "context": context, "deadline": deadline}
        async with self.controller.permit(name, branch, **more) as permit:
            self.holding[name] += 1
            try:
                assert self.holding[name] == self.controller.in_use(name) or branch.permits
                assert self.holding[name] <= self.slots[name]
                assert branch.state in SLOT_STATES
                await self.turns()
                cached = rng.choice((None, 0, context))
                permit.used(context=context + 50, cached=cached, first_token=(500, 0.4))
            finally:
                self.holding[name] -= 1
                if rng.random() < 0.3:
                    permit.release()
        return context + 50

    async def act(self, branch: Branch) -> None:
        rng = self.rng
        chance = rng.random()
        if chance < 0.5:
            branch.move(BranchState.ACTING, tool=rng.choice("ab"), shape=rng.choice((None, 3)))
            completed = False
            try:
                await self.turns()
                if rng.random() < 0.3:
                    branch.joined("a+b", 2)
                    await self.turns()
                completed = True
            finally:
                branch.move(BranchState.READY, completed=completed)
        elif chance < 0.7:
            branch.move(BranchState.PARKED)
            await self.turns()
            branch.move(BranchState.READY)
        else:
            await self.turns()

    async def run(self) -> None:
        tasks = [asyncio.create_task(self.live(index)) for index in range(self.rng.randint(1, 14))]
        for turn in range(20_000):
            if all(task.done() for task in tasks):
                break
            assert turn < 19_999, f"a waiter hangs: {self.controller.view()}"
            if self.rng.random() < 0.05:
                self.rng.choice(tasks).cancel()
            if self.rng.random() < 0.03:
                name = self.rng.choice(BACKENDS)
                self.slots[name] += self.rng.randrange(2)
                self.controller.backend(name, self.slots[name])
            self.clock += self.rng.choice((0.0, 0.1, 5.0))
            # nothing else may wake who waits for memory: the controller's own look does
            for backend in self.controller._backends.values():
                self.controller.pump(backend)
            await asyncio.sleep(0)
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert result is None or isinstance(result, asyncio.CancelledError), repr(result)

    def check_end(self) -> None:
        view: Any = self.controller.view()
        assert view["branches"] == {}
        for one in view["backends"].values():
            left = (one["in_use"], one["waiting"], one.get("leases", 0), one.get("charged", 0))
            assert left == (0, 0, 0, 0), view
        told: Counter[str] = Counter()
        for branch in self.branches:
            assert branch.state in FINAL_STATES
            assert branch.permits == 0
            held: set[object] = set()  # of a backend whose size is learned there are leases, too
            for what, backend, at, tokens in branch.log or ():
                assert (what in HELD) is not (backend in held), branch.log
                assert 0 <= at <= self.clock
                assert tokens >= 0
                (held.add if what in HELD else held.discard)(backend)
                told[f"lease_{what}"] += 1
            assert not held, branch.log
        seen = {kind: number for kind, number in self.seen.items() if kind.startswith("lease_")}
        assert told == seen
        assert self.seen["permit_acquired"] == self.seen["permit_released"]
        queued = self.seen["permit_acquired"] + self.seen["permit_withdrawn"]
        assert self.seen["permit_queued"] == queued


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
def test_whatever_happens_nothing_is_left_and_logs_fit_together(seed: int) -> None:
    lives = Lives(seed)
    asyncio.run(lives.run())
    lives.check_end()


def test_all_of_it_happens() -> None:
    """The lives above are worth something: every kind of event is among them."""
    seen: Counter[str] = Counter()
    for seed in range(60):
        lives = Lives(seed)
        asyncio.run(lives.run())
        lives.check_end()
        seen += lives.seen
    wanted = {"permit_withdrawn", "lease_taken", "lease_parked", "lease_resumed", "lease_ended"}
    assert wanted <= {kind for kind, number in seen.items() if number > 5}, seen
