"""What the store costs: bytes per byte of history, appends and loaded effects per second.

The workload is a loop of model and tool: a step is one effect, every second one a tool call. A
model message has about 1.2 KB, a tool message about 2.9 KB.
"""

from __future__ import annotations

import asyncio
import os
import random
import string
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks import replay
from benchmarks.results import arguments, report
from longthought.storage import Journal, Store, canonical
from longthought.types import Message

__all__ = ["Loop", "bytes_per_history", "fresh_store", "main", "record_run", "stored_bytes"]

POSTGRES = "LONGTHOUGHT_TEST_POSTGRES"
DEFAULT_POSTGRES = "postgresql://postgres@127.0.0.1:5432/postgres"


class Loop:
    """One run of the workload; ``history`` is every message of its conversation."""

    def __init__(self, journal: Journal, seed: int = 0) -> None:
        self.journal = journal
        self.history: list[Message] = []
        self.conversation = ""
        self._tools = journal.put([{"name": "search", "description": "", "parameters": {}}])
        self._random = random.Random(seed)

    async def step(self, number: int) -> None:
        """One effect: a model call, or the tool call it asked for."""
        if number % 2:
            await self._tool(number)
        else:
            await self._model(number)

    async def _model(self, number: int) -> None:
        journal, key = self.journal, f"reason:{number}/a0#0:model"
        request = journal.put(
            {
                "model": "openai/some-model",
                "conversation": self.conversation,
                "tools": self._tools,
                "sampling": {"temperature": 0.7, "seed": number},
            }
        )
        await journal.append(
            "effect_started",
            key,
            kind="model",
            request=request,
            reserved={"tokens": 4096, "usd": 1_000_000, "calls": 1},
            grant=2048,
        )
        call = {"id": f"call_{number}", "name": "search", "arguments": '{"query":"inhabitants"}'}
        self._say({"role": "assistant", "content": self._text(1100), "tool_calls": [call]})
        result = journal.put(
            {
                "conversation": self.conversation,
                "finish_reason": "tool_calls",
                "usage": {"prompt_tokens": 900 + number, "completion_tokens": 300, "calls": 1},
                "model": "some-model-2026-01-01",
            }
        )
        await journal.append(
            "effect_finished",
            key,
            kind="model",
            request=request,
            result=result,
            charged={"tokens": 1200 + number, "usd": 300_000, "calls": 1},
            clock=[round(time.time(), 3)] * 3,
        )

    async def _tool(self, number: int) -> None:
        journal, key = self.journal, f"act:{number}/a0#0:tool"
        content = self._text(2850)
        request = {"tool": "search", "arguments": {"query": "inhabitants", "page": number}}
        await journal.append(
            "effect_finished",
            key,
            kind="tool",
            request=journal.put({**request, "version": "1"}),
            result=journal.put({"status": "ok", "content": content, "usage": {}}),
            charged={"calls": 1},
            clock=[round(time.time(), 3)] * 3,
        )
        self._say({"role": "tool", "content": content, "tool_call_id": f"call_{number - 1}"})

    def _say(self, message: Message) -> None:
        self.history.append(message)
        self.conversation = self.journal.extend(self.conversation, message)

    def _text(self, length: int) -> str:
        return "".join(self._random.choices(string.ascii_letters + " ", k=length))


async def record_run(store: Store, steps: int, seed: int = 0) -> Loop:
    """A finished run of the workload."""
    question = {"question": "How many people live there?", "strategy": "sample", "seed": seed}
    journal = await store.create_run("loop", question, fingerprint="f" * 43, version="0.1.0")
    loop = Loop(journal, seed)
    for number in range(steps):
        await loop.step(number)
    outcome = journal.put({"answer": "42", "conversation": loop.conversation})
    journal.stage("run_ended", status="completed", stop_reason="answered", outcome=outcome)
    await journal.flush()
    await store.release(journal)
    return loop


async def stored_bytes(store: Store) -> int:
    """What the store takes: its file once the log is folded in, or its tables and indexes."""
    await store.database.scrub()
    if store.database.dialect == "sqlite":
        pages = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
    else:
        pages = (
            "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n "
            "ON n.oid = c.relnamespace WHERE n.nspname = 'public' AND c.relkind = 'r'"
        )
    return int(await store.database.read(lambda c: c.execute(sa.text(pages)).scalar_one()))


@asynccontextmanager
async def fresh_store(server: str | None) -> AsyncIterator[Store]:
    """An empty store of its own: a file, or a database on the server."""
    with tempfile.TemporaryDirectory() as directory:
        if server is None:
            async with Store(directory=directory) as store:
                yield store
            return
        name = f"longthought_benchmark_{uuid.uuid4().hex[:12]}"
        url = sa.make_url(server).set(drivername="postgresql+asyncpg")
        admin = create_async_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        async with admin.connect() as connection:
            await connection.exec_driver_sql(f"CREATE DATABASE {name}")
        try:
            shown = url.set(database=name).render_as_string(hide_password=False)
            async with Store(shown, directory=directory) as store:
                yield store
        finally:
            async with admin.connect() as connection:
                await connection.exec_driver_sql(f"DROP DATABASE {name}")


async def bytes_per_history(server: str | None, steps: int) -> float:
    """Bytes stored, net of an empty store, over the canonical bytes of the conversation."""
    async with fresh_store(server) as store:
        empty = await stored_bytes(store)
        loop = await record_run(store, steps)
        return (await stored_bytes(store) - empty) / len(canonical(loop.history).encode())


async def append_rate(server: str | None, parallel: int, each: int) -> tuple[float, float]:
    """Events per second over ``parallel`` runs, and events per transaction."""
    async with fresh_store(server) as store:
        runs = [
            await store.create_run("rate", {"seed": seed}, fingerprint="", version="0.1.0")
            for seed in range(parallel)
        ]

        async def drive(journal: Journal) -> None:
            for number in range(each):
                request = journal.put({"tool": "search", "arguments": {"page": number}})
                result = journal.put({"status": "ok", "content": f"{number} " * 300})
                await journal.append(
                    "effect_finished",
                    f"n:{number}#0:tool",
                    kind="tool",
                    request=request,
                    result=result,
                )

        before, begin = store.writer.transactions, time.perf_counter()
        await asyncio.gather(*(drive(journal) for journal in runs))
        seconds = time.perf_counter() - begin
        return parallel * each / seconds, parallel * each / (store.writer.transactions - before)


async def load_rate(server: str | None, steps: int) -> float:
    """Recorded effects per second when a run is read and all its results are looked at."""
    async with fresh_store(server) as store:
        run_id = (await record_run(store, steps)).journal.run_id
        begin = time.perf_counter()
        recording = await store.read(run_id)
        for event in recording.events:
            if event.type == "effect_finished":
                recording.get(event.body["result"])
        return steps / (time.perf_counter() - begin)


async def measure(name: str, server: str | None, quick: bool) -> dict[str, float]:
    """All figures of one database."""
    figures: dict[str, float] = {}
    for steps in (5, 50, 200):
        figures[f"{name}_bytes_ratio_{steps}_steps"] = await bytes_per_history(server, steps)
    for parallel in (1, 16, 64):
        each = max(4, (400 if quick else 2000) // parallel)
        rate, grouped = await append_rate(server, parallel, each)
        figures[f"{name}_appends_per_second_{parallel}_runs"] = rate
        figures[f"{name}_appends_per_transaction_{parallel}_runs"] = grouped
    figures[f"{name}_loaded_effects_per_second"] = await load_rate(server, 400 if quick else 2000)
    return figures


async def reachable(server: str) -> bool:
    """Whether a PostgreSQL server answers there."""
    engine = create_async_engine(sa.make_url(server).set(drivername="postgresql+asyncpg"))
    try:
        async with engine.connect():
            return True
    except (OSError, SQLAlchemyError):
        return False
    finally:
        await engine.dispose()


async def main() -> None:
    """Measure SQLite, PostgreSQL where a server answers, and the replay of stored runs."""
    options = arguments(str(__doc__))
    figures = await measure("sqlite", None, options.quick)
    server = os.environ.get(POSTGRES, DEFAULT_POSTGRES)
    if await reachable(server):
        figures |= await measure("postgresql", server, options.quick)
    figures |= await replay.measure()
    report("storage", figures, options)


if __name__ == "__main__":
    asyncio.run(main())
