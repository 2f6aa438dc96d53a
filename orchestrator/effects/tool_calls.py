"""A tool call: validated, approved, charged, recorded; whatever happens becomes a result."""

from __future__ import annotations

import asyncio
import hashlib
import math
from contextlib import nullcontext
from dataclasses import replace

from longthought.budgets import Amount, Reservation
from longthought.errors import BudgetExhausted, Diverged, SignalTimeout, UnknownOutcome
from longthought.orchestrator.effects.early_starts import EarlyCall
from longthought.orchestrator.effects.small import signal_form, suspend
from longthought.orchestrator.places import Frame, current_frame
from longthought.orchestrator.session import MISSING, Session
from longthought.storage import as_recorded, canonical
from longthought.tools import (
    Tool,
    ToolCall,
    ToolResult,
    late_result,
    parse_arguments,
    run_tool,
    told_result,
)
from longthought.types import JSON, FinishReason, JSONObject

__all__ = ["call_tool"]


async def call_tool(
    session: Session,
    name: str,
    arguments: str | JSONObject,
    *,
    call_id: str = "",
    finish_reason: FinishReason | None = None,
    defer: bool = False,
) -> ToolResult:
    """Call a tool of the workflow, or hand out the recorded result.

    ``arguments`` is the raw text a model wrote, or an object. With ``defer`` the result is
    committed with the branch's next dispatch or its end.

    Raises:
        UnknownOutcome: a write was started earlier and nobody knows whether it happened.
        Diverged, ReplayStopped: see :meth:`Session.recorded`.
    """
    frame = current_frame()
    key = frame.next_key("tool")
    tool = session.tools.get(name)
    form: JSONObject = {"tool": name, "arguments": arguments}
    if tool is not None and tool.spec.version:
        form["version"] = tool.spec.version
    event = session.recorded(key, form, frame)
    if event is not MISSING:
        return ToolResult.from_json(session.result_of(event))
    await session.until_live(frame)
    live = _LiveToolCall(session, frame, key, session.put(form))
    result = await live.perform(tool, name, arguments, call_id, finish_reason)
    if not defer:
        await session.commit(frame)
    return result


class _LiveToolCall:
    """One tool call on its way."""

    def __init__(self, session: Session, frame: Frame, key: str, request_id: str) -> None:
        self.session, self.frame, self.key, self.request_id = session, frame, key, request_id
        self.scope = session.scope_of(frame)
        self.queued_at = self.started_at = session.now
        self.started = False
        """Whether its start is on record in this attempt."""
        self.charged = Amount()
        self.ran: list[float] = []
        """When the tool began and ended, in seconds since the attempt began."""
        self.early: EarlyCall | None = None
        """The same call, if it was started while the reply still streamed."""
        self.wait_key = f"{key}!result:signal"
        """Where a call waits whose result comes from outside; open from when it was begun."""

    async def perform(
        self,
        tool: Tool | None,
        name: str,
        arguments: str | JSONObject,
        call_id: str,
        finish_reason: FinishReason | None,
    ) -> ToolResult:
        if tool is None:
            known = ", ".join(sorted(self.session.tools)) or "none"
            unknown = ToolResult("unknown_tool", f"There is no tool {name!r}. Tools: {known}.")
            return self._finish(unknown)
        raw = arguments if isinstance(arguments, str) else canonical(arguments)
        parsed = parse_arguments(tool, raw, finish_reason=finish_reason)
        if isinstance(parsed, ToolResult):
            return self._finish(parsed)
        idempotency_key = _idempotency_key(self.session, self.key, name, parsed)
        call = ToolCall(call_id or self.key, name, parsed, idempotency_key)
        index = self.session.index
        if self.wait_key in index.open or self.wait_key in index.finished:
            form = self._asked_before()
            return await self._pending(tool, form["ask"], form.get("timeout"))
        decided = self._decided_before(tool)
        if decided is not None:
            return self._finish(decided)
        if tool.spec.approval != "never":
            try:
                approved = await self._approved(tool, call)
            except SignalTimeout as error:
                text = f"Nobody approved this call of {name!r} within {error.seconds:g} s."
                return self._finish(ToolResult("denied", text))
            if not approved:
                return self._finish(ToolResult("denied", f"A person denied this call of {name!r}."))
        branch = self.frame.branch
        if branch is not None and branch.early is not None:
            self.early = branch.early.take({"id": call_id, "name": name, "arguments": raw})
        return await self._run(tool, call, len(raw))

    async def _run(self, tool: Tool, call: ToolCall, size: int) -> ToolResult:
        session = self.session
        cost = Amount(tool_calls=1, nanodollars=round(tool.spec.cost_usd * 1e9))
        # what the branch's last call used is settled: it may be all that this one waits for
        session.enter_chain(self.frame.branch)
        try:
            reservation = self.early.reservation if self.early else await self.scope.reserve(cost)
        except BudgetExhausted as error:
            text = f"The budget allows no more calls of {tool.spec.name!r} ({error.reason})."
            return self._finish(ToolResult("budget", text))
        try:
            result = await self._performed(tool, call, cost, size)
            if result.status == "pending":
                self.charged = cost
                since = await self._begin_waiting(tool, cost, result)
                return await self._pending(
                    tool, result.data, result.timeout_s, since=since, reservation=reservation
                )
        except BaseException:
            reservation.forfeit()
            if self.early is not None:
                self.early.cancel()
            raise
        self.charged = Amount(tool_calls=1, nanodollars=round(result.cost_usd * 1e9))
        result = self._finish(result, reservation)
        if session.scope.waiting:
            session.enter_chain(self.frame.branch)  # perhaps a call beside it
        return result

    async def _performed(self, tool: Tool, call: ToolCall, cost: Amount, size: int) -> ToolResult:
        """Run it. ``size`` is that of its arguments as they were written, in characters."""
        session = self.session
        self._start_if_needed(tool, call, cost)
        await session.commit(self.frame)  # the model's reply is acted on from here
        self.started_at = session.now
        session.counters.tool_calls += 1
        session.show({"event": "tool", "tool": tool.spec.name, "arguments": call.arguments})
        seat = session.seats.waiting(self.frame)
        acting = seat.tool_running(tool.spec.name, size) if seat is not None else nullcontext()
        # effects of a tool stand inside its call: a replay is handed the result and asks for none
        inside = self.frame.places.enter(self.key.rpartition("#")[2], inner=True)
        seats = session.seats
        began = seats.controller.now()
        try:
            with session.clocks.running("tool"), acting, inside:
                result = await self._result(tool, call)
        except asyncio.CancelledError:
            self.ran = seats.since(began, seats.controller.now())
            self._cancelled(tool, cost)
            raise
        self.ran = seats.since(began, seats.controller.now())
        if not math.isfinite(result.cost_usd) or result.cost_usd < 0:
            result = replace(result, cost_usd=tool.spec.cost_usd)  # what it says is no money
        return result

    async def _result(self, tool: Tool, call: ToolCall) -> ToolResult:
        """What the call comes to; one that was started early is waited for, not made again."""
        early = self.early
        result = await early.result() if early is not None else None
        if early is None or result is None:
            self.early = None
            session = self.session
            reply_to = (session.recording.run_id, _result_signal(tool), self.wait_key)
            return await run_tool(tool, call, deps=session.deps, reply_to=reply_to)
        self.queued_at = self.started_at = early.started_at
        return result

    def _start_if_needed(self, tool: Tool, call: ToolCall, cost: Amount) -> None:
        """Commit ``started`` for whatever cannot simply be done again: writes and paid calls.

        Under a limit on tool calls also for all others: one that was killed with its process and is
        made again has been made twice.
        """
        free = tool.spec.effect in ("pure", "read") and not cost.nanodollars
        if free and not self.scope.limited("tool_calls"):
            return
        self._stage_start(call.idempotency_key, cost)

    def _stage_start(self, idempotency_key: str | None, cost: Amount) -> None:
        self.started = True
        self.session.enter_chain(self.frame.branch)
        self.session.journal.stage(
            "effect_started",
            self.key,
            kind="tool",
            request=self.request_id,
            reserved=cost.to_json(),
            idempotency_key=idempotency_key,
            attempt=self.session.index.tries.get(self.key, 0) + 1,
        )

    # -- results that come from outside -----------------------------------------------------------

    async def _begin_waiting(self, tool: Tool, cost: Amount, result: ToolResult) -> float:
        """Put on record that the call was begun, whatever its effect: it is not made again.

        Returns when that was, in seconds since the epoch.
        """
        if not self.started:
            self._stage_start(None, cost)
        form = signal_form(_result_signal(tool), result.data, result.timeout_s)
        journal, request = self.session.journal, self.session.put(form)
        event = journal.stage("effect_started", self.wait_key, kind="signal", request=request)
        await self.session.commit(self.frame)
        return float(event.body["at"])

    async def _pending(
        self,
        tool: Tool,
        ask: JSON,
        timeout: float | None,  # noqa: ASYNC109 (it outlives the process)
        *,
        since: float | None = None,
        reservation: Reservation | None = None,
    ) -> ToolResult:
        """The result that was sent for the call, or that none was sent in time.

        A call that an earlier attempt began stays charged at what was reserved for it then.

        Raises:
            Suspended: it has not come yet.
        """
        name = _result_signal(tool)
        try:
            value = await suspend(
                self.session, name, ask, timeout=timeout, key=self.wait_key, since=since
            )
        except SignalTimeout as error:
            return self._finish(late_result(tool.spec, error.seconds), reservation)
        return self._finish(told_result(tool.spec, value), reservation)

    def _asked_before(self) -> JSONObject:
        """The wait for the result, as it was put on record.

        Raises:
            Diverged: the call that was begun is another one.
        """
        index, recording = self.session.index, self.session.recording
        begun = recording.events[index.started[self.key] - 1] if self.key in index.started else None
        if begun is None or begun.body["request"] != self.request_id:
            raise Diverged(self.key, "a call with other arguments was begun, its result is to come")
        waits = index.finished.get(self.wait_key)  # a crash came before the call's own end
        waits = waits or recording.events[index.started[self.wait_key] - 1]
        form: JSONObject = recording.get(waits.body["request"])
        return form

    def _decided_before(self, tool: Tool) -> ToolResult | None:
        """What to do about a call that was started before a crash and has no known end.

        Raises:
            UnknownOutcome: only a person can say whether the write happened.
        """
        if self.key not in self.session.index.open or tool.spec.repeatable:
            return None
        started = self.session.index.started[self.key]
        decisions = [
            self.session.recording.get(event.body["value"])
            for event in self.session.index.signals
            # one made for an earlier try says nothing about this one
            if event.seq > started and event.body["name"] == f"decide:{self.key}"
        ]
        if not decisions:
            raise UnknownOutcome(self.key, tool.spec.name)
        if decisions[-1] == "again":
            return None
        return ToolResult("unknown_outcome", "This call was made; its result is not known.")

    async def _approved(self, tool: Tool, call: ToolCall) -> bool:
        if tool.spec.approval == "first" and self._approved_before(tool):
            return True
        ask = {"tool": tool.spec.name, "arguments": call.arguments}
        with self.session.clocks.running("approval"):
            name, key = f"approve:{tool.spec.name}", f"{self.key}!approval:signal"
            answer = await suspend(
                self.session, name, ask, timeout=tool.spec.approval_timeout_s, key=key
            )
        return answer is True or answer == "yes"

    def _approved_before(self, tool: Tool) -> bool:
        name = f"approve:{tool.spec.name}"
        return any(
            event.body["name"] == name
            and self.session.recording.get(event.body["value"]) in (True, "yes")
            for event in self.session.index.signals
        )

    def _cancelled(self, tool: Tool, cost: Amount) -> None:
        branch = self.frame.branch
        if branch is None or branch.status != "cancelling":
            return
        self.charged = cost
        known = tool.spec.effect in ("pure", "read")
        text = "The call was cancelled."
        result = ToolResult("cancelled" if known else "unknown_outcome", text)
        self._finish(result, status="abandoned")

    def _finish(
        self,
        result: ToolResult,
        reservation: Reservation | None = None,
        *,
        status: str | None = None,
    ) -> ToolResult:
        def settle() -> JSONObject:
            overrun = reservation.settle(self.charged) if reservation is not None else None
            return {"overrun": overrun.to_json()} if overrun else {}

        early, now = self.early, self.session.now
        ended = now if early is None else early.ended_at or now
        recorded = result.to_json()
        recorded.pop("wait_s", None)  # the clock says it; a result is the same however long it took
        self.session.finish(
            self.frame,
            self.key,
            "tool",
            self.request_id,
            recorded,
            status=status or result.status,
            charged=self.charged.to_json(),
            settle=settle,
            clock=[round(at, 4) for at in (self.queued_at, self.started_at, ended)],
            early=early.ahead if early else None,
            ran=self.ran,
        )
        if isinstance(result.data, dict | list):  # in the order in which a replay is handed it
            result = replace(result, data=as_recorded(result.data))
        return result


def _result_signal(tool: Tool) -> str:
    return f"result:{tool.spec.name}"


def _idempotency_key(session: Session, key: str, tool: str, arguments: JSONObject) -> str:
    """The same for every try of one call, different for every other call."""
    text = "\n".join((session.recording.run_id, key, tool, canonical(arguments)))
    return hashlib.sha256(text.encode()).hexdigest()
