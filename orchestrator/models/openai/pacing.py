"""The turns of one model at one endpoint, shared by every run of the process that uses it.

What servers say of their limits they say of one model and one key, so that is kept for each
address, key and model. A limit that the user states is one of the endpoint: models at one address
with one key share it if they state the same.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from weakref import WeakValueDictionary

import httpx2

from longthought.budgets.pace import Pace, TooLong
from longthought.budgets.rates import Rates, Ticket
from longthought.errors import BackendError
from longthought.orchestrator.models.openai.rate_headers import said_of_limits
from longthought.types import JSONObject

__all__ = ["CallTurn", "Pacing"]

_LOCK = threading.Lock()
_PACES: WeakValueDictionary[tuple[object, ...], Pace] = WeakValueDictionary()


class CallTurn:
    """The turn of one call: a ticket for each limit that it keeps to."""

    __slots__ = ("learned", "stated")

    def __init__(self) -> None:
        self.learned: tuple[Pace, Ticket] | None = None
        self.stated: tuple[Pace, Ticket] | None = None

    @property
    def held(self) -> list[tuple[Pace, Ticket]]:
        """Every limit, with the ticket for it."""
        return [held for held in (self.learned, self.stated) if held is not None]

    def use(self) -> None:
        """This is the turn of the next call of this task, whichever was taken last."""
        _TURN.set(self)

    def end(self) -> None:
        """The call is over, or will not be made. Saying it twice is harmless."""
        self.used(None)

    def used(self, tokens: int | None) -> None:
        """The call is over, at so many tokens if that is known."""
        if self.learned is not None:
            for pace, ticket in self.held:
                pace.over(ticket, tokens)
            self.learned = self.stated = None


_FREE = CallTurn()
"""The turn of a call at an endpoint without limits."""
_TURN: ContextVar[CallTurn] = ContextVar("longthought_turn", default=_FREE)
"""The turn that was taken for the call under way in this task."""


class Pacing:
    """When the calls of one model may leave, and what their replies say about it.

    ``identity`` is all that tells one user of an endpoint from another: address, key, headers.
    """

    def __init__(
        self, name: str, identity: Iterable[str], requests: int | None, tokens: int | None
    ) -> None:
        self._name = name
        whose = hashlib.sha256("\n".join(identity).encode()).digest()
        self._learned = _shared((whose, name), Rates)
        self._stated: Pace | None = None
        if requests is not None or tokens is not None:
            limits = (whose, requests, tokens)
            self._stated = _shared(limits, lambda: Rates(requests, tokens))

    def try_turn(self, tokens: int, *, tries: int = 0) -> CallTurn | None:
        """The turn if the call may leave at once, else None."""
        if self._stated is None and self._learned.idle:
            return _FREE
        turn = CallTurn()
        ticket = self._learned.try_turn(tokens, tries=tries)
        if ticket is None:
            return None
        turn.learned = (self._learned, ticket)
        if self._stated is not None:
            ticket = self._stated.try_turn(tokens, tries=tries)
            if ticket is None:
                turn.end()
                return None
            turn.stated = (self._stated, ticket)
        _TURN.set(turn)
        return turn

    async def turn(self, tokens: int, *, tries: int, within: float) -> CallTurn:
        """Wait for a turn.

        Raises:
            BackendError: the endpoint allows no call within so many seconds; nothing was sent.
        """
        turn = CallTurn()
        try:
            ticket = await self._learned.turn(tokens, tries=tries, within=within)
            turn.learned = (self._learned, ticket)
            if self._stated is not None:
                ticket = await self._stated.turn(tokens, tries=tries, within=within)
                turn.stated = (self._stated, ticket)
        except TooLong as error:
            turn.end()
            seconds = error.seconds
        except BaseException:
            turn.end()
            raise
        else:
            _TURN.set(turn)
            return turn
        raise BackendError(
            f"{self._name}: the endpoint takes no more calls for {seconds:.0f} s, which is longer "
            f"than this call can wait ({max(within, 0):.0f} s)",
            retry_after=seconds,
            sent=False,
        )

    # -- the call of this task -------------------------------------------------------------------

    def sent(self) -> None:
        """A call leaves."""
        turn = _TURN.get()
        if turn.learned is not None and self._own(turn):
            for pace, ticket in turn.held:
                pace.sent(ticket)

    def heard(self, headers: httpx2.Headers, *, well: bool = True) -> None:
        """The server has answered the call; ``well`` if it took it on."""
        said = said_of_limits(headers)
        if said is not None or not self._learned.idle:
            self._learned.heard(self._ticket(), said, well=well)

    def refused(self, wish: float | None, headers: httpx2.Headers) -> None:
        """The server has turned the call down because there were too many.

        ``wish`` is for how many seconds it wants none, None if it does not say.
        """
        self._learned.refused(self._ticket(), said_of_limits(headers), wish)

    def used(self, usage: JSONObject) -> None:
        """The call is over; ``usage`` is what its reply says."""
        turn = _TURN.get()
        if turn.learned is not None and self._own(turn):
            turn.used(usage.get("prompt_tokens", 0) + usage.get("completion_tokens", 0))

    def _own(self, turn: CallTurn) -> bool:
        """Whether a turn was taken here, and not at an endpoint that the call did not go to."""
        return turn.learned is not None and turn.learned[0] is self._learned

    def _ticket(self) -> Ticket | None:
        """The ticket for the call of this task, None if it left without one."""
        turn = _TURN.get()
        return turn.learned[1] if turn.learned is not None and self._own(turn) else None


def _shared(key: tuple[object, ...], make: Callable[[], Rates]) -> Pace:
    with _LOCK:
        pace = _PACES.get(key)
        if pace is None:
            pace = _PACES[key] = Pace(make())
        return pace
