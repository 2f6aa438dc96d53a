"""Parameters of a request that say how it is served, and nothing of what is asked.

They are settings of a backend, so they stand beside a request as its address does: no trace holds
them, and a run is replayed, resumed and compared without them. Which kind of server takes which is
in :data:`~longthought.orchestrator.models.backends.kinds.KINDS`.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, get_args

from longthought.errors import ConfigurationError
from longthought.orchestrator.models.backends.headers import with_variables
from longthought.orchestrator.models.backends.kinds import (
    GENERIC,
    KINDS,
    First,
    Kind,
    ParameterName,
    Window,
)
from longthought.orchestrator.models.scheduling import LEAST_URGENT, urgency
from longthought.types import JSONObject, Scheduling

__all__ = ["PARAMETERS", "RequestParameters", "check_parameters", "parameters_of"]

PARAMETERS: tuple[ParameterName, ...] = (
    "priority",
    "cache_salt",
    "prompt_cache_key",
    "service_tier",
    "background",
)
_WINDOWS: tuple[str, ...] = get_args(Window)
_NO_DEARER = ("auto", "default", "flex")
"""Tiers that cost no more than a price book says."""
_FIXES: Mapping[ParameterName, str] = {
    "priority": "start the server so that it serves by priority (vLLM: --scheduling-policy "
    "priority; SGLang: --enable-priority-scheduling), or set priority = false",
    "cache_salt": "give another cache_salt in the backend's profile, or none",
    "prompt_cache_key": "give another prompt_cache_key in the backend's profile, or none",
    "service_tier": "give another service_tier in the backend's profile, or none",
    "background": "give another background in the backend's profile, or none",
}


@dataclass(frozen=True, slots=True)
class RequestParameters:
    """What is added to every request to one endpoint; None, or false, is not sent.

    ``priority`` says which numbers go first at the server; the number of a call follows from what
    it is, see :func:`~longthought.orchestrator.models.scheduling.urgency`. ``cache_salt`` keeps the
    prefixes of one tenant from all others; it may name variables (``$NAME``) and is never shown.
    ``prompt_cache_key`` sends calls that begin alike to one cache: true is a key for each run, a
    text is one for all. ``service_tier`` is how fast, and how dear, a call is. ``background`` has
    the provider work on a reply by itself, and says by when it is wanted; the calls of one branch
    have one ``continuation_id``, so that what follows on a tool goes before what is new.
    """

    priority: First | None = None
    cache_salt: str | None = field(default=None, repr=False)
    prompt_cache_key: bool | str = False
    service_tier: str | None = None
    background: Window | None = None

    @property
    def by_call(self) -> bool:
        """Whether any of it depends on the call."""
        keyed = self.prompt_cache_key is True or self.background is not None
        return keyed or self.priority is not None

    @property
    def streams(self) -> bool:
        """Whether a reply may be streamed: not if there are hours for it."""
        return self.background in (None, "soonest")

    def fixed(self) -> JSONObject:
        """What is the same for every call.

        Raises:
            ConfigurationError: a variable that the salt names is not set.
        """
        made: JSONObject = {}
        if self.cache_salt is not None:
            made["cache_salt"] = with_variables(self.cache_salt, "cache_salt")
        if isinstance(self.prompt_cache_key, str):
            made["prompt_cache_key"] = self.prompt_cache_key
        if self.service_tier is not None:
            made["service_tier"] = self.service_tier
        if self.background is not None:
            made |= {"background": True, "background_options": self._window()}
        return made

    def _window(self) -> JSONObject:
        return {"completion_window": self.background}

    def of_call(self, scheduling: Scheduling) -> JSONObject:
        """What depends on the call."""
        made: JSONObject = {}
        if self.priority is not None:
            level = urgency(scheduling, time.time())
            made["priority"] = level if self.priority == "lower" else LEAST_URGENT - level
        if self.prompt_cache_key is True:
            made["prompt_cache_key"] = scheduling.run
        if self.background is not None:
            opaque = hashlib.sha256(scheduling.branch.encode()).hexdigest()[:32]
            made["background_options"] = {**self._window(), "continuation_id": opaque}
        return made

    def advice(self, problem: str) -> str:
        """What to do about a refusal that names one of these; empty if it names none."""
        for name in PARAMETERS:
            words = rf"\b{name.replace('_', '[_ ]')}\b"
            if getattr(self, name) and re.search(words, problem, re.IGNORECASE):
                return _FIXES[name]
        return ""


class Written(Protocol):
    """The part of a profile that is read here; its values are as the user wrote them."""

    @property
    def kind(self) -> str | None: ...
    @property
    def known_kind(self) -> Kind: ...
    @property
    def price(self) -> Mapping[str, Any] | None: ...
    @property
    def priority(self) -> bool | First | None: ...
    @property
    def cache_salt(self) -> str | None: ...
    @property
    def prompt_cache_key(self) -> bool | str | None: ...
    @property
    def service_tier(self) -> str | None: ...
    @property
    def background(self) -> Window | None: ...
    @property
    def api(self) -> str: ...


def check_parameters(written: Written) -> None:
    """Check the parameters of a profile, as far as its kind is known.

    Raises:
        ConfigurationError: one cannot be used, or servers of that kind do not take it.
    """
    _check_values(written)
    if written.kind is not None and written.kind != GENERIC:
        for name in PARAMETERS:
            if getattr(written, name):
                _check_taken(name, written.known_kind, written)


def parameters_of(written: Written, kind: Kind) -> RequestParameters | None:
    """The parameters of a profile for a server of this kind, None if there are none.

    Raises:
        ConfigurationError: servers of that kind take one of them not, or nobody knows.
    """
    named = [name for name in PARAMETERS if getattr(written, name)]
    if not named:
        return None
    for name in named:
        _check_taken(name, kind, written)
    priority = written.priority
    return RequestParameters(
        priority=kind.first if isinstance(priority, bool) and priority else priority or None,
        cache_salt=written.cache_salt,
        prompt_cache_key=written.prompt_cache_key or False,
        service_tier=written.service_tier,
        background=written.background,
    )


def _check_values(written: Written) -> None:
    priority = written.priority
    if not (priority is None or isinstance(priority, bool) or priority in ("lower", "higher")):
        fix = "Write true, or which go first: lower or higher"
        raise ConfigurationError("priority", f"{priority!r} cannot be used", fix)
    for name in ("cache_salt", "service_tier", "prompt_cache_key"):
        value = getattr(written, name)
        if value is None or (name == "prompt_cache_key" and isinstance(value, bool)):
            continue
        if not isinstance(value, str) or not value.strip() or not value.isprintable():
            raise ConfigurationError(name, "is no text that can be sent", "Write a word in quotes")
    if written.service_tier not in (None, *_NO_DEARER) and written.price is None:
        raise ConfigurationError(
            "service_tier",
            f"{written.service_tier!r} is not charged what the price book says",
            "Write its price, too: price = { input = ..., output = ... }",
        )
    if written.background is not None:
        _check_background(written)


def _check_background(written: Written) -> None:
    window, tier = written.background, written.service_tier
    if window not in _WINDOWS:
        raise ConfigurationError(
            "background", f"{window!r} is no window", f"Use {', '.join(_WINDOWS)}"
        )
    if written.api != "responses":
        raise ConfigurationError(
            "background", "is a thing of Responses alone", 'Set api = "responses", or leave it out'
        )
    if window != "soonest" and tier not in (None, "auto", "default"):
        raise ConfigurationError(
            "service_tier", f"{tier!r} cannot stand beside a window of {window}", "Leave it out"
        )


def _check_taken(name: ParameterName, kind: Kind, written: Written) -> None:
    told = name == "priority" and written.priority in ("lower", "higher")
    if name in kind.takes or (told and kind.name == GENERIC):
        return
    able = [one.name for one in KINDS.values() if name in one.takes]
    if kind.name == GENERIC:
        fix = f"Name its kind ({', '.join(able)}), or use extra_body"
        fix = f"{fix}, or say which go first: lower or higher" if name == "priority" else fix
        raise ConfigurationError(name, "is nothing that every server takes", fix)
    problem = f"is nothing that servers of kind {kind.name} take"
    raise ConfigurationError(name, problem, f"Leave it out; {' and '.join(able)} do")
