"""One of several endpoints, and the turns of calls that go to one of them."""

from __future__ import annotations

import math
from collections import Counter
from contextvars import ContextVar
from typing import TYPE_CHECKING, cast

from longthought.orchestrator.models.placement import Held, Standing
from longthought.types import Model, Paced, Turn

if TYPE_CHECKING:
    from longthought.orchestrator.models.failover import Failover

__all__ = ["TURN", "Endpoint", "EndpointTurn", "EndpointTurns", "Placing"]


class Endpoint:
    """One endpoint and how it fares; ``outages`` counts how often it went out."""

    __slots__ = (
        "failures",
        "in_flight",
        "lives",
        "model",
        "out_until",
        "outages",
        "paced",
        "place",
        "placed",
        "trying",
    )

    def __init__(self, model: Model, place: int) -> None:
        self.model, self.place = model, place
        self.placed: Counter[Held] = Counter()
        """Calls that were sent there, by what it held of their prompts."""
        self.paced = cast("Paced", model) if hasattr(model, "try_turn") else None
        self.in_flight = 0
        """Calls under way, and those that have a turn for it."""
        self.failures = 0
        """Failed in a row; 0 while it is well."""
        self.out_until = 0.0
        self.outages = 0
        self.lives = 0
        """How often it has gone, with what it held."""
        self.trying = False
        """Whether a call is finding out if it is well again."""

    def standing(self, now: float) -> Standing:
        """How it stands now, for the rule of where a call goes."""
        return Standing(self.open(now), self.in_flight, self.model.slots)

    def open(self, now: float) -> bool:
        """Whether calls may go there: it is well, or due for a try that nobody makes yet."""
        return not self.failures or (now >= self.out_until and not self.trying)


class EndpointTurn:
    """The right to one call at one endpoint; ``inner`` is the endpoint's own.

    ``bound``: the call has a permit for this endpoint and goes there or nowhere.
    """

    __slots__ = ("_failover", "bound", "endpoint", "found", "held", "inner")

    def __init__(
        self,
        failover: Failover,
        endpoint: Endpoint,
        inner: Turn | None,
        found: Held | None,
        bound: bool,
    ) -> None:
        self._failover, self.endpoint, self.inner = failover, endpoint, inner
        self.found, self.bound = found, bound
        self.held = True

    def taken_by(self, failover: Failover) -> bool:
        """Whether the call of this turn begins there now; true once."""
        begins = self.held and self._failover is failover
        self.held = self.held and not begins
        return begins

    def end(self) -> None:
        """The call is over, or will not be made."""
        if self.held:
            self.held = False
            self._failover.give_up(self.endpoint)
        if self.inner is not None:
            self.inner.end()


class EndpointTurns:
    """A turn at every endpoint that has one, until a permit says which of them it is for."""

    __slots__ = ("_ask", "_failover", "_inner", "_turn")

    def __init__(
        self, failover: Failover, inner: dict[Endpoint, Turn | None], ask: tuple[int, int]
    ) -> None:
        self._failover, self._inner, self._ask = failover, inner, ask
        self._turn: EndpointTurn | None = None

    @property
    def places(self) -> frozenset[str]:
        """The names of those endpoints."""
        return frozenset(self._failover.label(endpoint) for endpoint in self._inner)

    def go(self, place: str) -> bool:
        """The call goes to that endpoint; the turns at all others are given back.

        False if it has no turn there, and none can be had at once.
        """
        endpoint = self._failover.labelled(place)
        inner = self._inner.pop(endpoint, None)
        self.end()
        if inner is None and endpoint.paced is not None:
            tokens, tries = self._ask
            inner = endpoint.paced.try_turn(tokens, tries=tries)
            if inner is None:
                return False
        if inner is not None and hasattr(inner, "use"):
            inner.use()  # of several turns of one task, this is the one that its call has
        self._turn = self._failover.bind(endpoint, inner)
        return True

    def end(self) -> None:
        """The call is over, or will not be made."""
        for inner in self._inner.values():
            if inner is not None:
                inner.end()
        self._inner.clear()
        if self._turn is not None:
            self._turn.end()


class Placing:
    """Turns for calls whose endpoint a permit decides; see :class:`Failover`."""

    __slots__ = ("_failover",)

    def __init__(self, failover: Failover) -> None:
        self._failover = failover

    def try_turn(self, tokens: int, *, tries: int = 0) -> EndpointTurns | None:
        """A turn at each endpoint that a call may leave for at once, None if there is none."""
        inner: dict[Endpoint, Turn | None] = {}
        for endpoint in self._failover.best_first():
            one = None
            if endpoint.paced is not None:
                one = endpoint.paced.try_turn(tokens, tries=tries)
                if one is None:
                    continue
            inner[endpoint] = one
        return EndpointTurns(self._failover, inner, (tokens, tries)) if inner else None

    async def turn(self, tokens: int, *, tries: int = 0, within: float = math.inf) -> EndpointTurns:
        """Wait for a turn at one endpoint; see :meth:`Failover.turn`."""
        endpoint, inner = await self._failover.wait(tokens, tries, within)
        return EndpointTurns(self._failover, {endpoint: inner}, (tokens, tries))


TURN: ContextVar[EndpointTurn | None] = ContextVar("longthought_failover_turn", default=None)
"""The turn that was taken for the call under way in this task."""
