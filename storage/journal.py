"""The journal of one run attempt: stages events, commits them, and knows when it was fenced.

``stage`` puts an event into the chain at once and costs no I/O; ``flush`` commits everything staged
so far as one piece. Nothing that depends on a staged event may leave the process before the flush
that holds it has returned.
"""

from __future__ import annotations

import asyncio
import time

from longthought.errors import Fenced, InvalidInput, StorageError
from longthought.storage.digests import canonical, chain_hash, payload_id, salt_of
from longthought.storage.recording import Event, Recording, due_of, event_text
from longthought.storage.writer import Append, GroupWriter
from longthought.types import JSON, Message

__all__ = ["Journal"]


class Journal(Recording):
    """Appends to one run as one attempt. All calls come from one event loop.

    The status of the run follows from its events: ``attempt_started`` makes it running,
    ``run_ended`` says how it ended.

    Raises (from ``stage``, ``flush`` and ``append``):
        Fenced: another attempt has taken the run over; nothing of this one is written any more.
        StorageError: a commit failed; what was acknowledged stands, the attempt must end.
    """

    def __init__(self, run_id: str, run_key: bytes, attempt: int, writer: GroupWriter) -> None:
        super().__init__(run_id, run_key)
        self.attempt = attempt
        self.status = "running"
        self.wake_at: float | None = None
        """When the run is due by a timer of its own, once it is parked; see ``due_of``."""
        self.recorded = 0
        """How many events were there when this attempt began."""
        self._key: bytes = run_key
        self._writer = writer
        self._known: set[str] = set()
        self._staged_events: list[dict[str, JSON]] = []
        self._staged_payloads: list[dict[str, JSON]] = []
        self._committed_head = self.head
        self._failure: StorageError | None = None
        self._last: Append | None = None

    def opened(self, run_key: bytes, attempt: int) -> None:
        """Go on from what was loaded, as the next attempt; called once after :meth:`load`."""
        self.run_key = self._key = run_key
        self.attempt = attempt
        self.recorded = len(self.events)
        self._committed_head = self.head
        self._known = set(self._bodies)

    def put(self, value: JSON) -> str:
        """Stage a payload and return its id; the same value has the same id throughout the run.

        Raises:
            InvalidInput: the value is not JSON.
        """
        try:
            text = canonical(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidInput("payload", f"cannot be recorded as JSON: {error}") from error
        body = text.encode()
        salt = salt_of(self._key, body)
        digest = payload_id(salt, body)
        if digest not in self._known:
            self._known.add(digest)
            self._bodies[digest] = text
            self._staged_payloads.append(
                {"run_id": self.run_id, "id": digest, "salt": salt, "body": text}
            )
        return digest

    def address(self, value: JSON) -> str:
        """The id a payload would have, without storing it."""
        body = canonical(value).encode()
        return payload_id(salt_of(self._key, body), body)

    def extend(self, conversation: str, message: Message) -> str:
        """The id of a conversation with one more message, which is stored with it."""
        return self.put({"p": conversation, "m": message})

    def keep(self, value: JSON) -> None:
        """Hold a payload in memory although it was stored: :meth:`get` finds it."""
        self._bodies[self.address(value)] = canonical(value)

    def stage(self, type_: str, key: str = "", **body: JSON) -> Event:
        """Put an event at the end of the chain; it is committed with the next flush.

        Raises:
            InvalidInput: the key holds a line break, or the fields are not JSON.
        """
        if self._failure is not None:
            raise self._failure
        if "\n" in key or "\0" in key:
            raise InvalidInput("key", f"{key!r} holds a line break or NUL", "Use plain labels")
        body["at"] = round(time.time(), 6)
        seq = len(self.events) + 1
        try:
            text = canonical(body)
            self.head = chain_hash(self.head, event_text(seq, type_, key, text))
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidInput("event", f"{type_} cannot be recorded: {error}") from error
        event = Event(seq, type_, key, body, self.head)
        self.events.append(event)
        if type_ == "attempt_started":
            self.status = "running"
        elif type_ == "run_ended":
            self.status = body["status"]
            self.wake_at = due_of(body.get("waiting", ()))
        self._staged_events.append(
            {
                "run_id": self.run_id,
                "seq": seq,
                "type": type_,
                "key": key,
                "body": text,
                "hash": self.head,
            }
        )
        return event

    async def append(self, type_: str, key: str = "", **body: JSON) -> Event:
        """Stage one event and commit it with everything staged before it."""
        event = self.stage(type_, key, **body)
        await self.flush()
        return event

    async def flush(self, status: str | None = None) -> None:
        """Commit everything staged; returns when that, and all before it, is durable.

        A waiter that is cancelled withdraws nothing: what was staged is committed all the same.
        """
        if self._failure is not None:
            raise self._failure
        if status is not None:
            self.status = status
        if self._staged_events or status is not None:
            self._writer.submit(self.take())
        append = self._last
        if append is None or append.settled:
            return
        waiter = asyncio.get_running_loop().create_future()
        append.waiters.append(waiter)
        await waiter
        if self._failure is not None:
            raise self._failure

    async def create(self, row: dict[str, JSON]) -> None:
        """Commit the first events of a new run together with its row."""
        append = self.take()
        append.creates = row
        self._writer.submit(append)
        await self.flush()

    def take(self) -> Append:
        """Everything staged, as one piece that the caller commits."""
        append = self._last = Append(
            self.run_id,
            self.attempt,
            self._committed_head,
            self.head,
            len(self.events),
            self.status,
            self._staged_events,
            self._staged_payloads,
            self.fail,
            self.wake_at,
        )
        self._committed_head = self.head
        self._staged_events, self._staged_payloads = [], []
        for row in append.payloads:  # on their way to disk; from here on only the ids are needed
            del self._bodies[row["id"]]
        return append

    @property
    def staged(self) -> bool:
        """Whether something waits for a flush."""
        return bool(self._staged_events)

    @property
    def fenced(self) -> bool:
        """Whether another attempt has taken the run over."""
        return isinstance(self._failure, Fenced)

    def fail(self, error: StorageError) -> None:
        """Refuse everything from now on: a commit failed or the lease was lost."""
        self._failure = self._failure or error
