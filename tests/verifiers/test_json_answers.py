"""JSON of a given form: found in prose, checked, and compared by its value."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    SecretStr,
    computed_field,
    field_validator,
)

from longthought.errors import InvalidInput
from longthought.verifiers import AnswerKind, answers, concludes, grade
from longthought.verifiers.shapes import canonical_json, parse_json

OBJECT: dict[str, Any] = {"type": "object"}
TOTAL = {
    "type": "object",
    "properties": {"total": {"type": "number"}, "unit": {"enum": ["kg", "g"]}},
    "required": ["total"],
}

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(max_size=4), VALUES, max_size=4)


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"]
    color: Color = Color.RED


class Person(BaseModel):
    name: str
    age: int | None = None
    pets: list[Annotated[Cat | Dog, Field(discriminator="kind")]] = []
    tags: set[str] = Field(default_factory=set)
    boss: Person | None = None


person = answers.json(Person)
total = answers.json(TOTAL)


@given(OBJECTS, st.integers(0, 3), st.sampled_from(["{}", "So: {} [1].", "```json\n{}\n```\nDone"]))
def test_an_object_is_found_however_it_is_written(
    value: dict[str, Any], indent: int, around: str
) -> None:
    kind = answers.json(OBJECT)
    text = json.dumps(value, indent=indent or None, ensure_ascii=bool(indent % 2))
    found = kind.find(around.replace("{}", text))
    assert found == canonical_json(value)
    assert kind.find(found) == found
    assert kind.equal(found, json.dumps(value, indent=2))


@given(VALUES)
def test_the_canonical_form_is_the_values_own(value: Any) -> None:
    text = canonical_json(value)
    assert parse_json(text) == value
    assert canonical_json(parse_json(text)) == text
    turned = dict(reversed(value.items())) if isinstance(value, dict) else value
    assert canonical_json(turned) == text
    text.encode()


@given(st.text())
def test_no_text_makes_it_fail(text: str) -> None:
    assert person.find(text) is None
    assert person.problem(text)
    found = answers.json(OBJECT).find(text)
    assert found is None or isinstance(parse_json(found), dict)


def test_numbers_are_compared_by_value() -> None:
    forms = ['{"total": 100}', '{"total": 100.0}', '{"total": 1e2}', '{"total":\n1.000E+2}']
    assert {total.find(form) for form in forms} == {'{"total":100}'}
    assert total.find('{"total": -0.0}') == '{"total":0}'
    assert total.find('{"total": 0.10}') == '{"total":0.1}'
    assert total.find('{"total": 1e300}') == '{"total":1e+300}'
    assert total.equal('{"total":1,"unit":"g"}', '{"unit": "g", "total": 1.0}')
    assert not total.equal('{"total":1}', '{"total":true}')
    assert not total.equal('{"total":1}', "one")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("About ten.", "there is no JSON in it"),
        ("", "there is no JSON in it"),
        ('{"unit": "kg"}', "'total' is a required property"),
        ('{"total": "ten"}', "total: 'ten' is not of type 'number'"),
        ('{"total": 1, "unit": "t"}', "unit: 't' is not one of ['kg', 'g']"),
        ('{"total": NaN}', "NaN and infinities are no JSON numbers"),
        ('{"total": 1e999}', "NaN and infinities are no JSON numbers"),
        ('It is {"total": 1,}', "the JSON cannot be read: Expecting property name"),
        ('It is {"total": 1, "unit": "k', "the JSON cannot be read: it is not complete"),
        ("[1]", "[1] is not of type 'object'"),
        ('{"total": ' + "[" * 100_000, "the JSON cannot be read: it is too long or too deep"),
        ('{"total": ' + "1" * 5000 + "}", "the JSON cannot be read: it is too long or too deep"),
    ],
)
def test_what_is_wrong_is_told(text: str, problem: str) -> None:
    assert total.find(text) is None
    assert total.problem(text).startswith(problem)


def test_the_last_value_of_the_right_type_decides() -> None:
    assert total.find('For example {"total": 1}. Here: {"total": 2} [3]') == '{"total":2}'
    assert total.find('{"total": 1} is what I thought; it is {"total": "two"}') is None
    assert total.find('{"total": 1} is what I thought; it is {"total": 2,}') is None
    assert total.find('{"total": 1}, that is the set {1, 2} of \\boxed{3}') == '{"total":1}'
    fenced = '```json\n{"total": 1}\n```\nAn empty one would be {"total": 0}.'
    assert total.find(fenced) == '{"total":1}'
    assert total.find('```python\n{1: 2}\n```\nso {"total": 4}') == '{"total":4}'
    # what stands inside something else is no answer of its own
    assert total.find('[{"total": 1}, {"total": 2}]') is None
    assert total.find('{"totals": [{"total": 1}') is None


@pytest.mark.parametrize("piece", ["{", "[", '{"a":', '{"', "[[", '{"a', '[1, {"', "{ ", '["'])
def test_long_nonsense_is_soon_done_with(piece: str) -> None:
    assert total.find(piece * 40_000) is None


def test_a_list_or_a_scalar_may_be_asked_for() -> None:
    words = answers.json({"type": "array", "items": {"type": "string"}})
    assert words.find('These {3}: ["a", "ö"]. See {"a": 1}.') == '["a","ö"]'
    assert words.problem("These: [1]") == "0: 1 is not of type 'string'"
    whole = answers.json({"type": "integer"})
    assert [whole.find(text) for text in ("7", " 7.0\n", "It is 7", "```\n7\n```")] == [
        "7",
        "7",
        None,
        "7",
    ]
    listed = answers.json(RootModel[list[int]])
    assert listed.made(listed.find("So: [1, 2]") or "") == RootModel[list[int]]([1, 2])


def test_halves_of_a_pair_are_escaped() -> None:
    found = answers.json(OBJECT).find('{"a": "\\ud83d"}')
    assert found == '{"a":"\\ud83d"}'
    assert answers.json(OBJECT).find('{"a": "\\ud83d\\ude00"}') == '{"a":"😀"}'
    assert person.find('{"name": "\\ud83d"}') is None


def test_a_model_fills_in_its_defaults_and_orders_its_sets() -> None:
    short = person.find('{"name": "Ann"}')
    assert short == '{"age":null,"boss":null,"name":"Ann","pets":[],"tags":[]}'
    assert person.find('{"name": "Ann", "age": null, "shoe": 39}') == short
    text = '{"name": "A", "tags": ["z", "b", "a", "b"], "boss": {"name": "B", "tags": ["y", "x"]}}'
    made = json.loads(person.find(text) or "")
    assert made["tags"] == ["a", "b", "z"]
    assert made["boss"]["tags"] == ["x", "y"]
    full = person.find('{"name": "C", "pets": [{"kind": "dog"}, {"kind": "cat", "lives": 7.0}]}')
    assert person.made(full or "") == Person(
        name="C", pets=[Dog(kind="dog"), Cat(kind="cat", lives=7)]
    )


def test_mistakes_in_a_model_are_named_by_their_place() -> None:
    text = '{"age": "old", "pets": [{"kind": "cat", "lives": []}, {"kind": "cow"}]}'
    told = person.problem(text)
    assert "name: is missing" in told
    assert "age: Input should be a valid integer" in told
    assert "pets.0.cat.lives: Input should be a valid integer" in told
    assert "pets.1: Input tag 'cow'" in told


class Odd(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    day: date = Field(alias="Day", default_factory=date.today)
    number: uuid.UUID = Field(default_factory=uuid.uuid4)
    price: Decimal = Decimal(0)
    pairs: tuple[frozenset[int], ...] = ()

    @field_validator("price")
    @classmethod
    def _positive(cls, value: Decimal) -> Decimal:
        if value < 0:
            raise ValueError("must not be negative")
        return value

    @computed_field
    def double(self) -> Decimal:
        return 2 * self.price


def test_what_a_factory_makes_anew_is_no_part_of_the_answer() -> None:
    """A replay on another day has to come to the same answer."""
    odd = answers.json(Odd)
    assert odd.find('{"Day": "2024-02-29", "price": "1.50"}') == odd.find(
        '{"price": "1.50", "Day": "2024-02-29"}'
    )
    assert odd.find("{}") == odd.find("{ }") == "{}"
    day = '{"Day":"2024-02-29","number":"12345678-1234-5678-1234-567812345678"'
    full = odd.find(day + ',"price":"1.50","pairs":[[3,1,2]]}')
    assert full == day + ',"pairs":[[1,2,3]],"price":"1.5"}'
    assert odd.find(full) == full
    assert odd.problem('{"price": "-1"}').startswith("price: Value error, must not be negative")
    assert odd.problem('{"daytime": 1}') == "daytime: there is no such field"


class Hidden(BaseModel):
    word: SecretStr
    size: int = 3


class Breaking(BaseModel):
    size: int

    @field_validator("size")
    @classmethod
    def _look_up(cls, value: int) -> int:
        return {1: 2}[value]


def test_models_that_cannot_be_written_back_keep_what_was_given() -> None:
    hidden = answers.json(Hidden)
    assert hidden.find('{"word": "x"}') == '{"word":"x"}'
    assert hidden.made('{"word":"x"}') == Hidden(word=SecretStr("x"))
    breaking = answers.json(Breaking)
    assert breaking.find('{"size": 1}') == '{"size":1}'  # 2 would not make the same again
    assert breaking.problem('{"size": 5}') == "KeyError: 5"


def test_references_stay_inside_the_schema() -> None:
    tree = answers.json(
        {
            "type": "object",
            "properties": {"kids": {"type": "array", "items": {"$ref": "#"}}},
            "required": ["kids"],
            "$defs": {"unused": {"$ref": "#/properties/kids"}},
        }
    )
    assert tree.find('{"kids": [{"kids": []}]}') == '{"kids":[{"kids":[]}]}'
    assert tree.problem('{"kids": [{}]}') == "kids.0: 'kids' is a required property"


@pytest.mark.parametrize(
    ("form", "problem"),
    [
        ({}, "output: an empty schema says nothing"),
        ({"type": "objekt"}, "output: no JSON schema: type: 'objekt'"),
        ({"type": {1, 2}}, "output: the schema is no JSON"),
        ({"$ref": "http://example.org/schema"}, "output: $ref 'http://example.org/schema' leads"),
        ({"items": {"$ref": "#/$defs/none"}}, "output: $ref '#/$defs/none' leads nowhere"),
        (int, "output: <class 'int'> is no schema"),
        ("text", "output: 'text' is no schema"),
        (Person(name="x"), "output: Person(name='x'"),
    ],
)
def test_what_is_no_form_is_refused(form: Any, problem: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        answers.json(form)
    assert str(refused.value).startswith(problem)


def test_a_model_without_a_schema_is_refused() -> None:
    class Calls(BaseModel):
        work: Callable[[], int] = int

    with pytest.raises(InvalidInput, match="Calls has no JSON schema"):
        answers.json(Calls)


def test_it_is_an_answer_kind() -> None:
    assert isinstance(person, AnswerKind)
    assert person.spec()["kind"] == "json"
    assert person.spec()["model"].endswith("Person")
    assert person.spec() == answers.json(Person).spec()
    assert total.spec() == {"kind": "json", "schema": TOTAL}
    json.dumps(person.spec())
    assert grade(total, 'The total: {"total": 2.0}', '{ "total": 2 }')
    assert not grade(total, '{"total": 2}', '{"total": 3}')
    assert concludes(total, 'So {"total": 1}')
    assert not concludes(total, "So it may be {")
