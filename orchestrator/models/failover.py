"""Several endpoints of one model as one ``Model``: calls go where there is room, past what fails.

An endpoint that fails as a whole (no connection, no answer in time, 5xx, 429) is left out for a
while, longer each time; then one call at a time tries it, until one comes back well. A failed call
still fails: whoever made it, which is the executor, charges it and tries again, and that try goes
elsewhere. So nothing is asked, or paid for, behind anybody's back.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Literal, cast

from longthought.budgets.members import Member
from longthought.errors import BackendError, EndpointOut, InvalidInput
from longthought.orchestrator.models.endpoints import TURN, Endpoint, EndpointTurn, Placing
from longthought.orchestrator.models.placement import Held, Holdings, ranked
from longthought.orchestrator.models.scheduling import scheduling_now
from longthought.types import (
    Capabilities,
    Delta,
    Grant,
    JSONObject,
    Model,
    ModelReply,
    ModelRequest,
    PicksUp,
    Turn,
)

__all__ = ["Failover"]

_LONGEST = 60.0
_MOST_DOUBLINGS = 16


class Failover:
    """Endpoints of one model as one model; ``slots`` and ``context_capacity`` are those of all.

    The generation controller asks for the :meth:`members` and places calls itself: each has a
    permit, and a lease, for one endpoint, and goes there (``placing``). What follows is for calls
    that are made without it.

    With ``placement="prefix"`` a call goes to the endpoint that holds the beginning of its prompt,
    unless others are much less loaded: :func:`~longthought.orchestrator.models.placement.ranked`.
    A new branch, and with ``"load"`` every call, goes to the endpoint with the fewest calls in
    flight per slot, the first listed of several. One that failed is left out for up to ``cooldown``
    seconds at first, twice as long after each failure that follows, up to ``longest`` (full
    jitter), and no shorter than a server asks for. While all are out, calls go to the one that is
    due first. While some are out, the others take all calls, beyond their own slots.

    It can what all endpoints can. With ``"load"`` their memories for contexts are not managed
    (``context_capacity`` is None): the next call of a branch may go to any. ``clock`` gives
    seconds, ``jitter`` a number between two. Safe to use in several event loops and threads at
    once.

    Raises:
        InvalidInput: there is no endpoint, or they have not one name.
    """

    def __init__(
        self,
        models: Sequence[Model],
        *,
        cooldown: float = 1.0,
        longest: float = _LONGEST,
        placement: Literal["prefix", "load"] = "prefix",
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        if not models:
            raise InvalidInput("models", "there is no endpoint", "Give at least one model")
        names = sorted({model.name for model in models})
        if len(names) > 1:
            fix = "Give each the same name; served_as is its name at its own endpoint"
            raise InvalidInput("models", f"have several names: {', '.join(names)}", fix)
        if not 0 < cooldown <= longest:
            raise InvalidInput(
                "cooldown", f"{cooldown:g} s cannot be used", f"Use 0 to {longest:g}"
            )
        if placement not in ("prefix", "load"):
            raise InvalidInput("placement", f"there is no {placement!r}", "Use prefix or load")
        self.name = names[0]
        self.slots = sum(model.slots for model in models)
        sizes = [_capacity(model) for model in models]
        # Where a branch may go elsewhere with any call, no memory is kept for it anywhere.
        self.keeps_contexts = kept = placement == "prefix" or len(models) == 1
        """Whether a branch goes back to the endpoint that served it."""
        self.context_capacity = _sum_known(sizes) if kept else None
        self.prefix_cache = kept and all(getattr(one, "prefix_cache", False) for one in models)
        self.placing = Placing(self)
        self._labels: dict[str, Endpoint] = {}
        several = placement == "prefix" and len(models) > 1
        self._holdings = Holdings(len(models)) if several else None
        self.takes_scheduling = several or any(
            getattr(model, "takes_scheduling", False) for model in models
        )
        self.capabilities = _common([model.capabilities for model in models])
        self._endpoints = [Endpoint(model, place) for place, model in enumerate(models)]
        self._cooldown, self._longest = cooldown, longest
        self._clock, self._jitter = clock, jitter
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Failover({[endpoint.model for endpoint in self._endpoints]!r})"

    async def generate(
        self,
        request: ModelRequest,
        grant: Grant,
        emit: Callable[[Delta], None] | None = None,
    ) -> ModelReply:
        """Ask one endpoint. Another is tried by the next call, never within this one.

        Raises:
            BackendError: the endpoint failed. ``retry_after`` is 0 if another is well.
            EndpointOut: the one that the call has a permit for went out before it had left.
            QuestionRefused: the model cannot take this question at all.
        """
        endpoint, outage, trial = self._begin()
        error: BackendError | None = None
        came_back = False
        try:
            reply = await endpoint.model.generate(request, grant, emit)
            came_back = True
            return reply
        except BackendError as failure:
            error = failure
            raise
        finally:
            self._leave(endpoint, outage, trial, error, came_back)

    async def pick_up(self, request: ModelRequest, handle: str, limit: int) -> ModelReply | None:
        """The reply that one of the endpoints works on by itself; see ``PicksUp``.

        Which of them is not on record, so each is asked in turn until one has it.

        Raises:
            BackendError: none has it, and at one it failed or nobody could be asked for it.
        """
        problem: BackendError | None = None
        for endpoint in self._endpoints:
            if not hasattr(endpoint.model, "pick_up"):
                continue
            try:
                reply = await cast("PicksUp", endpoint.model).pick_up(request, handle, limit)
            except BackendError as error:
                problem = problem or error
                continue
            if reply is not None:
                return reply
        if problem is not None:
            raise problem
        return None

    def try_turn(self, tokens: int, *, tries: int = 0) -> Turn | None:
        """A turn at the first endpoint that a call may leave for at once, else None."""
        for endpoint in self.best_first():
            inner = None
            if endpoint.paced is not None:
                inner = endpoint.paced.try_turn(tokens, tries=tries)
                if inner is None:
                    continue
            return self._turn(endpoint, inner)
        return None

    async def turn(self, tokens: int, *, tries: int = 0, within: float = math.inf) -> Turn:
        """Wait for a turn, at the endpoint with the most room of those that have one in time.

        Raises:
            BackendError: none has one within so many seconds; nothing was sent.
        """
        return self._turn(*await self.wait(tokens, tries, within))

    def members(self) -> list[Member]:
        """How the endpoints stand now, for the generation controller.

        One that is due for a try has a single slot until a call has come back well. While all are
        out, the one that is due first has all of its own.
        """
        with self._lock:
            now = self._clock()
            due = [one for one in self._endpoints if not one.failures or now >= one.out_until]
            first = None if due else min(self._endpoints, key=_out_until)
            return [self._member(one, now, first) for one in self._endpoints]

    def _member(self, endpoint: Endpoint, now: float, first: Endpoint | None) -> Member:
        slots = endpoint.model.slots
        if endpoint.failures and endpoint is not first:
            slots = 1 if endpoint.open(now) else 0
        # The try may be another controller's, and nobody tells this one when it is over.
        wait = max(endpoint.out_until - now, self._cooldown if endpoint.trying else 0.0)
        return Member(
            self.label(endpoint),
            slots,
            _capacity(endpoint.model) if self.keeps_contexts else None,
            endpoint.lives,
            None if slots else wait,
            on_lease=getattr(endpoint.model, "lease_changed", None),
        )

    # -- for turns; not for callers ---------------------------------------------------------------

    def label(self, endpoint: Endpoint) -> str:
        """What an endpoint is called in events and traces: its address, unless others have it."""
        if not self._labels:
            labels: dict[str, Endpoint] = {}
            for one in self._endpoints:
                address = str(one.model.fingerprint().get("endpoint") or one.place + 1)
                taken = address in labels
                labels[f"{address} #{one.place + 1}" if taken else address] = one
            self._labels = labels  # all at once: other threads may look
        return next(name for name, one in self._labels.items() if one is endpoint)

    def labelled(self, name: str) -> Endpoint:
        """The endpoint of that name."""
        return self._labels[name]

    def best_first(self) -> list[Endpoint]:
        """The endpoints that calls may go to now, the best first; if none, the one due first."""
        with self._lock:
            return self._best(self._clock())

    async def wait(self, tokens: int, tries: int, within: float) -> tuple[Endpoint, Turn | None]:
        """Wait for the endpoint's own turn, at the best of those that have one in time."""
        problem: BackendError | None = None
        for endpoint in self.best_first():
            inner = None
            try:
                if endpoint.paced is not None:
                    inner = await endpoint.paced.turn(tokens, tries=tries, within=within)
            except BackendError as error:
                problem = problem or error
                continue
            return endpoint, inner
        assert problem is not None  # noqa: S101 - there is an endpoint
        raise problem

    def bind(self, endpoint: Endpoint, inner: Turn | None) -> EndpointTurn:
        """The call of this task has a permit for an endpoint."""
        return self._turn(endpoint, inner, bound=True)

    def give_up(self, endpoint: Endpoint) -> None:
        """A turn at this endpoint was not used."""
        with self._lock:
            endpoint.in_flight -= 1

    def count_prompt(self, request: ModelRequest) -> int | None:
        """As the first endpoint counts; they serve one model."""
        return self._endpoints[0].model.count_prompt(request)

    def fingerprint(self) -> JSONObject:
        """Kind and name of the model, and the fingerprint of every endpoint."""
        each = [endpoint.model.fingerprint() for endpoint in self._endpoints]
        kinds = {str(one.get("kind")) for one in each}
        kind = kinds.pop() if len(kinds) == 1 else "failover"
        return {"kind": kind, "name": self.name, "endpoints": each}

    def check(self) -> None:
        """Find out before the first call whether an endpoint lacks its key.

        Raises:
            ConfigurationError: one does.
        """
        for endpoint in self._endpoints:
            check = getattr(endpoint.model, "check", None)
            if check is not None:
                check()

    def status(self) -> list[JSONObject]:
        """How each endpoint fares: calls in flight, failures in a row, seconds it is still out.

        ``placed`` counts the calls of runs that it was chosen for, by what it held of their
        prompts: the whole ``branch`` before, what the ``run`` shares, or ``nothing``.
        """
        with self._lock:
            now = self._clock()
            return [
                {
                    "endpoint": endpoint.model.fingerprint().get("endpoint"),
                    "in_flight": endpoint.in_flight,
                    "failures": endpoint.failures,
                    "out": max(0.0, endpoint.out_until - now) if endpoint.failures else 0.0,
                    "placed": dict(endpoint.placed),
                }
                for endpoint in self._endpoints
            ]

    async def aclose(self) -> None:
        """Close all endpoints, also where closing one fails."""
        problem: Exception | None = None
        for endpoint in self._endpoints:
            try:
                await endpoint.model.aclose()
            except Exception as error:
                problem = problem or error
        if problem is not None:
            raise problem

    # -- details --------------------------------------------------------------------------------

    def _best(self, now: float) -> list[Endpoint]:
        standings = [endpoint.standing(now) for endpoint in self._endpoints]
        told = scheduling_now() if self._holdings is not None else None
        if told is None or self._holdings is None:
            order = ranked(standings)
        else:
            order = ranked(
                standings, self._holdings.home(told.branch), self._holdings.kin(told.run)
            )
        if order:
            return [self._endpoints[place] for place in order]
        return [min(self._endpoints, key=_out_until)]

    def _may_take(self, now: float) -> list[Endpoint]:
        """The endpoints that take calls now; if none does, the one due first."""
        open_now = [endpoint for endpoint in self._endpoints if endpoint.open(now)]
        return open_now or [min(self._endpoints, key=_out_until)]

    def _place(self, endpoint: Endpoint) -> Held | None:
        """The call of this task is to go there; what is found there of its prompt, if known."""
        endpoint.in_flight += 1
        told = scheduling_now() if self._holdings is not None else None
        if told is None or self._holdings is None:
            return None
        found = self._holdings.held(told.run, told.branch, endpoint.place)
        self._holdings.served(told.run, told.branch, endpoint.place)
        return found

    def _turn(self, endpoint: Endpoint, inner: Turn | None, bound: bool = False) -> EndpointTurn:
        with self._lock:
            turn = EndpointTurn(self, endpoint, inner, self._place(endpoint), bound)
        TURN.set(turn)
        return turn

    def _begin(self) -> tuple[Endpoint, int, bool]:
        """The endpoint for a call, its outages so far, and whether the call tries it.

        A turn that was taken before says which. If that endpoint has gone out meanwhile another
        takes the call, but not if it has a permit: then it has to get another.

        Raises:
            EndpointOut: the one that the permit is for has gone out; nothing was sent.
        """
        turn = TURN.get()
        with self._lock:
            now = self._clock()
            chosen = turn.endpoint if turn is not None and turn.taken_by(self) else None
            found = turn.found if turn is not None else None
            if chosen is not None and turn is not None and chosen not in self._may_take(now):
                chosen.in_flight -= 1
                if turn.bound:
                    raise EndpointOut
                chosen = None
            if chosen is None:
                chosen = self._best(now)[0]
                found = self._place(chosen)
            if found is not None:
                chosen.placed[found] += 1
            trial = chosen.failures > 0 and not chosen.trying
            chosen.trying = chosen.trying or trial
            return chosen, chosen.outages, trial

    def _leave(
        self,
        endpoint: Endpoint,
        outage: int,
        trial: bool,
        error: BackendError | None,
        came_back: bool,
    ) -> None:
        with self._lock:
            endpoint.in_flight -= 1
            if trial:
                endpoint.trying = False
            if error is not None and error.retryable:
                self._failed(endpoint, outage, error)
            elif outage == endpoint.outages and (came_back or _was_heard(error)):
                # What began before the outage, and ended well, says nothing about now.
                endpoint.failures, endpoint.out_until = 0, 0.0

    def _failed(self, endpoint: Endpoint, outage: int, error: BackendError) -> None:
        now = self._clock()
        if outage == endpoint.outages:  # of the calls in flight at once, one makes the outage
            endpoint.outages += 1
            endpoint.failures += 1
            doublings = min(endpoint.failures - 1, _MOST_DOUBLINGS)
            seconds = min(self._longest, self._cooldown * 2**doublings)
            endpoint.out_until = now + self._jitter(0.0, seconds)
            if error.status is None:
                endpoint.lives += 1  # it is gone, and its memory may be, too
                if self._holdings is not None:
                    self._holdings.lost(endpoint.place)
        if error.retry_after is not None:
            asked_for = min(error.retry_after, self._longest)
            endpoint.out_until = max(endpoint.out_until, now + asked_for)
        others = [other for other in self._endpoints if other is not endpoint]
        if any(other.open(now) for other in others):
            error.retry_after = 0.0  # the next try goes there, at once
        elif others and error.retry_after is not None:
            soonest = min(other.out_until for other in others) - now
            error.retry_after = max(0.0, min(error.retry_after, soonest))


def _out_until(endpoint: Endpoint) -> float:
    return endpoint.out_until


def _was_heard(error: BackendError | None) -> bool:
    """Whether the endpoint answered, be it with a refusal: then it is there."""
    return error is not None and error.status is not None


def _capacity(model: Model) -> int | None:
    found: int | None = getattr(model, "context_capacity", None)
    return found


def _sum_known(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _common(each: Sequence[Capabilities]) -> Capabilities:
    """What all can; the shortest context that is known."""
    both: JSONObject = {
        field.name: all(getattr(one, field.name) for one in each)
        for field in fields(Capabilities)
        if field.name != "context_window"
    }
    windows = [one.context_window for one in each if one.context_window is not None]
    return Capabilities(**both, context_window=min(windows) if windows else None)
