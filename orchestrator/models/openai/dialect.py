"""What differs between OpenAI's two protocols: how a request is written and how a reply is read.

Chat Completions and Responses carry the same things under other names. A dialect knows the names;
:class:`~longthought.orchestrator.models.openai.model.OpenAIModel` does everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, Protocol, TypeAlias

from longthought.types import (
    JSON,
    Delta,
    FinishReason,
    JSONObject,
    Message,
    ModelRequest,
    Usage,
)

__all__ = [
    "Answer",
    "Arriving",
    "CutFor",
    "Dialect",
    "Emit",
    "Incoming",
    "ServerFault",
    "WireOptions",
    "known_form",
]

Emit: TypeAlias = Callable[[Delta], None]
CutFor: TypeAlias = Literal["thought_cut", "thought_short"]
"""Why a stream is closed: its thought is too long, or something was said after too short a one."""


class ServerFault(Exception):
    """Raised for a reply that cannot be used; ``error`` is the error object that stands in it.

    ``begun`` is true if a part of the reply had come, which has its price.
    """

    def __init__(self, problem: str, error: JSON = None, *, begun: bool = False) -> None:
        super().__init__(problem)
        self.problem, self.error, self.begun = problem, error, begun


@dataclass(frozen=True, slots=True)
class WireOptions:
    """How requests to one endpoint are written.

    ``name`` is the model's name at the endpoint. ``max_tokens_field`` is where a chat request has
    its maximum, ``thinking_field`` where it has the most tokens of a thought, None for servers that
    take none. ``include_usage`` asks streams for their usage, ``running_usage`` those of Chat
    Completions for that so far with each piece. ``send_reasoning`` sends reasoning back as it came.
    ``seeds`` sends seeds over Responses, too, where few servers take them.
    ``extra`` is added to every body but replaces nothing.
    """

    name: str
    stream: bool = True
    include_usage: bool = True
    running_usage: bool = False
    send_reasoning: bool = True
    strict_tools: bool = False
    seeds: bool = False
    max_tokens_field: str = "max_tokens"
    thinking_field: str | None = None
    extra: Mapping[str, JSON] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(slots=True)
class Answer:
    """A reply as it was read, in canonical form, before the limits of its call are laid on it.

    ``finish_reason`` follows from what is in the reply first, and from what the server says second.
    ``usage`` is None if the server sent none that can be used; ``counts_all`` says that it counts
    all that came. ``tells_stop`` says that the server tells which stop string ended a reply;
    ``stopped_by`` is that string, None if it was none.
    ``tells_length`` says that it tells when a reply had no room left.
    """

    message: Message
    finish_reason: FinishReason
    usage: Usage | None = None
    counts_all: bool = True
    model: str = ""
    fingerprint: str = ""
    logprobs: list[JSONObject] | None = None
    tells_length: bool = True
    tells_stop: bool = False
    stopped_by: str | None = None


class Incoming(Protocol):
    """What takes in a stream, event by event."""

    @property
    def tokens(self) -> int:
        """Pieces that came: a piece may stand for more than a token, never for less."""
        ...

    @property
    def cut_for(self) -> CutFor | None:
        """Why the stream is to be closed, None while it may go on."""
        ...

    @property
    def done(self) -> bool:
        """Whether nothing is left to come, not even usage."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the server said how the reply ended."""
        ...

    @property
    def complete(self) -> bool:
        """Whether all of the reply has come, usage apart."""
        ...

    def take(self, kind: str, data: str) -> None:
        """Take in one server-sent event: its ``event`` field, empty if none, and its data.

        Raises:
            ServerFault: it is an error, or nothing that can be read.
        """
        ...


class Arriving(Incoming, Protocol):
    """A reply while it streams in."""

    def answer(self) -> Answer:
        """What has come so far, as a reply."""
        ...


class Dialect(Protocol):
    """One protocol, without I/O."""

    @property
    def path(self) -> str:
        """Where requests are posted, below the base URL."""
        ...

    def body(self, request: ModelRequest, max_tokens: int | None) -> JSONObject:
        """The body to post; without ``max_tokens`` no maximum is sent."""
        ...

    def whole(self, request: ModelRequest, reply: JSONObject) -> Answer:
        """A reply that came in one piece.

        Raises:
            ServerFault: it is an error, or nothing that can be used.
        """
        ...

    def arriving(self, request: ModelRequest, emit: Emit | None) -> Arriving:
        """A reply that is about to stream in; ``emit`` is called with each piece."""
        ...


@contextmanager
def known_form() -> Iterator[None]:
    """What a server may send has no end; all that cannot be read is one fault of the server.

    Raises:
        ServerFault: something in the block met a form that nobody knows.
    """
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError):
        raise ServerFault("the reply has no known form") from None
