"""A branch as the generation controller sees it: its state, its permits, what it waits for."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

from longthought.budgets.states import FINAL_STATES, SLOT_STATES, TRANSITIONS, BranchState
from longthought.types import JSON

if TYPE_CHECKING:
    from longthought.budgets.controller import Controller

__all__ = ["Branch"]


class Branch:
    """One line of thought as the controller sees it.

    Attributes:
        id: unique within the controller.
        state: where it stands; permits move it, and the executor by :meth:`move`.
        resumed: whether it has generated before, and so goes before new branches.
        run, tenant: who shares the slots fairly with others, None where it does not matter.
        log: what happened to its leases, ``[what, backend, at, tokens]`` each, if somebody has
            put a list here; None keeps nothing.
    """

    __slots__ = (
        "_completed",
        "_controller",
        "_permits",
        "_rest",
        "_shape",
        "_tool",
        "_waiting",
        "id",
        "log",
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
        self._completed = True
        self.state = BranchState.READY if resumed else BranchState.NEW
        self.resumed = resumed
        self.log: list[list[JSON]] | None = None
        self._controller = controller
        self._permits = 0
        self._waiting = 0
        self._rest = self.state  # where it goes when it neither holds a slot nor waits for one

    @property
    def permits(self) -> int:
        """Slots held now. More than one only when a branch makes model calls side by side."""
        return self._permits

    def move(
        self,
        state: BranchState,
        *,
        tool: str = "",
        shape: Hashable = None,
        completed: bool = True,
    ) -> None:
        """Go to another state; a final one ends the branch and the controller forgets it.

        QUEUED and GENERATING follow from permits; all others are the executor's to say. ``tool``
        names what an acting branch waits for, ``shape`` what may tell its fast calls from its slow
        ones: how long to keep the context is learned from both, but not from a wait that was cut
        short (``completed``).

        Raises:
            ValueError: that state cannot follow the present one, or would keep a slot while no
                tokens flow.
        """
        if self._permits and state not in SLOT_STATES | FINAL_STATES:
            raise ValueError(f"branch {self.id} cannot be {state.value} while it holds a slot")
        self._completed = completed
        if tool:
            self._tool, self._shape = tool, shape
        if state is BranchState.TOOL_STARTED:
            self._rest = BranchState.ACTING
        elif self.state is BranchState.TOOL_STARTED:
            self._rest = BranchState.READY
        self._go(state)

    def joined(self, tools: str, shape: Hashable = None) -> None:
        """More tools run for an acting branch: it waits for all of them, as for one by that name.

        Raises:
            ValueError: it does not act.
        """
        if self.state is not BranchState.ACTING:
            raise ValueError(f"branch {self.id} is {self.state.value} and waits for no tool")
        self._tool, self._shape = tools, shape
        self._controller.acting(self, tools, shape)

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
            self._controller.returned(self, self._completed)
        self._controller.emit(
            {"event": "state", "branch": self.id, "from": before.value, "to": state.value}
        )
