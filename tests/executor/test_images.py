"""Pictures in questions: passed through unchanged, recorded, budgeted, replayed."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks.protocol_server import FINAL, protocol_server
from longthought import Budget, Store, Workflow, strategies
from longthought.budgets import PromptEstimator
from longthought.errors import InvalidInput
from longthought.orchestrator import images
from longthought.orchestrator.images import image_part, question_with_images
from longthought.orchestrator.models import OpenAIModel, ScriptedModel
from longthought.types import Message

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
URL = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "größe.dat"
    path.write_bytes(PNG)
    return path


async def test_the_server_receives_what_was_asked(sqlite_store: Store, picture: Path) -> None:
    question = question_with_images("What is on it? 漢字", [picture, picture])
    with protocol_server() as server:
        model = OpenAIModel("toy", base_url=server.address("t0"), api_key="x")
        workflow = Workflow(
            "seen", model=model, system="Look.", strategy=strategies.sample(2), store=sqlite_store
        )
        run = await workflow.run(question, budget=Budget(tokens=40_000))
        received = list(server.received)
        again = await workflow.replay(run.id)
        await workflow.aclose()
        assert len(server.received) == 2
    image = {"type": "image_url", "image_url": {"url": URL}}
    words = {"type": "text", "text": "What is on it? 漢字"}
    for body in received:
        assert body["messages"] == [
            {"role": "system", "content": "Look."},
            {"role": "user", "content": [words, image, image]},
        ]
    assert (run.status, run.text) == ("completed", FINAL)
    assert (again.text, again.model_calls) == (FINAL, 0)
    recording = await sqlite_store.read(run.id)
    assert recording.manifest()["question"] == question
    held = [e.body["reserved"]["tokens"] for e in recording.events if e.type == "effect_started"]
    assert min(held) > 2 * PromptEstimator().part_tokens


async def test_a_picture_without_room_for_it_is_not_sent(
    sqlite_store: Store, picture: Path
) -> None:
    with protocol_server() as server:
        model = OpenAIModel("toy", base_url=server.address("t0"), api_key="x")
        workflow = Workflow("seen", model=model, store=sqlite_store)
        run = await workflow.run(
            question_with_images("What?", [picture]), budget=Budget(tokens=3000)
        )
        await workflow.aclose()
        assert server.counts["calls"] == 0
    assert (run.status, run.stop_reason) == ("incomplete", "tokens")


async def test_a_picture_alone_is_a_question_and_is_stored_once(
    sqlite_store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "noise.png"
    path.write_bytes(PNG + os.urandom(60_000))
    seen: list[Any] = []

    def script(request: Any) -> str:
        seen.append(request["messages"])
        return "a dot"

    workflow = Workflow(
        "seen", model=ScriptedModel(script), strategy=strategies.sample(16), store=sqlite_store
    )
    question: list[Message] = question_with_images(" ", [path])
    [part] = question[0]["content"] or ()
    assert part["type"] == "image_url"  # type: ignore[index]
    run = await workflow.run(question)
    assert run.answer == "a dot"
    assert all(messages == question for messages in seen)
    size = sum(file.stat().st_size for file in tmp_path.glob("longthought.db*"))
    assert size < 3 * len(str(part)) + 400_000  # question and conversation, not one for each sample


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\xff\xd8\xff\xe0rest", "image/jpeg"),
        (b"GIF89a rest", "image/gif"),
        (b"GIF87a rest", "image/gif"),
        (b"RIFF\x01\x00\x00\x00WEBPVP8 ", "image/webp"),
        (PNG, "image/png"),
    ],
)
def test_the_kind_follows_from_what_is_in_the_file(tmp_path: Path, data: bytes, kind: str) -> None:
    path = tmp_path / "picture.txt"
    path.write_bytes(data)
    url = image_part(path)["image_url"]["url"]
    head, _, body = url.partition(",")
    assert head == f"data:{kind};base64"
    assert base64.b64decode(body) == data


def test_what_is_no_picture_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, data in (
        ("text.png", b"no picture"),
        ("empty.png", b""),
        ("wave.png", b"RIFFxxxxWAVE"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InvalidInput, match=r"is no picture that models take\. Use"):
            image_part(tmp_path / name)
    with pytest.raises(InvalidInput, match="cannot be read: No such file"):
        image_part(tmp_path / "nothing.png")
    with pytest.raises(InvalidInput, match="cannot be read: Is a directory"):
        image_part(str(tmp_path))
    for path in ("~nobody-is/a.png", "a\0.png"):
        with pytest.raises(InvalidInput, match="is no path of a file"):
            image_part(path)
    (tmp_path / "large.png").write_bytes(PNG)
    monkeypatch.setattr(images, "MOST_BYTES", len(PNG))
    image_part(tmp_path / "large.png")
    monkeypatch.setattr(images, "MOST_BYTES", len(PNG) - 1)
    with pytest.raises(InvalidInput, match=r"large.png is larger than 0 MiB"):
        image_part(tmp_path / "large.png")
