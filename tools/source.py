"""Names and hashes of functions, by which a trace says which code was used."""

from __future__ import annotations

import hashlib
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

__all__ = ["qualified_name", "source_version"]


def qualified_name(function: Callable[..., Any]) -> str:
    """``module.name`` of a function, or of the class of a callable object."""
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def source_version(function: Callable[..., Any]) -> str:
    """A short hash of the function's source text, or ``""`` where the source cannot be read."""
    try:
        source = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
    except (OSError, TypeError, ValueError):
        return ""
    return hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()[:16]
