"""``@tool``: a tool made from a function, its arguments checked by its own annotations."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from functools import update_wrapper
from typing import Annotated, Any, Generic, ParamSpec, TypeVar, get_type_hints, overload

from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from longthought.errors import InvalidInput
from longthought.tools.loops import in_thread
from longthought.tools.protocol import Approval, Effect, ToolContext, ToolSpec
from longthought.tools.source import source_version
from longthought.types import JSON, JSONObject

__all__ = ["FunctionTool", "tool"]

P = ParamSpec("P")
R = TypeVar("R")

_SECTION = re.compile(r"^(args|arguments|parameters)\s*:\s*$", re.IGNORECASE)
_ARGUMENT = re.compile(r"^\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")


class FunctionTool(Generic[P, R]):
    """A function that is a tool as well. Calling it calls the original function unchanged."""

    def __init__(
        self, function: Callable[P, R], spec: ToolSpec, model: type[BaseModel], signature: Signature
    ) -> None:
        update_wrapper(self, function)
        self.function = function
        self.spec = spec
        self._model = model
        self._signature = signature
        self._is_async = inspect.iscoroutinefunction(function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the original function."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<tool {self.spec.name}: {self.spec.effect}>"

    def validate(self, arguments: JSONObject) -> None:
        """Check the arguments against the function's annotations.

        Raises:
            InvalidInput: with one line per mistake, written for the model.
        """
        self._parse(arguments)

    async def call(self, arguments: JSONObject, context: ToolContext) -> object:
        """Run the function; one that is not ``async`` runs in a thread of its own.

        Raises:
            InvalidInput: the arguments do not fit the annotations.
            Exception: whatever the function raises.
        """
        args, kwargs = self._signature.bind(self._parse(arguments), context)
        call: Callable[..., Any] = self.function
        result: Any = None
        if self._is_async:
            result = call(*args, **kwargs)
        else:
            result = await in_thread(lambda: call(*args, **kwargs))
        return await result if inspect.isawaitable(result) else result

    async def aclose(self) -> None:
        """Nothing to release."""

    def _parse(self, arguments: JSONObject) -> BaseModel:
        try:
            return self._model.model_validate(arguments)
        except ValidationError as error:
            lines = [_mistake(one) for one in error.errors(include_url=False)]
            raise InvalidInput("arguments", "; ".join(lines)) from None
        except RecursionError:
            raise InvalidInput("arguments", "nested too deeply") from None


class Signature:
    """Which argument of the function comes from which field of the argument model.

    Fields are numbered and carry the argument's name as alias, so that an argument may be called
    ``json`` or ``model_name`` although pydantic keeps such names for itself.
    """

    def __init__(self) -> None:
        self.fields: dict[str, tuple[Any, FieldInfo]] = {}
        self._positional: list[str | None] = []
        self._named: dict[str, str | None] = {}

    def add(self, parameter: inspect.Parameter, field: str | None) -> None:
        """Note where a parameter comes from; None stands for the tool context."""
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            self._positional.append(field)
        else:
            self._named[parameter.name] = field

    def bind(
        self, values: BaseModel, context: ToolContext
    ) -> tuple[list[object], dict[str, object]]:
        """Positional and named arguments for the function."""

        def value(field: str | None) -> object:
            return context if field is None else getattr(values, field)

        named = {name: value(field) for name, field in self._named.items()}
        return [value(field) for field in self._positional], named


@overload
def tool(function: Callable[P, R], /) -> FunctionTool[P, R]: ...


@overload
def tool(
    *,
    effect: Effect = "write",
    name: str | None = None,
    description: str | None = None,
    timeout: float = 30.0,
    max_result_chars: int = 8000,
    max_concurrency: int | None = None,
    retries: int = 0,
    approval: Approval = "never",
    approval_timeout: float | None = None,
    cost_usd: float = 0.0,
    idempotent: bool = False,
    version: str | None = None,
) -> Callable[[Callable[P, R]], FunctionTool[P, R]]: ...


def tool(
    function: Callable[P, R] | None = None,
    /,
    *,
    effect: Effect = "write",
    name: str | None = None,
    description: str | None = None,
    timeout: float = 30.0,
    max_result_chars: int = 8000,
    max_concurrency: int | None = None,
    retries: int = 0,
    approval: Approval = "never",
    approval_timeout: float | None = None,
    cost_usd: float = 0.0,
    idempotent: bool = False,
    version: str | None = None,
) -> FunctionTool[P, R] | Callable[[Callable[P, R]], FunctionTool[P, R]]:
    """Make a tool from a function, ``async`` or not.

    The annotations become the JSON schema the model sees and check what it sends: defaults,
    ``Optional``, ``Literal``, nested pydantic models and ``Annotated[..., Field(...)]`` all count.
    The first paragraph of the docstring is the description, its ``Args:`` section describes the
    arguments. An argument annotated :class:`ToolContext` is filled in by us and hidden from the
    model. The result is still callable as the function it was.

    Without ``effect`` the tool counts as a ``write``, the cautious reading: it is never repeated
    after a crash, started early or cancelled by backtracking. Say ``effect="read"`` or
    ``effect="pure"`` where that is true. A function that is not ``async`` runs in a thread; at its
    timeout (seconds) the call ends, but no one can stop the thread. A call that needs approval is
    denied after ``approval_timeout`` seconds without an answer. ``version`` identifies the code
    in a trace; by default it is a hash of the function's own source, not of what it calls.

    Raises:
        InvalidInput: the function cannot be a tool: ``*args``, a missing annotation, no
            docstring, a name no model accepts, or a setting out of range.
    """
    namespace = sys._getframe(1).f_locals  # noqa: SLF001 (types named where the tool is defined)

    def decorate(function: Callable[P, R]) -> FunctionTool[P, R]:
        signature, model = _signature(function, namespace)
        doc = inspect.getdoc(function) or ""
        spec = ToolSpec(
            name=name or str(getattr(function, "__name__", type(function).__name__)),
            description=description or _description(function, doc),
            parameters=_plain(model.model_json_schema()),
            effect=effect,
            timeout_s=timeout,
            max_result_chars=max_result_chars,
            max_concurrency=max_concurrency,
            retries=retries,
            approval=approval,
            approval_timeout_s=approval_timeout,
            cost_usd=cost_usd,
            idempotent=idempotent,
            version=source_version(function) if version is None else version,
        )
        return FunctionTool(function, spec, model, signature)

    return decorate if function is None else decorate(function)


def _signature(
    function: Callable[..., Any], namespace: Mapping[str, Any]
) -> tuple[Signature, type[BaseModel]]:
    """The argument model of a function and how its fields go back into a call."""
    where = f"tool {getattr(function, '__name__', function)!r}"
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidInput(where, "is a generator", "Return one value instead")
    hints = _hints(function, where, namespace)
    told = _argument_descriptions(inspect.getdoc(function) or "")
    signature = Signature()
    for number, parameter in enumerate(inspect.signature(function).parameters.values()):
        _refuse(parameter, hints, where)
        annotation = hints[parameter.name]
        if annotation is ToolContext:
            signature.add(parameter, None)
            continue
        field = f"p{number}"
        signature.add(parameter, field)
        signature.fields[field] = _field(parameter, annotation, told.get(parameter.name))
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=False)
    try:
        # pydantic types create_model by overloads that a computed mapping cannot meet
        make: Any = create_model
        model: type[BaseModel] = make("Arguments", __config__=config, **signature.fields)
        model.model_json_schema()
    except (PydanticUserError, TypeError) as error:
        raise InvalidInput(where, f"has an annotation with no JSON schema: {error}") from error
    return signature, model


def _hints(
    function: Callable[..., Any], where: str, namespace: Mapping[str, Any]
) -> dict[str, Any]:
    """Resolved annotations; names local to the place of definition count too."""
    target = function if inspect.isroutine(function) else type(function).__call__
    try:
        return get_type_hints(target, localns=dict(namespace), include_extras=True)
    except (NameError, TypeError, SyntaxError) as error:
        fix = "Import the annotated types at the top of the module"
        raise InvalidInput(where, f"has an annotation that cannot be read: {error}", fix) from error


def _refuse(parameter: inspect.Parameter, hints: Mapping[str, Any], where: str) -> None:
    """Raise for a parameter that a model cannot be told about."""
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        raise InvalidInput(where, f"takes {parameter}", "Name every argument, or take a list")
    if parameter.name not in hints:
        fix = f"Write `{parameter.name}: str` or whatever it is"
        raise InvalidInput(where, f"argument {parameter.name!r} has no annotation", fix)


def _field(
    parameter: inspect.Parameter, annotation: Any, description: str | None
) -> tuple[Any, FieldInfo]:
    """One argument as a pydantic field; a ``Field(...)`` given as the default is honoured."""
    default = parameter.default
    if isinstance(default, FieldInfo):
        annotation = Annotated[annotation, default]
        described = default.description
        factory, default = default.default_factory, default.default
        if factory is not None:
            return annotation, Field(default_factory=factory, alias=parameter.name)
        required = default is PydanticUndefined
    else:
        described = next(
            (m.description for m in getattr(annotation, "__metadata__", ()) if hasattr(m, "title")),
            None,
        )
        required = default is parameter.empty
    text = described or description
    extra: dict[str, Any] = {"description": text} if text else {}
    if required:
        return annotation, Field(alias=parameter.name, **extra)
    return annotation, Field(default=default, alias=parameter.name, **extra)


def _description(function: Callable[..., Any], doc: str) -> str:
    """The first paragraph of the docstring, on one line."""
    text = " ".join(doc.strip().split("\n\n")[0].split())
    if not text:
        where = f"tool {getattr(function, '__name__', function)!r}"
        fix = "The model chooses tools by their description: say in a sentence what it does"
        raise InvalidInput(where, "has no docstring", fix)
    return text


def _argument_descriptions(doc: str) -> dict[str, str]:
    """What the ``Args:`` section of a Google style docstring says of each argument."""
    lines = iter(doc.splitlines())
    for line in lines:
        if _SECTION.match(line):
            break
    told: dict[str, str] = {}
    current, depth = "", None
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if not line.strip():
            continue
        if indent == 0:
            break
        depth = indent if depth is None else depth
        found = _ARGUMENT.match(line.strip())
        if indent <= depth and found:
            current = found[1]
            told[current] = found[2].strip()
        elif current:
            told[current] = f"{told[current]} {line.strip()}".strip()
    return told


def _plain(schema: JSON, *, names: bool = False) -> JSON:
    """A JSON schema without the titles pydantic adds: they cost tokens and tell nothing.

    ``names`` is true inside ``properties`` and ``$defs``, where the keys are names of the user's.
    """
    if isinstance(schema, list):
        return [_plain(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    plain: JSONObject = {}
    for key, value in schema.items():
        if names:
            plain[key] = _plain(value)
        elif key in ("default", "const", "enum", "examples"):
            plain[key] = value
        elif key != "title" or not isinstance(value, str):
            plain[key] = _plain(value, names=key in ("properties", "$defs"))
    return plain


def _mistake(error: Mapping[str, Any]) -> str:
    """One pydantic error as the model should read it: where, what, and what stood there."""
    where = ".".join(str(part) for part in error["loc"]) or "arguments"
    if error["type"] == "extra_forbidden":
        return f"{where}: there is no such argument"
    if error["type"] == "missing":
        return f"{where}: is missing"
    return f"{where}: {error['msg']} (got {_short(error.get('input'))})"


def _short(value: object) -> str:
    """A value in a few characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
