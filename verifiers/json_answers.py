"""The answer kind ``json``: an answer of a given form, found in prose and compared by its value."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel

from longthought.errors import InvalidInput
from longthought.types import JSON, JSONObject
from longthought.verifiers.shapes import (
    canonical_json,
    parse_json,
    plain_number,
    shape_of,
)

__all__ = ["JSONKind"]

_FENCED = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)^[ \t]*```", re.MULTILINE | re.DOTALL)
_OPENING = re.compile(r'\{\s*["}]|\[\s*(?:[\[{"\]\-\d]|true|false|null|NaN|Infinity)')
_LIKE_JSON = {"object": re.compile(r'\{\s*["}]'), "array": re.compile(r"\[\s*[\[{\"]")}
_MOST_BROKEN = 10_000  # beginnings of values: each failure costs the decoder a look at the text
_DECODER = json.JSONDecoder(parse_float=plain_number)


@dataclass(frozen=True, slots=True)
class _Found:
    """A value that stands in a text; or, with ``broken``, what was to be one."""

    value: JSON = None
    broken: str = ""

    def type(self) -> str:
        """The JSON type of the value."""
        return json_type(self.value)


class JSONKind:
    """JSON of the form that a pydantic model or a JSON schema describes.

    ``form`` is what was given, ``schema`` the form as a JSON schema.

    Raises:
        InvalidInput: the form is neither, or cannot be used.
    """

    name = "json"

    def __init__(self, form: type[BaseModel] | JSONObject) -> None:
        self.form = form
        self._shape = shape_of(form)
        self._types = root_types(self.schema)

    def __repr__(self) -> str:
        shown = self.form.__name__ if isinstance(self.form, type) else self.schema
        return f"json({shown})"

    @property
    def schema(self) -> JSONObject:
        """The form as a JSON schema."""
        return self._shape.schema

    def spec(self) -> JSONObject:
        """Kind and form."""
        return {"kind": self.name, **self._shape.spec()}

    def find(self, text: str) -> str | None:
        """The answer as canonical JSON text, None without one that is valid."""
        try:
            return self._read(text)
        except InvalidInput:
            return None

    def problem(self, text: str) -> str:
        """Why a text holds no valid answer, written for a model; empty if it holds one."""
        try:
            self._read(text)
        except InvalidInput as error:
            return error.problem
        return ""

    def made(self, canonical: str) -> object:
        """What a canonical text stands for: an instance of the model, or the parsed JSON.

        Raises:
            InvalidInput: the text is no valid answer.
        """
        return self._shape.made(canonical)

    def equal(self, a: str, b: str) -> bool:
        """The same value."""
        if a == b:
            return True
        try:
            return canonical_json(parse_json(a)) == canonical_json(parse_json(b))
        except ValueError:
            return False

    def _read(self, text: str) -> str:
        found = self._last(text)
        if found is None:
            raise InvalidInput("answer", "there is no JSON in it")
        if found.broken:
            raise InvalidInput("answer", f"the JSON cannot be read: {found.broken}")
        return self._shape.check(found.value)

    def _last(self, text: str) -> _Found | None:
        """What decides: the whole text, else the last fenced block, else the last value in it.

        What is of another type than asked for is passed over: a footnote ``[1]`` is no object.
        """
        try:
            return _Found(parse_json(text.strip()))
        except ValueError:
            pass
        fenced = [_whole(block) for block in _FENCED.findall(text)]
        for found in reversed([found for found in fenced if found is not None]):
            if self._fits(found):
                return found
        fitting = [found for found in _values(text) if self._fits(found)]
        return fitting[-1] if fitting else None

    def _fits(self, found: _Found) -> bool:
        if found.broken:
            return self._types is None or found.value in self._types
        kinds = {found.type()} | ({"integer"} if found.type() == "number" else set())
        return self._types is None or bool(kinds & self._types)


def json_type(value: JSON) -> str:
    """The name JSON schema has for the type of a value; ``number`` for every number."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def root_types(schema: JSONObject) -> frozenset[str] | None:
    """The types that a valid value may have, None where the schema does not say."""
    return _types(schema, schema, 0)


def _types(schema: JSON, root: JSONObject, depth: int) -> frozenset[str] | None:
    if not isinstance(schema, dict) or depth > 16:
        return None
    if "type" in schema:
        kinds = schema["type"]
        return frozenset([kinds] if isinstance(kinds, str) else kinds)
    if "const" in schema or "enum" in schema:
        values = schema.get("enum", [schema.get("const")])
        return frozenset(map(json_type, values))
    for name in ("anyOf", "oneOf"):
        if name in schema:
            parts = [_types(part, root, depth + 1) for part in schema[name]]
            known = [part for part in parts if part is not None]
            return frozenset().union(*known) if len(known) == len(parts) else None
    reference = schema.get("$ref", "")
    if reference.startswith("#/$defs/"):
        name = reference.removeprefix("#/$defs/").replace("~1", "/").replace("~0", "~")
        return _types(root.get("$defs", {}).get(name), root, depth + 1)
    return None


def _whole(block: str) -> _Found | None:
    """A fenced block that is one JSON value."""
    try:
        return _Found(parse_json(block.strip()))
    except ValueError:
        return None


def _values(text: str) -> Iterator[_Found]:
    """The objects and arrays in a text, outermost ones alone, in their order.

    What begins like JSON and cannot be read is told as broken, and nothing inside it counts.
    """
    at = broken = 0
    while broken < _MOST_BROKEN and (opening := _OPENING.search(text, at)) is not None:
        start = opening.start()
        try:
            value, at = _DECODER.raw_decode(text, start)
        except json.JSONDecodeError as error:
            broken += 1
            unclosed = error.msg.startswith("Unterminated") or error.pos >= len(text)
            at = len(text) if unclosed else max(start + 1, error.pos)
            yield from _broken(text, start, "it is not complete" if unclosed else _said(error))
        except (ValueError, RecursionError):  # a number too long to read, or nested too deeply
            yield _Found("object" if text[start] == "{" else "array", "it is too long or too deep")
            return
        else:
            yield _Found(value)


def _broken(text: str, start: int, problem: str) -> Iterator[_Found]:
    kind = "object" if text[start] == "{" else "array"
    if _LIKE_JSON[kind].match(text, start):
        yield _Found(kind, problem)


def _said(error: json.JSONDecodeError) -> str:
    return f"{error.msg} at {error.doc[error.pos : error.pos + 20]!r}"
