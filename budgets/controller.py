"""The generation controller: slots of every backend, held only while tokens flow.

The asyncio shell around :class:`~longthought.budgets.fleet.Fleet`: the endpoints of a backend, one
as a rule. Where the context
memory of a backend is known, a lease on it stands beside the permits: taken with the first one,
kept over short tool waits, given up over long ones when somebody needs the room.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Any, TypeAlias

from longthought.budgets.branch import Branch
from longthought.budgets.fleet import Fleet
from longthought.budgets.lease_book import Starts, check_slots
from longthought.budgets.leases import LeaseScheduler
from longthought.budgets.members import Member, OnLease
from longthought.budgets.permit import Permit
from longthought.budgets.tool_times import ToolTimes
from longthought.errors import InvalidInput
from longthought.types import JSONObject, LeaseChange

__all__ = ["Backend", "Branch", "Controller", "Permit"]

OnEvent: TypeAlias = Callable[[JSONObject], None]
_LOG = logging.getLogger("longthought")

Members: TypeAlias = Callable[[], Sequence[Member]]


class Backend:
    """What the controller knows of one backend; for permits, not for callers.

    ``on_lease`` says by its endpoint's name what is told of a lease, where anybody cares.
    ``members`` says how its endpoints stand now, None where there is one that is always there.
    """

    __slots__ = ("members", "name", "on_lease", "scheduler", "timer")

    def __init__(self, name: str, scheduler: Fleet[Permit]) -> None:
        self.name, self.scheduler = name, scheduler
        self.on_lease: dict[str, OnLease] = {}
        self.members: Members | None = None
        self.timer: tuple[asyncio.AbstractEventLoop, asyncio.TimerHandle] | None = None

    def look(self, now: Callable[[], float]) -> None:
        """See how the endpoints stand."""
        if self.members is not None:
            members = self.members()
            self.on_lease |= {one.name: one.on_lease for one in members if one.on_lease is not None}
            self.scheduler.update(members, now())

    def tell(self, endpoint: str, branch: str, change: LeaseChange) -> None:
        """Tell who cares what has become of a lease; a mistake of theirs holds nobody else up."""
        on_lease = self.on_lease.get(endpoint)
        if on_lease is None:
            return
        try:
            on_lease(branch, change)
        except Exception:
            _LOG.exception("a lease of %s: %s could not be told", self.name, change)

    def view(self) -> JSONObject:
        """Slots and leases as JSON, those of each endpoint, too, where there are several."""
        shown: JSONObject = _shown(self.scheduler)
        if self.members is not None:
            each = self.scheduler.endpoints.items()
            shown["endpoints"] = {
                name: {key: value for key, value in _shown(one).items() if key != "waiting"}
                for name, one in each
            }
        return shown


class Controller:
    """Slots of all backends of a process, and the branches that use them.

    Belongs to one thread; futures are bound to the running loop, so one controller may serve
    several loops one after the other. ``now`` is the clock of every event and of ageing, in
    seconds. ``on_event`` is given each event as a JSON object with ``event`` and ``at``; ``heard``
    says whether there is one. How long tools take is learned once for all backends; ``tool_times``
    carries it on to other controllers.
    """

    def __init__(
        self,
        *,
        now: Callable[[], float] = time.monotonic,
        on_event: OnEvent | None = None,
        max_passes: int = 64,
        max_wait: float = 1800.0,
        tool_times: ToolTimes | None = None,
    ) -> None:
        self.now = now
        self.tool_times = tool_times or ToolTimes()
        self._on_event = on_event
        self.heard = on_event is not None
        self._max_passes, self._max_wait = max_passes, max_wait
        self._backends: dict[str, Backend] = {}
        self._branches: dict[str, Branch] = {}
        self.hidden_thinkers: set[str] = set()
        """Names of models that have thought where nobody could see it, or end it."""

    def backend(
        self,
        name: str,
        slots: int,
        *,
        capacity: int | None = None,
        prefill_rate: float | None = None,
        on_lease: OnLease | None = None,
    ) -> None:
        """Make a backend known, or change its number of slots and its memory while it is used.

        ``capacity`` is its context memory in tokens; None leaves it as it is, at first unknown.
        ``prefill_rate`` is a first guess in tokens per second, better ones are learned.
        ``on_lease`` is told of every lease, and does with contexts what it is told; the capacity
        is then what is left for those that do not generate: see
        :class:`~longthought.types.Leased`. Both stay what they were at first.

        Raises:
            InvalidInput: ``slots`` or ``capacity`` is not a whole number from 1.
        """
        member = Member(
            "", check_slots(slots), capacity, prefill_rate=prefill_rate, on_lease=on_lease
        )
        known = self._backends.get(name) or Backend(name, self._fleet())
        if "" not in known.scheduler.endpoints:
            known.on_lease |= {} if on_lease is None else {"": on_lease}
        known.members = None
        known.scheduler.update([member], self.now())
        self._backends[name] = known
        self.pump(known)

    def endpoints(self, name: str, members: Members, *, keeps: bool = True) -> None:
        """Make a backend known that has several endpoints, or change who says how they stand.

        ``members`` is asked whenever a slot may be given: endpoints may come, go, be out for a
        while, and have more slots or memory than before. Each has its own permits and leases, and
        says itself what :meth:`backend` is told of ``prefill_rate`` and ``on_lease``.
        ``keeps``: see :class:`Fleet`.

        Raises:
            InvalidInput: a number of slots or a capacity is not a whole number, or a
                ``prefill_rate`` cannot be used.
        """
        known = self._backends.get(name)
        if known is None:
            known = self._backends[name] = Backend(name, self._fleet(keeps=keeps))
        known.members = members
        self.pump(known)

    def _fleet(self, **options: Any) -> Fleet[Permit]:
        return Fleet[Permit](
            tool_times=self.tool_times,
            max_passes=self._max_passes,
            max_wait=self._max_wait,
            **options,
        )

    def knows(self, name: str, capacity: int | None = None) -> bool:
        """Whether a backend is known, and by that capacity if one is given."""
        known = self._backends.get(name)
        if known is None:
            return False
        return capacity is None or known.scheduler.given_capacity == capacity

    def branch(
        self,
        branch_id: str,
        *,
        resumed: bool = False,
        run: Hashable = None,
        tenant: Hashable = None,
        anew: bool = False,
    ) -> Branch:
        """The branch of that id, new if it is not known.

        ``resumed`` says of a new one that it has generated before, in an earlier attempt. Slots
        are shared fairly over tenants and over runs. With ``anew`` it takes the place, and the
        leases, of a known one, whose end then changes nothing.
        """
        known = self._branches.get(branch_id)
        if known is None or anew:
            known = Branch(branch_id, self, resumed, run, tenant)
            self._branches[branch_id] = known
        return known

    def permit(
        self,
        backend: str,
        branch: Branch | str,
        *,
        context: int = 0,
        prefix: Hashable = None,
        prefix_tokens: int = 0,
        deadline: float | None = None,
        before: Starts = (),
        only: Collection[str] | None = None,
    ) -> Permit:
        """A permit to be entered: ``async with controller.permit("openai", branch): ...``.

        ``context`` is the length of the prompt in tokens, of which the first ``prefix_tokens`` are
        shared by all branches that name the same ``prefix``; it begins with the shorter starts
        ``before``, which others may share without it. ``deadline`` is a time on the clock of the
        controller. ``only`` are the endpoints that it may be for, None for all.

        Raises:
            InvalidInput: the backend is not known.
        """
        known = self._known(backend)
        branch = self.branch(branch) if isinstance(branch, str) else branch
        return Permit(
            self,
            known,
            branch,
            context,
            prefix,
            prefix_tokens,
            deadline,
            before=before,
            only=only,
        )

    def in_use(self, backend: str) -> int:
        """Slots of a backend that are held now."""
        return self._known(backend).scheduler.in_use

    def waiting(self, backend: str) -> int:
        """Callers that wait for a slot of a backend now."""
        return self._known(backend).scheduler.waiting

    def would_wait(self, backend: str) -> bool:
        """Whether a call dispatched now would have to wait for a slot."""
        known = self._known(backend)
        known.look(self.now)
        return known.scheduler.waiting > 0 or known.scheduler.full

    def view(self) -> JSONObject:
        """Slots and branches as JSON, as they stand now."""
        return {
            "backends": {name: backend.view() for name, backend in self._backends.items()},
            "branches": {name: branch.state.value for name, branch in self._branches.items()},
        }

    # -- for permits and branches; not for callers -------------------------------------------------

    def forget(self, branch: Branch) -> None:
        """Drop a branch that has ended, and its leases; called by the branch."""
        if self._branches.get(branch.id) is branch:
            del self._branches[branch.id]
            told = []
            for backend in self._backends.values():  # all of them, before a listener may raise
                backend.scheduler.end(branch.id, self.now())
                told += self._serve(backend, branch)
            self._emit_all(told)

    def acting(self, branch: Branch, tool: str, shape: Hashable) -> None:
        """A branch waits for a tool; called by the branch."""
        told = []
        for backend in self._backends.values():
            backend.scheduler.acting(branch.id, self.now(), tool=tool, shape=shape)
            told += self._serve(backend)  # its room may be worth more to who waits
            home = backend.scheduler.home(branch.id)
            if home is not None:  # told after those that make room for it
                backend.tell(home, branch.id, "acting")
        self._emit_all(told)

    def returned(self, branch: Branch, completed: bool) -> None:
        """What a branch waited for has come; called by the branch."""
        # One call of a tool is one observation, however many backends there are.
        for place, backend in enumerate(self._backends.values()):
            counts = completed and place == 0
            backend.scheduler.returned(branch.id, self.now(), completed=counts)

    def parked(self, branch: Branch) -> None:
        """A branch gives its contexts up; called by the branch."""
        told = []
        for backend in self._backends.values():
            backend.scheduler.park(branch.id, self.now())
            told += self._serve(backend)
        self._emit_all(told)

    def emit(self, event: JSONObject) -> None:
        """Hand an event on, with the time; called by permits and branches."""
        if self._on_event is not None:
            self._on_event({**event, "at": self.now()})

    def pump(self, backend: Backend) -> None:
        """Give every free slot of a backend to the next in line; called by permits."""
        self._emit_all(self._serve(backend))

    def _serve(self, backend: Backend, ended: Branch | None = None) -> list[JSONObject]:
        """Give every free slot to the next in line; returns what there is to tell of leases.

        ``ended`` is the branch that is no longer known and whose lease may have ended just now.
        """
        backend.look(self.now)
        while (permit := backend.scheduler.grant(self.now())) is not None:
            future = permit.future
            if future is None or future.cancelled() or future.get_loop().is_closed():
                backend.scheduler.release(permit)  # nobody is there any more to take it
            else:
                future.set_result(None)
        self._look_again(backend)
        told: list[JSONObject] = []
        for endpoint, event in backend.scheduler.take_events():
            name = str(event.branch)
            branch = ended if ended is not None and ended.id == name else self._branches.get(name)
            if branch is not None and branch.log is not None:
                where = [endpoint] if endpoint else []
                branch.log.append([event.kind, backend.name, event.at, event.tokens, *where])
            backend.tell(endpoint, name, event.kind)
            details: JSONObject = {
                "backend": backend.name,
                **({"endpoint": endpoint} if endpoint else {}),
                "branch": name,
            }
            told.append({"event": f"lease_{event.kind}", **details, "tokens": event.tokens})
        return told

    def _emit_all(self, events: list[JSONObject]) -> None:
        for event in events:
            self.emit(event)

    def _look_again(self, backend: Backend) -> None:
        """Time alone may make a context that waits worth less than the room it takes."""
        look = backend.scheduler.next_look(self.now())
        if look is None:
            if backend.timer is not None:  # it would hold its loop, which may be over by then
                backend.timer[1].cancel()
                backend.timer = None
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # nobody can wait without a loop
        delay = max(0.0, look - self.now())
        if backend.timer is not None and backend.timer[0] is loop:
            if backend.timer[1].when() <= loop.time() + delay:
                return
            backend.timer[1].cancel()
        backend.timer = loop, loop.call_later(delay, self._looked, backend)

    def _looked(self, backend: Backend) -> None:
        backend.timer = None
        self.pump(backend)

    def _known(self, name: str) -> Backend:
        try:
            return self._backends[name]
        except KeyError:
            raise InvalidInput(
                "backend", f"no backend called {name!r}", "make it known with backend(name, slots)"
            ) from None


def _shown(scheduler: Fleet[Permit] | LeaseScheduler[Permit]) -> JSONObject:
    """Slots and, where the size of the memory is known, leases."""
    shown: JSONObject = {
        "slots": scheduler.slots,
        "in_use": scheduler.in_use,
        "waiting": scheduler.waiting,
    }
    if scheduler.capacity is not None:
        shown["capacity"] = scheduler.capacity
        shown |= {"leases": scheduler.leases, "charged": int(scheduler.charged)}
    return shown
