"""The runs behind a curve: read if they are there, gone on with if they are not at their end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Generic, Protocol, TypeVar

from longthought.budgets import Amount, Budget, Scope
from longthought.errors import InvalidInput, QuestionRefused, RunNotFound
from longthought.orchestrator.curves.questions import Question, numbered
from longthought.orchestrator.curves.setup import Setup, run_id
from longthought.orchestrator.curves.ways import Plan
from longthought.orchestrator.recorded import Recorded
from longthought.orchestrator.results import ENDED, out_of_budget
from longthought.storage import Recording, Store

__all__ = ["Ended", "PlannedRuns", "Progress", "Reader", "Tell"]

T = TypeVar("T")
Value = TypeVar("Value", covariant=True)

_REFUSED = "QuestionRefused"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the runs of one plan are: questions done, of how many, and how many of them were
    there already.
    """

    plan: str
    done: int
    total: int
    read: int


Tell = Callable[[Progress], None]


class Reader(Protocol[Value]):
    """Takes what matters out of a question's run.

    ``recording`` is None if the run was never begun. ``problem`` says why the question counts as
    unanswered, "" if it does not.
    """

    def __call__(
        self, question: Question, run: str, recording: Recording | None, problem: str
    ) -> Value:
        """What was read."""
        ...


@dataclass(frozen=True, slots=True)
class Ended(Generic[T]):
    """One run at its end: what was read from it, and what all attempts at it have cost."""

    value: T
    charged: Amount
    refused: str = ""
    """The model's words if it cannot take the question."""


class PlannedRuns(Generic[T]):
    """The runs of one plan, one for each question, on one store.

    ``pool`` is a budget over these and others; what was spent in earlier attempts counts.
    """

    def __init__(
        self,
        plan: Plan,
        setup: Setup,
        questions: Sequence[Question],
        store: Store,
        read: Reader[T],
        *,
        seed: int,
        pool: Scope | None = None,
    ) -> None:
        self.plan, self.store, self.pool = plan, store, pool
        self._setup = setup
        self._workflow = setup.workflow(plan, store)
        self._options = setup.options_of(plan)
        self._limits = _within(setup.budget, pool)
        self._seeds = [setup.seed(q, number, seed) for q, number in numbered(questions)]
        self._ids = [
            run_id(self._workflow, q, number, own)
            for (q, number), own in zip(numbered(questions), self._seeds, strict=True)
        ]
        self._questions = questions
        self._reader = read
        self._read: dict[int, Ended[T]] = {}
        self._begun: set[int] = set()

    async def look(self) -> None:
        """See what is there: runs at their end are read, and charged to the pool.

        Raises:
            StorageError: the store cannot be read, or a run in it is damaged.
        """
        for place, identifier in enumerate(self._ids):
            try:
                row = await self.store.row(identifier)
            except RunNotFound:
                continue
            recording = await self.store.read(identifier)
            ended = row.status in ENDED or _was_refused(recording)
            if not ended or self._may_go_on(recording):
                self._begun.add(place)
            else:
                self._read[place] = self._ended(place, recording)
                if self.pool is not None:
                    self.pool.charge(self._read[place].charged)

    async def complete(self, at_once: int, tell: Tell | None = None) -> list[Ended[T]]:
        """Bring every run to its end, some at once, and read them all in the questions' order.

        Raises:
            InvalidInput: the model takes none of the questions.
            RunBusy: another process drives one of the runs.
            StorageError: the store failed; what is recorded stands.
        """
        before = len(self._read)
        total = len(self._questions)

        async def one(place: int) -> None:
            self._read[place] = await self._run(place)
            if tell is not None:
                tell(Progress(self.plan.name, len(self._read), total, before))

        if tell is not None:
            tell(Progress(self.plan.name, before, total, before))
        missing = [place for place in range(total) if place not in self._read]
        # what was begun goes first: it holds results that are only waited for
        missing.sort(key=lambda place: (place not in self._begun, place))
        await side_by_side(missing, at_once, one)
        ended = [self._read[place] for place in range(total)]
        if all(end.refused for end in ended):
            raise InvalidInput("questions", f"none can be asked: {ended[0].refused}")
        return ended

    async def _run(self, place: int) -> Ended[T]:
        question, identifier = self._questions[place], self._ids[place]
        try:
            if place in self._begun:
                await self._resume(identifier)
            elif self.pool is not None and self.pool.exhausted is not None:
                problem = f"never begun, out of {self.pool.exhausted}"
                return Ended(self._reader(question, identifier, None, problem), Amount())
            else:
                await self._begin(place)
        except QuestionRefused:
            pass  # recorded; one question that cannot be asked leaves the others alone
        return self._ended(place, await self.store.read(identifier))

    async def _begin(self, place: int) -> None:
        try:
            await self._workflow.run(
                self._questions[place].text,
                seed=self._seeds[place],
                budget=self._limits,
                run_id=self._ids[place],
                pool=self.pool,
                options=self._options,
            )
        except InvalidInput as error:
            if error.field != "run":
                raise
            # another process has begun it since we looked: read it, or say who is at it
            await self._resume(self._ids[place])

    async def _resume(self, identifier: str) -> None:
        budget = self._raises(await self.store.read(identifier))
        await self._workflow.resume(identifier, budget=budget, pool=self.pool)

    def _ended(self, place: int, recording: Recording) -> Ended[T]:
        problem = _problem(recording)
        value = self._reader(self._questions[place], self._ids[place], recording, problem)
        refused = problem if _was_refused(recording) else ""
        return Ended(value, Recorded.of(recording).charged, refused)

    def _may_go_on(self, recording: Recording) -> bool:
        """Whether a limit ended the run that is higher now."""
        ended = recording.ended()
        if ended is None or not out_of_budget(ended.body["stop_reason"]):
            return False
        return self._raises(recording) is not None

    def _raises(self, recording: Recording) -> Budget | None:
        """The limits that now apply, if they are higher than those the run has."""
        own = Recorded.of(recording).raised or recording.manifest()["budget"]
        before = Budget.from_json(own)
        try:
            before.check_raise(self._limits)
        except InvalidInput:  # it keeps what it began with
            return None
        return self._limits if before.raised(self._limits) != before else None


async def side_by_side(
    items: Iterable[T], at_once: int, work: Callable[[T], Awaitable[None]]
) -> None:
    """Work on all items, ``at_once`` of them together; the first failure stops the others.

    Cancelling it cancels what is under way, and waits until that has recorded its end.
    """
    queue = iter(items)

    async def worker() -> None:
        for item in queue:
            await work(item)

    workers = [asyncio.create_task(worker()) for _ in range(max(1, at_once))]
    try:
        await asyncio.gather(*workers)
    finally:
        for task in workers:
            task.cancel()
        await asyncio.wait(workers)


# -- details ------------------------------------------------------------------------------------


def _problem(recording: Recording) -> str:
    """Why a run gave its question no fair chance, "" if it did."""
    last = recording.ended()
    if last is None:
        return "not at its end"
    status, reason = last.body["status"], last.body["stop_reason"]
    if status in ENDED:
        return f"out of {reason}" if out_of_budget(reason) else ""
    outcome = last.body.get("outcome")
    details = recording.get(outcome) if outcome and recording.has(outcome) else {}
    return str(details.get("error") or details.get("difference") or reason)


def _was_refused(recording: Recording) -> bool:
    """Whether the model could not take the question: it would not the next time either."""
    last = recording.ended()
    return last is not None and last.body["stop_reason"] == _REFUSED


def _within(budget: Budget, pool: Scope | None) -> Budget:
    """The limits of one run: its own, and none above the pool's.

    So a pool that is raised raises the limits of its runs, and those that it ended go on.
    """
    if pool is None:
        return budget
    changes: dict[str, int | Decimal] = {}
    for name in ("tokens", "output_tokens", "usd"):
        own, all_ = getattr(budget, name), getattr(pool.budget, name)
        if all_ is not None and (own is None or all_ < own):
            changes[name] = all_
    return replace(budget, **changes)  # type: ignore[arg-type]
