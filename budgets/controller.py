"""The generation controller: slots of every backend, held only while tokens flow.

The asyncio shell around :class:`~longthought.budgets.scheduler.SlotScheduler`. Leases on context
memory will stand beside the permits, taken with the first one and kept over short tool waits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeAlias

from longthought.budgets.scheduler import SlotScheduler
from longthought.budgets.states import FINAL_STATES, SLOT_STATES, TRANSITIONS, BranchState
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
    """

    __slots__ = ("_controller", "_permits", "_rest", "_waiting", "id", "resumed", "state")

    def __init__(self, branch_id: str, controller: Controller, resumed: bool) -> None:
        self.id = branch_id
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

    def move(self, state: BranchState) -> None:
        """Go to another state; a final one ends the branch and the controller forgets it.

        QUEUED and GENERATING follow from permits; all others are the executor's to say.

        Raises:
            ValueError: that state cannot follow the present one, or would keep a slot while no
                tokens flow.
        """
        if self._permits and state not in SLOT_STATES | FINAL_STATES:
            raise ValueError(f"branch {self.id} cannot be {state.value} while it holds a slot")
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
        self._controller.emit(
            {"event": "state", "branch": self.id, "from": before.value, "to": state.value}
        )


class Permit:
    """The right to one call on one backend, from dispatch to last byte.

    An asynchronous context manager, used once. Whichever way it is left the slot goes back; when
    the caller is cancelled in the very moment it is granted, too.
    """

    __slots__ = ("_backend", "_controller", "_future", "_held", "branch", "queued_seconds")

    def __init__(self, controller: Controller, backend: _Backend, branch: Branch) -> None:
        self._controller, self._backend, self.branch = controller, backend, branch
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
        self._backend.scheduler.enqueue(self, resumed=resumed, now=start)
        try:
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

    def release(self) -> None:
        """Give the slot back; the context does it at the latest. Doing it twice is harmless."""
        if not self._held:
            return
        self._held = False
        self._backend.scheduler.release(self)
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
            scheduler.release(self)  # granted in the very moment its caller was cancelled
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
    __slots__ = ("name", "scheduler")

    def __init__(self, name: str, scheduler: SlotScheduler[Permit]) -> None:
        self.name, self.scheduler = name, scheduler


class Controller:
    """Slots of all backends of a process, and the branches that use them.

    Belongs to one thread; futures are bound to the running loop, so one controller may serve
    several loops one after the other. ``now`` is the clock of every event and of ageing, in
    seconds. ``on_event`` is given each event as a JSON object with ``event`` and ``at``.
    """

    def __init__(
        self,
        *,
        now: Callable[[], float] = time.monotonic,
        on_event: OnEvent | None = None,
        max_passes: int = 64,
        max_wait: float = 1800.0,
    ) -> None:
        self.now = now
        self._on_event = on_event
        self._max_passes, self._max_wait = max_passes, max_wait
        self._backends: dict[str, _Backend] = {}
        self._branches: dict[str, Branch] = {}

    def backend(self, name: str, slots: int) -> None:
        """Make a backend known, or change its number of slots while it is used.

        Raises:
            InvalidInput: ``slots`` is not a whole number from 1.
        """
        known = self._backends.get(name)
        if known is None:
            scheduler = SlotScheduler[Permit](
                slots, max_passes=self._max_passes, max_wait=self._max_wait
            )
            self._backends[name] = _Backend(name, scheduler)
        else:
            known.scheduler.slots = slots
            self.pump(known)

    def branch(self, branch_id: str, *, resumed: bool = False) -> Branch:
        """The branch of that id, new if it is not known.

        ``resumed`` says of a new one that it has generated before, in an earlier attempt.
        """
        known = self._branches.get(branch_id)
        if known is None:
            known = self._branches[branch_id] = Branch(branch_id, self, resumed)
        return known

    def permit(self, backend: str, branch: Branch | str) -> Permit:
        """A permit to be entered: ``async with controller.permit("openai", branch): ...``.

        Raises:
            InvalidInput: the backend is not known.
        """
        known = self._known(backend)
        return Permit(self, known, self.branch(branch) if isinstance(branch, str) else branch)

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
                }
                for name, backend in self._backends.items()
            },
            "branches": {name: branch.state.value for name, branch in self._branches.items()},
        }

    # -- for permits and branches; not for callers -------------------------------------------------

    def forget(self, branch: Branch) -> None:
        """Drop a branch that has ended; called by the branch."""
        self._branches.pop(branch.id, None)

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

    def _known(self, name: str) -> _Backend:
        try:
            return self._backends[name]
        except KeyError:
            raise InvalidInput(
                "backend", f"no backend called {name!r}", "make it known with backend(name, slots)"
            ) from None
