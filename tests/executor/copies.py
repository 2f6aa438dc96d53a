"""A run cut off after any event, as if its process had died there."""

from __future__ import annotations

from typing import Any

from longthought.storage import Recording, Store


async def copy_prefix(store: Store, recording: Recording, length: int) -> str:
    """A new run with the first ``length`` events of another; nobody drives it."""
    journal = await store.create_run(
        "copy",
        recording.manifest(),
        fingerprint="copied",
        version="0",
        run_key=recording.run_key,
    )
    for event in recording.events[2:length]:
        for value in (*event.body.values(), *_values(event.body.get("data"))):
            _copy(journal, recording, value)
        body = {name: value for name, value in event.body.items() if name not in ("at", "run")}
        journal.stage(event.type, event.key, **body)
    await journal.flush()
    await store.release(journal)
    return journal.run_id


def _values(data: Any) -> list[Any]:
    return list(data.values()) if isinstance(data, dict) else []


def _copy(journal: Any, recording: Recording, payload: Any) -> None:
    if not isinstance(payload, str) or not recording.has(payload):
        return
    value = recording.get(payload)
    assert journal.put(value) == payload
    if isinstance(value, dict):
        for name in ("conversation", "tools", "p"):
            _copy(journal, recording, value.get(name))
