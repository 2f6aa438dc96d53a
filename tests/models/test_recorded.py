"""The recorded model, on rows made here and on the published samples where they are."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from longthought.errors import BackendError, InvalidInput, QuestionRefused
from longthought.orchestrator.models import RecordedModel

ROWS = [
    {
        "problem": "What is 1+1?",
        "reference": "2",
        "model": "gpt-x",
        "samples": [{"text": f"It is {n}.", "source": "ab"[n % 2]} for n in range(6)],
    },
    {"problem": "def f():", "unique_solutions": ["    x", "    y"], "samples": [0, 1, 0]},
    {"pid": 3, "samples": [{"text": "no problem"}]},
    {"problem": "without samples"},
]


def ask(text, seed=None):
    request = {"model": "recorded", "messages": [{"role": "user", "content": text}]}
    return request if seed is None else {**request, "sampling": {"seed": seed}}


async def texts(model, granted, question, count):
    replies = [await model.generate(ask(question, seed), granted(9999)) for seed in range(count)]
    return [reply["message"]["content"] for reply in replies]


@pytest.fixture(params=["rows.jsonl", "rows.jsonl.gz"])
def path(request, tmp_path):
    file = tmp_path / request.param
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n\n"
    file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())
    return file


async def test_the_seed_counts_through_the_recorded_order(path, granted):
    model = RecordedModel(path)
    assert model.name == "rows"
    assert await texts(model, granted, "What is 1+1?", 6) == [f"It is {n}." for n in range(6)]
    assert await texts(model, granted, "def f():", 3) == ["    x", "    y", "    x"]
    assert await texts(model, granted, "3", 1) == ["no problem"]
    assert model.question("What is 1+1?").reference == "2"
    assert len(model.questions) == 3
    reply = await model.generate(ask("What is 1+1?"), granted(2))
    assert reply["message"]["content"] == "It is"
    assert reply["usage"] == {
        "prompt_tokens": model.count_prompt(ask("What is 1+1?")),
        "completion_tokens": 2,
        "calls": 1,
        "estimated": True,
    }
    assert (reply["model"], reply["finish_reason"]) == ("gpt-x", "length")
    assert model.calls == 11


async def test_seeded_order_is_a_permutation_of_its_own(path, granted):
    first, again, other = (RecordedModel(path, order="seeded", seed=n) for n in (1, 1, 2))
    drawn = await texts(first, granted, "What is 1+1?", 6)
    assert sorted(drawn) == [f"It is {n}." for n in range(6)] != drawn
    assert drawn == await texts(again, granted, "What is 1+1?", 6)
    assert drawn != await texts(other, granted, "What is 1+1?", 6)
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()


async def test_running_out_is_an_error_unless_it_wraps(path, granted):
    with pytest.raises(
        BackendError, match="sample 4 of 'def f\\(\\):' was asked for and 3"
    ) as info:
        await texts(RecordedModel(path), granted, "def f():", 4)
    assert not info.value.retryable
    wrapped = await texts(RecordedModel(path, wrap=True), granted, "def f():", 5)
    assert wrapped[3:] == wrapped[:2]


async def test_a_question_may_stand_in_a_longer_prompt(path, granted):
    model = RecordedModel(path)
    for _ in range(2):
        drawn = await texts(model, granted, "Solve this.\nWhat is 1+1?\nThink.", 1)
        assert drawn == ["It is 0."]
    for unknown in ("What is 2+2?", "a text with 3 in it"):
        with pytest.raises(QuestionRefused, match="It knows 3 questions"):
            await model.generate(ask(unknown), granted(9))


async def test_the_samples_of_one_source(path, granted):
    model = RecordedModel(path, source="b")
    assert await texts(model, granted, "What is 1+1?", 3) == ["It is 1.", "It is 3.", "It is 5."]


def test_rows_may_be_given_and_bad_ones_are_refused(tmp_path):
    assert repr(RecordedModel(ROWS)) == "RecordedModel('recorded', 3 questions)"
    bad = tmp_path / "bad.jsonl"
    for text, problem in [
        ('{"problem": "q"}\n{', "bad.jsonl, line 2"),
        ("[]", "a row has to be a JSON object"),
        ("", "there are none"),
        ('{"problem": "q", "samples": [{"texts": ""}]}', "has no text"),
    ]:
        bad.write_text(text)
        with pytest.raises(InvalidInput, match=problem):
            RecordedModel(bad)
    bad.write_bytes(gzip.compress(b"{}")[:-4])
    with pytest.raises(InvalidInput, match="cannot be read"):
        RecordedModel(bad)
    with pytest.raises(InvalidInput, match="no file"):
        RecordedModel(tmp_path / "missing.jsonl")
    with pytest.raises(InvalidInput, match="order"):
        RecordedModel(ROWS, order="random")


def shared_data() -> Path:
    """The folder of published samples: where the variable says, which then has to exist."""
    named = os.environ.get("LONGTHOUGHT_SHARED_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "data"
    if not folder.is_dir():
        if named:
            pytest.fail(f"LONGTHOUGHT_SHARED_DATA names {named}, which is no folder")
        pytest.skip("no published samples beside the checkout (LONGTHOUGHT_SHARED_DATA)")
    return folder


@pytest.mark.parametrize(
    ("file", "questions", "samples"),
    [
        ("tot_game24_io_gpt4_100x100", 100, 100),
        ("tot_game24_cot_gpt4_100x100", 100, 100),
        ("tot_crosswords_io_20x10", 20, 10),
        ("qwen_math_rm_100x8", 100, 8),
        ("gsm8k_openai_verifier_1319x4", 1319, 4),
        ("codet_humaneval_codegen16b", 82, 100),
        ("routellm_gsm8k_mixtral_gpt4", 1319, 2),
        ("tora_gsm8k_tora-code-34b-v1.0", 1319, 1),
        ("pot_svamp_greedy_codex", 999, 1),
    ],
)
async def test_published_samples_are_given_back_as_recorded(file, questions, samples, granted):
    path = shared_data() / f"{file}.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    model = RecordedModel(path)
    # Some sets ask one question twice; its samples add up.
    assert questions * 0.98 <= len(model.questions) <= questions
    assert sum(len(question.samples) for question in model.questions) == questions * samples
    for row in rows[:: max(1, len(rows) // 5)]:
        problem = str(row.get("problem") or row["pid"])
        unique = row.get("unique_solutions", ())
        recorded = [unique[s] if isinstance(s, int) else s["text"] for s in row["samples"]]
        drawn = await texts(model, granted, problem, len(model.question(problem).samples))
        assert set(recorded) <= set(drawn)
        if len(drawn) == len(recorded):
            assert drawn == recorded
            seeded = RecordedModel([row], order="seeded", seed=5)
            assert sorted(await texts(seeded, granted, problem, len(drawn))) == sorted(recorded)
