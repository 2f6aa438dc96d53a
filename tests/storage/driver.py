"""A process that drives runs, for tests that stop and kill it.

``driver.py URL DIRECTORY MODE``. It prints a line for everything that was acknowledged.
"""

from __future__ import annotations

import asyncio
import os
import sys

from longthought.errors import Fenced
from longthought.storage import Journal, Store, database

START = {"fingerprint": "f", "version": "0.1.0"}


def tell(*words: object) -> None:
    print(*words, flush=True)


async def listen() -> str:
    return await asyncio.to_thread(sys.stdin.readline)


async def append(journal: Journal, number: int) -> None:
    name = journal.put({"number": number, "text": "x" * 1500})
    await journal.append("effect_finished", f"k{number}", kind="tool", request=name, result=name)


async def endless(store: Store) -> None:
    """Many runs at once, until killed."""

    async def drive(run_id: str) -> None:
        journal = await store.create_run("endless", {}, run_id=run_id, **START)
        number = 0
        while True:
            await append(journal, number)
            tell(run_id, number)
            number += 1

    await asyncio.gather(*(drive(f"run-{n}") for n in range(4)))


async def until_fenced(store: Store) -> None:
    """One run, until somebody takes it over."""
    journal = await store.create_run("contested", {}, run_id="run-1", **START)
    number = 0
    try:
        while True:
            await append(journal, number)
            tell("acknowledged", number)
            number += 1
    except Fenced:
        tell("fenced", number)


async def waiting(store: Store) -> None:
    """One run that goes on when it is told to."""
    journal = await store.create_run("sleeper", {}, run_id="run-1", **START)
    await append(journal, 0)
    tell("ready")
    await listen()
    journal.stage("branch_ended", "staged before the stop", how="finished")
    for attempt in (journal.flush, lambda: append(journal, 1), lambda: store.renew(journal)):
        try:
            await attempt()
            tell("wrote")
        except Fenced:
            tell("fenced")


async def take_over(store: Store) -> None:
    """The next attempt of that run, by force."""
    journal = await store.claim("run-1", force=True)
    for number in range(1_000_000, 1_000_020):
        await append(journal, number)
    tell("done")
    await store.release(journal)


MODES = {mode.__name__: mode for mode in (endless, until_fenced, waiting, take_over)}


async def main(url: str, directory: str, mode: str) -> None:
    if pragma := os.environ.get("TEST_SYNCHRONOUS"):
        prepare = database._prepare_sqlite

        def careless(connection, record):
            prepare(connection, record)
            connection.execute(f"PRAGMA synchronous={pragma}")

        database._prepare_sqlite = careless
    async with Store(url, directory=directory) as store:
        await MODES[mode](store)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
