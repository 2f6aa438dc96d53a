"""A run as it stands in the store: its events in order and the payloads they name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from longthought.errors import TraceError
from longthought.storage.digests import EMPTY_HEAD, chain_hash
from longthought.types import JSON, JSONObject, Message

__all__ = ["Event", "Recording", "due_of", "event_text"]


@dataclass(frozen=True, slots=True)
class Event:
    """One stored event; ``body`` holds the fields of its class in ``events.py``."""

    seq: int
    type: str
    key: str
    body: JSONObject
    hash: str


def event_text(seq: int, type_: str, key: str, body: str) -> str:
    """What the chain hashes. Neither a type nor a key may hold a line break."""
    return f"{seq}\n{type_}\n{key}\n{body}"


def due_of(waiting: Sequence[JSONObject]) -> float | None:
    """When the first timer of a parked run is over, in seconds since the epoch; None without one.

    ``waiting`` is that of its ``run_ended``: a wait with a time has it in ``until``.
    """
    times = [wait.get("until") for wait in waiting]
    return min((float(time) for time in times if isinstance(time, int | float)), default=None)


class Recording:
    """Events and payloads of one run, read only.

    Conversations are chains: a payload ``{"p": parent id, "m": message}`` names the conversation
    that ends with ``m``; the empty id is the conversation without messages.
    """

    def __init__(self, run_id: str, run_key: bytes | None) -> None:
        self.run_id = run_id
        self.run_key = run_key
        self.events: list[Event] = []
        self.head = EMPTY_HEAD
        self.last_payload = 0
        """Where a later load goes on."""
        self._bodies: dict[str, str] = {}

    @property
    def length(self) -> int:
        """How many events the run has."""
        return len(self.events)

    @property
    def replayable(self) -> bool:
        """Whether every payload is still there; a deletion destroys the run key."""
        return self.run_key is not None

    def load(
        self, rows: Iterable[tuple[int, str, str, str, str]], bodies: Mapping[str, str]
    ) -> None:
        """Take over stored rows (seq, type, key, body, hash) in order, checking the chain.

        May be called again with the rows that have come since.

        Raises:
            TraceError: the chain is broken; the message names the first bad event.
        """
        for seq, type_, key, body, digest in rows:
            expected = chain_hash(self.head, event_text(seq, type_, key, body))
            if seq != len(self.events) + 1 or expected != digest:
                raise TraceError(
                    f"run {self.run_id}: the chain is broken at event {seq} ({type_} {key}). "
                    f"Run `longthought audit {self.run_id}`"
                )
            self.events.append(Event(seq, type_, key, json.loads(body), digest))
            self.head = digest
        self._bodies.update(bodies)

    @property
    def bodies(self) -> Mapping[str, str]:
        """The canonical text of each payload that is there."""
        return self._bodies

    def get(self, payload: str) -> JSON:
        """The value a payload id names.

        Raises:
            TraceError: it was deleted or never stored.
        """
        body = self._bodies.get(payload)
        if body is None:
            raise TraceError(f"run {self.run_id}: payload {payload} is not there (deleted?)")
        return json.loads(body)

    def has(self, payload: str) -> bool:
        """Whether the payload is there."""
        return payload in self._bodies

    def messages(self, conversation: str, gap: Message | None = None) -> list[Message]:
        """All messages of a conversation, oldest first.

        ``gap`` stands in for messages that were deleted behind a tombstone.

        Raises:
            TraceError: a message is not there and there is no ``gap`` to stand in for it.
        """
        found: list[Message] = []
        deleted = self.deleted if gap is not None else {}
        while conversation:
            if gap is not None and conversation in deleted:
                found.append(gap)
                conversation = next(iter(deleted[conversation]), "")
                continue
            link = self.get(conversation)
            found.append(link["m"])
            conversation = link["p"]
        found.reverse()
        return found

    @property
    def deleted(self) -> dict[str, list[str]]:
        """The deleted payloads, each with the payloads it named."""
        tombstones = [event.body for event in self.events if event.type == "payload_deleted"]
        return {
            payload: body.get("links", {}).get(payload, [])
            for body in tombstones
            for payload in body["payloads"]
        }

    def manifest(self) -> JSONObject:
        """The manifest of the run.

        Raises:
            TraceError: the run has no first event.
        """
        if not self.events or self.events[0].type != "run_started":
            raise TraceError(f"run {self.run_id} does not begin with a manifest")
        manifest: JSONObject = self.get(self.events[0].body["manifest"])
        return manifest

    def ended(self) -> Event | None:
        """The last event if it says how the run ended."""
        last = self.events[-1] if self.events else None
        return last if last is not None and last.type == "run_ended" else None
