"""``@tool``: the schema made from a signature, what is refused, how calls reach the function."""

import asyncio
import contextvars
import functools
import threading
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from longthought.errors import InvalidInput
from longthought.tools import Tool, ToolContext, tool

CONTEXT = ToolContext("c1", "k1", {"db": 1})


class Place(BaseModel):
    title: str
    height: int = 0


@tool(effect="read", timeout=3, max_concurrency=2, retries=1, approval="first", cost_usd=0.01)
async def visit(
    place: Place,
    context: ToolContext,
    mode: Literal["car", "foot"] = "foot",
    days: Annotated[int, Field(ge=1, description="whole days")] = 1,
    note: str | None = None,
) -> dict:
    """Visit a place
    and come back.

    Longer words that the model need not read.

    Args:
        place: where to,
            in detail
        mode (str): how to get there

    Returns:
        what happened
    """
    return {"place": place.title, "mode": mode, "days": days, "note": note, "call": context.call_id}


def test_it_is_a_tool():
    assert isinstance(visit, Tool)
    assert visit.spec.name == "visit"
    assert visit.spec.description == "Visit a place and come back."
    assert visit.spec.effect == "read"
    assert visit.spec.timeout_s == 3
    assert visit.spec.max_concurrency == 2
    assert visit.spec.retries == 1
    assert visit.spec.approval == "first"
    assert visit.spec.cost_usd == 0.01
    assert len(visit.spec.version) == 16
    assert repr(visit) == "<tool visit: read>"


def test_schema_holds_descriptions_defaults_and_nested_models():
    schema = visit.spec.parameters
    assert schema["required"] == ["place"]
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == {"place", "mode", "days", "note"}
    assert schema["properties"]["mode"] == {
        "default": "foot",
        "description": "how to get there",
        "enum": ["car", "foot"],
        "type": "string",
    }
    assert schema["properties"]["days"]["description"] == "whole days"
    assert schema["properties"]["days"]["minimum"] == 1
    # a user's field called title stays, pydantic's own titles go
    assert list(schema["$defs"]["Place"]["properties"]) == ["title", "height"]
    assert "title" not in schema
    assert schema["properties"]["place"]["description"] == "where to, in detail"


async def test_call_builds_models_fills_defaults_and_injects_the_context():
    result = await visit.call({"place": {"title": "Rome"}, "days": "2"}, CONTEXT)
    assert result == {"place": "Rome", "mode": "foot", "days": 2, "note": None, "call": "c1"}


async def test_the_function_is_still_a_function():
    assert (await visit(Place(title="Oslo"), CONTEXT, days=3))["days"] == 3
    assert visit.__name__ == "visit"
    assert "come back" in (visit.__doc__ or "")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "place: is missing"),
        ({"place": {"title": "x"}, "when": 1}, "when: there is no such argument"),
        ({"place": {"title": "x"}, "days": 0}, "days: Input should be greater than or equal to 1"),
        ({"place": {}}, "place.title: is missing"),
        ({"place": "x" * 500}, "place:"),
        ({"place": {"title": "x"}, "mode": "boat"}, "mode:"),
        ({"place": {"title": "x"}, "context": {}}, "context: there is no such argument"),
    ],
)
def test_mistakes_are_told_in_the_models_words(arguments, told):
    with pytest.raises(InvalidInput) as caught:
        visit.validate(arguments)
    assert told in caught.value.problem
    assert len(caught.value.problem) < 300


async def test_names_pydantic_keeps_for_itself_are_fine():
    @tool
    def odd(json: str, model_name: str = "m", schema: int = 1, self_: bool = False) -> str:
        """Odd names."""
        return f"{json} {model_name} {schema} {self_}"

    assert set(odd.spec.parameters["properties"]) == {"json", "model_name", "schema", "self_"}
    assert await odd.call({"json": "j", "schema": 2}, CONTEXT) == "j m 2 False"
    assert odd.spec.effect == "write"


async def test_positional_only_and_field_defaults():
    @tool
    def add(
        a: int,
        /,
        b: int = Field(default=2, ge=0),
        *,
        c: list[int] = Field(default_factory=list),  # noqa: B008 (as users write it)
    ):
        """Add."""
        return a + b + sum(c)

    assert await add.call({"a": 1}, CONTEXT) == 3
    assert await add.call({"a": 1, "b": 5, "c": [1, 2]}, CONTEXT) == 9
    with pytest.raises(InvalidInput):
        add.validate({"a": 1, "b": -1})


async def test_sync_functions_run_in_a_thread_with_the_context_variables():
    variable = contextvars.ContextVar("variable", default=0)
    variable.set(7)

    @tool(effect="pure")
    def where() -> str:
        """Where am I?"""
        return f"{threading.current_thread() is threading.main_thread()} {variable.get()}"

    assert await where.call({}, CONTEXT) == "False 7"


async def test_a_blocking_function_does_not_block_the_loop():
    inside, release = threading.Event(), threading.Event()

    @tool(effect="pure")
    def block() -> str:
        """Block."""
        inside.set()
        release.wait()
        return "done"

    task = asyncio.create_task(block.call({}, CONTEXT))
    while not inside.is_set():
        await asyncio.sleep(0)
    assert not task.done()
    release.set()
    assert await task == "done"


async def test_exceptions_and_stop_iteration_come_through_a_thread():
    @tool(effect="pure")
    def stop() -> str:
        """Stop."""
        return next(iter([]))

    with pytest.raises(RuntimeError, match="StopIteration"):
        await stop.call({}, CONTEXT)


async def test_methods_partials_and_functions_returning_awaitables():
    class Shop:
        def price(self, item: str) -> int:
            """Price of an item."""
            return len(item)

    assert await tool(Shop().price).call({"item": "abc"}, CONTEXT) == 3

    async def later(n: int) -> int:
        """Later."""
        return n

    wrapped = functools.wraps(later)(lambda n: later(n))
    assert await tool(wrapped).call({"n": 4}, CONTEXT) == 4


async def test_types_local_to_the_place_of_definition():
    class Local(BaseModel):
        n: int

    @tool
    async def take(it: "Local") -> int:
        """Take."""
        return it.n

    assert await take.call({"it": {"n": 4}}, CONTEXT) == 4


def star(*names: str):
    """Star."""


def keywords(**names: str):
    """Keywords."""


def bare(name):
    """Bare."""


def silent(name: str): ...


def generator(name: str):
    """Generate."""
    yield name


async def async_generator(name: str):
    """Generate."""
    yield name


def opaque(name: threading.Lock):  # type: ignore[valid-type]
    """Opaque."""


def unreadable(name: "NoSuchType"):  # type: ignore[name-defined]  # noqa: F821
    """Unreadable."""


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (star, "Name every argument"),
        (keywords, "Name every argument"),
        (bare, "argument 'name' has no annotation"),
        (silent, "has no docstring"),
        (generator, "is a generator"),
        (async_generator, "is a generator"),
        (opaque, "annotation"),
        (unreadable, "annotation that cannot be read"),
        (lambda: None, "cannot be used"),
    ],
)
def test_functions_that_cannot_be_tools_are_refused_at_definition(function, told):
    if function.__name__ == "<lambda>":
        function.__doc__ = "Anonymous."
    with pytest.raises(InvalidInput, match=told):
        tool(function)


def test_name_description_and_version_can_be_given():
    made = tool(name="other", description="Something else.", version="v2")(silent)
    assert (made.spec.name, made.spec.description, made.spec.version) == (
        "other",
        "Something else.",
        "v2",
    )


async def test_deeply_nested_arguments_end_as_invalid_input():
    @tool
    def swallow(value: dict) -> str:
        """Swallow."""
        return "ok"

    value: dict = {}
    for _ in range(100_000):
        value = {"a": value}
    try:
        swallow.validate({"value": value})  # fine for an open dict: nothing inside is looked at
    except InvalidInput:
        pass
    finally:
        while value:  # taken apart by hand: the destructor is recursive in old Pythons
            value = value["a"]


async def test_aclose_may_be_repeated():
    await visit.aclose()
    await visit.aclose()
