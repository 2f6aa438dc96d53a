"""A permit: the right to one call on one backend, from dispatch to last byte."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Hashable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from longthought.budgets.lease_book import Starts

if TYPE_CHECKING:
    from longthought.budgets.branch import Branch
    from longthought.budgets.controller import Backend, Controller

__all__ = ["Permit"]


class Permit:
    """The right to one call on one backend, from dispatch to last byte.

    An asynchronous context manager, used once. Whichever way it is left the slot goes back; when
    the caller is cancelled in the very moment it is granted, too.

    Attributes:
        asked_at, granted_at, released_at: seconds on the controller's clock, None before that.
        endpoint: which of several endpoints it is for, once granted; else empty.
    """

    __slots__ = (
        "_backend",
        "_before",
        "_cached",
        "_context",
        "_controller",
        "_deadline",
        "_future",
        "_held",
        "_known",
        "_only",
        "_prefix",
        "_prefix_tokens",
        "asked_at",
        "branch",
        "endpoint",
        "granted_at",
        "released_at",
    )

    def __init__(
        self,
        controller: Controller,
        backend: Backend,
        branch: Branch,
        context: int = 0,
        prefix: Hashable = None,
        prefix_tokens: int = 0,
        deadline: float | None = None,
        before: Starts = (),
        only: Collection[str] | None = None,
    ) -> None:
        self._before = before
        self._controller, self._backend, self.branch = controller, backend, branch
        self._context = context
        self._cached: int | None = None
        self._known: int | None = None
        self._only = only
        self.endpoint = ""
        self._prefix, self._prefix_tokens, self._deadline = prefix, prefix_tokens, deadline
        self._future: asyncio.Future[None] | None = None
        self._held = False
        self.asked_at: float | None = None
        self.granted_at: float | None = None
        self.released_at: float | None = None

    @property
    def future(self) -> asyncio.Future[None] | None:
        """What wakes the caller, None unless it waits; for the controller."""
        return self._future

    @property
    def queued_seconds(self) -> float:
        """How long it was waited for; 0 before it is granted."""
        if self.asked_at is None or self.granted_at is None:
            return 0.0
        return max(0.0, self.granted_at - self.asked_at)

    @property
    def slots(self) -> int:
        """Slots of its backend, as many as there are now."""
        return max(1, self._backend.scheduler.slots)

    @property
    def endpoint_slots(self) -> int:
        """Slots of its endpoint, as many as there are now."""
        found = self._backend.scheduler.endpoints.get(self.endpoint)
        return 1 if found is None else found.slots

    @property
    def would_wait(self) -> bool:
        """Whether it would have to wait: for a slot, behind others, or for room for its context."""
        scheduler = self._backend.scheduler
        self._backend.look(self._controller.now)
        if scheduler.waiting > 0 or scheduler.full:
            return True
        return not scheduler.fits(
            self.branch.id, self._context, self._prefix, self._prefix_tokens, self._before
        )

    async def __aenter__(self) -> Self:
        if self._future is not None:
            raise RuntimeError("a permit is used once; ask the controller for another")
        # Made before anything is counted: without a running loop this fails and leaves no trace.
        self._future = asyncio.get_running_loop().create_future()
        self.asked_at, resumed = self._controller.now(), self.branch.resumed
        self.branch.ask()
        try:
            self._backend.scheduler.enqueue(
                self,
                resumed=resumed,
                now=self.asked_at,
                branch=self.branch.id,
                context=self._context,
                prefix=self._prefix,
                prefix_tokens=self._prefix_tokens,
                before=self._before,
                run=self.branch.run,
                tenant=self.branch.tenant,
                deadline=self._deadline,
                only=self._only,
            )
            self._emit("permit_queued", resumed=resumed)
            self._controller.pump(self._backend)
            await self._future
            self._held = True
            self.endpoint = self._backend.scheduler.at(self)
            self.branch.count(waiting=-1, permits=1)
            self.granted_at = self._controller.now()
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
        known: int | None = None,
        first_token: tuple[int, float] | None = None,
    ) -> None:
        """Say what the call has shown, before the slot goes back.

        ``context`` is what the branch's context has grown to, ``cached`` how many tokens of the
        prompt the backend says it found, ``known`` how many it was sent before (None: all that it
        should have), ``first_token`` tokens that were not cached and the seconds until the first
        token came. No hit says nothing of an endpoint that has never reported one: many do not
        report them at all.
        """
        self._context, self._cached, self._known = context, cached, known
        if first_token is not None:
            self._backend.scheduler.first_token(self, *first_token)

    def release(self) -> None:
        """Give the slot back; the context does it at the latest. Doing it twice is harmless."""
        if not self._held:
            return
        self._held = False
        self.released_at = now = self._controller.now()
        self._backend.scheduler.release(
            self, now=now, context=self._context, cached=self._cached, known=self._known
        )
        try:
            # The next caller is woken before anything that could raise.
            self._controller.pump(self._backend)
            self._emit("permit_released")
        finally:
            self.branch.count(permits=-1)  # from here on it acts, if its tool began already

    def _give_up(self) -> None:
        if self._held:
            self.release()
            return
        scheduler = self._backend.scheduler
        if not scheduler.withdraw(self) and scheduler.holds(self):
            # granted in the very moment its caller was cancelled
            scheduler.release(self, now=self._controller.now())
        try:
            self._controller.pump(self._backend)
        finally:
            self.branch.count(waiting=-1)
        self._emit("permit_withdrawn")

    def _emit(self, event: str, **details: object) -> None:
        controller = self._controller
        if controller.heard:
            scheduler = self._backend.scheduler
            controller.emit(
                {
                    "event": event,
                    "backend": self._backend.name,
                    **({"endpoint": self.endpoint} if self.endpoint else {}),
                    "branch": self.branch.id,
                    "in_use": scheduler.in_use,
                    "waiting": scheduler.waiting,
                    **details,
                }
            )
