"""Question sets from files: JSON lines, JSON, CSV and TSV, with a mapping of their fields."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from longthought.errors import InvalidInput
from longthought.orchestrator.curves.questions import Question
from longthought.types import JSON, JSONObject

__all__ = ["Fields", "read_questions"]

_QUESTION = ("question", "problem", "prompt", "input", "query")
_GOLD = ("answer", "target", "solution", "gold", "reference", "expected", "label", "output")
_ID = ("id", "qid", "pid", "uid", "task_id")
_MEANT = {"question": "question", "gold": "expected answer"}
_SHOWN = 12  # names of fields listed in an error


@dataclass(frozen=True, slots=True)
class Fields:
    """Which field of a row is what; None is guessed from the usual names.

    A name may lead into nested objects and lists with dots: ``item.choices.0``.
    """

    question: str | None = None
    gold: str | None = None
    id: str | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True)
class _Row:
    """A row and where it stands, in words."""

    where: str
    number: int
    values: Mapping[str, JSON]


def read_questions(path: str | Path, fields: Fields | None = None) -> tuple[Question, ...]:
    """The questions of a ``.jsonl``, ``.json``, ``.csv`` or ``.tsv`` file, gzipped or not.

    UTF-8, with or without a byte order mark. A ``.json`` file holds a list of objects, or one
    object with a single such list in it. Without an id field, the id of a row is its number.

    Raises:
        InvalidInput: the file is not there, cannot be read or is empty, a field is missing or holds
            no text, or two rows have one id; names the line.
    """
    path, fields = Path(path).expanduser(), fields or Fields()
    rows = list(_rows(path))
    if not rows:
        raise InvalidInput("data", f"{path.name} holds no questions")
    known = _names(rows)
    question = fields.question or _guess(path, "question", _QUESTION, known)
    gold = fields.gold or _guess(path, "gold", _GOLD, known)
    identifier = fields.id or next((known[name] for name in _ID if name in known), None)
    found: dict[str, Question] = {}
    places: dict[str, str] = {}
    for row in rows:
        id_ = str(row.number) if identifier is None else _text(row, identifier, "id")
        if id_ in found:
            raise InvalidInput(
                "data",
                f"{row.where}: the id {id_!r} stands in {places[id_]} already",
                "Name another field with --id",
            )
        group = _text(row, fields.group, "group") if fields.group else ""
        text, expected = _text(row, question, "question"), _text(row, gold, "gold")
        found[id_], places[id_] = Question(id_, text, expected, group), row.where
    return tuple(found.values())


# -- rows ---------------------------------------------------------------------------------------


def _rows(path: Path) -> Iterator[_Row]:
    names = path.name.lower().removesuffix(".gz")
    text = _content(path)
    match names.rpartition(".")[2]:
        case "jsonl" | "ndjson":
            return _json_lines(path, text)
        case "json":
            return _json_list(path, text)
        case "csv":
            return _table(path, text, _separator(text))
        case "tsv":
            return _table(path, text, "\t")
    raise InvalidInput("data", f"{path.name} is of no known kind", "Use .jsonl, .json, .csv, .tsv")


def _content(path: Path) -> str:
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except FileNotFoundError:
        raise InvalidInput("data", f"there is no file {str(path)!r}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidInput("data", f"{path.name} cannot be read: {error}") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise InvalidInput("data", f"{path.name}, line {line} is not UTF-8") from error


def _json_lines(path: Path, text: str) -> Iterator[_Row]:
    # not splitlines: a JSON text may hold other line ends, such as U+2028, within a string
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            value = _parsed(path, line, f"line {number}")
            where = f"{path.name}, line {number}"
            yield _Row(where, number, _object(value, where))


def _json_list(path: Path, text: str) -> Iterator[_Row]:
    value = _parsed(path, text, "")
    if isinstance(value, dict):
        lists = [inner for inner in value.values() if isinstance(inner, list)]
        value = lists[0] if len(lists) == 1 else value
    if not isinstance(value, list):
        raise InvalidInput("data", f"{path.name} holds no list of questions")
    for number, item in enumerate(value, 1):
        where = f"{path.name}, item {number}"
        yield _Row(where, number, _object(item, where))


def _parsed(path: Path, text: str, where: str) -> JSON:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = where or f"line {error.lineno}"
        problem = f"{error.msg} at column {error.colno}"
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, deep nesting
        problem = str(error)
    raise InvalidInput("data", f"{path.name}, {where or 'line 1'} is no JSON: {problem}")


def _object(value: JSON, where: str) -> JSONObject:
    if not isinstance(value, dict):
        raise InvalidInput("data", f"{where} is no object with fields")
    return value


def _separator(text: str) -> str:
    """A comma, or the semicolon that spreadsheets write where a comma stands in decimals."""
    header = text.lstrip().partition("\n")[0]
    return ";" if ";" in header and "," not in header else ","


def _table(path: Path, text: str, separator: str) -> Iterator[_Row]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    header: list[str] | None = None
    rows: list[_Row] = []
    before = csv.field_size_limit(sys.maxsize)  # a cell may hold a whole document
    try:
        for cells in reader:
            where = f"{path.name}, line {reader.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = _header([name.strip() for name in cells], where)
                continue
            if len(cells) != len(header):
                counts = f"{len(cells)} fields, the header has {len(header)}"
                raise InvalidInput("data", f"{where} has {counts}")
            rows.append(_Row(where, len(rows) + 1, dict(zip(header, cells, strict=True))))
    except csv.Error as error:
        raise InvalidInput("data", f"{path.name}, line {reader.line_num}: {error}") from error
    finally:
        csv.field_size_limit(before)
    yield from rows


def _header(names: list[str], where: str) -> list[str]:
    twice = [name for number, name in enumerate(names) if name and name in names[:number]]
    if twice:
        raise InvalidInput("data", f"{where}: two columns are named {twice[0]!r}", "Rename one")
    return names


# -- fields -------------------------------------------------------------------------------------


def _names(rows: list[_Row]) -> dict[str, str]:
    """The fields of all rows: in lower case, and as they are written."""
    return {name.lower(): name for row in reversed(rows) for name in row.values}


def _guess(path: Path, what: str, usual: tuple[str, ...], known: Mapping[str, str]) -> str:
    for name in usual:
        if name in known:
            return known[name]
    raise InvalidInput(
        "data",
        f"{path.name} has no field usual for the {_MEANT[what]}; it has {_listed(known.values())}",
        f"Name it with --{what} FIELD",
    )


def _listed(names: Iterable[str]) -> str:
    shown = list(names)
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return (", ".join(shown[:_SHOWN]) + more) or "no fields"


def _text(row: _Row, field: str, what: str) -> str:
    """The text of a field; a number becomes its text, a list or an object is refused."""
    value: JSON = _value(row, field, what)
    if isinstance(value, str):
        text = value
    elif isinstance(value, bool | int | float):
        text = json.dumps(value)
    elif value is None:
        text = ""
    else:
        kind, inner = ("a list", "0") if isinstance(value, list) else ("an object", "NAME")
        raise InvalidInput(
            "data",
            f"{row.where}: the field {field!r} is {kind}",
            f"Name what is meant in it: --{what} {field}.{inner}",
        )
    if not text.strip():
        raise InvalidInput("data", f"{row.where}: the field {field!r} is empty")
    return text.strip()


def _value(row: _Row, field: str, what: str) -> JSON:
    if field in row.values:  # a name may hold dots of its own
        return row.values[field]
    value: JSON = row.values
    for part in field.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise InvalidInput(
                "data",
                f"{row.where} has no field {field!r}; it has {_listed(row.values)}",
                f"Name one with --{what} FIELD",
            )
    return value
