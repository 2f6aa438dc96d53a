"""Running, resuming and replaying: one attempt at a run from its beginning to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from typing import Any

from longthought.budgets import Budget, Controller, PriceBook, Scope
from longthought.errors import (
    BudgetExhausted,
    Diverged,
    Fenced,
    InvalidInput,
    KeepsCrashing,
    LongthoughtError,
    ReplayStopped,
    StorageError,
    Suspended,
    UnknownOutcome,
)
from longthought.orchestrator.best import best_outcome
from longthought.orchestrator.context import Context
from longthought.orchestrator.definition import Definition
from longthought.orchestrator.manifests import branch_budget_of, opening_of, question_text
from longthought.orchestrator.places import inside_a_run
from longthought.orchestrator.raising import RAISE, limits_in_force, raise_of
from longthought.orchestrator.recorded import Recorded, age_of
from longthought.orchestrator.results import ENDED, Result, counts_of, out_of_budget, spent_of
from longthought.orchestrator.seats import Seats, introduce
from longthought.orchestrator.session import Mode, Session, Watch
from longthought.orchestrator.time_limit import TimeLimit
from longthought.orchestrator.typed import output_of
from longthought.storage import Journal, Recording, Store
from longthought.storage.deaths import MOST_DEATHS, died_in_vain, starts_in_vain
from longthought.storage.difference import describe_change
from longthought.types import JSON, JSONObject

__all__ = ["Attempt"]

_PROBLEMS = {
    Diverged: "diverged",
    UnknownOutcome: "unknown_outcome",
    KeepsCrashing: "keeps_crashing",
}
"""What a run that needs attention says of the error that stopped it."""


class Attempt:
    """One attempt at a run; ``mode`` ``replay`` reads a recording and touches nothing.

    A ``woken`` one that is cancelled gives its run back; ``raised`` ones go on after a limit that
    had ended their run; it is named if it was a pool's."""

    def __init__(
        self,
        definition: Definition,
        recording: Recording,
        *,
        manifest: JSONObject | None = None,
        mode: Mode = "live",
        store: Store | None = None,
        controller: Controller | None = None,
        budget: Budget | None = None,
        prices: PriceBook | None = None,
        pool: Scope | None = None,
        deps: object | None = None,
        watch: Watch | None = None,
        tenant: str | None = None,
        woken: bool = False,
        raised: bool | str = False,
    ) -> None:
        self.definition, self.recording, self.mode, self.store = definition, recording, mode, store
        self._woken = woken
        self._raised = raised
        self._fenced: Fenced | None = None
        self._over = False
        """Whether the end of the attempt is on record, or about to be."""
        self._raising = asyncio.Lock()
        self._own_limit: TimeLimit | None = None
        """Ends a graph of one's own."""
        self._raised_in_vain = False
        """Whether the time of that was raised when it was over already."""
        manifest = manifest or recording.manifest()
        recorded = recording.recorded if isinstance(recording, Journal) else None
        index = Recorded.of(recording, length=recorded)
        if isinstance(recording, Journal):
            index.signals = [event for event in recording.events if event.type == "signal"]
        own_budget = limits_in_force(recording, index, manifest=manifest, signals=False)
        limits = own_budget
        if mode == "live":
            limits = limits_in_force(recording, index, manifest=manifest)
        if budget is not None:
            limits = limits.raised(budget)
        if pool is None:
            scope = Scope(recording.run_id, own_budget, level="run", spent=index.charged)
        else:
            nested = inside_a_run()
            scope = pool.begin_run(recording.run_id, own_budget, index.charged, nested=nested)
        try:
            scope.raise_limit(limits)
        except InvalidInput:
            scope.close()  # nobody runs in it: a pool does not wait for it
            raise
        clocks = index.clocks()
        if controller is None:
            controller = Controller()
            introduce(controller, definition.models)
        self.session = Session(
            definition=definition,
            recording=recording,
            index=index,
            mode=mode,
            question=question_text(manifest["question"]),
            seed=manifest["seed"],
            budget=limits,
            # the prices the run began with stay in force for the models it began with
            prices=(prices or PriceBook.load()).extended(manifest["prices"]["prices"]),
            scope=scope,
            clocks=clocks,
            seats=Seats(
                controller,
                recording.run_id,
                index,
                tenant=tenant or manifest.get("tenant"),
                left=None if limits.wall is None else limits.wall - clocks.seconds("wall"),
                age=age_of(recording) if mode == "live" else 0.0,
            ),
            models=list(definition.models),
            tools={tool.spec.name: tool for tool in definition.tools},
            opening=opening_of(definition.system, manifest["question"]),
            branch_budget=branch_budget_of(manifest),
            limits_raised=bool(raised) or limits != own_budget,
            raised_at=index.raised_at,
            spent_by_model=(
                Recorded.by_model(recording, length=recorded) if len(definition.models) > 1 else {}
            ),
            deps=deps,
            watch=watch,
        )

    async def run(self) -> Result:
        """Run to the end of the attempt, whichever it is, and record it.

        Raises:
            Fenced: another attempt has taken the run over; nothing more was written.
            StorageError: the store failed; what was acknowledged stands.
            InvalidInput: the question, a model or the workflow cannot be used.
        """
        heartbeat = self._start_heartbeat()
        try:
            with self.session.clocks.running("wall"):
                self._put_limits_in_force()
                return await self._guarded()
        finally:
            self.session.seats.release()
            # by force: where something is still held, its task was left to die
            self.session.scope.close(force=True)
            if heartbeat is not None:
                heartbeat.cancel()
                with suppress(asyncio.CancelledError, StorageError):
                    await heartbeat

    async def _guarded(self) -> Result:
        try:
            self._stop_if_deadly()
            state = await self._graph()
            return await self._completed(state)
        except (Suspended, ReplayStopped) as stop:
            return await self._stopped(stop)
        except (Diverged, UnknownOutcome, KeepsCrashing) as error:
            if self.mode == "replay":
                raise
            return await self._needs_attention(error)
        except (Fenced, StorageError):
            raise
        except asyncio.CancelledError:
            if self._fenced is not None:  # the heartbeat stopped us, nobody else
                running = asyncio.current_task()
                if running is not None:
                    running.uncancel()
                raise self._fenced from None
            await asyncio.shield(self._cancelled())
            raise
        except InvalidInput as error:
            await self._failed(error)
            raise
        except Exception as error:
            ends = "incomplete" if isinstance(error, BudgetExhausted) else "failed"
            if self.mode == "replay" and self._recorded_status() != ends:
                raise
            return await self._failed(error)

    def _stop_if_deadly(self) -> None:
        """Do not go where waker after waker has died.

        Raises:
            KeepsCrashing: this attempt would be one too many.
        """
        starts = starts_in_vain(self.recording.events) if self._woken else []
        deaths = died_in_vain(starts)
        if deaths >= MOST_DEATHS:
            raise KeepsCrashing(self.recording.run_id, deaths, starts[-2]["owner"])

    def _put_limits_in_force(self) -> None:
        """Record raised limits: later attempts keep to them."""
        if self.session.limits_raised and self.mode == "live":
            self._stage_limits(**({"room": self._raised} if isinstance(self._raised, str) else {}))

    def _stage_limits(self, **why: JSON) -> None:
        data = {"budget": self.session.budget.to_json(), **why}
        event = self.session.journal.stage("fold", input="limit_raised", data=data)
        self.session.raised_at = event.seq

    async def take_raises(self) -> None:
        """Put limits in force that were raised since; whoever waits for room goes on.

        Raises:
            Fenced, StorageError: see :class:`Journal`.
        """
        if self.store is None or self._over:
            return
        session = self.session
        async with self._raising:
            await self.store.take_signals(
                session.journal, RAISE, staged=lambda _values: not self._over
            )
            # from the chain: whoever took one in may have been cancelled before it was in force
            limits = self._wanted_limits()
            if self._over or limits == session.budget:
                return  # what is taken in and not in force counts for the next attempt
            session.budget, session.limits_raised = limits, True
            self._stage_limits()
            self._raise()  # before anybody runs into the old ones while this is written
            await session.journal.flush()

    def _wanted_limits(self) -> Budget:
        """The limits in force, raised by what is on record and not in force yet."""
        limits, journal = self.session.budget, self.session.journal
        for event in journal.events[self.session.raised_at :]:
            if event.type == "signal" and event.body["name"] == RAISE:
                limits = limits.raised(raise_of(journal.get(event.body["value"])))
        return limits

    def _raise(self) -> None:
        session, limits = self.session, self.session.budget
        session.show({"event": "limit_raised", "budget": limits.to_json()})
        session.scope.raise_limit(limits)
        if limits.wall is not None:
            session.seats.extend(limits.wall - session.clocks.seconds("wall"))
        if self._own_limit is not None and not self._own_limit.raised():
            self._raised_in_vain = True
        for tell in session.on_raise:
            tell()

    @property
    def may_go_on(self) -> bool:
        """Whether a limit ended the run, and was raised too late to be seen."""
        if self._raised_in_vain or self._wanted_limits() != self.session.budget:
            return True
        return 0 < self.session.limited_at < self.session.raised_at

    async def _graph(self) -> JSONObject:
        graph = self.definition.compiled()
        context = Context(self.session)
        opening: Any = {}
        # what LangGraph puts together as output at each step is read once, at the end
        output: Any = {"output_keys": ["outcome"]}
        if self.definition.graph is not None:
            output = {}
            opening = {"question": self.session.question, "messages": context.opening}
            known = set(self.definition.graph.state_schema.__annotations__)
            opening = {name: value for name, value in opening.items() if name in known}
        config: Any = {"recursion_limit": 10_000}
        if self.definition.graph is not None and self.mode == "live":
            self._own_limit = TimeLimit(self.session)
        with self.session.places.root():
            try:
                async with self._own_limit or nullcontext():
                    state: JSONObject = await graph.ainvoke(
                        opening, config, context=context, **output
                    )
            finally:
                self._own_limit = None
        return state

    # -- ends -----------------------------------------------------------------------------------

    async def _completed(self, state: JSONObject) -> Result:
        own = self.definition.graph is not None
        outcome: JSONObject = {"text": "", "support": {}, "ask": None}
        if own:
            answer = state.get("answer")
            text, reason = str(state.get("text") or ""), "graph_ended"
            outcome |= {"answer": answer, "text": text, "stop_reason": reason}
            outcome["status"] = "completed"
        else:
            outcome |= state["outcome"]
            good = outcome["answer"] is not None and not outcome.get("unfinished")
            reason = outcome["stop_reason"]
            good = good and reason != "rejected" and not out_of_budget(reason)
            outcome["status"] = "completed" if good else "incomplete"
        reason = outcome["stop_reason"]
        unasked = self.session.unasked()
        if unasked:
            raise Diverged(unasked[0], "recorded, and not asked for now")
        if self.mode == "replay":
            self._compare(outcome)
        else:
            await self._record_end(outcome["status"], reason, outcome)
        return self._result(outcome, state if own else {}, error=outcome.get("error"))

    def _compare(self, outcome: JSONObject) -> None:
        """A replay has to come to the same end as the recording.

        Raises:
            Diverged: it did not.
        """
        ended = self.recording.ended()
        if ended is None or ended.body["status"] not in ENDED:
            raise ReplayStopped("run_ended")  # it was cut off after the last effect
        recorded = self.recording.get(ended.body["outcome"]) if ended.body.get("outcome") else {}
        recorded.pop("spent", None)
        outcome = dict(outcome)
        if "error" not in recorded:  # once it was not recorded
            outcome.pop("error", None)
        if "unfinished" not in recorded and outcome.pop("unfinished", False):
            outcome["status"] = recorded.get("status")  # once such an end passed for a whole one
        named = str(outcome["stop_reason"]).startswith("branch.")
        if named and recorded.get("stop_reason") == "all_samples":  # once it was not named
            outcome |= {name: recorded.get(name) for name in ("stop_reason", "status")}
        difference = describe_change(recorded, outcome)
        if difference:
            raise Diverged("run_ended", difference)

    async def _stopped(self, stop: Suspended | ReplayStopped) -> Result:
        waiting = list(self.session.waiting)
        if self.mode == "replay":
            status = self._recorded_status()
            best = {} if status == "parked" else best_outcome(self.session)
            outcome = {**best, "status": status, "stop_reason": "recording ends"}
            return self._result(outcome, {}, waiting)
        if isinstance(stop, ReplayStopped):
            raise StorageError("a live attempt came to the end of a recording")
        await self._record_end("parked", "waiting", None, waiting=waiting)
        return self._result({"status": "parked", "stop_reason": "waiting"}, {}, waiting)

    async def _needs_attention(self, error: Diverged | UnknownOutcome | KeepsCrashing) -> Result:
        outcome: JSONObject = {
            "key": "" if isinstance(error, KeepsCrashing) else error.key,
            "problem": _PROBLEMS[type(error)],
            "difference": error.difference if isinstance(error, Diverged) else str(error),
        }
        await self._record_end("needs_attention", outcome["problem"], outcome)
        shown = {"status": "needs_attention", "stop_reason": outcome["problem"]}
        return self._result(shown, {}, error=str(error))

    async def _failed(self, error: Exception) -> Result:
        text = (
            str(error)
            if isinstance(error, LongthoughtError)
            else f"{type(error).__name__}: {error}"
        )
        reason = error.reason if isinstance(error, BudgetExhausted) else type(error).__name__
        status = "incomplete" if isinstance(error, BudgetExhausted) else "failed"
        best = best_outcome(self.session)
        outcome = {"answer": None, **best, "status": status, "error": text}
        if self.mode == "live":
            await self._record_end(status, reason, outcome)
        return self._result({**outcome, "stop_reason": reason}, {}, error=text)

    async def _cancelled(self) -> None:
        with suppress(StorageError):
            if self._woken and self.store is not None:
                self._over = True  # no heartbeat takes the lease again
                await self.session.journal.flush()
                await self.store.release(self.session.journal)  # the next waker finds it due
            elif self._over:
                await self.session.journal.flush()  # its end was on its way, and stands
            elif self.mode == "live":
                best = best_outcome(self.session)
                outcome = {**best, "status": "cancelled"} if best else None
                await self._record_end("cancelled", "cancelled", outcome)

    async def _record_end(
        self,
        status: str,
        reason: str,
        outcome: JSONObject | None,
        waiting: list[JSONObject] | None = None,
    ) -> None:
        self._over = True
        journal = self.session.journal
        body: JSONObject = {"status": status, "stop_reason": reason}
        if outcome is not None:
            body["outcome"] = journal.put({**outcome, "spent": self._spent()})
        if waiting:
            body["waiting"] = waiting
        if leases := self.session.seats.release():
            body["leases"] = leases
        journal.stage("run_ended", **body)
        await journal.flush(status=status)  # which gives the lease back, too

    def _recorded_status(self) -> str:
        ended = self.recording.ended()
        return str(ended.body["status"]) if ended is not None else "running"

    def _result(
        self,
        outcome: JSONObject,
        state: JSONObject,
        waiting: Sequence[JSONObject] = (),
        error: str | None = None,
    ) -> Result:
        counters = self.session.counters
        return Result(
            id=self.recording.run_id,
            status=outcome["status"],
            stop_reason=outcome["stop_reason"],
            answer=outcome.get("answer"),
            text=outcome.get("text", ""),
            spent=self._spent(),
            support=outcome.get("support", {}),
            waiting=waiting,
            error=error,
            output=output_of(self.definition, outcome),
            state=state,
            model_calls=counters.model_calls,
            tool_calls=counters.tool_calls,
            effects=counters.effects,
        )

    def _spent(self) -> JSONObject:
        scope = self.session.scope
        value = spent_of(scope.spent, scope.overrun, self.session.clocks)
        if len(self.session.models) > 1:
            spent = sorted(self.session.spent_by_model.items())
            value["by_model"] = {name: counts_of(amount) for name, amount in spent}
        return value

    # -- the lease ------------------------------------------------------------------------------

    def _start_heartbeat(self) -> asyncio.Task[None] | None:
        if self.store is None or self.mode == "replay":
            return None
        running = asyncio.current_task()
        return asyncio.create_task(self._heartbeat(self.store, running), name="longthought-lease")

    async def _heartbeat(self, store: Store, running: asyncio.Task[Any] | None) -> None:
        while True:
            await asyncio.sleep(store.lease / 3)
            try:
                if not self._over:
                    await store.renew(self.session.journal)
                await self.take_raises()
            except Fenced as error:
                self._fenced = error
                if running is not None:
                    running.cancel()
                return
            except StorageError:
                continue  # the next append finds out whether the store is gone for good
            except Exception as error:  # the lease is kept up whatever became of a raise
                asyncio.get_running_loop().call_exception_handler(
                    {"message": "a raised limit could not be put in force", "exception": error}
                )
