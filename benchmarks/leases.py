"""Context leases on the embedded engine, on the wall clock: 64 branches, 8 places, long tool waits.

The engine and its rows are real: numpy, a network of the size of the word model with random weights
and room for longer conversations than the models have. Only the tools are not: they wait. A branch
has one conversation after another, each turn a tool wait and a generation. Waits are 10 generations
in the mean, and the prefix cache has room for half of the rows of all branches. Of two workloads
one has ``long`` contexts, that cost something to compute anew, the other ``short`` ones.

Arms, interleaved: ``hold`` keeps a place from a conversation's first token to its last; ``fifo``
gives it up at a tool call, the engine serves who comes first and forgets what was used least
recently; ``fifo_apart`` is the same, but forgets first what has a place; ``ours`` adds a controller
with permits and leases, which tells the engine whose rows to keep and whose may go; ``untold`` is
the same but for the telling.

The bound is a rate that no schedule can pass, to a hundredth (see ``highest_rate``). At ``x`` turns
a second ``x`` times the mean wait of the branches are with their tools in the mean, and the others
generate no faster than batches of as many that never wait for a tool nor compute anything twice,
which are measured in every round.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.conversations import BRANCHES, DRAWN, LONG, SHORT, Conversation, Workload
from benchmarks.results import arguments, report
from longthought.budgets import BranchState, Controller
from longthought.orchestrator.models.embedded import Network
from longthought.orchestrator.models.embedded.engine import Counters, Engine, Row, Step
from longthought.orchestrator.models.embedded.leased_rows import LeasedRows
from longthought.orchestrator.models.embedded.network import Shape

__all__ = ["ARMS", "Leases", "Outcome", "engine_with", "highest_rate", "measure", "play"]

PLACES = 8
_THREADS = "OPENBLAS_NUM_THREADS"
"""One: the matrices are small, and several threads spin while they wait for each other."""
AHEAD = 1
"""Permits beyond the places: rows that the engine has at hand when a place becomes free."""
BATCHES = (1, 2, 4, PLACES)
"""Sizes of batches whose rates are measured for the bound."""
RATIO = 10.0
"""Mean tool wait, in mean generations of a full batch."""


@dataclass(slots=True)
class Outcome:
    """What an arm did in its window.

    ``positions`` went through the network, ``again`` of them not for the first time; ``known`` is
    what a cache of any size would have had. ``generation`` is seconds of all turns from the tool's
    return to the last token, ``loop`` processor seconds of the event loop's thread: all but the
    engine. ``pressure`` is seconds in which anything on the machine waited for a processor.
    """

    seconds: float = 0.0
    tokens: int = 0
    turns: int = 0
    positions: int = 0
    known: int = 0
    again: int = 0
    generation: float = 0.0
    loop: float = 0.0
    pressure: float = 0.0

    def begin(self, counters: Counters) -> None:
        """The window opens: what was before does not count."""
        self.tokens = self.turns = self.known = self.again = 0
        self.generation = 0.0
        self.positions = -counters.positions
        self.seconds, self.loop = -time.perf_counter(), -time.thread_time()
        self.pressure = -_pressure()

    def end(self, counters: Counters) -> None:
        """The window closes."""
        self.positions += counters.positions
        self.seconds += time.perf_counter()
        self.loop += time.thread_time()
        self.pressure += _pressure()

    @property
    def rate(self) -> float:
        """Useful tokens per second: those drawn."""
        return self.tokens / self.seconds

    @property
    def loop_ms(self) -> float:
        """Processor milliseconds of the loop's thread for a turn."""
        return 1000 * self.loop / self.turns


def _pressure() -> float:
    """Seconds since the start of the machine in which something waited for a processor (Linux)."""
    try:
        some = Path("/proc/pressure/cpu").read_text().splitlines()[0]
    except OSError:
        return 0.0
    return int(some.rpartition("=")[2]) / 1e6


class Fifo:
    """The place is given up during a tool; the engine serves who comes first."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def generate(self, branch: str, row: Row, deliver: Callable[[list[Step]], None]) -> None:
        """Generate as soon as there is a place."""
        await self.engine.run(row, deliver)

    def acts(self, branch: str, tool: str) -> None:
        """A tool works for the branch."""

    def returned(self, branch: str, completed: bool = True) -> None:
        """The tool has returned."""

    def ended(self, branch: str) -> None:
        """A conversation has ended."""


class FifoApart(Fifo):
    """The same, but rows that have a place go first from the cache, and a prompt that goes on from
    some is not stored besides: the memory of those that wait is theirs alone, as it is with leases.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        cache = engine.prefixes

        def come_back(tokens: Sequence[int]) -> bool:
            beginning = cache._beginning(tokens)  # noqa: SLF001 - as the cache does what is kept
            if beginning is not None:
                cache._stored.move_to_end(beginning, last=False)  # noqa: SLF001
            return beginning is not None

        setattr(cache, "come_back", come_back)  # noqa: B010 - of this cache alone


class Hold(Fifo):
    """The place is kept from the first token to the last. Its rows stay in the cache meanwhile:
    there is room for four times as many.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._places = asyncio.Semaphore(engine.slots)
        self._holding: set[str] = set()

    async def generate(self, branch: str, row: Row, deliver: Callable[[list[Step]], None]) -> None:
        """Wait for a place only at first."""
        if branch not in self._holding:
            await self._places.acquire()
            self._holding.add(branch)
        await super().generate(branch, row, deliver)

    def ended(self, branch: str) -> None:
        """The place is free."""
        self._holding.discard(branch)
        self._places.release()


class Leases(Fifo):
    """Permits and leases; the engine is told of the leases (``tells``) as the models of the package
    tell theirs.

    Rows of a branch with a lease that waits are kept, those of one that was parked go first. Places
    have rows of their own, so a branch that waits takes nothing from those that generate. Of those
    that wait, whoever is expected back last gives way.
    """

    def __init__(
        self,
        engine: Engine,
        capacity: int,
        *,
        tells: bool = True,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(engine)
        self.rows = LeasedRows()
        self.controller = Controller(now=now)
        self.controller.backend(
            "engine",
            engine.slots + AHEAD,
            capacity=capacity,
            on_lease=self.rows.changed if tells else lambda branch, change: None,
        )

    async def generate(self, branch: str, row: Row, deliver: Callable[[list[Step]], None]) -> None:
        """Generate under a permit."""
        tokens = list(row.prompt)

        def both(steps: list[Step]) -> None:
            tokens.extend(step.token for step in steps)
            deliver(steps)

        async with self.controller.permit("engine", branch, context=len(tokens)) as permit:
            await super().generate(branch, row, both)
            self.rows.computed(branch, self.engine, tokens, goes_on=row.worth_keeping())
            permit.used(context=len(tokens))

    def acts(self, branch: str, tool: str) -> None:
        """No permit; the lease stays, and with it the rows."""
        self.controller.branch(branch).move(BranchState.ACTING, tool=tool)

    def returned(self, branch: str, completed: bool = True) -> None:
        """The branch may generate."""
        self.controller.branch(branch).move(BranchState.READY, completed=completed)

    def ended(self, branch: str) -> None:
        """The lease is gone; the conversation that follows is another branch to the controller."""
        self.controller.branch(branch).move(BranchState.DONE)


ARMS: dict[str, Callable[[Engine, int], Fifo]] = {
    "hold": lambda engine, capacity: Hold(engine),
    "fifo": lambda engine, capacity: Fifo(engine),
    "fifo_apart": lambda engine, capacity: FifoApart(engine),
    "ours": Leases,
    "untold": lambda engine, capacity: Leases(engine, capacity, tells=False),
}


def engine_with(shape: Shape, positions: int) -> Engine:
    """An engine whose prefix cache has room for so many positions."""
    network = Network.random(shape, seed=1)
    return Engine(network, slots=PLACES, cache_bytes=positions * shape.position_bytes)


async def _branch(arm: Fifo, one: Conversation, wait: float, window: Outcome) -> None:
    """Conversations for ever; ``wait`` is the mean wait in seconds, 0 for none."""
    one.grow_old()
    share = one.rng.random()  # of its first wait: branches are not in step

    def deliver(steps: list[Step]) -> None:
        one.tokens += [step.token for step in steps]
        window.tokens += len(steps)

    while True:
        if wait:
            tool, waits = one.wait()
            arm.acts(one.branch, tool)
            await asyncio.sleep(waits * wait * share)
            # a wait that began before we looked teaches nobody how long its tool takes
            arm.returned(one.branch, completed=share == 1.0)
            share = 1.0
        known, row = one.computed, one.ask()
        begin = time.perf_counter()
        await arm.generate(one.branch, row, deliver)
        window.generation += time.perf_counter() - begin
        window.turns += 1
        window.known += known
        window.again += max(0, known - row.cached)
        if one.answered():
            arm.ended(one.branch)


async def play(
    arm: Fifo,
    workload: Workload,
    *,
    branches: int,
    wait: float,
    warm: float,
    seconds: float,
    seed: int,
) -> Outcome:
    """Let branches live for ``warm`` seconds, then look at ``seconds`` of it."""
    window, counters = Outcome(), arm.engine.counters
    lives = [Conversation(f"b{n}", random.Random(f"{seed} {n}"), workload) for n in range(branches)]
    tasks = [asyncio.create_task(_branch(arm, one, wait, window)) for one in lives]
    try:
        await asyncio.wait(tasks, timeout=warm)
        window.begin(counters)
        await asyncio.wait(tasks, timeout=seconds)
        window.end(counters)
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(arm.engine.close)
    for error in ends:
        if not isinstance(error, asyncio.CancelledError):
            raise error
    return window


@dataclass(frozen=True, slots=True)
class Round:
    """One round: seconds that a generation takes, tokens per second of batches that nothing
    hinders, by their size, and every arm.
    """

    generation: float
    rates: dict[int, float]
    arms: dict[str, Outcome]

    @property
    def bound(self) -> float:
        """Useful tokens per second that no schedule can pass."""
        return highest_rate(self.rates, RATIO * self.generation)


def highest_rate(rates: dict[int, float], wait: float) -> float:
    """Tokens per second of :data:`BRANCHES` whose turns begin with a tool wait of so many seconds.

    What they draw together in a second is at most what so many of them draw in one batch as are
    not with their tools in the mean: rates of batches grow ever less with their size, so a mean
    over sizes is no more than the rate of the mean size. ``rates`` are of some sizes; between them
    the straight lines count that lie highest, which are a little below the curve.
    """
    points = [(0, 0.0), *sorted(rates.items())]

    def fastest(size: float) -> float:
        if size >= points[-1][0]:
            return points[-1][1]
        spans = itertools.product(points, points)
        return max(
            low + (high - low) * (size - left) / (right - left)
            for (left, low), (right, high) in spans
            if left <= size < right
        )

    below, above = 0.0, max(rates.values())
    for _ in range(50):
        rate = (below + above) / 2
        generating = max(0.0, BRANCHES - rate / (sum(DRAWN) / 2) * wait)
        below, above = (rate, above) if fastest(generating) > rate else (below, rate)
    return below


async def play_round(
    workload: Workload, seed: int, names: Sequence[str], *, warm: float, waits: float
) -> Round:
    """Measure batches that nothing hinders, then play each arm for so many mean waits."""
    shape = workload.shape

    async def unhindered() -> dict[int, Outcome]:
        found = {}
        for size in BATCHES:
            arm = Fifo(engine_with(shape, BRANCHES * shape.positions))
            window = {"warm": 0.3, "seconds": 2.0 if size == PLACES else 0.7}
            found[size] = await play(arm, workload, branches=size, wait=0, seed=seed, **window)
        return found

    before = await unhindered()
    generation = before[PLACES].generation / before[PLACES].turns
    wait = RATIO * generation
    arms = {}
    for name in names:
        arm = ARMS[name](engine_with(shape, workload.room), workload.room)
        window = {"warm": warm * wait, "seconds": waits * wait}
        arms[name] = await play(arm, workload, branches=BRANCHES, wait=wait, seed=seed, **window)
    # Again: a machine that has become slower meanwhile has done so for the bound, too.
    after = await unhindered()
    rates = {size: (before[size].rate + after[size].rate) / 2 for size in BATCHES}
    return Round(generation, rates, arms)


def table(number: int, one: Round) -> str:
    """A line for each arm of a round."""
    columns = "tokens/s  of bound   turn s  turns  computed    known  again  loop ms  pressure"
    lines = [f"round arm        {columns}"]
    for name, arm in one.arms.items():
        lines.append(
            f"{number:>5} {name:<10} {arm.rate:>8,.0f} {arm.rate / one.bound:>9.2f}"
            f" {arm.generation / arm.turns:>8.3f} {arm.turns:>6} {arm.positions:>9,}"
            f" {arm.known:>8,} {arm.again / arm.known:>6.2f} {arm.loop_ms:>8.2f}"
            f" {arm.pressure / arm.seconds:>9.2f}"
        )
    batches = ", ".join(f"{rate:,.0f} of {size}" for size, rate in one.rates.items())
    lines.append(
        f"{number:>5} bound      {one.bound:>8,.0f}  unhindered batches {batches};"
        f" a generation {one.generation:.3f} s"
    )
    return "\n".join(lines)


def figures(rounds: Sequence[Round]) -> dict[str, float]:
    """Medians over the rounds; ratios are those within a round."""

    def median(of: Callable[[Round], float]) -> float:
        return statistics.median(map(of, rounds))

    found = {"rounds": float(len(rounds)), "generation_s": median(lambda one: one.generation)}
    found["bound_tokens_per_s"] = median(lambda one: one.bound)
    found["pressure"] = statistics.median(
        arm.pressure / arm.seconds for one in rounds for arm in one.arms.values()
    )
    for name in ARMS:
        if name not in rounds[0].arms:
            continue
        arms = [one.arms[name] for one in rounds]
        found |= {
            f"{name}_tokens_per_s": statistics.median(arm.rate for arm in arms),
            f"{name}_of_bound": statistics.median(
                one.arms[name].rate / one.bound for one in rounds
            ),
            f"{name}_computed_again_share": statistics.median(a.again / a.known for a in arms),
            f"{name}_positions_per_token": statistics.median(a.positions / a.tokens for a in arms),
            f"{name}_loop_ms_per_turn": statistics.median(arm.loop_ms for arm in arms),
        }
        if name != "ours":
            found[f"ours_over_{name}"] = statistics.median(
                one.arms["ours"].rate / one.arms[name].rate for one in rounds
            )
    return found


async def measure(quick: bool, show: Callable[[str], None]) -> dict[str, list[Round]]:
    """All rounds with long contexts and, unless ``quick``, with short ones.

    The arms take turns in going first. ``show`` is given each round as soon as it ends.
    """
    playing = {"long": (LONG, [name for name in ARMS if not quick or name != "untold"])}
    if not quick:
        playing["short"] = SHORT, ["fifo", "ours"]
    found: dict[str, list[Round]] = {name: [] for name in playing}
    for number in range(1 if quick else 5):
        for name, (workload, arms) in playing.items():
            first = number % len(arms)
            order = [*arms[first:], *arms[:first]]
            window = {"warm": 2.5, "waits": 3.5} if quick else {"warm": 4.0, "waits": 8.0}
            found[name].append(await play_round(workload, number, order, **window))
            show(f"{name}\n{table(number, found[name][-1])}")
    return found


def main() -> None:
    """Measure, print a line for each arm of each round, report."""
    options = arguments(__doc__ or "")
    if _THREADS not in os.environ:  # it is read when numpy is loaded
        command = [sys.executable, "-m", "benchmarks.leases", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, _THREADS: "1"})

    def show(text: str) -> None:
        if not options.json:
            print(text, end="\n\n", flush=True)

    found = asyncio.run(measure(options.quick, show))
    shown = figures(found.pop("long"))
    for workload, rounds in found.items():
        shown |= {f"{workload}_{name}": value for name, value in figures(rounds).items()}
    report("leases", shown, options)


if __name__ == "__main__":
    main()
