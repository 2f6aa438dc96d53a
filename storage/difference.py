"""What changed between a recorded value and the one asked for now, in words."""

from __future__ import annotations

from longthought.storage.digests import canonical
from longthought.types import JSON, JSONObject

__all__ = ["describe_change"]

_ABSENT = object()


def describe_change(recorded: JSONObject, now: JSONObject, prefix: str = "") -> str:
    """A readable difference of two JSON objects: the first few fields that differ."""
    lines: list[str] = []
    for name in sorted({*recorded, *now}):
        before, after = recorded.get(name, _ABSENT), now.get(name, _ABSENT)
        if _same(before, after):
            continue
        where = f"{prefix}{name}"
        if isinstance(before, dict) and isinstance(after, dict):
            lines.append(describe_change(before, after, f"{where}."))
        elif isinstance(before, list) and isinstance(after, list):
            lines.append(_list_change(before, after, where))
        else:
            lines.append(f"{where}: recorded {_short(before)}, now {_short(after)}")
    return "; ".join(line for line in lines if line)


def _list_change(recorded: list[JSON], now: list[JSON], where: str) -> str:
    for index, (before, after) in enumerate(zip(recorded, now, strict=False)):
        if not _same(before, after):
            if isinstance(before, dict) and isinstance(after, dict):
                return describe_change(before, after, f"{where}[{index}].")
            return f"{where}[{index}]: recorded {_short(before)}, now {_short(after)}"
    return f"{where}: recorded {len(recorded)} items, now {len(now)}"


def _same(before: JSON, after: JSON) -> bool:
    """Whether two values have one canonical form; Python takes 1, 1.0 and True for one."""
    if before is _ABSENT or after is _ABSENT:
        return before is after
    return canonical(before) == canonical(after)


def _short(value: JSON) -> str:
    if value is _ABSENT:
        return "nothing"
    text = canonical(value)
    return text if len(text) <= 160 else f"{text[:120]}... ({len(text)} characters)"
