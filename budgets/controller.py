"""The generation controller: slots of every backend, held only while tokens flow.

The asyncio shell around :class:`~longthought.budgets.leases.LeaseScheduler`. Where the context
memory of a backend is known, a lease on it stands beside the permits: taken with the first one,
kept over short tool waits, given up over long ones when somebody needs the room.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable
from types import TracebackType
from typing import Self, TypeAlias

from longthought.budgets.leases import LeaseScheduler
from longthought.budgets.states import FINAL_STATES, SLOT_STATES, TRANSITIONS, BranchState
from longthought.budgets.tool_times import ToolTimes
from longthought.errors import InvalidInput
from longthought.types import JSONObject

__all__ = ["Branch", "Controller", "Permit"]

OnEvent: TypeAlias = Callable[[JSONObject], None]


class Branch:
    """One line of thought as the controller sees it.

    Attributes:
        id: unique within the controller.
        state: where it stands; permits move it, and the executor by :meth:`move`.
        resumed: whether it has generated before, and so goes before new branches.
        run, tenant: who shares the slots fairly with others, None where it does not matter.
    """

    __slots__ = (
        "_controller",
        "_permits",
        "_rest",
        "_shape",
        "_tool",
        "_waiting",
        "id",
        "resumed",
        "run",
        "state",
        "tenant",
    )

    def __init__(
        self,
        branch_id: str,
        controller: Controller,
        resumed: bool,
        run: Hashable = None,
        tenant: Hashable = None,
    ) -> None:
        self.id = branch_id
        self.run, self.tenant = run, tenant
        self._tool = ""
        self._shape: Hashable = None
        self.state = BranchState.READY if resumed else BranchState.NEW
        self.resumed = resumed
        self._controller = controller
        self._permits = 0
        self._waiting = 0
        self._rest = self.state  # where it goes when it neither holds a slot nor waits for one

    @property
    def permits(self) -> int:
        """Slots held now. More than one only when a branch makes model calls side by side."""
        return self._permits

    def move(self, state: BranchState, *, tool: str = "", shape: Hashable = None) -> None:
        """Go to another state; a final one ends the branch and the controller forgets it.

        QUEUED and GENERATING follow from permits; all others are the executor's to say. ``tool``
        names what an acting branch waits for, ``shape`` what may tell its fast calls from its slow
        ones: how long to keep the context is learned from both.

        Raises:
            ValueError: that state cannot follow the present one, or would keep a slot while no
                tokens flow.
        """
        if self._permits and state not in SLOT_STATES | FINAL_STATES:
            raise ValueError(f"branch {self.id} cannot be {state.value} while it holds a slot")
        if tool:
            self._tool, self._shape = tool, shape
        if state is BranchState.TOOL_STARTED:
            self._rest = BranchState.ACTING
        elif self.state is BranchState.TOOL_STARTED:
            self._rest = BranchState.READY
        self._go(state)

    def ask(self) -> None:
        """A permit is wanted; called by the permit.

        Raises:
            ValueError: the branch is parked or has ended.
        """
        if self.state in FINAL_STATES or self.state is BranchState.PARKED:
            raise ValueError(f"branch {self.id} is {self.state.value} and cannot generate")
        if self.state not in SLOT_STATES and self.state is not BranchState.QUEUED:
            self._rest = self.state
        self._waiting += 1
        self._follow()

    def count(self, *, waiting: int = 0, permits: int = 0) -> None:
        """A permit was got, given back or no longer wanted; called by the permit."""
        self._waiting += waiting
        self._permits += permits
        if permits > 0:
            self.resumed = True
            if self._rest is BranchState.NEW:
                self._rest = BranchState.READY
        self._follow()

    def _follow(self) -> None:
        if self.state in FINAL_STATES:
            return
        if self._permits:
            state = self.state if self.state in SLOT_STATES else BranchState.GENERATING
        else:
            state = BranchState.QUEUED if self._waiting else self._rest
        if state is not self.state:
            self._go(state)

    def _go(self, state: BranchState) -> None:
        if state not in TRANSITIONS[self.state]:
            raise ValueError(f"branch {self.id}: {state.value} cannot follow {self.state.value}")
        before, self.state = self.state, state
        if state in FINAL_STATES:
            self._controller.forget(self)
        elif state is BranchState.ACTING:
            self._controller.acting(self, self._tool, self._shape)
        elif state is BranchState.PARKED:
            self._controller.parked(self)
        elif state is BranchState.READY and before in (BranchState.ACTING, BranchState.PARKED):
            self._tool, self._shape = "", None
            self._controller.returned(self)
        self._controller.emit(
            {"event": "state", "branch": self.id, "from": before.value, "to": state.value}
        )


class Permit:
    """The right to one call on one backend, from dispatch to last byte.

    An asynchronous context manager, used once. Whichever way it is left the slot goes back; when
    the caller is cancelled in the very moment it is granted, too.
    """

    __slots__ = (
        "_backend",
        "_cached",
        "_context",
        "_controller",
        "_deadline",
        "_future",
        "_held",
        "_prefix",
        "_prefix_tokens",
        "branch",
        "queued_seconds",
    )

    def __init__(
        self,
        controller: Controller,
        backend: _Backend,
        branch: Branch,
        context: int = 0,
        prefix: Hashable = None,
        prefix_tokens: int = 0,
        deadline: float | None = None,
    ) -> None:
        self._controller, self._backend, self.branch = controller, backend, branch
        self._context = context
        self._cached: int | None = None
        self._prefix, self._prefix_tokens, self._deadline = prefix, prefix_tokens, deadline
        self._future: asyncio.Future[None] | None = None
        self._held = False
        self.queued_seconds = 0.0

    @property
    def future(self) -> asyncio.Future[None] | None:
        """What wakes the caller, None unless it waits; for the controller."""
        return self._future

    async def __aenter__(self) -> Self:
        if self._future is not None:
            raise RuntimeError("a permit is used once; ask the controller for another")
        # Made before anything is counted: without a running loop this fails and leaves no trace.
        self._future = asyncio.get_running_loop().create_future()
        start, resumed = self._controller.now(), self.branch.resumed
        self.branch.ask()
        try:
            self._backend.scheduler.enqueue(
                self,
                resumed=resumed,
                now=start,
                branch=self.branch.id,
                context=self._context,
                prefix=self._prefix,
                prefix_tokens=self._prefix_tokens,
                run=self.branch.run,
                tenant=self.branch.tenant,
                deadline=self._deadline,
            )
            self._emit("permit_queued", resumed=resumed)
            self._controller.pump(self._backend)
            await self._future
            self._held = True
            self.branch.count(waiting=-1, permits=1)
            self.queued_seconds = max(0.0, self._controller.now() - start)
            self._emit("permit_acquired", queued_seconds=self.queued_seconds)
        except BaseException:
            self._give_up()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def used(
        self,
        *,
        context: int,
        cached: int | None = None,
        first_token: tuple[int, float] | None = None,
    ) -> None:
        """Say what the call has shown, before the slot goes back.

        ``context`` is what the branch's context has grown to, ``cached`` how many tokens of the
        prompt the backend says it found, ``first_token`` tokens that were not cached and the
        seconds until the first token came.
        """
        self._context, self._cached = context, cached
        if first_token is not None:
            self._backend.scheduler.first_token(*first_token)

    def release(self) -> None:
        """Give the slot back; the context does it at the latest. Doing it twice is harmless."""
        if not self._held:
            return
        self._held = False
        self._backend.scheduler.release(
            self, now=self._controller.now(), context=self._context, cached=self._cached
        )
        # The next caller is woken before anything that could raise.
        self._controller.pump(self._backend)
        self.branch.count(permits=-1)
        self._emit("permit_released")

    def _give_up(self) -> None:
        if self._held:
            self.release()
            return
        scheduler = self._backend.scheduler
        if not scheduler.withdraw(self) and scheduler.holds(self):
            # granted in the very moment its caller was cancelled
            scheduler.release(self, now=self._controller.now())
        self._controller.pump(self._backend)
        self.branch.count(waiting=-1)
        self._emit("permit_withdrawn")

    def _emit(self, event: str, **details: object) -> None:
        scheduler = self._backend.scheduler
        self._controller.emit(
            {
                "event": event,
                "backend": self._backend.name,
                "branch": self.branch.id,
                "in_use": scheduler.in_use,
                "waiting": scheduler.waiting,
                **details,
            }
        )


class _Backend:
    __slots__ = ("name", "scheduler", "timer")

    def __init__(self, name: str, scheduler: LeaseScheduler[Permit]) -> None:
        self.name, self.scheduler = name, scheduler
        self.timer: tuple[asyncio.AbstractEventLoop, asyncio.TimerHandle] | None = None

    def memory(self) -> JSONObject:
        """The leases as JSON; nothing while the size of the memory is unknown."""
        scheduler = self.scheduler
        if scheduler.capacity is None:
            return {}
        return {
            "capacity": scheduler.capacity,
            "leases": scheduler.leases,
            "charged": int(scheduler.charged),
        }


class Controller:
    """Slots of all backends of a process, and the branches that use them.

    Belongs to one thread; futures are bound to the running loop, so one controller may serve
    several loops one after the other. ``now`` is the clock of every event and of ageing, in
    seconds. ``on_event`` is given each event as a JSON object with ``event`` and ``at``. How long
    tools take is learned once for all backends; ``tool_times`` carries it on to other controllers.
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
        self._max_passes, self._max_wait = max_passes, max_wait
        self._backends: dict[str, _Backend] = {}
        self._branches: dict[str, Branch] = {}

    def backend(
        self,
        name: str,
        slots: int,
        *,
        capacity: int | None = None,
        prefill_rate: float | None = None,
    ) -> None:
        """Make a backend known, or change its number of slots and its memory while it is used.

        ``capacity`` is its context memory in tokens; None leaves it as it is, at first unknown.
        ``prefill_rate`` is a first guess in tokens per second, better ones are learned.

        Raises:
            InvalidInput: ``slots`` or ``capacity`` is not a whole number from 1.
        """
        known = self._backends.get(name)
        if known is None:
            scheduler = LeaseScheduler[Permit](
                slots,
                capacity=capacity,
                prefill_rate=8000.0 if prefill_rate is None else prefill_rate,
                tool_times=self.tool_times,
                max_passes=self._max_passes,
                max_wait=self._max_wait,
            )
            self._backends[name] = _Backend(name, scheduler)
        else:
            known.scheduler.slots = slots
            if capacity is not None:
                known.scheduler.capacity = capacity
            self.pump(known)

    def branch(
        self,
        branch_id: str,
        *,
        resumed: bool = False,
        run: Hashable = None,
        tenant: Hashable = None,
    ) -> Branch:
        """The branch of that id, new if it is not known.

        ``resumed`` says of a new one that it has generated before, in an earlier attempt. Slots
        are shared fairly over tenants and over runs.
        """
        known = self._branches.get(branch_id)
        if known is None:
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
    ) -> Permit:
        """A permit to be entered: ``async with controller.permit("openai", branch): ...``.

        ``context`` is the length of the prompt in tokens, of which the first ``prefix_tokens`` are
        shared by all branches that name the same ``prefix``; ``deadline`` is a time on the clock
        of the controller.

        Raises:
            InvalidInput: the backend is not known.
        """
        known = self._known(backend)
        branch = self.branch(branch) if isinstance(branch, str) else branch
        return Permit(self, known, branch, context, prefix, prefix_tokens, deadline)

    def in_use(self, backend: str) -> int:
        """Slots of a backend that are held now."""
        return self._known(backend).scheduler.in_use

    def waiting(self, backend: str) -> int:
        """Callers that wait for a slot of a backend now."""
        return self._known(backend).scheduler.waiting

    def would_wait(self, backend: str) -> bool:
        """Whether a call dispatched now would have to wait for a slot."""
        scheduler = self._known(backend).scheduler
        return scheduler.waiting > 0 or scheduler.in_use >= scheduler.slots

    def view(self) -> JSONObject:
        """Slots and branches as JSON, as they stand now."""
        return {
            "backends": {
                name: {
                    "slots": backend.scheduler.slots,
                    "in_use": backend.scheduler.in_use,
                    "waiting": backend.scheduler.waiting,
                    **backend.memory(),
                }
                for name, backend in self._backends.items()
            },
            "branches": {name: branch.state.value for name, branch in self._branches.items()},
        }

    # -- for permits and branches; not for callers -------------------------------------------------

    def forget(self, branch: Branch) -> None:
        """Drop a branch that has ended, and its leases; called by the branch."""
        if self._branches.get(branch.id) is branch:
            del self._branches[branch.id]
            for backend in self._backends.values():
                backend.scheduler.end(branch.id, self.now())
                self.pump(backend)

    def acting(self, branch: Branch, tool: str, shape: Hashable) -> None:
        """A branch waits for a tool; called by the branch."""
        for backend in self._backends.values():
            backend.scheduler.acting(branch.id, self.now(), tool=tool, shape=shape)

    def returned(self, branch: Branch) -> None:
        """What a branch waited for has come; called by the branch."""
        # One call of a tool is one observation, however many backends there are.
        for place, backend in enumerate(self._backends.values()):
            backend.scheduler.returned(branch.id, self.now(), completed=place == 0)

    def parked(self, branch: Branch) -> None:
        """A branch gives its contexts up; called by the branch."""
        for backend in self._backends.values():
            backend.scheduler.park(branch.id, self.now())
            self.pump(backend)

    def emit(self, event: JSONObject) -> None:
        """Hand an event on, with the time; called by permits and branches."""
        if self._on_event is not None:
            self._on_event({**event, "at": self.now()})

    def pump(self, backend: _Backend) -> None:
        """Give every free slot of a backend to the next in line; called by permits."""
        while (permit := backend.scheduler.grant(self.now())) is not None:
            future = permit.future
            if future is None or future.cancelled() or future.get_loop().is_closed():
                backend.scheduler.release(permit)  # nobody is there any more to take it
            else:
                future.set_result(None)
        self._look_again(backend)
        for event in backend.scheduler.take_events():
            details: JSONObject = {"backend": backend.name, "branch": str(event.branch)}
            self.emit({"event": f"lease_{event.kind}", **details, "tokens": event.tokens})

    def _look_again(self, backend: _Backend) -> None:
        """Time alone may make a context that waits worth less than the room it takes."""
        look = backend.scheduler.next_look(self.now())
        if look is None:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # nobody can wait without a loop
        if backend.timer is None or backend.timer[0] is not loop:
            handle = loop.call_later(max(0.0, look - self.now()), self._looked, backend)
            backend.timer = loop, handle

    def _looked(self, backend: _Backend) -> None:
        backend.timer = None
        self.pump(backend)

    def _known(self, name: str) -> _Backend:
        try:
            return self._backends[name]
        except KeyError:
            raise InvalidInput(
                "backend", f"no backend called {name!r}", "make it known with backend(name, slots)"
            ) from None
