"""What a node is given as ``runtime.context``: the way to the outside world, recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from longthought.budgets import Budget
from longthought.errors import ControlFlow, InvalidInput
from longthought.orchestrator.branches import Branch
from longthought.orchestrator.checks import check_inner_budget
from longthought.orchestrator.effects import (
    ModelCall,
    call_tool,
    draw,
    judge_candidate,
    patched,
    sleep,
    suspend,
    tell_time,
    whole_reply,
)
from longthought.orchestrator.graphs.branch import run_branch
from longthought.orchestrator.places import Frame, current_frame, enter_label
from longthought.orchestrator.search import Search
from longthought.orchestrator.session import Session
from longthought.orchestrator.strategies import Pick, Policy, bound
from longthought.orchestrator.typed import find_answer
from longthought.tools import ToolResult
from longthought.types import (
    JSON,
    Candidate,
    JSONObject,
    Message,
    Model,
    ModelReply,
    Sampling,
    Verdict,
)

__all__ = ["Context", "Exploration"]


@dataclass(frozen=True, slots=True)
class Exploration:
    """What a search came to: its pick, and the candidate and verdict behind it."""

    pick: Pick
    candidate: Candidate | None
    verdict: Verdict | None

    @property
    def answer(self) -> str | None:
        """The answer in canonical form, None without one."""
        return self.candidate.answer if self.candidate else None

    @property
    def text(self) -> str:
        """What the picked branch said."""
        return self.candidate.text if self.candidate else ""


@dataclass(slots=True)
class Context:
    """The context of one run attempt. Every call is recorded, charged and replayed.

    Calls of one node have to come from one task; for concurrency inside a node use
    :meth:`gather`, or give each task its own :meth:`label`.
    """

    session: Session

    # -- about the run --------------------------------------------------------------------------

    @property
    def run_id(self) -> str:
        """The id of the run."""
        return self.session.recording.run_id

    @property
    def question(self) -> str:
        """The text of the question."""
        return self.session.question

    @property
    def deps(self) -> Any:
        """The per-run objects given to ``Workflow.run``; never recorded."""
        return self.session.deps

    @property
    def opening(self) -> list[Message]:
        """The system prompt and the question as messages: what every branch starts from."""
        return [message.copy() for message in self.session.opening_of(self.session.models[0])]

    @property
    def branch(self) -> Branch | None:
        """The branch this code runs in, None outside :meth:`explore`."""
        return current_frame().branch

    # -- effects --------------------------------------------------------------------------------

    async def model(
        self,
        messages: str | Sequence[Message],
        *,
        tools: Sequence[str] = (),
        model: str | int = 0,
        output: JSONObject | None = None,
        continue_last: bool = False,
        **sampling: JSON,
    ) -> ModelReply:
        """Ask a model of the workflow; keyword arguments beyond those named are sampling options.

        Raises:
            BackendError: the backend failed after all tries.
            BudgetExhausted: the budget has no room for the call.
            InvalidInput: there is no such model or tool.
        """
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        missing = [name for name in tools if name not in self.session.tools]
        if missing:
            raise InvalidInput("tools", f"the workflow has no tool {missing[0]!r}")
        options: Sampling = {**self.session.definition.sampling, **sampling}  # type: ignore[typeddict-item]
        call = ModelCall(
            messages,
            self._model(model),
            tuple(tools),
            options,
            output,
            continue_last,
        )
        return await whole_reply(self.session, call)

    async def tool(
        self, name: str, arguments: Mapping[str, JSON] | None = None, /, **more: JSON
    ) -> ToolResult:
        """Call a tool of the workflow. Whatever happens is in the result's ``status``."""
        return await call_tool(self.session, name, {**(arguments or {}), **more})

    async def verify(self, candidate: Candidate | str) -> Verdict:
        """The verdict of the workflow's verifier on a candidate, or on a text as one.

        Raises:
            InvalidInput: the workflow has no verifier.
        """
        verifier = self.session.definition.verifier
        if verifier is None:
            raise InvalidInput("verifier", "the workflow has none", "Give Workflow(verifier=...)")
        if isinstance(candidate, str):
            candidate = self.candidate(candidate)
        return await judge_candidate(self.session, verifier, candidate)

    def candidate(self, text: str, *, final: bool = True) -> Candidate:
        """A text as a candidate, with the answer found in it."""
        answer = find_answer(self.session.definition, text)
        return Candidate(self.question, text, answer, final)

    async def explore(
        self, policy: Policy | None = None, *, budget: Budget | None = None
    ) -> Exploration:
        """Let a policy work until it picks: the workflow's strategy unless another is given.

        ``budget`` limits this search, within what the run has.

        Raises:
            Suspended: every branch that is left waits for a signal.
            InvalidInput: the budget limits time, or the policy cannot be used.
        """
        search = self.new_search(policy or self.session.definition.strategy, budget)
        pick = await search.explore()
        branch = search.branches[pick.ask] if pick.ask is not None else None
        return Exploration(
            pick, branch.candidate if branch else None, branch.verdict if branch else None
        )

    async def now(self) -> float:
        """Seconds since the epoch, the same on every replay."""
        return await tell_time(self.session)

    async def random(self) -> float:
        """A number in [0, 1), from the run's seed and the place."""
        return await draw(self.session)

    async def sleep(self, seconds: float) -> None:
        """Wait so many seconds, counted from the first time this was asked, restarts included.

        The run parks if more than the workflow's ``park_after`` are left, and goes on when a waker
        finds it due: ``Workflow.wake``, ``longthought wake``.

        Raises:
            InvalidInput: ``seconds`` is no time.
        """
        await sleep(self.session, seconds)

    async def suspend(
        self,
        name: str,
        ask: JSON = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 (it outlives the process)
    ) -> JSON:
        """Wait for the signal ``name`` and return its value; the run parks until it comes.

        ``ask`` is shown to whoever is to send it. ``timeout`` is in seconds, counted from the first
        time this was asked; a waker finds the run due when they are over.

        Raises:
            InvalidInput: ``name`` is empty or holds control characters, or ``timeout`` is no time.
            SignalTimeout: they are over, and no signal has come.
        """
        return await suspend(self.session, name, ask, timeout=timeout)

    async def patched(self, name: str) -> bool:
        """Whether this run is new enough for the change ``name``; old runs keep the old way."""
        return await patched(self.session, name)

    # -- concurrency ----------------------------------------------------------------------------

    def label(self, name: str) -> AbstractContextManager[Frame]:
        """A place of its own for one of several tasks of a node: ``with ctx.label("a"): ...``."""
        return enter_label(name)

    async def gather(self, **parts: Awaitable[Any]) -> dict[str, Any]:
        """Run awaitables side by side, each under its name as label; results by name.

        If parts fail the first failure in the order of the names given is raised, after all the
        others have ended.
        """

        async def labelled(name: str, part: Awaitable[Any]) -> Any:
            with enter_label(name):
                return await part

        tasks = [asyncio.create_task(labelled(name, part)) for name, part in parts.items()]
        try:
            await asyncio.wait(tasks) if tasks else None
        except BaseException:
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
            raise
        failures = [error for task in tasks if (error := task.exception())]
        steering = [error for error in failures if isinstance(error, ControlFlow)]
        if failures:
            raise (steering or failures)[0]
        return {name: task.result() for name, task in zip(parts, tasks, strict=True)}

    # -- for the nodes of this package ----------------------------------------------------------

    def new_search(self, policy: Policy, budget: Budget | None = None) -> Search:
        """A search whose place is here; it can be gone on with from other nodes.

        Raises:
            InvalidInput: the policy names a model that the workflow has not, or the budget limits
                time.
        """
        check_inner_budget("budget", budget)
        if budget is not None:  # the last answer is the run's: a search keeps nothing back for it
            budget = replace(budget, final_answer=0)
        policy = bound(policy, self.session.definition.model_names())
        frame = current_frame()
        frame.claim()
        path = f"{frame.path}/search"
        number = self.session.places.number(path)
        place = f"{path}{number}" if number else path
        return Search(self.session, policy, self._run_branch, place, budget)

    async def _run_branch(self, _session: Session, branch: Branch) -> None:
        await run_branch(self, branch)

    def _model(self, model: str | int) -> Model:
        models = self.session.models
        if isinstance(model, int):
            if 0 <= model < len(models):
                return models[model]
        else:
            for one in models:
                if one.name == model:
                    return one
        known = ", ".join(one.name for one in models)
        raise InvalidInput("model", f"the workflow has no model {model!r}", f"It has: {known}")
