"""Runs to look at: one with every type of event, and what stands in the tables."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from longthought.storage import Journal, Store
from longthought.types import JSON

START = {"fingerprint": "f", "version": "0.1.0"}


async def begin(store: Store, run_id: str | None = None, **more: JSON) -> Journal:
    """A run with a small manifest."""
    return await store.create_run("sums", {"question": "1+1"}, run_id=run_id, **START, **more)


async def fill(journal: Journal) -> Journal:
    """Every type of event that a run writes of itself, and the payloads they name."""
    question = journal.extend("", {"role": "user", "content": "What is 1+1?"})
    tools = journal.put([{"name": "add", "description": "Adds.", "parameters": {}}])
    request = journal.put(
        {"model": "m", "conversation": question, "tools": tools, "sampling": {"seed": 1}}
    )
    key = "explore:1/a0#0:model"
    journal.stage("fold", "explore:1", input="ask", data={"room": 4, "asks": ["a0"]})
    await journal.append(
        "effect_started", key, kind="model", request=request, reserved={"tokens": 99}, grant=9
    )
    await journal.append("effect_topped_up", key, reserved={"tokens": 120}, grant=30)
    call = {"id": "c1", "name": "add", "arguments": '{"a":1,"b":1}'}
    reply = journal.extend(
        question,
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [call],
            "reasoning": [{"id": "r1", "text": "add them", "encrypted": "b64"}],
            "provider": {"item": {"id": "x"}},
        },
    )
    result = journal.put(
        {"conversation": reply, "finish_reason": "tool_calls", "usage": {}, "model": "m-1"}
    )
    await journal.append(
        "effect_finished",
        key,
        kind="model",
        request=request,
        result=result,
        charged={"tokens": 40},
        clock=[1.0, 2.0, 3.5],
    )
    await journal.append(
        "effect_finished",
        "explore:1/a0#1:tool",
        kind="tool",
        request=journal.put({"tool": "add", "arguments": {"a": 1, "b": 1}, "version": "1"}),
        result=journal.put({"status": "ok", "content": "2"}),
    )
    answer = journal.extend(reply, {"role": "tool", "content": "2", "tool_call_id": "c1"})
    value = journal.put({"approved": True})
    journal.stage("signal", "explore:1/a0", signal="s1", name="approve", value=value)
    journal.stage("branch_ended", "explore:1/a0", how="finished")
    outcome = journal.put({"answer": "2", "conversation": answer})
    journal.stage("fold", "explore:1", input="tell", data={"ask": "a0", "outcome": outcome})
    journal.stage("run_ended", status="completed", stop_reason="answered", outcome=outcome)
    await journal.flush()
    return journal


async def rows(store: Store, text: str, **values: JSON) -> list[tuple[JSON, ...]]:
    """What a statement reads."""
    return await store.database.read(
        lambda c: [tuple(row) for row in c.execute(sa.text(text), values)]
    )


async def tamper(store: Store, *statements: str, **values: JSON) -> None:
    """Change the database behind the store's back."""

    def work(connection: sa.Connection) -> None:
        for statement in statements:
            bound = sa.text(statement)
            changed = connection.execute(
                bound, {name: values[name] for name in values if f":{name}" in statement}
            )
            assert changed.rowcount != 0, f"changed nothing: {statement}"

    await store.database.write(work)


class Kit:
    """The helpers above for tests, which cannot import them by name."""

    begin = staticmethod(begin)
    fill = staticmethod(fill)
    rows = staticmethod(rows)
    tamper = staticmethod(tamper)


@pytest.fixture
def kit() -> type[Kit]:
    return Kit


@pytest.fixture
async def filled(store, kit):
    """A store with two runs, of which `run-1` has every type of event."""
    await store.release(await kit.fill(await kit.begin(store, "run-1")))
    await store.release(await kit.begin(store, "run-2"))
    return store
