"""A run under way in this process: looked at, given more room, stopped, waited for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from longthought.budgets import Budget
from longthought.orchestrator.results import Result
from longthought.orchestrator.runs import Attempt
from longthought.types import JSONObject

if TYPE_CHECKING:
    from longthought.orchestrator.workflow import Workflow

__all__ = ["RunHandle"]


class RunHandle:
    """What ``Workflow.start`` returns. The run goes on whether or not anybody waits for it.

    Keep it: a task that nobody holds may be collected.
    """

    def __init__(self, workflow: Workflow) -> None:
        self._workflow = workflow
        self._attempt: Attempt | None = None
        self._task: asyncio.Task[Result] | None = None
        self._begun = asyncio.Event()

    @property
    def id(self) -> str:
        """The id of the run."""
        return self._now.recording.run_id

    @property
    def done(self) -> bool:
        """Whether the run has come to rest, in whatever way."""
        return self._task is not None and self._task.done()

    def view(self) -> JSONObject:
        """How the run stands now: ``status``, ``scopes``, ``clocks`` and ``slots``.

        ``scopes`` is the tree of run, searches and branches as :meth:`Scope.view` shows it;
        ``clocks`` are seconds; ``slots`` says of each model how many are held and how many wait,
        those of other runs of this workflow included.
        """
        session = self._now.session
        return {
            "id": self.id,
            "status": session.journal.status,
            "scopes": session.scope.view(),
            "clocks": session.clocks.view(),
            "slots": {
                model.name: {
                    "of": model.slots,
                    "held": session.seats.controller.in_use(model.name),
                    "waiting": session.seats.controller.waiting(model.name),
                }
                for model in session.models
            },
        }

    async def raise_limit(self, budget: Budget) -> None:
        """Raise the limits that are given: on record when this returns, and in force.

        If the run comes to rest meanwhile they are in force when it goes on.

        Raises:
            InvalidInput: a limit would be lower or new, or the run has ended: ``resume`` it.
        """
        await self._workflow.raise_limit(self.id, budget)
        await self._now.take_raises()

    def cancel(self) -> None:
        """Stop the run; ``Workflow.resume`` goes on with it."""
        if self._task is not None:
            self._task.cancel()

    async def result(self) -> Result:
        """Wait until the run rests; what it came to. Cancelling the caller leaves the run alone.

        Raises:
            asyncio.CancelledError: the run was cancelled.
            InvalidInput, StorageError: as ``Workflow.run`` does.
        """
        assert self._task is not None  # noqa: S101 - given before anybody has the handle
        return await asyncio.shield(self._task)

    # -- for the workflow -------------------------------------------------------------------------

    async def follow(self, task: asyncio.Task[Result]) -> None:
        """Wait until the run has begun.

        Raises:
            InvalidInput, StorageError: it cannot begin.
        """
        self._task = task
        begun = asyncio.ensure_future(self._begun.wait())
        try:
            await asyncio.wait((task, begun), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()
            raise
        finally:
            begun.cancel()
        if not self._begun.is_set():
            await task

    def attach(self, attempt: Attempt) -> None:
        """The run is driven by this attempt from now on."""
        self._attempt = attempt
        self._begun.set()

    @property
    def _now(self) -> Attempt:
        assert self._attempt is not None  # noqa: S101 - attached before anybody has the handle
        return self._attempt
