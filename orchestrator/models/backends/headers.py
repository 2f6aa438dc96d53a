"""Headers whose values may name environment variables, so that no secret has to stand in a file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping

from longthought.errors import ConfigurationError

__all__ = ["EnvironmentHeaders", "variables_of", "with_variables"]

_REFERENCE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<braced>\w+)\}|(?P<plain>[A-Za-z_]\w*))")
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class EnvironmentHeaders(Mapping[str, str]):
    """Headers as they were written; reading a value puts in the variables that it names.

    ``$NAME`` and ``${NAME}`` stand for a variable, ``$$`` for a dollar sign; any other dollar sign
    is itself. Variables are read whenever a value is, so nothing is missed before a connection is
    made.

    Raises:
        ConfigurationError: a name or value is no header; or, when a value is read, a variable is
            not set. No message shows a value.
    """

    def __init__(self, written: Mapping[str, str]) -> None:
        for name, value in written.items():
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise ConfigurationError(
                    "headers", f"{name!r} is no name of a header", "Correct it"
                )
            _checked(name, value)
        self.written = dict(written)

    def __getitem__(self, name: str) -> str:
        return _checked(name, with_variables(self.written[name], f"headers.{name}"))

    def __iter__(self) -> Iterator[str]:
        return iter(self.written)

    def __len__(self) -> int:
        return len(self.written)

    def __repr__(self) -> str:
        return f"EnvironmentHeaders({', '.join(self.written)})"

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables that the values name, each once."""
        found = (name for value in self.written.values() for name in variables_of(value))
        return tuple(dict.fromkeys(found))


def with_variables(text: str, field: str) -> str:
    """The text with the variables that it names put in.

    Raises:
        ConfigurationError: one is not set; the message shows no value.
    """

    def put_in(found: re.Match[str]) -> str:
        if found["dollar"]:
            return "$"
        variable = found["braced"] or found["plain"]
        value = os.environ.get(variable)
        if not value:
            raise ConfigurationError(field, f"{variable} is not set", "Set it")
        return value

    return _REFERENCE.sub(put_in, text)


def variables_of(text: str) -> tuple[str, ...]:
    """The variables that a text names, in their order."""
    named = (match["braced"] or match["plain"] for match in _REFERENCE.finditer(text))
    return tuple(name for name in named if name)


def _checked(name: str, value: object) -> str:
    field = f"headers.{name}"
    if not isinstance(value, str):
        raise ConfigurationError(field, f"{type(value).__name__} is no text", "Put it in quotes")
    if not value.isprintable() or value != value.strip():
        problem = "holds what cannot stand in a header"
        raise ConfigurationError(field, problem, "Use visible characters on one line")
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        raise ConfigurationError(
            field, "holds what cannot stand in a header", "Use ASCII"
        ) from None
    return value
