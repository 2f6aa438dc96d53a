"""Tools that start while the reply that asks for them still streams.

Such a call is provisional: nothing of it is on record until the reply is, and what the reply then
really asks for is recorded under its ordinary key, as if it had been started afterwards. All else
is cancelled and its result dropped. Only tools that look and change nothing, cost nothing and need
no approval start early, in the order of their calls, up to the first that may not.
"""

from __future__ import annotations

import asyncio
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import NoReturn

from longthought.budgets import Amount, BranchState, Reservation
from longthought.errors import BudgetExhausted, ControlFlow, Provisional
from longthought.orchestrator.branches import Branch
from longthought.orchestrator.places import Entry, Frame, Places
from longthought.orchestrator.session import Session
from longthought.tools import Tool, ToolCall, ToolResult, parse_arguments, run_tool
from longthought.types import JSONObject, ModelReply, ToolCallPart

__all__ = ["EarlyCall", "EarlyStarts", "early_starts"]

_ONE_CALL = Amount(tool_calls=1)
_WHOLE = ("stop", "tool_calls")
"""How a reply ends that was not cut short."""


def early_starts(session: Session, branch: Branch | None) -> EarlyStarts | None:
    """What starts a branch's tools early; None where none may.

    Under a limit on tool calls none does: a call that is dropped, or dies with its process while it
    is provisional, could not be counted.
    """
    if branch is None or not session.definition.early_start:
        return None
    if branch.scope.limited("tool_calls"):
        return None
    if branch.early is None and session.has_early_tools:
        branch.early = EarlyStarts(session, branch)
    return branch.early


@dataclass(eq=False, slots=True)
class EarlyCall:
    """A call under way. Whoever takes it ends its reservation.

    ``tokens`` is how much of the reply had come when it was told; ``ahead`` is what goes on record:
    how many seconds and pieces of the reply were still to come when it began. ``started_at`` is 0
    before that; both times are seconds since the epoch.
    """

    part: ToolCallPart
    reservation: Reservation
    tokens: int
    started_at: float = 0.0
    ended_at: float = 0.0
    ahead: JSONObject = field(default_factory=dict)
    task: asyncio.Task[ToolResult | None] | None = None

    async def result(self) -> ToolResult | None:
        """The result; None if the call has to be made again in its place.

        Cancelling the caller cancels the call.
        """
        assert self.task is not None  # noqa: S101 - made with it
        return await self.task

    def cancel(self) -> None:
        """Stop it; what it came to is dropped."""
        if self.task is not None:
            self.task.cancel()


class EarlyStarts:
    """The calls of a branch that were started early, those of one reply at a time."""

    def __init__(self, session: Session, branch: Branch) -> None:
        self._session, self._branch = session, branch
        self._told: list[ToolCallPart] = []
        self._calls: dict[int, EarlyCall] = {}
        """Those that may still be taken, by their number in the reply."""
        self._closed = False
        """Whether no further call of this reply may start."""
        self._context: Context | None = None
        self._tasks: set[asyncio.Task[ToolResult | None]] = set()

    # -- while the reply streams ------------------------------------------------------------------

    def begin(self) -> None:
        """A request is about to leave; called in the task that sends it."""
        self.drop()
        self._told, self._closed = [], False
        self._context = copy_context()

    def told(self, index: int, call: ToolCallPart, tokens: int) -> None:
        """A call of the reply is complete; never raises. ``tokens`` is what has come of it."""
        if index != len(self._told):
            self._closed = True  # a write may stand before it
            return
        self._told.append(call)
        if not self._closed:
            self._start(index, call, tokens)

    def settle(self, reply: ModelReply, tokens: int) -> None:
        """The reply is there: what differs from it in any byte, or was asked for in vain, goes."""
        calls, good = reply["message"].get("tool_calls", []), 0
        if reply["finish_reason"] in _WHOLE:
            pairs = zip(self._told, calls, strict=False)
            good = next((n for n, (a, b) in enumerate(pairs) if a != b), len(self._told))
        now = self._session.now
        for index, early in list(self._calls.items()):
            if index >= min(good, len(calls)) or not early.started_at:
                self._let_go(self._calls.pop(index))
            else:
                seconds = round(max(0.0, now - early.started_at), 4)
                early.ahead = {"seconds": seconds, "tokens": tokens - early.tokens}
        self._calm()

    def drop(self) -> None:
        """Cancel whatever was started and not taken, and give back what was reserved for it."""
        while self._calls:
            self._let_go(self._calls.popitem()[1])
        self._closed = True
        self._calm()

    # -- afterwards -------------------------------------------------------------------------------

    def take(self, part: ToolCallPart) -> EarlyCall | None:
        """The call that was started for this one, which is acted on now; each is taken once."""
        for index, early in self._calls.items():
            if early.part == part:
                return self._calls.pop(index)
        return None

    async def close(self) -> None:
        """The branch is over: nothing that it started is left running."""
        self.drop()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # -- one call ---------------------------------------------------------------------------------

    def _start(self, index: int, call: ToolCallPart, tokens: int) -> None:
        tool = self._session.tools.get(call["name"])
        if tool is None:
            return  # that it is unknown is said in its turn
        if not tool.spec.droppable:
            self._closed = True
            return
        arguments = parse_arguments(tool, call["arguments"])
        if isinstance(arguments, ToolResult):
            return
        loop = _running_loop()
        reservation = self._reserved() if loop is not None else None
        if loop is None or reservation is None:
            self._closed = True
            return
        early = EarlyCall(call, reservation, tokens)
        context = self._context.copy() if self._context is not None else copy_context()
        early.task = loop.create_task(
            self._run(early, tool, arguments), name=f"early {call['name']}", context=context
        )
        self._tasks.add(early.task)
        early.task.add_done_callback(self._tasks.discard)
        self._calls[index] = early
        slot = self._branch.slot
        if slot.state is BranchState.GENERATING:
            slot.move(BranchState.TOOL_STARTED, tool=tool.spec.name)

    def _reserved(self) -> Reservation | None:
        """Room in the budget, if there is any at once."""
        try:
            return self._branch.scope.try_reserve(_ONE_CALL)
        except BudgetExhausted:
            return None

    async def _run(self, early: EarlyCall, tool: Tool, arguments: JSONObject) -> ToolResult | None:
        session = self._session
        early.started_at = session.now
        frame = Frame(_NoPlaces(), f"{self._branch.place}/early", None)
        frame.branch = self._branch
        call = ToolCall(early.part["id"], early.part["name"], arguments)
        try:
            with session.clocks.running("tool"), Entry(frame):
                result = await run_tool(tool, call, deps=session.deps, early=True)
            # where a result from outside has to be sent is known only in its place
            return None if result.status == "pending" else result
        except (Exception, ControlFlow):
            return None  # in its place it may, or it fails there
        finally:
            early.ended_at = session.now

    def _let_go(self, early: EarlyCall) -> None:
        early.cancel()
        early.reservation.release()

    def _calm(self) -> None:
        """Show the controller that no tool runs any more, if none does."""
        slot = self._branch.slot
        if self._calls or self._branch.seat.acting:
            return
        if slot.state is BranchState.TOOL_STARTED:
            slot.move(BranchState.GENERATING)
        elif slot.state is BranchState.ACTING:
            slot.move(BranchState.READY, completed=False)


class _NoPlaces(Places):
    """Where no effect has a place: a call that is provisional must leave nothing on record."""

    def number(self, path: str) -> NoReturn:
        raise Provisional(path)

    def numbered(self, path: str) -> NoReturn:
        raise Provisional(path)

    def entered(self, path: str) -> NoReturn:
        raise Provisional(path)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """The loop of this thread; a model may emit from a thread of its own, which has none."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
