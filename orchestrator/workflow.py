"""``Workflow``: models, tools, a strategy and a budget under a name; run, resume, replay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from pydantic import BaseModel

from longthought.budgets import Budget, Controller, PriceBook, Scope
from longthought.errors import InvalidInput, RunBusy, RunEnded, RunMoved
from longthought.orchestrator.checks import (
    check_inner_budget,
    check_models,
    check_names,
    check_numbers,
    check_question,
    check_sampling,
    check_tenant,
    checked_shares,
    names_of,
)
from longthought.orchestrator.definition import Definition, Retry
from longthought.orchestrator.graphs.placed import Builder, Compiled
from longthought.orchestrator.handle import RunHandle
from longthought.orchestrator.manifests import begin, manifest_of
from longthought.orchestrator.models.registry import BackendSettings, priced, resolve_model
from longthought.orchestrator.raising import RAISE, check_raise, raised_since, send_raise
from longthought.orchestrator.results import ENDED, Result, out_of_budget
from longthought.orchestrator.runs import Attempt
from longthought.orchestrator.seats import introduce, leased, teach
from longthought.orchestrator.session import Watch
from longthought.orchestrator.signals import send_signal
from longthought.orchestrator.strategies import Policy, bound, single
from longthought.orchestrator.sync import run_sync
from longthought.orchestrator.typed import sent_schema
from longthought.orchestrator.waking import Waker, due_again
from longthought.storage import Journal, RunRow, Store
from longthought.tools import Tool
from longthought.types import JSON, JSONObject, Message, Model, Sampling, Verifier
from longthought.verifiers import AnswerKind
from longthought.verifiers.json_answers import JSONKind

__all__ = ["Workflow"]


@dataclass(frozen=True, slots=True)
class _Company:
    """What goes with a run through all its attempts in this process, and is never recorded.

    Without a ``tenant`` a run has the one it began with.
    """

    pool: Scope | None = None
    deps: object | None = None
    watch: Watch | None = None
    tenant: str | None = None
    woken: bool = False
    handle: RunHandle | None = None


class Workflow:
    """A way of answering questions: what thinks, with what, how it is judged, and what it may cost.

    Args:
        name: stands in listings and traces.
        model: ``"embedded"``, ``"openai/NAME"``, ``"BACKEND/NAME"`` with a backend of ``backends``,
            a ``Model``, or a list of them.
        tools: what a branch may call.
        answer: how an answer is found in prose and compared; ``output`` if that is given, else the
            whole text counts.
        verifier: judges candidates (and steps) without knowing the expected answer.
        strategy: how to think; one sample unless given.
        budget: hard limits on each run.
        branch_budget: limits on each branch, within those: one that runs out ends with what it has,
            and the others go on.
        system: the system prompt.
        sampling: temperature, top_p, max_tokens and so on, for every call.
        output: a pydantic model or a JSON schema for typed answers: ``run.output`` is an instance,
            or the parsed JSON.
        output_retries: how often a branch is told what is wrong with it and asked again.
        graph: a LangGraph ``StateGraph`` of your own, whose nodes take ``runtime.context``.
        parallel: branches in flight at once; the slots of the models asked unless given.
        max_turns: tool turns of one branch before it has to answer.
        max_output_tokens: output tokens of one reply where a limit is divided and none is given.
        retry: how failed model calls are tried again.
        early_start: start a tool that only looks (``pure``, ``read``), costs nothing and needs no
            approval as soon as its arguments are complete, while the reply still streams.
        tell_left: shares of a limit, as ``(0.5, 0.8)``: when so much of one is used, the next
            prompt of a branch says what is left.
        park_after: a sleep of more seconds than these parks the run; None keeps it in the process.
        store: where runs are recorded: an open ``Store``, a database URL, or None for the default.
        prices: a price book, or the TOML file with your own prices.
        backend: settings for models that are given by name and have none in ``backends``.
        backends: settings by the name of a backend, as in a configuration file.
        source: ``module:attribute`` where this workflow is found again, for the command line.

    Raises:
        InvalidInput: a part cannot be used; the message names it.
    """

    def __init__(
        self,
        name: str = "workflow",
        *,
        model: str | Model | Sequence[str | Model] = "embedded",
        tools: Sequence[Tool] = (),
        answer: AnswerKind | None = None,
        verifier: Verifier | None = None,
        strategy: Policy | None = None,
        budget: Budget | None = None,
        branch_budget: Budget | None = None,
        system: str | None = None,
        sampling: Sampling | None = None,
        output: type[BaseModel] | JSONObject | None = None,
        output_retries: int = 1,
        graph: Builder | None = None,
        parallel: int | None = None,
        max_turns: int = 32,
        max_output_tokens: int = 4096,
        retry: Retry | None = None,
        early_start: bool = True,
        tell_left: Sequence[float] = (),
        park_after: float | None = 60.0,
        store: Store | str | None = None,
        prices: PriceBook | Path | None = None,
        backend: BackendSettings | None = None,
        backends: Mapping[str, BackendSettings] | None = None,
        source: str = "",
    ) -> None:
        specs = [model] if isinstance(model, str) or not isinstance(model, Sequence) else model
        if not specs:
            raise InvalidInput("model", "no model is given", 'Use "embedded" or "openai/NAME"')
        check_names(name, tools)
        check_numbers(parallel, max_turns, max_output_tokens, park_after, output_retries)
        check_sampling(sampling or {})
        check_inner_budget("branch_budget", branch_budget)
        typed = None if output is None else JSONKind(output)
        definition = Definition(
            name=name,
            models=[resolve_model(spec, backend, backends) for spec in specs],
            asked_for=names_of(specs),
            strategy=strategy or single(),
            tools=tuple(tools),
            answer=answer or typed,
            verifier=verifier,
            system=system,
            sampling=sampling or {},
            budget=budget or Budget(),
            branch_budget=branch_budget,
            output=None if typed is None else sent_schema(typed),
            typed=typed,
            output_retries=output_retries,
            parallel=parallel,
            max_turns=max_turns,
            max_output_tokens=max_output_tokens,
            retry=retry or Retry(),
            early_start=early_start,
            tell_left=checked_shares(tell_left),
            park_after=park_after,
            graph=graph,
            source=source,
        )
        strategy = bound(definition.strategy, definition.model_names())
        self.definition = replace(definition, strategy=strategy)
        self.store = store
        book = prices if isinstance(prices, PriceBook) else PriceBook.load(prices)
        self._prices = priced(book, specs, backend, backends)
        self._controllers = WeakKeyDictionary[asyncio.AbstractEventLoop, Controller]()
        self._taught = WeakSet[Controller]()

    @property
    def name(self) -> str:
        """The name of the workflow."""
        return self.definition.name

    @property
    def graph(self) -> Compiled:
        """The graph a run goes through, compiled: ``workflow.graph.get_graph().draw_mermaid()``."""
        return self.definition.compiled()

    def recorded_in(self, store: Store | str | None) -> Workflow:
        """The same workflow with its runs in another store."""
        other = copy(self)
        other.store = store
        return other

    async def run(
        self,
        question: str | Sequence[Message],
        *,
        seed: int = 0,
        budget: Budget | None = None,
        pool: Scope | None = None,
        deps: object | None = None,
        run_id: str | None = None,
        run_key: bytes | None = None,
        watch: Watch | None = None,
        tenant: str | None = None,
        options: JSONObject | None = None,
    ) -> Result:
        """Answer one question; recorded from the first call to the last.

        ``budget`` replaces the workflow's for this run. ``pool`` is a budget over many runs: what
        one spends, the others no longer have. ``deps`` reaches tools and nodes and is
        never recorded. ``watch`` is called with what happens while it happens. Tenants share the
        slots of a workflow fairly, as its runs do; a run keeps its ``tenant`` when it is woken or
        resumed.

        Raises:
            InvalidInput: the question is empty, or a model or limit cannot be used.
            StorageError: the store cannot be used.
        """
        return await self._run(
            question,
            _Company(pool, deps, watch, tenant),
            seed=seed,
            budget=budget,
            run_id=run_id,
            run_key=run_key,
            options=options,
        )

    async def start(self, question: str | Sequence[Message], **options: Any) -> RunHandle:
        """Begin a run as :meth:`run` does, and return as soon as it is on record.

        Raises:
            InvalidInput: the question is empty, or a model or limit cannot be used.
            StorageError: the store cannot be used.
        """
        handle = RunHandle(self)
        with_it = {name: options.pop(name, None) for name in ("pool", "deps", "watch", "tenant")}
        run = self._run(question, _Company(**with_it, handle=handle), **options)
        await handle.follow(asyncio.create_task(run, name="longthought-run"))
        return handle

    async def raise_limit(self, run_id: str, budget: Budget) -> Budget:
        """Raise the limits given of a run that is under way, in any process, or parked.

        Durable when this returns: the process that drives the run sees it with its next heartbeat
        (a third of the store's lease), a run at rest when it goes on. Returns the limits by then.

        Raises:
            RunNotFound: there is no such run.
            InvalidInput: a limit would be lower or new, or the run has ended: ``resume`` it.
        """
        async with self.opened_store() as store:
            return await send_raise(store, run_id, budget)

    async def resume(
        self,
        run_id: str,
        *,
        force: bool = False,
        budget: Budget | None = None,
        pool: Scope | None = None,
        deps: object | None = None,
        watch: Watch | None = None,
        tenant: str | None = None,
    ) -> Result:
        """Go on with a run that crashed, parked, was cancelled or needs attention.

        ``budget`` raises its limits, those it leaves out stay; ``tenant`` stands in for the one it
        began with. A run that has ended is replayed, unless ``pool`` ended it and has room again.

        Raises:
            InvalidInput: a limit would be lower or new, or the pool is none.
            RunNotFound, RunBusy: there is none, or another process drives it.
            Diverged: only if the run has ended and this workflow is another one.
        """
        check_tenant(tenant)
        company = _Company(pool, deps, watch, tenant)
        async with self.opened_store() as store:
            row = await store.row(run_id)
            raised = row.status == "incomplete" and await raised_since(store, run_id, pool)
            if row.status in ENDED and budget is None and not raised:
                return await self.replay(run_id, deps=deps)
            if budget is not None:
                check_raise(await store.read(run_id), budget)
            try:
                attempt = await self._claimed(store, run_id, company, force, budget, raised=raised)
            except RunEnded:  # while we were looking
                return await self.replay(run_id, deps=deps)
            return await self._until_rest(store, attempt, company)

    async def replay(self, run_id: str, *, deps: object | None = None) -> Result:
        """Run the workflow again on the recorded effects alone: no model, no tool is called.

        Raises:
            Diverged: the workflow asks for something else than it did; names the effect.
            RunNotFound: there is no such run.
        """
        async with self.opened_store() as store:
            recording = await store.read(run_id)
            attempt = Attempt(
                self.definition, recording, mode="replay", prices=self._prices, deps=deps
            )
            return await attempt.run()

    async def signal(self, run_id: str, name: str, value: JSON = None, *, key: str = "") -> None:
        """Send a signal to a run that waits for it; one that has ended takes none."""
        async with self.opened_store() as store:
            await send_signal(store, run_id, name, value, key)

    async def wake(
        self,
        *,
        limit: int | None = None,
        at_once: int = 16,
        pool: Scope | None = None,
        deps: object | None = None,
    ) -> list[Result]:
        """Go on with this workflow's parked runs that are due, ``limit`` of them at most.

        Due is a run that was sent a signal, whose timer is over, or that a waker has died on. Many
        may wake the runs of one store: each is woken once. What could not be woken has the
        ``stop_reason`` ``not_woken`` and an ``error``. Cancelled, it gives back what it has.

        Raises:
            InvalidInput: ``limit`` or ``at_once`` is below 1.
            StorageError: the store cannot be read.
        """
        for field, value in (("limit", limit), ("at_once", at_once)):
            if value is not None and value < 1:
                raise InvalidInput(field, f"{value} is too few", "Use 1 or more")
        woken: list[Result] = []
        async with self.opened_store() as store:
            here = self.recorded_in(store)

            async def go_on(row: RunRow) -> Result:
                return await here.wake_run(row, pool=pool, deps=deps)

            waker = Waker(
                store, go_on, woken.append, workflow=self.name, at_once=at_once, limit=limit
            )
            await waker.run()
        return woken

    async def wake_run(
        self, row: RunRow, *, pool: Scope | None = None, deps: object | None = None
    ) -> Result:
        """Go on with one run as ``Store.due`` listed it.

        Raises:
            RunMoved, RunBusy, RunEnded: another process was quicker.
        """
        company = _Company(pool, deps, woken=True)
        async with self.opened_store() as store:
            attempt = await self._claimed(store, row.id, company, after=row.attempt)
            return await self._until_rest(store, attempt, company)

    def run_sync(self, question: str | Sequence[Message], **options: Any) -> Result:
        """:meth:`run` for code that is not async; also works where a loop is running (Jupyter)."""
        return run_sync(self.run(question, **options))

    async def stream(
        self, question: str | Sequence[Message], **options: Any
    ) -> AsyncIterator[JSONObject]:
        """What happens, while it happens; the last item is ``{"event": "result", ...}``."""
        queue: asyncio.Queue[JSONObject] = asyncio.Queue()
        task = asyncio.create_task(self.run(question, watch=queue.put_nowait, **options))
        task.add_done_callback(lambda _task: queue.put_nowait({"event": "end"}))
        try:
            while (item := await queue.get())["event"] != "end":
                yield item
            yield {"event": "result", **(await task).to_json()}
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])

    async def aclose(self) -> None:
        """Release the models and tools."""
        for model in self.definition.models:
            await model.aclose()
        for tool in self.definition.tools:
            await tool.aclose()

    # -- details --------------------------------------------------------------------------------

    @asynccontextmanager
    async def opened_store(self) -> AsyncIterator[Store]:
        """The store: the one given, or one opened for the time it is needed."""
        if isinstance(self.store, Store):
            yield self.store
            return
        async with Store(self.store) as store:
            yield store

    async def _run(
        self,
        question: str | Sequence[Message],
        company: _Company,
        *,
        seed: int = 0,
        budget: Budget | None = None,
        run_id: str | None = None,
        run_key: bytes | None = None,
        options: JSONObject | None = None,
    ) -> Result:
        check_question(question)
        limits = budget or self.definition.budget
        check_tenant(company.tenant)
        check_models(self.definition, self._prices, limits, company.pool)
        manifest = manifest_of(
            self.definition, question, seed, limits, self._prices, options or {}, company.tenant
        )
        async with self.opened_store() as store:
            journal = await begin(store, self.definition, manifest, run_id=run_id, run_key=run_key)
            attempt = await self._attempt(store, journal, company, manifest=manifest)
            return await self._until_rest(store, attempt, company)

    async def _claimed(
        self,
        store: Store,
        run_id: str,
        company: _Company,
        force: bool = False,
        budget: Budget | None = None,
        after: int | None = None,
        raised: bool | str = False,
    ) -> Attempt:
        journal = await store.claim(
            run_id,
            force=force,
            fingerprint=self.definition.fingerprint(),
            unless=() if budget is not None or raised else ENDED,
            after=after,
            stays_due=company.woken,
        )
        try:
            await store.take_signals(journal)
            return await self._attempt(store, journal, company, budget=budget, raised=raised)
        except BaseException:
            await store.release(journal)  # nobody drives it: the next one need not wait
            raise

    async def _attempt(
        self, store: Store, journal: Journal, company: _Company, **more: Any
    ) -> Attempt:
        attempt = Attempt(
            self.definition,
            journal,
            store=store,
            controller=await self._taught_controller(store),
            prices=self._prices,
            pool=company.pool,
            deps=company.deps,
            watch=company.watch,
            tenant=company.tenant,
            woken=company.woken,
            **more,
        )
        if company.handle is not None:
            company.handle.attach(attempt)
        return attempt

    async def _until_rest(self, store: Store, attempt: Attempt, company: _Company) -> Result:
        """Run attempts until the run rests: it may be due again by then, or its limits raised."""
        result = await attempt.run()
        while True:
            raised = await self._raised_late(store, attempt, result)
            if not raised and not (result.status == "parked" and await due_again(store, result)):
                return result
            try:
                last = attempt.session.journal.attempt
                attempt = await self._claimed(store, result.id, company, after=last, raised=raised)
            except (RunBusy, RunEnded, RunMoved):
                return result  # whoever sent the signal was quicker, or a waker
            before, result = result, await attempt.run()
            if result.status == "parked" and result.waiting == before.waiting:
                return result  # the signal was for something else

    async def _raised_late(self, store: Store, attempt: Attempt, result: Result) -> bool:
        """Whether a limit that ended the run was raised too late to be seen."""
        if result.status != "incomplete" or not out_of_budget(result.stop_reason):
            return False
        return attempt.may_go_on or await store.waiting_signals(result.id, RAISE) > 0

    def _shared_controller(self) -> Controller:
        """One controller for all runs of this workflow in a loop: they share its slots."""
        loop = asyncio.get_running_loop()
        if (controller := self._controllers.get(loop)) is None:
            controller = self._controllers[loop] = Controller()
        introduce(controller, self.definition.models)
        return controller

    async def _taught_controller(self, store: Store) -> Controller:
        """The same, which knows how long the tools of earlier runs took, if leases depend on it."""
        controller, definition = self._shared_controller(), self.definition
        if controller not in self._taught and definition.tools and leased(definition.models):
            self._taught.add(controller)
            await teach(controller, definition, store)
        return controller
