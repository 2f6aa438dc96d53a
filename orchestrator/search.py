"""The driver of a policy: the only place where a fold meets the clock, the budget and failures.

Inputs reach the policy in one order, and that order is recorded before anything follows from it.
A resumed or replayed search is first fed the recorded inputs, in the recorded order, while its
branches run on recorded effects; only then do live effects begin.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from functools import partial
from typing import NoReturn

from longthought.budgets import Amount, BranchState, Budget
from longthought.errors import (
    Diverged,
    PolicyError,
    ReplayStopped,
    StorageError,
    Suspended,
    limit_reason,
    split_reason,
)
from longthought.orchestrator.best import note_search, show_best
from longthought.orchestrator.branch_runs import RunBranch, ended_by_limit, new_branch, run_to_end
from longthought.orchestrator.branches import Branch, named_by_limit
from longthought.orchestrator.places import current_frame
from longthought.orchestrator.session import Session
from longthought.orchestrator.strategies.guarded import GuardedPolicy
from longthought.orchestrator.strategies.policy import Ask, Outcome, Pick, Policy, State
from longthought.storage import Event, canonical
from longthought.storage.difference import describe_change
from longthought.types import JSON, JSONObject

__all__ = ["Search"]

_AFTER_A_PICK = ("tell", "cancel", "limit_raised")
"""Inputs that may follow a pick in a recording without a rejection of it."""

PATIENCE_S = 1.0
"""How long branches that were cancelled may take to stop before the run goes on without them."""

_LOG = logging.getLogger("longthought")


class Search:
    """One policy at work at one place of a run; asked again after a rejection."""

    def __init__(
        self,
        session: Session,
        policy: Policy,
        run_branch: RunBranch,
        place: str,
        budget: Budget | None = None,
    ) -> None:
        self.session, self.policy, self.place = session, policy, place
        self.scope = session.scope_of(current_frame()).child(
            place, budget, level="search", spent=session.index.spent.get(place)
        )
        self.live = asyncio.Event()
        self._most = session.definition.slots(policy)
        """Branches in flight at once."""
        self._policy = GuardedPolicy(policy, len(session.models))
        self.state: State = self._policy.start(session.question, session.seed)
        self.branches: dict[str, Branch] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.pick: Pick | None = None
        self._run_branch = run_branch
        self._folds = deque(session.index.folds.get(self.place, ()))
        self._recorded_tells = {
            event.body["data"]["ask"] for event in self._folds if event.body["input"] == "tell"
        }
        self._cancelled = {
            ask
            for event in self._folds
            if event.body["input"] == "cancel"
            for ask in event.body["data"]["asks"]
        }
        """Branches that the policy was told are cancelled: they are told no more."""
        self._inbox: deque[Outcome] = deque()
        """Outcomes of branches in the order in which they were decided, not yet fed."""
        self._arrived = asyncio.Event()
        session.on_raise.append(self._arrived.set)
        self._running: dict[str, asyncio.Task[str]] = {}
        self._parked: set[str] = set()
        self._exhausted: str | None = None
        self._short: tuple[str, str] | None = None
        """The limit that a branch ran into; others may still give something back."""
        self._late: list[Event] = []
        """Recorded tells that arrived after a pick; they are fed if that pick is rejected."""
        self.raises = 0
        """How often limits were raised for it."""
        self._limited_at = 0
        """The number of the event by which a limit was hit; 0 for none since limits were raised."""
        self._told_cancel = False
        self._failure: BaseException | None = None
        self.shown: tuple[str, str | None] | None = None
        """The best answer that was shown last."""
        note_search(session, self)

    # -- the loop -------------------------------------------------------------------------------

    async def explore(self) -> Pick:
        """Feed the policy until it picks.

        Raises:
            Suspended: every branch that is left waits for a signal.
            PolicyError: the policy neither asks nor ends.
            Diverged: the policy asked for something else than recorded.
        """
        with self.session.places.enter_at(self.place):
            try:
                pick = await self._fed_by_recording() or await self._fed_live()
                self.pick = pick = named_by_limit(pick, self.branches.values())
                await self._cancel_rest()
            except BaseException:
                await self._stop_all()
                raise
        return pick

    def reject(self, pick: Pick) -> None:
        """Tell the policy that the run's verify node turned its pick down."""
        data = {"ask": pick.ask}
        if self._folds:
            self._check_rejection(self._folds.popleft(), data)
        else:
            self._fold("rejected", data)
        self._policy.tell(self.state, {"type": "rejected", "ask": pick.ask})
        self._folds.extendleft(reversed(self._late))
        self._late = []
        self._told_cancel = False
        self.pick = None

    async def _fed_by_recording(self) -> Pick | None:
        pick = self._policy.done(self.state)
        while self._folds and (pick is None or self._folds[0].body["input"] in _AFTER_A_PICK):
            event = self._folds.popleft()
            if pick is not None and event.body["input"] == "tell":
                self._late.append(event)
                continue
            after = await self._replay(event)
            if pick is None or event.body["input"] == "limit_raised":
                pick = after
        if pick is not None and not self._folds and self._cut_short():
            pick = self._raise_limit()
        if not self._folds:
            self.live.set()
        return pick

    def _cut_short(self) -> bool:
        """Whether the search has hit a limit that was raised since."""
        live = self.session.mode == "live"
        return live and 0 < self._limited_at < self.session.raised_at

    def _limited(self, seq: int) -> None:
        self._limited_at = self.session.limited_at = seq

    def _raise_limit(self) -> Pick | None:
        self._fold("limit_raised", {"budget": self.session.budget.to_json()})
        return self._limit_raised()

    def _limit_raised(self) -> Pick | None:
        self._exhausted = self._short = None
        self._limited_at = self.session.limited_at = 0
        self._told_cancel = False
        self.raises += 1
        self._policy.tell(self.state, {"type": "limit_raised"})
        self._folds.extendleft(reversed(self._late))
        self._late = []
        return self._policy.done(self.state)

    async def _replay(self, event: Event) -> Pick | None:
        data = event.body["data"]
        match event.body["input"]:
            case "ask":
                self._launch(self._asked(data["room"], event))
                return self._policy.done(self.state)
            case "tell":
                outcome = await self._outcome_of(data["ask"])
                self._check_outcome(event, outcome)
                if ended_by_limit(outcome):
                    self._limited(event.seq)
                self._policy.tell(self.state, outcome)
            case "exhausted":
                self._tell_exhausted(data, event.seq)
            case "limit_raised":
                return self._limit_raised()
            case "cancel":
                self._told_cancel = True
                self._policy.tell(self.state, {"type": "cancelled", "asks": data["asks"]})
            case other:
                raise Diverged(self.place, f"recorded {other!r} where the search still goes on")
        return self._policy.done(self.state)

    async def _fed_live(self) -> Pick:
        if self.session.mode == "replay":
            await self._settle_replay()
        while True:
            pick = self._take_in()
            if self._cut_short():
                pick = self._raise_limit()
            if pick is not None:
                return pick
            if self._exhausted is None:
                self._ask()
            pick = self._policy.done(self.state)
            if pick is not None:
                return pick
            if not self._running:
                self._at_rest()
                continue
            await self._wait()

    def _take_in(self) -> Pick | None:
        """Feed everything that has arrived, in order; it is staged already."""
        self._arrived.clear()
        if self._failure is not None:
            raise self._failure
        while self._inbox:
            outcome = self._inbox.popleft()
            if ended_by_limit(outcome):
                self._short = split_reason(outcome["reason"])
            self._policy.tell(self.state, outcome)
            show_best(self)
            pick = self._policy.done(self.state)
            if pick is not None:
                return pick
        kind = self.session.time_is_up()
        if kind is not None and self._exhausted is None:
            self._exhaust("run", kind)
            return self._policy.done(self.state)
        return None

    def _ask(self) -> None:
        while True:
            room = self._room()
            before = canonical(self.state)
            asks = self._policy.ask(self.state, room, self.branches) if room > 0 else []
            if not asks:
                if canonical(self.state) != before:
                    raise PolicyError(f"{self.policy.name} changed its state without asking")
                return
            self.scope.charge(Amount(branches=len(asks)))
            limits = {} if self.branches else self._limits()
            self._fold("ask", {"room": room, "asks": [ask.id for ask in asks], **limits})
            self._launch(asks)

    def _at_rest(self) -> None:
        """Nothing runs and the policy asks for nothing: parked, out of budget, or a mistake."""
        if self._parked:
            raise Suspended("branches", self.place)
        limit = self.session.used_up(self.scope) or self._short
        if limit is not None and self._exhausted is None:
            self._exhaust(*limit)
            return
        raise PolicyError(
            f"{self.policy.name} neither asks nor ends: {canonical(self.state)[:300]}"
        )

    async def _wait(self) -> None:
        seconds = self.session.clocks.look_in(self.session.budget)
        try:
            async with asyncio.timeout(None if seconds is None else max(seconds, 0.001)):
                await self._arrived.wait()
        except TimeoutError:
            return

    # -- branches -------------------------------------------------------------------------------

    def _launch(self, asks: list[Ask]) -> None:
        for ask in asks:
            parent = self.branches[ask.parent] if ask.parent is not None else None
            branch = new_branch(self.session, self.place, self.scope, ask, parent, self.live)
            self.branches[ask.id] = branch
            shown = {"event": "branch", "branch": ask.id, "kind": ask.kind}
            if len(self.session.models) > 1:
                shown["model"] = branch.model.name
            self.session.show(shown)
            task = asyncio.create_task(
                run_to_end(self.session, branch, self._run_branch), name=f"branch {ask.id}"
            )
            branch.task = self._running[ask.id] = task
            task.add_done_callback(partial(self._over, branch))

    def _over(self, branch: Branch, task: asyncio.Task[str]) -> None:
        """Take in the end of a branch's task, whichever it is; nothing may be left waiting."""
        if self._running.pop(branch.ask.id, None) is None:
            return  # it was left behind
        try:
            if task.cancelled():
                if branch.status == "cancelling":  # cancelled before its first step
                    branch.status = "cancelled"
                    self._ended(branch, "cancelled")
                else:
                    self._drop(branch)  # the process stops: the recording stays as it is
            elif (error := task.exception()) is not None:
                self._drop(branch)
                self._failure = self._failure or error
            else:
                self._ended(branch, task.result())
        except Exception as error:
            self._failure = self._failure or error
        self._arrived.set()

    def _ended(self, branch: Branch, how: str) -> None:
        """Decide, in one go, the branch's last results, its end and its tell."""
        session = self.session
        final = {"finished": BranchState.DONE, "cancelled": BranchState.CANCELLED}
        if how == "parked":
            self._parked.add(branch.ask.id)
            branch.slot.move(BranchState.PARKED)
        else:
            branch.slot.move(final.get(how, BranchState.FAILED))
        recorded = session.index.ends.get(branch.place)
        known = recorded is not None and recorded.body["how"] == how
        told = (
            how in ("finished", "failed")
            and self.pick is None
            and self._policy.done(self.state) is None
        )
        told = told and branch.ask.id not in self._cancelled
        if recorded is not None and known:
            told = bool(recorded.body.get("told", True)) and how in ("finished", "failed")
        outcome = branch.outcome()
        tell = told and branch.ask.id not in self._recorded_tells
        if session.mode == "live":
            session.enter_chain(branch)
            if not known:
                extra: dict[str, JSON] = {"reason": branch.reason} if branch.reason else {}
                if not told:
                    extra["told"] = False
                if lease := session.seats.told(branch.seat):
                    extra["lease"] = lease
                session.journal.stage("branch_ended", branch.place, how=how, **extra)
            if tell:
                data = {"ask": branch.ask.id, "outcome": session.put(outcome)}
                seq = self._fold("tell", data)
                if ended_by_limit(outcome):
                    self._limited(seq)
        self.outcomes[branch.ask.id] = outcome
        if how == "cancelled":
            session.dropped.add(branch.place)
        session.show({"event": "branch_ended", "branch": branch.ask.id, "how": how, **outcome})
        if tell:
            self._inbox.append(outcome)

    def _drop(self, branch: Branch) -> None:
        """Let go of a branch because the attempt stops; the results it has are kept."""
        if self.session.mode == "live":
            with suppress(StorageError):
                self.session.enter_chain(branch)
        branch.slot.move(BranchState.CANCELLED)

    # -- replay ---------------------------------------------------------------------------------

    def _asked(self, room: int, event: Event) -> list[Ask]:
        asks = self._policy.ask(self.state, room, self.branches)
        names, recorded = [ask.id for ask in asks], event.body["data"]["asks"]
        if names != recorded:
            raise Diverged(
                self.place, f"the policy asked for {names or 'nothing'}, recorded is {recorded}"
            )
        return asks

    async def _outcome_of(self, ask: str) -> Outcome:
        """The outcome of a branch that is recorded as told, once it has run on its recording."""
        while ask not in self.outcomes or ask in self._parked:
            if self._failure is not None:
                raise self._failure
            if ask not in self._running:
                raise Diverged(f"{self.place}/{ask}", "recorded as ended; it did not end now")
            self._arrived.clear()
            await self._arrived.wait()
        return self.outcomes[ask]

    def _check_outcome(self, event: Event, outcome: Outcome) -> None:
        recorded = event.body["data"]["outcome"]
        if recorded != self.session.address(outcome):
            change = describe_change(self.session.recording.get(recorded), outcome)
            raise Diverged(f"{self.place}/{outcome['ask']}", f"the outcome differs: {change}")

    def _check_rejection(self, event: Event, data: JSONObject) -> None:
        if event.body["input"] != "rejected" or event.body["data"] != data:
            recorded = f"{event.body['input']} {canonical(event.body['data'])}"
            raise Diverged(self.place, f"recorded is {recorded}, now the pick was rejected")

    async def _settle_replay(self) -> None:
        """The recording has no more inputs: let every branch run to where it was cut off."""
        while self._running:
            if self._failure is not None:
                raise self._failure
            self._arrived.clear()
            await self._arrived.wait()
        if self._failure is not None:
            raise self._failure
        if self._parked:
            raise Suspended("branches", self.place)
        self._recording_over("it ends with a pick, and the policy does not pick now")

    def _recording_over(self, problem: str) -> NoReturn:
        """A replay has come to the end of the search's inputs.

        Raises:
            ReplayStopped: the recording was cut off there.
            Diverged: it goes on without this search.
        """
        ended = self.session.recording.ended()
        if ended is None or ended.body["status"] not in ("completed", "incomplete"):
            raise ReplayStopped(self.place)
        raise Diverged(self.place, f"the recording has no further input for the policy: {problem}")

    # -- ends -----------------------------------------------------------------------------------

    async def _cancel_rest(self) -> None:
        """Cancel what still runs after the pick; recorded ends are replayed, not cancelled."""
        rest = sorted({*self._running, *self._parked})
        if rest and self.session.mode == "live" and not self._told_cancel:
            self._told_cancel = True
            self._fold("cancel", {"asks": rest})
            self._cancelled.update(rest)
            self._policy.tell(self.state, {"type": "cancelled", "asks": rest})
            self._end_parked()
        for name, task in self._running.items():
            branch = self.branches[name]
            end = self.session.index.ends.get(branch.place)
            woken = end is not None and end.body["how"] == "parked"
            if self.session.mode == "live" and (end is None or woken):
                branch.status = "cancelling"
                task.cancel()
        while self._running:
            stopping = all(self.branches[name].status == "cancelling" for name in self._running)
            tasks = list(self._running.values())
            done, _ = await asyncio.wait(tasks, timeout=PATIENCE_S if stopping else None)
            if not done:
                self._leave()
        if self._failure is not None:
            raise self._failure

    def _leave(self) -> None:
        """End the branches that do not stop when they are told to: the answer waits for none.

        What is still running of them asks for nothing more, and what it comes to is dropped.
        """
        for name in list(self._running):
            _LOG.warning("branch %s does not stop; the run goes on without it", name)
            del self._running[name]
            self.branches[name].status = "cancelled"
            self._ended(self.branches[name], "cancelled")

    def _end_parked(self) -> None:
        """End the branches that wait for a signal: nobody is to be asked for it any more."""
        for name in sorted(self._parked):
            place = self.branches[name].place
            self.session.journal.stage("branch_ended", place, how="cancelled", told=False)
            waits = self.session.waiting
            waits[:] = [wait for wait in waits if not wait["key"].startswith(f"{place}/")]
        self._parked.clear()

    async def _stop_all(self) -> None:
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # -- the world's side -----------------------------------------------------------------------

    def _fold(self, name: str, data: JSONObject) -> int:
        """Record an input of the policy; returns the number of the event."""
        if self.session.mode == "replay":
            self._recording_over(f"{name} is no part of it")
        return self.session.journal.stage("fold", self.place, input=name, data=data).seq

    def _exhaust(self, scope: str, kind: str) -> None:
        data = {"scope": scope, "kind": kind}
        self._tell_exhausted(data, self._fold("exhausted", data))

    def _tell_exhausted(self, data: JSONObject, seq: int) -> None:
        self._limited(seq)
        self._exhausted = limit_reason(data["scope"], data["kind"])
        told = {"type": "exhausted", "scope": data["scope"], "kind": self._exhausted}
        self._policy.tell(self.state, told)

    def _limits(self) -> JSONObject:
        """The limits of its own and of its branches, as they are recorded with its first ask."""
        limits = {"search": self.scope.budget, "branch": self.session.branch_budget or Budget()}
        set_limits = {name: json for name, one in limits.items() if (json := one.to_json())}
        return {"limits": set_limits} if set_limits else {}

    def _room(self) -> int:
        room = self._most - len(self._running) - len(self._parked)
        if self.session.used_up(self.scope) is not None or self._short is not None:
            return 0
        left = self.scope.remaining("branches")
        return room if left is None else min(room, left)
