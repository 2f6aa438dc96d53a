"""An incremental parser of server-sent events.

Bytes go in as the network cuts them, anywhere, even inside a character; whole events come out.
Line ends may be LF, CRLF or CR; comments, ids and retry fields are dropped.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ServerEvent", "ServerEvents"]

_BOM = b"\xef\xbb\xbf"


class ServerEvent(NamedTuple):
    """One event: its ``event`` field, empty if it had none, and its ``data`` lines joined."""

    kind: str
    data: str


class ServerEvents:
    """The events of one stream.

    The work per call is linear in the bytes of the events it completes: pieces of an unfinished
    event are kept apart until a line end arrives.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._after_cr = False
        self._started = False

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """The events that these bytes complete."""
        if self._after_cr or b"\r" in chunk:
            chunk = self._unify(chunk)
        self._pieces.append(chunk)
        if b"\n" not in chunk:
            return []
        text = b"".join(self._pieces)
        if not self._started:
            self._started = True
            text = text.removeprefix(_BOM)
        blocks = text.split(b"\n\n")
        self._pieces = [blocks.pop()]
        return _events(blocks)

    def finish(self) -> list[ServerEvent]:
        """The event that the end of the stream completes, if its last blank line was left out."""
        rest = b"".join(self._pieces)
        self._pieces = []
        return _events([rest if self._started else rest.removeprefix(_BOM)])

    def _unify(self, chunk: bytes) -> bytes:
        """The chunk with LF line ends; a CRLF may have been cut between two chunks."""
        if not chunk:
            return chunk
        if self._after_cr and chunk[0] == 10:
            chunk = chunk[1:]
            self._after_cr = False
            if not chunk:
                return chunk
        self._after_cr = chunk[-1] == 13
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _events(blocks: list[bytes]) -> list[ServerEvent]:
    events: list[ServerEvent] = []
    for block in blocks:
        if block[:6] == b"data: " and b"\n" not in block:  # what nearly every event looks like
            events.append(ServerEvent("", block[6:].decode("utf-8", "replace")))
        elif block:
            event = _event(block)
            if event is not None:
                events.append(event)
    return events


def _event(block: bytes) -> ServerEvent | None:
    kind = ""
    data: list[str] = []
    for line in block.decode("utf-8", "replace").split("\n"):
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "event":
            kind = value
    return ServerEvent(kind, "\n".join(data)) if data else None
