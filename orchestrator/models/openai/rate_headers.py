"""What a server says of its rate limits in the headers of a reply."""

from __future__ import annotations

import math
import re
import time

import httpx2

from longthought.budgets.rates import Said

__all__ = ["said_of_limits", "seconds_of"]

_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|d|h|m|s)")
_UNITS = {
    "d": 86_400.0,
    "h": 3_600.0,
    "m": 60.0,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "µs": 1e-6,
    "ns": 1e-9,
}
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_MOMENTS_FROM = 1e9
"""A reset of so many seconds is no period but a moment: seconds since 1970."""


def said_of_limits(headers: httpx2.Headers) -> tuple[Said | None, Said | None] | None:
    """What is left in requests and in tokens; None if the headers say nothing of limits.

    Understood are ``x-ratelimit-limit-requests``, ``-remaining-`` and ``-reset-``, the same with
    ``-tokens``, and for requests the plain ``ratelimit-limit``, ``-remaining`` and ``-reset``, with
    or without ``x-``. The plain ones speak of a window that begins anew; the others fill up.
    """
    # Nearly every reply comes past here, and headers are slow to look up: one look at all names.
    raw = headers.raw
    if b"ratelimit-" not in b"\n".join([name for name, _ in raw]).lower():
        return None
    found = {name.lower(): value for name, value in raw}
    requests = _said(found, b"x-ratelimit-%b-requests", refills=True)
    requests = requests or _said(found, b"ratelimit-%b", refills=False)
    requests = requests or _said(found, b"x-ratelimit-%b", refills=False)
    tokens = _said(found, b"x-ratelimit-%b-tokens", refills=True)
    return (requests, tokens) if requests or tokens else None


def seconds_of(text: str) -> float | None:
    """A time as servers write it, in seconds: ``6m0s``, ``20ms``, ``1.5``; None if it is none."""
    text = text.strip().lower()
    if _NUMBER.fullmatch(text):
        number = float(text)
    elif text and not _PART.sub("", text):
        number = sum(float(value) * _UNITS[unit] for value, unit in _PART.findall(text))
    else:
        return None
    return number if math.isfinite(number) else None


def _said(headers: dict[bytes, bytes], name: bytes, *, refills: bool) -> Said | None:
    left = _number(headers.get(name % b"remaining"))
    if left is None:
        return None
    limit = _number(headers.get(name % b"limit"))
    if limit is not None and limit < 1:
        return None  # how some say that there is none
    reset = seconds_of(headers.get(name % b"reset", b"").decode("latin-1"))
    if reset is not None and reset >= _MOMENTS_FROM:
        milliseconds = reset >= 1000 * _MOMENTS_FROM
        reset = max(0.0, (reset / 1000 if milliseconds else reset) - time.time())
    return Said(left, limit, reset, refills)


def _number(value: bytes | None) -> float | None:
    """The number that a field begins with: ``100, 100;w=60`` is a limit of 100."""
    if value is None:
        return None
    found = _NUMBER.match(value.decode("latin-1").strip())
    number = float(found.group()) if found else math.inf
    return number if math.isfinite(number) else None
