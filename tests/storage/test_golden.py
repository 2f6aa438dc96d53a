"""Golden traces: what was once written in a format stays readable and verifiable to the byte.

A golden file is never changed. When the format grows, a new one is added: delete nothing, write a
new recipe, and run this test once with ``LONGTHOUGHT_WRITE_GOLDEN=1``.
"""

from __future__ import annotations

import copy
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from longthought.errors import TraceError
from longthought.storage import Store, canonical, export_run, parse_event, verify_export
from longthought.storage.digests import salt_of
from longthought.storage.events import EVENT_TYPES

GOLDEN = Path(__file__).with_name("golden")
RUN_KEY = b"golden-run-key-1"
FILES = sorted(GOLDEN.glob("*.json"))


def recorded_clock() -> Callable[[], float]:
    """The moments of the golden files for what is written into events; it stands still for leases.

    A heartbeat, in whatever thread, must not move what an event says.
    """
    moments = iter([2, 3, 5, 7, *range(9, 18), 19])

    def now() -> float:
        asking = sys._getframe(1).f_globals["__name__"]
        stamps = asking in ("longthought.storage.journal", "longthought.storage.deletion")
        return 1_800_000_000.25 + (next(moments) if stamps else 0)

    return now


async def record(directory: Path, kit, sealed: bool) -> dict:
    """The recipe of the files of format 1."""
    async with Store(directory=directory) as store:
        store.owner = "host:1:1"
        parent = {"run": "run-0", "event": 3}
        journal = await kit.begin(store, "run-golden", run_key=RUN_KEY, parent=parent)
        question = journal.extend("", {"role": "user", "content": "Größe \ud83d \x00 漢字"})
        request = journal.put({"model": "m", "conversation": question, "sampling": {}})
        await journal.append("effect_started", "lost", kind="model", request=request)
        await store.release(journal)
        journal = await store.claim("run-golden", fingerprint="other")
        await store.release(await kit.fill(journal))
        if sealed:
            reply = journal.events[-6].body["result"]
            await store.delete_payloads("run-golden", [question, reply], "asked for")
        return await export_run(store, "run-golden")


@pytest.mark.parametrize("name", ["format-1-complete", "format-1-sealed"])
async def test_the_same_run_is_written_to_the_same_bytes(name, kit, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "time", recorded_clock())
    made = await record(tmp_path, kit, sealed=name.endswith("sealed"))
    text = json.dumps(made, indent=1, sort_keys=True) + "\n"
    if os.environ.get("LONGTHOUGHT_WRITE_GOLDEN"):
        (GOLDEN / f"{name}.json").write_text(text)
    assert (GOLDEN / f"{name}.json").read_text() == text


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_golden_trace_is_read_and_verified(file):
    document = json.loads(file.read_text())
    for event in document["events"]:
        parsed = parse_event(event["seq"], event["type"], event["key"], event["body"])
        assert parsed.type == event["type"]
    assert verify_export(document) == []
    for payload in document["payloads"]:
        body = canonical(payload["value"]).encode()
        assert salt_of(RUN_KEY, body).hex() == payload["salt"]


def test_the_golden_traces_hold_every_type_of_event():
    documents = [json.loads(file.read_text()) for file in FILES]
    types = {event["type"] for document in documents for event in document["events"]}
    assert types == set(EVENT_TYPES)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_changed_export_is_found_out(file):
    document = json.loads(file.read_text())
    for index, event in enumerate(document["events"]):
        changed = copy.deepcopy(document)
        changed["events"][index]["body"]["at"] += 1
        assert [f.seq for f in verify_export(changed) if "changed" in f.problem] == [event["seq"]]
        del changed["events"][index]
        assert verify_export(changed)
    for index, payload in enumerate(document["payloads"]):
        changed = copy.deepcopy(document)
        changed["payloads"][index]["value"] = "other"
        assert any(payload["id"] in f.problem for f in verify_export(changed))


def test_what_is_no_export_is_refused():
    for nonsense in ({}, {"format": 2}, {"format": 1, "run": {"id": "x"}, "events": [{}]}):
        with pytest.raises(TraceError):
            verify_export(nonsense)
