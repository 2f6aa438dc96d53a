"""Seats: what the generation controller is told of every line of thought, and what it says back.

A line of thought is a branch of a search, a node outside every search, or one call of a verifier or
a tool that asks a model itself. It has a branch of the controller and a context that grows from
call to call; samples of one question share its start. Nothing of this is part of a request or of a
key, and a replay asks for no slot: where contexts lay decides when a call is made, never which.
"""

from __future__ import annotations

import re
import time
from bisect import insort
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from longthought.budgets import Branch as Slot
from longthought.budgets import BranchState, Controller, Permit
from longthought.budgets.states import FINAL_STATES, TRANSITIONS
from longthought.orchestrator.definition import Definition
from longthought.orchestrator.places import Frame
from longthought.orchestrator.recorded import Recorded
from longthought.orchestrator.starts import Beginning
from longthought.storage import Store
from longthought.types import JSON, JSONObject, Model, Scheduling, Usage

__all__ = ["Ask", "Seat", "Seats", "introduce", "leased", "node_place", "shape_of", "teach"]

_TOKENS_PER_BYTE = 0.35
"""What a bound in bytes is worth in tokens, before a model has taught better."""
_LEAST_LEARNED = 64
"""Bytes below which a reply says nothing of that."""
_SUPERSTEP = re.compile(r"/\d+\.")


@dataclass(slots=True)
class Seat:
    """The seat of one line of thought.

    Attributes:
        place: where it stands.
        slot: its branch of the controller.
        shares: whether its first prompt is also that of others.
        once: whether it is for one call alone.
        context: tokens of its context when its last call ended.
        prefix: its first prompt, if that is shared.
        since: when a model that wants to know was asked first, in seconds since the epoch.
    """

    place: str
    slot: Slot
    shares: bool = False
    once: bool = False
    context: int = 0
    prefix: str = ""
    since: float = 0.0
    marks: tuple[tuple[str, int], ...] = ()
    """Ids of conversations that were computed for it, with their tokens, the longest first."""
    acting: list[str] = field(default_factory=list)
    """The names of the tools that run for it now, in their order."""

    @contextmanager
    def tool_running(self, tool: str, size: int) -> Iterator[None]:
        """Show the controller that it acts, while at least one tool runs.

        ``size`` is that of the arguments: by its order of magnitude fast calls are told from slow
        ones. Of several tools at once it is learned how long they take together.
        """
        slot, running = self.slot, self.acting
        insort(running, tool)
        shape: Hashable = shape_of(size) if len(running) == 1 else f"{len(running)} at once"
        if slot.state is BranchState.ACTING:  # others run, or it began while the reply streamed
            slot.joined("+".join(dict.fromkeys(running)), shape)
        elif not slot.permits and BranchState.ACTING in TRANSITIONS[slot.state]:
            slot.move(BranchState.ACTING, tool=tool, shape=shape)
        completed = False
        try:
            yield
            completed = True
        finally:
            running.remove(tool)
            if not running and slot.state is BranchState.ACTING:
                slot.move(BranchState.READY, completed=completed)

    def known(self, ids: Sequence[str]) -> int:
        """Tokens at the start of a conversation that were computed for this seat before."""
        for mark, tokens in self.marks:
            if mark in ids:
                return tokens
        return 0

    def sent(self, ids: Sequence[str]) -> int:
        """Tokens at the start of a conversation that were sent for this seat before."""
        mark, tokens = self.marks[-1] if self.marks else ("", 0)
        return tokens if mark in ids else 0


@dataclass(slots=True)
class Ask:
    """One call as the controller is told of it.

    ``context`` is what its prompt is thought to be, ``known`` how much of it was computed before,
    in tokens; ``bound`` is an upper bound of the prompt, or exact.
    """

    seat: Seat
    permit: Permit
    context: int
    known: int
    bound: int
    sent: int = 0
    """How much of it was sent before: a reply may not be, as it was."""
    cached: int = 0
    prompt: int = 0
    """What its prompt turned out to be."""
    first_token: float | None = None
    """When the first token came, on the controller's clock."""


@dataclass(slots=True)
class Seats:
    """All seats of one attempt at a run.

    ``tenant`` shares the slots fairly with others; ``left`` is how many seconds the run has. Times
    are seconds on the controller's clock since the attempt began, which is ``age`` seconds ago: its
    first event says when that was by the wall clock, and so what other runs did at that time.
    """

    controller: Controller
    run: str
    index: Recorded
    tenant: str | None = None
    left: float | None = None
    age: float = 0.0
    began: float = field(init=False)
    _deadline: float | None = field(init=False)
    _seats: dict[str, Seat] = field(default_factory=dict)
    _prefixes: dict[str, int] = field(default_factory=dict)
    """Tokens of each shared start, as far as known."""
    _beginnings: dict[str, Beginning] = field(default_factory=dict)
    """The same starts as other runs know them."""
    _computed: set[str] = field(default_factory=set)
    """The shared starts that a call has computed."""
    _resumed: set[str] = field(default_factory=set)
    """Branches and nodes in which an earlier attempt has recorded something."""
    _over: bool = False
    """Whether the attempt is: what outlives it gets no seat, since nobody would end it."""
    _last: Seat | None = None
    """The seat of the node that generated last, outside branches."""
    _rates: dict[str, float] = field(default_factory=dict)
    """Tokens per byte of each model, for texts whose tokens were bounded."""

    def __post_init__(self) -> None:
        now = self.controller.now()
        self.began = now - self.age
        self._deadline = None if self.left is None else now + self.left
        for found in self.index.places:
            place = found
            while place and place not in self._resumed:
                self._resumed.add(place)
                place = place.rpartition("/")[0]
        self._resumed.update([node_place(found) for found in self.index.places])

    def extend(self, left: float) -> None:
        """The run has so many seconds now."""
        self._deadline = self.controller.now() + left

    # -- seats ----------------------------------------------------------------------------------

    def at(self, place: str, *, shares: bool = False) -> Seat:
        """The seat of a place; one that was resumed goes before new ones."""
        seat = self._seats.get(place)
        if seat is None:
            resumed = place in self.index.ends or place in self._resumed
            seat = self._seats[place] = Seat(place, self._slot(place, resumed), shares)
        return seat

    def of(self, frame: Frame, key: str) -> Seat:
        """The seat for a call at some place.

        What a verifier or a tool asks is no part of the conversation around it: it has a seat for
        that one call. Outside branches a node has the same seat each time it is come to, since a
        loop over a node goes on with a conversation.
        """
        if frame.inner:
            return Seat(key, self._slot(key, True), once=True)
        if frame.branch is not None:
            return frame.branch.seat
        place = node_place(frame.path)
        seat = self._seats.get(place)
        return self.at(place) if seat is None else seat

    def waiting(self, frame: Frame) -> Seat | None:
        """The seat that a tool which is called here keeps waiting, None if nobody's.

        A node that calls tools for a conversation of another node keeps that one waiting which
        generated last.
        """
        if frame.inner:
            return None  # what a tool or a judge calls itself: the wait is for that already
        if frame.branch is not None:
            return frame.branch.seat
        seat = self._seats.get(node_place(frame.path)) or self._last
        resting = (BranchState.READY, BranchState.ACTING)
        return seat if seat is not None and seat.slot.state in resting else None

    def _slot(self, place: str, resumed: bool) -> Slot:
        if self._over:
            raise RuntimeError(f"the attempt at {self.run} is over")
        # An earlier attempt that was taken over may not have let go of its own yet.
        slot = self.controller.branch(
            f"{self.run}{place}", resumed=resumed, run=self.run, tenant=self.tenant, anew=True
        )
        slot.log = []
        return slot

    def release(self) -> JSONObject:
        """Leave nothing with the controller; returns what was not told of leases, by place."""
        left: JSONObject = {}
        self._over = True
        for seat in self._seats.values():
            if seat.slot.state not in FINAL_STATES:
                seat.slot.move(BranchState.DONE)  # it cannot ask for a permit any more
            told = self.told(seat)
            if told:
                left[seat.place] = told
        self._seats.clear()
        return left

    # -- calls ----------------------------------------------------------------------------------

    def ask(
        self,
        seat: Seat,
        model: Model,
        tools: str,
        ids: Sequence[str],
        bound: int,
        *,
        exact: bool,
        beginning: Callable[[], Beginning] = tuple,
        only: Collection[str] | None = None,
    ) -> Ask:
        """A permit for one call; ``tools`` stands for what is offered, ``bound`` is of the prompt.

        The first prompt of a branch is what it shares with its siblings, and its ``beginning`` with
        branches of other runs. ``only`` are the endpoints that the call may go to.
        """
        known = seat.known(ids) if seat.marks else 0
        if seat.shares and not seat.prefix and ids:
            seat.prefix = f"{model.name} {tools} {ids[-1]}"
            if seat.prefix in self._computed:
                known = self._prefixes[seat.prefix]
        known = max(0, min(known, bound - 1))  # the last token always has to be computed
        rate = 1.0 if exact else self._rates.get(model.name, _TOKENS_PER_BYTE)
        context = known + int((bound - known) * rate)
        *before, (prefix, shared) = self._starts(seat, model, context, beginning)
        permit = self.controller.permit(
            model.name,
            seat.slot,
            context=context,
            prefix=prefix,
            prefix_tokens=shared,
            before=tuple(before),
            deadline=self._deadline,
            only=only,
        )
        return Ask(seat, permit, context, known, bound, seat.sent(ids) if known else 0)

    def _starts(
        self, seat: Seat, model: Model, context: int, beginning: Callable[[], Beginning]
    ) -> list[tuple[str | None, int]]:
        """What the context of a seat begins with, the shortest first, and the tokens of each.

        Where no memory is managed there is no telling whether anything is shared; of several
        endpoints one is to be found that holds it.
        """
        if not seat.prefix or not (_managed(model) or hasattr(model, "members")):
            return [(None, 0)]
        if seat.prefix not in self._beginnings:
            self._beginnings[seat.prefix] = beginning()
        tokens = self._prefixes.setdefault(seat.prefix, context)
        known = self._beginnings[seat.prefix]
        return [(start, round(tokens * share)) for start, share in known] or [(None, 0)]

    def scheduling(self, seat: Seat) -> Scheduling:
        """What a model is told of a call beside its request."""
        seat.since = seat.since or time.time()
        return Scheduling(self.run, seat.slot.id, seat.slot.resumed, seat.since)

    def used(self, ask: Ask, usage: Usage, model: Model, sent_at: float) -> None:
        """Tell the controller what a call has shown, before its slot goes back."""
        if not (ask.seat.shares or ask.seat.once):
            self._last = ask.seat
        prompt = usage.prompt_tokens or ask.context  # of several samples one pays for the prompt
        seat = ask.seat
        seat.context = prompt + usage.completion_tokens
        ask.prompt, ask.cached = prompt, usage.cached_tokens
        first = None
        if ask.first_token is not None and (ask.cached or not ask.known):
            first = (prompt - ask.cached, ask.first_token - sent_at)
        cached = ask.cached if _managed(model) else None
        known = ask.sent if seat.marks else None
        ask.permit.used(context=seat.context, cached=cached, known=known, first_token=first)
        if not usage.estimated and usage.prompt_tokens:
            self._learn(ask, prompt, model.name)

    def _learn(self, ask: Ask, prompt: int, model: str) -> None:
        seat, size = ask.seat, ask.bound - ask.known
        if size >= _LEAST_LEARNED and prompt > ask.known:
            rate = self._rates.get(model, _TOKENS_PER_BYTE)
            seen = min(1.0, (prompt - ask.known) / size)
            self._rates[model] = rate + (seen - rate) * 0.2
        if seat.prefix and not seat.marks:
            self._prefixes[seat.prefix] = prompt
            self._computed.add(seat.prefix)

    def mark(self, ask: Ask, ids: Sequence[str], conversation: str) -> None:
        """A reply makes a conversation longer; ``ids`` are those of what was sent."""
        if ids:
            # Nothing was computed from the token that was drawn last.
            computed = max(ask.prompt, ask.seat.context - 1)
            ask.seat.marks = ((conversation, computed), (ids[-1], ask.prompt))

    def leave(self, seat: Seat) -> None:
        """A call is over, with all its tries: a seat for it alone ends."""
        if seat.once and seat.slot.state not in FINAL_STATES:
            seat.slot.move(BranchState.DONE)

    # -- what is recorded -----------------------------------------------------------------------

    def held(self, permit: Permit) -> list[JSON] | None:
        """A permit as it is recorded: asked, granted, released, and the slots there were."""
        if permit.granted_at is None or permit.asked_at is None or permit.released_at is None:
            return None
        began = self.began
        where = [permit.endpoint, permit.endpoint_slots] if permit.endpoint else []
        return [
            round(permit.asked_at - began, 4),
            round(permit.granted_at - began, 4),
            round(permit.released_at - began, 4),
            permit.slots,
            *where,
        ]

    def told(self, seat: Seat) -> list[list[JSON]]:
        """What has happened to the leases of a seat since this was last asked for."""
        log = seat.slot.log
        if not log:
            return []
        told = [
            [what, name, round(at - self.began, 4), size, *where]
            for what, name, at, size, *where in log
        ]
        log.clear()
        return told

    def since(self, *times: float) -> list[float]:
        """Times on the controller's clock as they are recorded."""
        return [round(at - self.began, 4) for at in times]


def _managed(model: Model) -> bool:
    """Whether the memory of a model's backend is ours to manage.

    It is if somebody has said how large it is, or if each endpoint is one server with a prefix
    cache: what it did not find again shows how much it keeps. A hosted service is many servers and
    forgets for reasons of its own; a miss says nothing there, and waiting would not help.
    """
    return _stated(model) is not None or bool(getattr(model, "prefix_cache", False))


def _stated(model: Model) -> int | None:
    """The memory of a model's backend in tokens, None if nobody has said."""
    size: int | None = getattr(model, "context_capacity", None)
    return size


def leased(models: Iterable[Model]) -> bool:
    """Whether the memory of any of them is known, so that there are leases on it."""
    return any(_stated(model) is not None for model in models)


def shape_of(size: int) -> int:
    """What tells fast calls of a tool from slow ones: how large its arguments are, roughly.

    ``size`` is in characters.
    """
    return size.bit_length()


def node_place(path: str) -> str:
    """The place of a node, whichever superstep it is come to in."""
    return _SUPERSTEP.sub("/", path)


def introduce(controller: Controller, models: Iterable[Model]) -> None:
    """Make the backends of models known, with their memory where somebody has said what it is.

    May be called again: a capacity that has become known since is taken over.
    """
    for model in models:
        size, members = _stated(model), getattr(model, "members", None)
        if members is not None:
            keeps = getattr(model, "keeps_contexts", True)
            controller.endpoints(model.name, members, keeps=keeps)
        elif not controller.knows(model.name, size):
            controller.backend(
                model.name,
                model.slots,
                capacity=size,
                on_lease=getattr(model, "lease_changed", None),
            )


async def teach(controller: Controller, definition: Definition, store: Store) -> None:
    """Tell a controller how long the tools of a workflow took in earlier runs."""
    names = {tool.spec.name for tool in definition.tools}
    for run in await store.tool_runs(definition.name, names):
        controller.tool_times.observe(run.tool, run.seconds, shape_of(run.size))
