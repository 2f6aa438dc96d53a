"""``python -m tests.chaos.run --kills 200``: kill -9 until a run finishes, then compare.

Each case is one run of eight branches. Its kills are planned before it begins, uniformly over the
steps that an unkilled run has, each followed by a few milliseconds at random, so that many land in
a commit. Writes go to an idempotent service in most cases; in the others a person (the parent,
which knows what the world has seen) decides about every write of unknown outcome.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from longthought.errors import RunNotFound
from longthought.storage import Recording, Store
from tests.chaos.checks import Ending, check_end, check_kill, sequences, unknown_writes
from tests.chaos.nursery import Nursery
from tests.chaos.worker import BRANCHES, Job
from tests.chaos.world import Report, Tally, World

__all__ = ["Chaos", "Totals", "chaos", "fresh_url"]

SERVER = "postgresql://postgres@127.0.0.1:5432/postgres"
AMPLE, TIGHT = 2_000_000, 8_000
QUESTIONS = 6
REPLIES = 3  # of each branch, or 2 where both tools are called at once


@dataclass
class Totals:
    """What a series of cases came to."""

    kills: int = 0
    in_run: int = 0
    in_commit: int = 0
    cases: int = 0
    decisions: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {self.in_run} of them in mid-run and {self.in_commit} aimed at a "
            f"commit, over {self.cases} runs in {self.seconds:.0f} s; "
            f"{self.decisions} writes decided by hand; {len(self.failures)} failures"
        )


class Chaos:
    """Cases against one store."""

    def __init__(self, url: str, directory: Path, seed: int) -> None:
        self.url, self.directory, self.seed = url, directory, seed
        self.world = World(directory)
        self.nursery = Nursery()
        self.totals = Totals()
        self._references: dict[tuple[str, bool], tuple[Ending, int]] = {}

    async def run(self, kills: int, only: int | None = None) -> Totals:
        """Cases until so many workers were killed, or a single case."""
        begin = time.perf_counter()
        async with self.world, self.nursery, Store(self.url, directory=self.directory) as store:
            if only is not None:
                await self._case(store, only)
            case = 0
            while only is None and self.totals.kills < kills:
                await self._case(store, case)
                case += 1
        self.totals.seconds = time.perf_counter() - begin
        return self.totals

    async def _case(self, store: Store, number: int) -> None:
        plan = random.Random(f"{self.seed}:{number}")
        idempotent, tight = plan.random() < 0.6, plan.random() < 0.15
        question = f"case {plan.randrange(QUESTIONS)}"
        reference, steps = await self._reference(store, question, idempotent)
        limit = TIGHT if tight else AMPLE
        ending = Ending(reference.reference, reference.answer, idempotent, limit, tight)
        job = Job(
            world=self.world.path,
            store=self.url,
            directory=str(self.directory),
            run=f"case-{self.seed}-{number}",
            question=question,
            idempotent=idempotent,
            tokens=limit,
        )
        points = sorted(plan.uniform(0, 1.03 * steps) for _ in range(plan.randint(2, 6)))
        self.world.tally = Tally()
        problems = await self._drive(store, job, plan, points, ending)
        self.totals.cases += 1
        if not problems:
            problems = await check_end(store, job.run, self.world.tally, ending)
        if problems:
            again = f"--seed {self.seed} --case {number} ({question}, idempotent={idempotent})"
            self.totals.failures.append(f"{again}: " + "; ".join(problems))

    async def _drive(
        self, store: Store, job: Job, plan: random.Random, points: list[float], ending: Ending
    ) -> list[str]:
        """Start workers until one comes to the end of the run."""
        for attempt in range(40):
            kill_at = points[attempt] if attempt < len(points) else None
            started = replace(job, latency_seed=f"{job.run}:{attempt}")
            aimed = kill_at is not None and plan.random() < 0.3
            if aimed:
                number, after = plan.randint(1, 24), plan.choice((0.0, plan.uniform(0, 0.001)))
                started = replace(started, die_in_commit=number, die_after=after)
            code = await self._life(started, None if aimed else kill_at, plan)
            recording = await _read(store, job.run)
            if recording is not None:
                problems = check_kill(recording, self.world.tally) + self.world.tally.violations
                if problems:
                    return problems
            if code == -signal.SIGKILL:
                self.totals.kills += 1
                self.totals.in_commit += aimed
                self.totals.in_run += recording is None or recording.ended() is None
                continue
            last = self.world.tally.results[-1] if self.world.tally.results else {}
            if code or "status" not in last:
                return [f"a worker ended with code {code}: {last.get('text', '')}"]
            if last["status"] != "needs_attention":
                return []
            assert recording is not None
            await self._decide(store, job, recording, ending)
        return ["it did not finish in 40 attempts"]

    async def _life(self, job: Job, kill_at: float | None, plan: random.Random) -> int:
        """One worker from its start to its end, by our hand or its own."""
        loop, world = asyncio.get_running_loop(), self.world
        delay = plan.uniform(0, 0.008)
        early = plan.uniform(0, 0.12)
        timers: list[asyncio.TimerHandle] = []

        def look(_report: Report) -> None:
            if not timers and kill_at is not None and world.tally.progress >= kill_at:
                timers.append(loop.call_later(delay, self.nursery.kill))

        reached = kill_at is not None and world.tally.progress >= kill_at
        world.on_report = None if reached else look
        await self.nursery.start(job)
        if reached:  # while it opens the store, takes the run over and replays
            timers.append(loop.call_later(early, self.nursery.kill))
        code = await self.nursery.ended()
        for timer in timers:
            timer.cancel()
        world.on_report = None
        await world.quiet()
        return code

    async def _decide(self, store: Store, job: Job, recording: Recording, ending: Ending) -> None:
        """Be the person who looks whether a write has happened."""
        for key, branch in unknown_writes(recording):
            done = bool(self.world.tally.performed[f"{branch}/post"])
            if done:
                ending.decided.add(branch)
            await store.send_signal(job.run, f"decide:{key}", "done" if done else "again")
            self.totals.decisions += 1

    async def _reference(self, store: Store, question: str, idempotent: bool) -> tuple[Ending, int]:
        """The same question answered without a kill, and how many steps the world then sees."""
        name = (question, idempotent)
        if name not in self._references:
            run = f"reference-{self.seed}-{question[5:]}-{'key' if idempotent else 'plain'}"
            job = Job(
                world=self.world.path,
                store=self.url,
                directory=str(self.directory),
                run=run,
                question=question,
                idempotent=idempotent,
                tokens=AMPLE,
            )
            self.world.tally = tally = Tally()
            await self._life(job, None, random.Random(0))
            answer = tally.results[-1].get("answer")
            found = sequences(await store.read(run))
            assert len(found) == BRANCHES, tally.results
            assert sum(map(len, found.values())) * 2 == tally.progress
            self._references[name] = Ending(found, answer, idempotent, AMPLE), tally.progress
        return self._references[name]


async def _read(store: Store, run: str) -> Recording | None:
    try:
        return await store.read(run)
    except RunNotFound:
        return None


@asynccontextmanager
async def fresh_url(kind: str, directory: Path) -> AsyncIterator[str]:
    """The URL of an empty store: a file, or a database on the server."""
    if kind == "sqlite":
        yield f"sqlite:///{directory / 'longthought.db'}"
        return
    name = f"longthought_chaos_{uuid.uuid4().hex[:12]}"
    server = os.environ.get("LONGTHOUGHT_TEST_POSTGRES", SERVER)
    url = sa.make_url(server).set(drivername="postgresql+asyncpg")
    admin = create_async_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    async with admin.connect() as connection:
        await connection.exec_driver_sql(f"CREATE DATABASE {name}")
    try:
        yield url.set(database=name).render_as_string(hide_password=False)
    finally:
        async with admin.connect() as connection:
            await connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


async def chaos(kind: str, kills: int, seed: int, only: int | None = None) -> Totals:
    """A series on a fresh store."""
    with tempfile.TemporaryDirectory() as directory:
        async with fresh_url(kind, Path(directory)) as url:
            return await Chaos(url, Path(directory), seed).run(kills, only)


def main() -> int:
    """Run the series that were asked for; 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="on each store")
    parser.add_argument("--store", choices=("sqlite", "postgres", "both"), default="both")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", type=int, help="one case alone, as a failure names it")
    options = parser.parse_args()
    failed = False
    for kind in ("sqlite", "postgres") if options.store == "both" else (options.store,):
        totals = asyncio.run(chaos(kind, options.kills, options.seed, options.case))
        print(f"{kind}: {totals}", flush=True)
        for failure in totals.failures:
            print(f"  {failure[:3000]}", flush=True)
        failed |= bool(totals.failures)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
