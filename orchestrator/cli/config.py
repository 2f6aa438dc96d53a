"""The configuration file: found, read, and every key in it checked."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args, get_type_hints

from longthought.errors import ConfigurationError

__all__ = ["CONFIG_VARIABLE", "FILE_NAME", "Config", "load_config"]

FILE_NAME = "longthought.toml"
CONFIG_VARIABLE = "LONGTHOUGHT_CONFIG"

_TABLES = ("backends", "defaults", "prices", "store")
_STORE = {"url": str, "dir": str}
_DEFAULTS: dict[str, type] = {
    "model": str,
    "base_url": str,
    "strategy": str,
    "n": int,
    "temperature": float,
    "max_tokens": int,
    "budget": dict,
}


@dataclass(frozen=True, slots=True)
class Config:
    """What stands in the configuration file; empty without one.

    ``store_dir`` is absolute: a relative one is meant from the file's own folder. ``backends``
    holds the settings of each backend as they were written.
    """

    path: Path | None = None
    store_url: str | None = None
    store_dir: Path | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    backends: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    has_prices: bool = False

    def backend_for(self, model: str) -> dict[str, Any]:
        """Settings for a model: ``[backends."openai/NAME"]`` over ``[backends.openai]``."""
        kind = model.partition("/")[0].partition(":")[0]
        return {**self.backends.get(kind, {}), **self.backends.get(model, {})}


def load_config(explicit: str | Path | None = None) -> Config:
    """The configuration: the file named, ``LONGTHOUGHT_CONFIG``, here, or the platform's own.

    Raises:
        ConfigurationError: a named file is not there, or a file cannot be used; names the key.
    """
    named = explicit or os.environ.get(CONFIG_VARIABLE)
    if named:
        return _read(Path(named).expanduser())
    from platformdirs import user_config_path

    for folder in (Path.cwd(), user_config_path("longthought", appauthor=False)):
        if (folder / FILE_NAME).is_file():
            return _read(folder / FILE_NAME)
    return Config()


def _read(path: Path) -> Config:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            str(path), f"cannot be read: {error.strerror}", f"Check --config and {CONFIG_VARIABLE}"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(str(path), f"is no TOML: {error}", "Correct that line") from error
    _known(path, "", table, _TABLES)
    store = _typed(path, "store", table.get("store", {}), _STORE)
    defaults = _typed(path, "defaults", table.get("defaults", {}), _DEFAULTS)
    _check_budget(path, defaults.get("budget", {}))
    backends = {
        name: _backend(path, f'backends."{name}"', entry)
        for name, entry in _table(path, "backends", table.get("backends", {})).items()
    }
    folder = Path(store["dir"]).expanduser() if "dir" in store else None
    return Config(
        path=path.resolve(),
        store_url=store.get("url"),
        store_dir=(path.resolve().parent / folder) if folder else None,
        defaults=defaults,
        backends=backends,
        has_prices="prices" in table,
    )


def _check_budget(path: Path, limits: Mapping[str, Any]) -> None:
    from longthought.budgets import Budget

    _known(path, "defaults.budget", limits, sorted(Budget.__dataclass_fields__))
    Budget.from_json(limits)


def _backend(path: Path, where: str, entry: Any) -> dict[str, Any]:
    from longthought.orchestrator.models.registry import BackendSettings

    hints = get_type_hints(BackendSettings)
    kinds: dict[str, Any] = {}
    for name, hint in hints.items():
        members = [m for m in get_args(hint) if isinstance(m, type) and m is not type(None)]
        if hint in (str, int, float, bool):
            kinds[name] = hint
        elif getattr(hint, "__origin__", None) is MappingProxyType:
            kinds[name] = dict
        else:
            kinds[name] = members[0] if members and members[0] in (str, int) else str
    return _typed(path, where, entry, kinds)


def _typed(path: Path, where: str, entry: Any, kinds: Mapping[str, type]) -> dict[str, Any]:
    """A table whose keys are known and whose values have the right type."""
    table = _table(path, where, entry)
    _known(path, where, table, sorted(kinds))
    for name, value in table.items():
        kind = kinds[name]
        fits = isinstance(value, kind) or (kind is float and isinstance(value, int))
        if not fits or (isinstance(value, bool) and kind is not bool):
            words = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
            raise ConfigurationError(
                f"{path}: {where}.{name}",
                f"{value!r} cannot be used",
                f"Write {words.get(kind, 'a table')}",
            )
    return table


def _table(path: Path, where: str, entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise ConfigurationError(f"{path}: {where}", "is no table", f"Write [{where}]")
    return entry


def _known(path: Path, where: str, table: Mapping[str, Any], names: Sequence[str]) -> None:
    for key in table:
        if key in names:
            continue
        near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
        fix = f"Did you mean {near[0]!r}?" if near else f"Known are {', '.join(names)}"
        shown = f"{where}.{key}" if where else key
        raise ConfigurationError(f"{path}: {shown}", "is no key of the configuration", fix)
