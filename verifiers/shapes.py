"""The form of a typed answer: a pydantic model or a JSON schema, and whether a value has it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from itertools import islice
from typing import Any, Final, Protocol

from pydantic import BaseModel, PydanticUserError, RootModel, ValidationError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, JsonSchemaWarningKind
from pydantic_core import core_schema

from longthought.errors import InvalidInput
from longthought.tools.source import qualified_name, source_version
from longthought.types import JSON, JSONObject

__all__ = ["ModelShape", "SchemaShape", "Shape", "canonical_json", "parse_json", "shape_of"]

_MISTAKES = 8  # that are told at once
_SHOWN = 240  # characters of one mistake
_EXACT = 2**53  # above it not every whole number is a float
_FACTORIES: Final[dict[object, JSON]] = {
    list: [],
    set: [],
    frozenset: [],
    tuple: [],
    dict: {},
    str: "",
    int: 0,
    float: 0,
    bool: False,
}
"""Default factories that make the same each time, and what they make."""


class Shape(Protocol):
    """What a value has to look like."""

    schema: JSONObject
    """The form as a JSON schema."""

    def spec(self) -> JSONObject:
        """What identifies the form in a trace."""
        ...

    def check(self, value: JSON) -> str:
        """The canonical JSON text of a value that has the form.

        Raises:
            InvalidInput: it has not; ``problem`` holds one line per mistake, written for a model.
        """
        ...

    def made(self, canonical: str) -> object:
        """What a canonical text stands for: an instance of the model, or the parsed JSON.

        Raises:
            InvalidInput: it has not the form.
        """
        ...


def shape_of(form: type[BaseModel] | JSONObject) -> Shape:
    """The shape that a pydantic model or a JSON schema describes.

    Raises:
        InvalidInput: it is neither, or cannot be used as one.
    """
    if isinstance(form, dict):
        return SchemaShape(form)
    if inspect.isclass(form) and issubclass(form, BaseModel):
        return ModelShape(form)
    problem = f"{_short(form)} is no schema"
    raise InvalidInput("output", problem, "Give a pydantic model or a JSON schema as a dict")


def parse_json(text: str) -> JSON:
    """A JSON text as a value; a number that is whole is an ``int``, however it is written.

    Raises:
        ValueError: it is no JSON, or nested too deeply.
    """
    try:
        return json.loads(text, parse_float=plain_number)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def plain_number(text: str) -> int | float:
    """A number with a fraction or an exponent; ``1.0`` and ``1e2`` are whole."""
    value = float(text)
    return int(value) if abs(value) <= _EXACT and value.is_integer() else value


def canonical_json(value: JSON) -> str:
    """A value as the one text that all equal values have: keys sorted, no spaces, plain numbers.

    Raises:
        ValueError: NaN, an infinity, or nested too deeply.
    """
    try:
        plain = json.dumps(value, ensure_ascii=False, allow_nan=False)
        value = json.loads(plain, parse_float=plain_number)
        text = _dumped(value, ensure_ascii=False)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError:
        raise ValueError("NaN and infinities are no JSON numbers") from None
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair: UTF-8 cannot carry it
        return _dumped(value, ensure_ascii=True)
    return text


class SchemaShape:
    """The form that a JSON schema describes; what it says of ``format`` is not checked.

    The draft is that of ``$schema``, 2020-12 unless given. References lead into the schema itself:
    nothing is ever fetched.

    Raises:
        InvalidInput: it is no JSON schema, or a reference leads nowhere.
    """

    def __init__(self, schema: JSONObject) -> None:
        from jsonschema import Draft202012Validator, SchemaError
        from jsonschema.validators import validator_for
        from referencing import Registry

        if not schema:
            raise InvalidInput("output", "an empty schema says nothing", 'Use {"type": "object"}')
        try:
            self.schema: JSONObject = json.loads(json.dumps(schema, allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidInput("output", f"the schema is no JSON: {error}") from error
        kind = validator_for(self.schema, default=Draft202012Validator)
        try:
            kind.check_schema(self.schema)
        except SchemaError as error:
            where = "/".join(map(str, error.absolute_path)) or "the schema"
            raise InvalidInput("output", f"no JSON schema: {where}: {error.message}") from None
        for reference in _references(self.schema):
            if _target(self.schema, reference) is None:
                fix = "Put what it names under $defs: nothing is fetched"
                raise InvalidInput("output", f"$ref {reference!r} leads nowhere", fix)
        self._validator = kind(self.schema, registry=Registry())

    def spec(self) -> JSONObject:
        """The schema."""
        return {"schema": self.schema}

    def check(self, value: JSON) -> str:
        """The canonical text of a value that is valid."""
        from jsonschema.exceptions import best_match

        try:
            errors = list(islice(self._validator.iter_errors(value), _MISTAKES))
            if not errors:
                return canonical_json(value)
        except RecursionError:
            raise InvalidInput("answer", "nested too deeply") from None
        except ValueError as error:
            raise InvalidInput("answer", str(error)) from None
        deepest = [best_match([error]) or error for error in errors]
        raise InvalidInput("answer", _told((e.absolute_path, e.message) for e in deepest))

    def made(self, canonical: str) -> JSON:
        """The parsed JSON."""
        value = parse_json(canonical)
        self.check(value)
        return value


class ModelShape:
    """The form that a pydantic model describes.

    The canonical text holds defaults too, so that an answer that leaves a field out is equal to one
    that gives its default. A field that a factory fills in anew each time is left out of it.

    Raises:
        InvalidInput: the model has no JSON schema.
    """

    def __init__(self, model: type[BaseModel]) -> None:
        self.model = model
        try:
            self.schema: JSONObject = model.model_json_schema(schema_generator=_WithFactories)
        except PydanticUserError as error:
            first = str(error).partition("\n")[0]
            raise InvalidInput("output", f"{model.__name__} has no JSON schema: {first}") from error

    def spec(self) -> JSONObject:
        """Name, schema, and a hash of the source: validators are part of the form."""
        return {
            "model": qualified_name(self.model),
            "schema": self.schema,
            "version": source_version(self.model),
        }

    def check(self, value: JSON) -> str:
        """The canonical text of the instance that a value makes."""
        try:
            given = canonical_json(value)
        except ValueError as error:
            raise InvalidInput("answer", str(error)) from None
        text = self._text_of(self.made(given))
        return given if text is None else text

    def made(self, canonical: str) -> BaseModel:
        """An instance of the model."""
        try:
            return self.model.model_validate_json(canonical)
        except ValidationError as error:
            raise InvalidInput("answer", _told(map(_mistake, error.errors()))) from None
        except Exception as error:  # a validator of the user's own
            raise InvalidInput("answer", f"{type(error).__name__}: {error}"[:_SHOWN]) from error

    def _text_of(self, instance: BaseModel) -> str | None:
        """The instance as canonical JSON, None if that would not make the same instance again."""
        try:
            text = canonical_json(plain_instance(instance))
            same = self.model.model_validate_json(text) == instance
        except Exception:  # a serializer of the user's own, an alias that cannot be read back
            return None
        return text if same else None


class _WithFactories(GenerateJsonSchema):
    """Tells the defaults that factories make, where they are always the same."""

    ignored_warning_kinds: set[JsonSchemaWarningKind] = {  # noqa: RUF012 (as its base has it)
        "skipped-choice",
        "non-serializable-default",  # the field is told without one
    }

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        told = super().default_schema(schema)
        factory = schema.get("default_factory")
        return {**told, "default": _FACTORIES[factory]} if factory in _FACTORIES else told


def plain_instance(instance: BaseModel) -> JSON:
    """An instance as JSON; sets are in order, and what a factory made up is left out."""
    dumped = instance.model_dump(
        mode="json", by_alias=True, exclude_computed_fields=True, warnings=False
    )
    return _plain(instance, dumped)


def _plain(made: Any, dumped: JSON) -> JSON:
    if isinstance(made, RootModel):
        return _plain(made.root, dumped)
    if isinstance(made, BaseModel) and isinstance(dumped, dict):
        return _plain_fields(made, dumped)
    if isinstance(made, Mapping) and isinstance(dumped, dict) and len(made) == len(dumped):
        pairs = zip(made.values(), dumped.items(), strict=True)
        return {key: _plain(inner, value) for inner, (key, value) in pairs}
    if isinstance(made, list | tuple | set | frozenset) and isinstance(dumped, list):
        items = [_plain(inner, value) for inner, value in zip(made, dumped, strict=True)]
        return items if isinstance(made, list | tuple) else sorted(items, key=canonical_json)
    if isinstance(made, Decimal) and isinstance(dumped, str) and made.is_finite():
        made = made.normalize()
        small = abs(made.adjusted()) <= 40 and len(made.as_tuple().digits) <= 40
        return f"{made:f}" if small else str(made)
    return dumped


def _plain_fields(made: BaseModel, dumped: JSONObject) -> JSONObject:
    plain = dict(dumped)
    for name, field in type(made).model_fields.items():
        key = field.serialization_alias or field.alias or name
        if key not in plain:
            continue
        factory = field.default_factory
        if name not in made.model_fields_set and factory is not None and factory not in _FACTORIES:
            del plain[key]
        else:
            plain[key] = _plain(getattr(made, name), plain[key])
    return plain


def _dumped(value: JSON, *, ensure_ascii: bool) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, sort_keys=True, separators=(",", ":"))


def _mistake(error: Mapping[str, Any]) -> tuple[Iterable[object], str]:
    """Where a pydantic error is, and what it says."""
    if error["type"] == "missing":
        return error["loc"], "is missing"
    if error["type"] == "extra_forbidden":
        return error["loc"], "there is no such field"
    return error["loc"], f"{error['msg']} (got {_short(error.get('input'))})"


def _told(mistakes: Iterable[tuple[Iterable[object], str]]) -> str:
    """Mistakes for a model to read: where and what, one after the other."""
    lines = []
    for path, message in islice(mistakes, _MISTAKES):
        where = ".".join(str(part) for part in path)
        line = f"{where}: {message}" if where else message
        lines.append(line if len(line) <= _SHOWN else f"{line[: _SHOWN - 3]}...")
    return "; ".join(lines)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _references(schema: JSON) -> Iterator[str]:
    """Every ``$ref`` of a schema that has no base address of its own."""
    if isinstance(schema, list):
        for item in schema:
            yield from _references(item)
    elif isinstance(schema, dict) and not isinstance(schema.get("$id"), str):
        reference = schema.get("$ref")
        if isinstance(reference, str):
            yield reference
        for value in schema.values():
            yield from _references(value)


def _target(schema: JSONObject, reference: str) -> JSON:
    """The part of a schema that a reference leads to, None if it leads nowhere."""
    if not reference.startswith("#"):
        return None
    if not reference.startswith("#/") and reference != "#":
        return schema  # an anchor: found when it is needed
    at: JSON = schema
    for part in reference.removeprefix("#").split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(at, list) and name.isdecimal() and int(name) < len(at):
            at = at[int(name)]
        elif isinstance(at, dict) and name in at:
            at = at[name]
        else:
            return None
    return at
