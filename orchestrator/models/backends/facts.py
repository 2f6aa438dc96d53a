"""What a server said of itself: the form in which it is kept with a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from longthought.types import JSONObject

__all__ = ["ServerFacts", "ServerLoad"]


@dataclass(frozen=True, slots=True)
class ServerLoad:
    """How busy a server was at the moment it was asked; None where it did not say.

    ``memory_used`` is the share of its context memory that is taken, ``running`` and ``waiting``
    are requests. ``prefix_hits`` is the share of all prompt tokens since its start that it found.
    """

    memory_used: float | None = None
    running: int | None = None
    waiting: int | None = None
    prefix_hits: float | None = None

    def to_json(self) -> JSONObject:
        """The fields that are known."""
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server said of itself, and of one of its models; None where it did not say.

    ``kind`` is its kind by name. ``context_window`` is the tokens it was started with, which may be
    fewer than its model could take; ``slots`` how many replies it works on at once;
    ``context_capacity`` how many tokens of all contexts together it keeps in memory. ``priority``
    is which numbers go first as ``priority``, if it serves by them.
    ``capabilities`` are those that it states itself. ``serves`` is the kind of the model behind a
    server of ours. ``problem`` says why nothing is known: it did not answer, or not as expected.
    """

    kind: str | None = None
    version: str | None = None
    models: tuple[str, ...] = ()
    context_window: int | None = None
    slots: int | None = None
    context_capacity: int | None = None
    priority: str | None = None
    capabilities: Mapping[str, bool] = field(default_factory=lambda: MappingProxyType({}))
    serves: str | None = None
    problem: str | None = None
    status: int | None = None
    """The status of what it answered instead of its models; None if it answered nothing."""
    silent: bool = False
    """Whether it took the connection and then did not answer in time: it may yet be well."""
    load: ServerLoad = ServerLoad()
    """As it was then, which is nothing to build a model by: it is not recorded."""

    def to_json(self) -> JSONObject:
        """The fields that say something, but for the list of models; as recorded with a run."""
        found = {
            "kind": self.kind,
            "version": self.version,
            "context_window": self.context_window,
            "slots": self.slots,
            "context_capacity": self.context_capacity,
            "priority": self.priority,
            "capabilities": dict(self.capabilities),
            "serves": self.serves,
        }
        return {name: value for name, value in found.items() if value}

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None) -> ServerFacts | None:
        """The facts that :meth:`to_json` wrote; None for nothing."""
        if not value:
            return None
        known = {name: value[name] for name in value if name in cls.__dataclass_fields__}
        known.pop("load", None)
        known["capabilities"] = MappingProxyType(dict(known.get("capabilities", {})))
        return cls(**known)
