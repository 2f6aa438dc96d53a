"""Schemas for strict structured output: which ones a backend takes, and how one becomes such.

Strict mode binds the decoder to the schema. OpenAI takes only schemas in which every object names
all its fields, requires them and allows no others, with a part of JSON schema's vocabulary.
"""

from __future__ import annotations

import json
from typing import Any, Final

from longthought.types import JSON, JSONObject

__all__ = ["strict_form", "takes_strict"]

_REFUSED: Final = frozenset(
    [
        "additionalItems",
        "allOf",
        "contains",
        "default",
        "dependentRequired",
        "dependentSchemas",
        "discriminator",
        "else",
        "if",
        "maxContains",
        "maxLength",
        "maxProperties",
        "minContains",
        "minLength",
        "minProperties",
        "not",
        "oneOf",
        "patternProperties",
        "prefixItems",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
        "uniqueItems",
    ]
)
_NAMES: Final = ("properties", "$defs", "definitions")
"""Keywords below which the keys are the user's own names."""
_DATA: Final = ("const", "enum", "default", "examples")
"""Keywords whose values are no schemas."""
_SAYS_TYPE: Final = frozenset(["type", "anyOf", "$ref", "enum", "const"])


def takes_strict(schema: JSON) -> bool:
    """Whether strict mode takes a schema as it stands; the outermost has to be an object."""
    return isinstance(schema, dict) and schema.get("type") == "object" and _is_strict(schema)


def _is_strict(schema: JSON) -> bool:
    if not isinstance(schema, dict) or not _SAYS_TYPE & schema.keys() or _REFUSED & schema.keys():
        return False
    if "$ref" in schema and len(schema.keys() - _NAMES) > 1:
        return False
    if (schema.get("type") == "object" or "properties" in schema) and not _is_closed(schema):
        return False
    if schema.get("type") == "array" and "items" not in schema:
        return False
    return all(map(_is_strict, _parts(schema)))


def _is_closed(schema: JSONObject) -> bool:
    names = set(schema.get("properties", ()))
    return schema.get("additionalProperties") is False and set(schema.get("required", ())) == names


def _parts(schema: JSONObject) -> list[JSON]:
    """The schemas directly below one that has none of the keywords strict mode refuses."""
    parts = [part for name in _NAMES for part in schema.get(name, {}).values()]
    parts += schema.get("anyOf", ())
    return [*parts, schema["items"]] if "items" in schema else parts


def strict_form(schema: JSONObject) -> JSONObject:
    """The schema of a pydantic model as strict mode takes it, or as it is told where it cannot.

    Nothing that it says is lost: an object whose model ignores other fields is closed, for they
    would be dropped; a field with a default is required, for the default can be given, and is told
    in its description. Where that does not do (free dictionaries, extra fields that are kept,
    defaults that are no value of their field, vocabulary that strict mode refuses), the schema
    stays open. Titles below the first are left out in both cases: they repeat the names.
    """
    plain: JSONObject = _untitled(schema)
    if "$ref" in plain:  # a recursive model refers to itself: strict mode wants an object
        name = plain["$ref"].removeprefix("#/$defs/")
        plain = {**plain.get("$defs", {}).get(name, {}), **plain}
        del plain["$ref"]
    if "title" in schema or "$ref" in schema:
        title = schema.get("title") or schema["$ref"].rpartition("/")[2]
        plain = {"title": title, **plain}
    closed: JSONObject = _closed(plain, plain)
    return closed if takes_strict(closed) else plain


def _untitled(schema: JSON, *, names: bool = False) -> Any:
    if isinstance(schema, list):
        return [_untitled(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if names:
        return {name: _untitled(part) for name, part in schema.items()}
    return {
        key: value if key in _DATA else _untitled(value, names=key in _NAMES)
        for key, value in schema.items()
        if key != "title"
    }


def _closed(schema: JSON, root: JSONObject) -> Any:
    if isinstance(schema, list):
        return [_closed(part, root) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made: JSONObject = {}
    for key, value in schema.items():
        if key in _NAMES:
            made[key] = {name: _closed(part, root) for name, part in value.items()}
        elif key == "oneOf" and "discriminator" in schema:
            made["anyOf"] = _closed(value, root)  # a constant tells them apart: no value fits two
        elif key == "uniqueItems" or (key == "discriminator" and "oneOf" in schema):
            continue  # repeated items of a set count once
        else:
            made[key] = value if key in _DATA else _closed(value, root)
    if made.get("type") == "object" and "properties" in made:
        _close(made, schema, root)
    return _referring(made)


def _close(made: JSONObject, schema: JSONObject, root: JSONObject) -> None:
    """Require every field and allow no others, where that takes nothing away."""
    made.setdefault("additionalProperties", False)
    fields, needed = schema["properties"], schema.get("required", ())
    if all(name in needed or _default_fits(field, root) for name, field in fields.items()):
        made["properties"] = {
            name: _referring(_without_default(part)) for name, part in made["properties"].items()
        }
        if fields:
            made["required"] = list(fields)


def _default_fits(field: JSON, root: JSONObject) -> bool:
    """Whether the default of a field is a value that the field may be given."""
    from jsonschema import Draft202012Validator

    if not isinstance(field, dict) or "default" not in field:
        return False
    allowed = {**field, "$defs": root.get("$defs", {})}
    return Draft202012Validator(allowed).is_valid(field["default"])


def _without_default(field: JSONObject) -> JSONObject:
    plain = {key: value for key, value in field.items() if key != "default"}
    if field.get("default") is not None:
        told = f"Default: {json.dumps(field['default'], ensure_ascii=False)}"
        before = str(plain.get("description", "")).rstrip(" .")
        plain["description"] = f"{before}. {told}" if before else told
    return plain


def _referring(schema: JSONObject) -> JSONObject:
    """A reference with something beside it, which strict mode takes in an ``anyOf`` alone."""
    if "$ref" not in schema or len(schema.keys() - _NAMES) == 1:
        return schema
    rest = {key: value for key, value in schema.items() if key != "$ref"}
    return {"anyOf": [{"$ref": schema["$ref"]}], **rest}
