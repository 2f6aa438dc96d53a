"""Schemas for strict mode: which are taken, and how a model's becomes one without a loss."""

from __future__ import annotations

import copy
import json
from enum import Enum
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, RootModel

from longthought.orchestrator.strict_schemas import strict_form, takes_strict
from longthought.verifiers import answers


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = Field(9, ge=0, description="Those left.")


class Dog(BaseModel):
    kind: Literal["dog"]
    color: Color = Field(Color.RED, description="Of its fur")


class Point(BaseModel):
    title: str
    y: float


class Zoo(BaseModel):
    name: str
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    default: set[int] = Field(default_factory=set)
    place: Point | None = None
    boss: Zoo | None = None


class Free(BaseModel):
    counts: dict[str, int]


class Kept(BaseModel):
    model_config = ConfigDict(extra="allow")
    size: int


class Holding(BaseModel):
    kept: Kept


class Unfitting(BaseModel):
    size: int = Field(-1, ge=0)


class Anything(BaseModel):
    value: Any


class Short(BaseModel):
    word: str = Field(max_length=3)


class Pair(BaseModel):
    pair: tuple[int, str]


class Made(BaseModel):
    word: str = Field(default_factory=lambda: "new")


def form_of(model: type[BaseModel]) -> dict[str, Any]:
    return strict_form(answers.json(model).schema)


def test_a_model_is_closed_and_every_field_required() -> None:
    form = form_of(Zoo)
    assert takes_strict(form)
    assert form["title"] == "Zoo"
    assert form["type"] == "object"
    assert form["required"] == list(form["properties"])
    assert form["additionalProperties"] is False
    assert form["properties"]["default"] == {
        "type": "array",
        "items": {"type": "integer"},
        "description": "Default: []",
    }
    assert form["properties"]["pet"]["anyOf"] == [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]
    assert form["properties"]["boss"]["anyOf"] == [{"$ref": "#/$defs/Zoo"}, {"type": "null"}]
    cat, dog = form["$defs"]["Cat"], form["$defs"]["Dog"]
    assert cat["properties"]["lives"]["description"] == "Those left. Default: 9"
    assert dog["properties"]["color"] == {
        "anyOf": [{"$ref": "#/$defs/Color"}],
        "description": 'Of its fur. Default: "red"',
    }
    assert list(form["$defs"]["Point"]["properties"]) == ["title", "y"]  # a field of that name


@pytest.mark.parametrize("model", [Free, Kept, Holding, Unfitting, Anything, Short, Pair, Made])
def test_what_strict_mode_cannot_say_stays_open(model: type[BaseModel]) -> None:
    schema = answers.json(model).schema
    before = copy.deepcopy(schema)
    form = strict_form(schema)
    assert not takes_strict(form)
    assert schema == before
    assert form.get("additionalProperties") is not False
    assert form["title"] == model.__name__
    assert form.get("required") == schema.get("required")


def test_what_is_no_object_is_not_sent_as_strict() -> None:
    form = form_of(RootModel[list[Cat]])
    assert form["type"] == "array"
    assert not takes_strict(form)
    assert not takes_strict({"type": "string"})
    assert not takes_strict([])


COLORS = st.sampled_from(["red", "blue"])
FIELDS = st.fixed_dictionaries(
    {
        "name": st.text(max_size=5),
        "pet": st.fixed_dictionaries({"kind": st.just("cat"), "lives": st.integers(0, 9)})
        | st.fixed_dictionaries(
            {"kind": st.just("dog"), "color": st.sampled_from(["red", "blue"])}
        ),
        "default": st.lists(st.integers(-3, 3), max_size=3),
        "place": st.none()
        | st.fixed_dictionaries({"title": st.text(max_size=3), "y": st.floats(-1, 1)}),
    }
)
ZOOS = st.recursive(
    FIELDS.map(lambda fields: {**fields, "boss": None}),
    lambda inner: st.tuples(FIELDS, inner).map(lambda pair: {**pair[0], "boss": pair[1]}),
    max_leaves=3,
)
STRICT = jsonschema.Draft202012Validator(form_of(Zoo))


@given(ZOOS)
def test_what_fits_the_strict_form_fits_the_model_and_back(value: dict[str, Any]) -> None:
    STRICT.validate(value)
    made = Zoo.model_validate_json(json.dumps(value))
    STRICT.validate(made.model_dump(mode="json"))


@pytest.mark.parametrize(
    ("change", "strict"),
    [
        ({}, True),
        ({"required": []}, False),
        ({"additionalProperties": True}, False),
        ({"properties": {"a": {}}}, False),
        ({"properties": {"a": {"type": "string", "default": "x"}}}, False),
        ({"properties": {"a": {"type": "string", "minLength": 1}}}, False),
        ({"properties": {"a": {"type": "string", "pattern": "^x"}}}, True),
        ({"properties": {"a": {"enum": [{"type": "object"}]}}}, True),
        ({"properties": {"a": {"type": "array"}}}, False),
        ({"properties": {"a": {"type": "array", "items": {"type": "object"}}}}, False),
        ({"properties": {"a": {"anyOf": [{"type": "null"}, {"allOf": []}]}}}, False),
        ({"properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {"b": {"type": "null"}}}, True),
        ({"properties": {"a": {"$ref": "#", "description": "x"}}}, False),
        ({"$defs": {"b": {"type": "object"}}}, False),
        ({"oneOf": []}, False),
    ],
)
def test_which_schemas_strict_mode_takes(change: dict[str, Any], strict: bool) -> None:
    closed = {
        "type": "object",
        "properties": {"a": {"type": "string", "title": "A"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    assert takes_strict({**closed, **change}) is strict


def test_aliases_are_the_names_that_are_told() -> None:
    class Aliased(BaseModel):
        call: str = Field(alias="Call")

    assert list(form_of(Aliased)["properties"]) == ["Call"]
    assert takes_strict(form_of(Aliased))
