"""How long a server may be silent, and what ends a call when it is longer.

Comments that keep a connection alive, and headers, are silence: only tokens count. One timer looks
at a counter from time to time; what arrives sets no timer of its own.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from types import TracebackType

from longthought.errors import ConfigurationError
from longthought.orchestrator.models.openai.dialect import Incoming, ServerFault

__all__ = ["Patience", "Stalled", "Watch"]

_LOOKS = 10
"""Looks in the shorter of two periods; a silence is noticed so much of it, or twice that, late."""


class Stalled(ServerFault):
    """Raised in a call whose reply did not come in time."""


@dataclass(frozen=True, slots=True)
class Patience:
    """The longest silences, in seconds; infinity is for ever.

    ``connect`` is until a connection stands, ``first_token`` from then on until the first token of
    a streamed reply, ``silence`` between two tokens of it, and for a whole reply that is not
    streamed.

    Raises:
        ConfigurationError: one of them is not positive.
    """

    connect: float
    first_token: float
    silence: float
    streams: bool = True

    def __post_init__(self) -> None:
        names = (
            ("connect_timeout", self.connect),
            ("timeout", self.silence),
            ("first_token_timeout", self.first_token),
        )
        for name, value in names:
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or math.isnan(value) or value <= 0:
                raise ConfigurationError(name, f"{value!r} is no time", "Use seconds above 0")

    @property
    def connecting(self) -> float:
        """Seconds until a connection stands: no longer than what comes after it may take."""
        return min(self.connect, self.silence, self.first_token if self.streams else math.inf)


class Watch:
    """A block in which a reply has to arrive; cancels what waits in it when it does not.

    Without ``reply`` all of it has to come within ``patience.silence``.

    Raises:
        Stalled: on leaving the block, for silence that was too long.
    """

    __slots__ = (
        "_before",
        "_expired",
        "_first",
        "_loop",
        "_period",
        "_reply",
        "_seen",
        "_silence",
        "_since",
        "_task",
        "_timer",
    )

    def __init__(self, patience: Patience, reply: Incoming | None = None) -> None:
        self._silence, self._reply, self._seen = patience.silence, reply, 0
        self._first = patience.silence if reply is None else patience.first_token
        self._period = min(self._first, self._silence) / _LOOKS
        self._expired = False
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a model call needs a task")
        self._task, self._before = task, task.cancelling()
        self._loop = task.get_loop()
        self._since = self._loop.time()
        if self._period < math.inf:
            self._timer = self._loop.call_at(self._since + self._period, self._look)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        cancelled = kind is not None and issubclass(kind, asyncio.CancelledError)
        if self._expired and self._task.uncancel() <= self._before and cancelled:
            raise Stalled(self._problem()) from None

    def _look(self) -> None:
        now = self._loop.time()
        tokens = 0 if self._reply is None else self._reply.tokens
        if tokens != self._seen:
            self._seen, self._since = tokens, now
        limit = self._silence if tokens else self._first
        if now - self._since >= limit + self._period:
            self._expired = True
            self._task.cancel()
        else:
            self._timer = self._loop.call_at(now + self._period, self._look)

    def _problem(self) -> str:
        if self._reply is None:
            return f"no reply within {self._silence:g} s (timeout)"
        if not self._seen:
            return f"no token within {self._first:g} s (first_token_timeout)"
        return (
            f"the reply stalled: {self._seen} tokens, then none for {self._silence:g} s (timeout)"
        )
