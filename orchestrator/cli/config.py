"""The configuration file: found, read, and every key in it checked."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args, get_origin, get_type_hints

from longthought.errors import ConfigurationError, InvalidInput

__all__ = ["CONFIG_VARIABLE", "FILE_NAME", "Config", "load_config"]

FILE_NAME = "longthought.toml"
CONFIG_VARIABLE = "LONGTHOUGHT_CONFIG"

_TABLES = ("backends", "defaults", "prices", "store")
_Kinds: TypeAlias = tuple[type, ...]
_STORE: Mapping[str, _Kinds] = {"url": (str,), "dir": (str,)}
_DEFAULTS: Mapping[str, _Kinds] = {
    "model": (str,),
    "base_url": (str,),
    "strategy": (str,),
    "n": (int,),
    "temperature": (float,),
    "max_tokens": (int,),
    "budget": (dict,),
}
_WORDS: Mapping[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a table",
}
_TOML_TYPES: Mapping[Any, type] = {
    bool: bool,
    int: int,
    float: float,
    str: str,
    Literal: str,
    Mapping: dict,
    Sequence: list,
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
        backend = model.partition("/")[0].partition(":")[0]
        general = {} if model == backend else self.backends.get(backend, {})
        return _merged(general, self.backends.get(model, {}))


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
    backends = _backends(path, _table(path, "backends", table.get("backends", {})))
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


def _backends(path: Path, table: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Every backend, each field checked; settings of one model are checked over its backend's."""
    from longthought.orchestrator.models.registry import BackendSettings, check_backend_name

    kinds = _field_kinds(get_type_hints(BackendSettings))
    entries = {
        name: _typed(path, f"backends.{_key(name)}", table[name], kinds)
        for name in sorted(table, key=lambda name: name.count("/"))  # a backend before its models
    }
    for name, entry in entries.items():
        where = f"backends.{_key(name)}"
        backend = name.partition("/")[0].partition(":")[0]
        try:
            check_backend_name(backend)
            BackendSettings(**_merged(entries.get(backend, {}), entry))
        except InvalidInput as error:
            field_name = f"{where}.{error.field}" if error.field != "backends" else where
            raise ConfigurationError(f"{path}: {field_name}", error.problem, error.fix) from None
    return entries


def _merged(general: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of one model over those of its backend: an address replaces another."""
    general = dict(general)
    if "base_url" in own or "base_urls" in own:
        general.pop("base_url", None)
        general.pop("base_urls", None)
    return {**general, **own}


def _field_kinds(hints: Mapping[str, Any]) -> dict[str, _Kinds]:
    """What TOML has for each field: one of its types that it knows."""
    kinds: dict[str, _Kinds] = {}
    for name, hint in hints.items():
        whole = get_origin(hint) or hint
        parts = [hint] if whole in _TOML_TYPES else get_args(hint)
        origins = [get_origin(part) or part for part in parts]
        kinds[name] = tuple(_TOML_TYPES[one] for one in origins if one in _TOML_TYPES)
    return kinds


def _key(name: str) -> str:
    return name if re.fullmatch(r"[\w-]+", name, re.ASCII) else f'"{name}"'


def _typed(path: Path, where: str, entry: Any, kinds: Mapping[str, _Kinds]) -> dict[str, Any]:
    """A table whose keys are known and whose values have the right type."""
    table = _table(path, where, entry)
    _known(path, where, table, sorted(kinds))
    for name, value in table.items():
        known = kinds[name]
        fits = isinstance(value, known) or (float in known and isinstance(value, int))
        if not fits or (isinstance(value, bool) and bool not in known):
            words = " or ".join(_WORDS[kind] for kind in known)
            problem = f"{value!r} cannot be used"
            raise ConfigurationError(f"{path}: {where}.{name}", problem, f"Write {words}")
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
