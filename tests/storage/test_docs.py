"""The documentation of the trace is complete, and what it shows is valid."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from longthought.storage import events
from longthought.storage.checkpoints import _FIELDS
from longthought.storage.messages import CanonicalMessage, check_message

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = ("trace-format.md", "storage.md")
CLASSES = {
    cls.model_fields["type"].annotation.__args__[0]: cls
    for cls in vars(events).values()
    if isinstance(cls, type) and "type" in getattr(cls, "model_fields", {})
}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE
    )


@pytest.mark.parametrize("page", PAGES)
def test_every_snippet_is_valid(page):
    for block in blocks(page, "json"):
        value = json.loads(block)
        if "role" in value or "m" in value:
            check_message(value.get("m", value))
    for block in blocks(page, "python"):
        compile(block, page, "exec")
    assert blocks(page, "json") or blocks(page, "python")


@pytest.mark.parametrize("page", PAGES)
def test_the_programs_run(page, tmp_path, monkeypatch):
    monkeypatch.setenv("LONGTHOUGHT_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("LONGTHOUGHT_DATABASE_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    for block in blocks(page, "python"):
        if "forget(" not in block:  # that one needs a run
            exec(compile(block, page, "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("type_", events.EVENT_TYPES)
def test_every_field_of_every_event_is_documented(type_):
    text = (DOCS / "trace-format.md").read_text()
    section = text.partition(f"\n### {type_}\n")[2].partition("\n##")[0]
    own = CLASSES[type_].model_fields.keys() - {"seq", "key", "at", "type"}
    assert [name for name in own if f"`{name}`" not in section] == []


def test_messages_checkpoints_and_kinds_are_documented():
    text = (DOCS / "trace-format.md").read_text()
    for name in (*CanonicalMessage.model_fields, *_FIELDS, *events.EffectKind.__args__):
        assert f"`{name}`" in text, name
