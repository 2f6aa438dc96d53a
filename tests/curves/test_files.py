"""Questions from files: every kind of file, which field is what, and mistakes that are named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from longthought.errors import InvalidInput
from longthought.orchestrator.curves import Fields, Question, read_questions

ROWS = [{"question": "Wie groß ist 1+1?", "answer": 2}, {"question": "2+2?\u2028", "answer": "4"}]
EXPECTED = (Question("1", "Wie groß ist 1+1?", "2"), Question("2", "2+2?", "4"))


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n\n"),
        ("a.ndjson", "\r\n".join(json.dumps(row) for row in ROWS)),
        ("a.JSON", json.dumps(ROWS, indent=1)),
        ("a.json", json.dumps({"about": "x", "rows": ROWS})),
        ("a.csv", "question,answer\r\nWie groß ist 1+1?,2\r\n\r\n2+2?,4\r\n"),
        ("a.tsv", "Question\tAnswer\nWie groß ist 1+1?\t2\n2+2?\t4"),
    ],
)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_every_kind_of_file(tmp_path: Path, name: str, text: str, mark: str) -> None:
    assert read_questions(write(tmp_path / name, mark + text)) == EXPECTED


def test_gzipped(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, ROWS)).encode()))
    assert read_questions(path) == EXPECTED


@pytest.mark.parametrize("question", ["question", "Problem", "prompt", "input"])
@pytest.mark.parametrize("gold", ["answer", "target", "SOLUTION", "gold"])
def test_usual_names_are_guessed(tmp_path: Path, question: str, gold: str) -> None:
    path = write(tmp_path / "a.jsonl", json.dumps({"n": 1, question: "1+1?", gold: "2"}))
    assert read_questions(path) == (Question("1", "1+1?", "2"),)


def test_fields_may_be_named_and_nested(tmp_path: Path) -> None:
    row = {
        "doc": {"text": "1+1?", "choices": ["2", "3"]},
        "a.b": "two",
        "key": 7,
        "kind": "sums",
        "question": "not this one",
    }
    path = write(tmp_path / "a.jsonl", json.dumps(row))
    fields = Fields("doc.text", "doc.choices.0", "key", "kind")
    assert read_questions(path, fields) == (Question("7", "1+1?", "2", "sums"),)
    assert read_questions(path, Fields("doc.text", "a.b"))[0].gold == "two"


def test_a_huge_line_is_no_problem(tmp_path: Path) -> None:
    long = "x" * 3_000_000
    for path in (
        write(tmp_path / "a.csv", f'question,answer\n"{long}\n{long}",1\n'),
        write(tmp_path / "a.jsonl", json.dumps({"question": f"{long}\n{long}", "answer": 1})),
    ):
        assert read_questions(path)[0].text == f"{long}\n{long}"


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.jsonl", "", "a.jsonl holds no questions"),
        ("a.csv", "question,answer\n", "a.csv holds no questions"),
        ("a.json", "[]", "holds no questions"),
        ("a.json", "{}", "holds no list"),
        ("a.json", "[\n{\n]", "a.json, line 3 is no JSON"),
        ("a.jsonl", '{"question": "q", "answer": 1}\n{"question": ', "a.jsonl, line 2 is no JSON"),
        ("a.jsonl", "[1]", "a.jsonl, line 1 is no object"),
        ("a.jsonl", "[" * 200_000, "line 1 is no JSON"),
        ("a.jsonl", '{"question": "q", "answer": ' + "1" * 5000 + "}", "line 1 is no JSON"),
        ("a.jsonl", '{"stem": "q", "answer": 1}', r"usual for the question; it has stem, answer"),
        ("a.jsonl", '{"question": "q", "right": 1}', r"usual for the expected answer.*--gold"),
        (
            "a.jsonl",
            '{"question": "q", "answer": 1}\n\n{"question": "r", "reply": 1}',
            r"line 3 has no field 'answer'; it has question, reply",
        ),
        ("a.jsonl", '{"question": " ", "answer": 1}', "line 1: the field 'question' is empty"),
        ("a.jsonl", '{"question": "q", "answer": null}', "the field 'answer' is empty"),
        ("a.jsonl", '{"question": "q", "answer": [1]}', r"is a list.*--gold answer\.0"),
        ("a.jsonl", '{"question": "q", "answer": {}}', r"is an object.*--gold answer\.NAME"),
        (
            "a.jsonl",
            '{"id": 1, "question": "q", "answer": 1}\n{"id": 1, "question": "r", "answer": 1}',
            r"line 2: the id '1' stands in a.jsonl, line 1 already",
        ),
        ("a.csv", "question,answer,question\nq,1,r\n", "line 1: two columns .*'question'"),
        ("a.csv", "question,answer\nq\n", "line 2 has 1 fields, the header has 2"),
        ("a.csv", 'question,answer\n"q,1\n', r"a.csv, line \d"),
        ("a.txt", "q", "of no known kind"),
    ],
)
def test_mistakes_name_the_line_and_what_is_there(
    tmp_path: Path, name: str, text: str, problem: str
) -> None:
    with pytest.raises(InvalidInput, match=problem):
        read_questions(write(tmp_path / name, text))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="there is no file"):
        read_questions(tmp_path / "missing.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_questions(tmp_path / "folder.jsonl")
    (tmp_path / "b.jsonl").write_bytes(b'{"question": "q", "answer": 1}\n\xff\xfe')
    with pytest.raises(InvalidInput, match=r"b\.jsonl, line 2 is not UTF-8"):
        read_questions(tmp_path / "b.jsonl")
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(b"{}" * 99)[:-9])
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_questions(tmp_path / "c.jsonl.gz")


def test_a_table_of_a_spreadsheet_that_separates_by_semicolons(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text('question;answer\n"one, two; or three?";3\n', encoding="utf-8-sig")
    (question,) = read_questions(file)
    assert (question.text, question.gold) == ("one, two; or three?", "3")
