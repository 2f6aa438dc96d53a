"""One attempt at a run: what it reads, what it writes, and the rule between the two.

Every effect asks :meth:`Session.recorded` first. What is recorded is handed out if the request is
the same, and is a divergence if not. What is not recorded is asked of the outside world in a live
attempt; in a replay it is the point where the recording was cut off, or a divergence.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from longthought.budgets import (
    FREE,
    Amount,
    Budget,
    Clocks,
    Kind,
    Price,
    PriceBook,
    PromptEstimator,
    Scope,
)
from longthought.errors import Diverged, InvalidInput, ReplayStopped
from longthought.orchestrator.branches import Branch, Decided
from longthought.orchestrator.definition import Definition
from longthought.orchestrator.places import Frame, Places
from longthought.orchestrator.recorded import Recorded
from longthought.orchestrator.seats import Seats
from longthought.orchestrator.typed import with_schema
from longthought.storage import Event, Journal, Recording, canonical
from longthought.storage.difference import describe_change
from longthought.storage.digests import payload_id, salt_of
from longthought.tools import Tool
from longthought.types import (
    JSON,
    Delta,
    JSONObject,
    Message,
    Model,
    ToolDefinition,
)

if TYPE_CHECKING:
    from longthought.orchestrator.search import Search

__all__ = ["MISSING", "Mode", "Session", "Watch"]

_LOG = logging.getLogger("longthought")

Mode = Literal["live", "replay"]
CLOCK_LIMITS: Final = ("wall", "thinking")
_THINKING: Final[tuple[Kind, ...]] = ("tokens", "output_tokens", "model_calls", "branches")
_INSIDE_ANOTHER: Final = (":verify#", ":verify/", ":tool#", ":tool/", "!approval", "!result")
MISSING: Final = object()
"""Returned for an effect that is to be performed now."""

Watch = Callable[[JSONObject], None]
"""Called with each thing worth showing while a run is under way (never recorded)."""


@dataclass(slots=True)
class Counters:
    """What this attempt did itself, as against what it was given from the recording."""

    model_calls: int = 0
    tool_calls: int = 0
    verifier_calls: int = 0
    effects: int = 0


@dataclass(slots=True)
class Session:
    """Everything an attempt holds. Created by ``runs.py``, used by effects, searches and nodes."""

    definition: Definition
    recording: Recording
    index: Recorded
    mode: Mode
    question: str
    seed: int
    budget: Budget
    prices: PriceBook
    scope: Scope
    """That of the run; see :meth:`scope_of`."""
    clocks: Clocks
    seats: Seats
    models: list[Model]
    tools: dict[str, Tool]
    opening: list[Message]
    """The conversation every branch starts from, see :meth:`opening_of`."""
    branch_budget: Budget | None = None
    """Limits on each branch of every search."""
    limits_raised: bool = False
    """Whether this attempt has higher limits than the run had before."""
    raised_at: int = 0
    """The number of the event that last put higher limits in force."""
    limited_at: int = 0
    """The number of the last event that says that a limit was hit; 0 for none since a raise."""
    on_raise: list[Callable[[], None]] = field(default_factory=list)
    """Called when limits were raised while the attempt is under way."""
    deps: object | None = None
    watch: Watch | None = None
    places: Places = field(default_factory=Places)
    estimator: PromptEstimator = field(default_factory=PromptEstimator)
    counters: Counters = field(default_factory=Counters)
    waiting: list[JSONObject] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)
    """Keys of the recorded effects that were asked for again."""
    dropped: set[str] = field(default_factory=set)
    """Places of the branches that this attempt cancelled, perhaps before their first effect."""
    used_signals: set[str] = field(default_factory=set)
    spent_by_model: dict[str, Amount] = field(default_factory=dict)
    """What the calls of each model have cost, by its name."""
    searches: list[Search] = field(default_factory=list)
    """Those under way, in the order in which they were begun; see ``best.py``."""
    _prices: dict[str, Price | None] = field(default_factory=dict)
    _toolsets: dict[tuple[str, ...], str] = field(default_factory=dict)
    _definitions: dict[tuple[str, ...], list[ToolDefinition]] = field(default_factory=dict)
    _has_early_tools: bool | None = None

    @property
    def journal(self) -> Journal:
        """The journal of a live attempt.

        Raises:
            Diverged: this is a replay, which writes nothing.
        """
        if not isinstance(self.recording, Journal):
            raise Diverged("run", "a replay tried to record something")
        return self.recording

    def opening_of(self, model: Model, *, step: bool = False) -> list[Message]:
        """What a branch of this model starts from; the answer's schema in it where that is told."""
        schema = self.definition.output
        if schema is None or not self.definition.tells_schema(model, step=step):
            return self.opening
        return with_schema(self.opening, schema)

    # -- payloads -------------------------------------------------------------------------------

    def put(self, value: JSON) -> str:
        """The id of a payload, stored if this attempt is live."""
        if isinstance(self.recording, Journal):
            return self.recording.put(value)
        return self.address(value)

    def address(self, value: JSON) -> str:
        """The id a payload has in this run, without storing it."""
        if self.recording.run_key is None:
            raise InvalidInput("run", "has deleted payloads", "It can be audited, not replayed")
        body = canonical(value).encode()
        return payload_id(salt_of(self.recording.run_key, body), body)

    def conversation(self, messages: Sequence[Message], known: Sequence[str] = ()) -> list[str]:
        """The id of the conversation after each message; ``known`` are those computed before."""
        ids = list(known[: len(messages)])
        last = ids[-1] if ids else ""
        for message in messages[len(ids) :]:
            last = self.put({"p": last, "m": message})
            ids.append(last)
        return ids

    def price_of(self, model: Model) -> Price | None:
        """What a model costs, None if that is not known; looked up once."""
        if model.name not in self._prices:
            kind = model.fingerprint().get("kind")
            self._prices[model.name] = self.prices.price(model.name, kind)
        return self._prices[model.name]

    def count_spent(self, model: Model, charged: Amount) -> None:
        """Note what a call has cost, for the breakdown of a run with several models."""
        if len(self.models) > 1:
            before = self.spent_by_model.get(model.name)
            self.spent_by_model[model.name] = charged if before is None else before + charged

    @property
    def costs_money(self) -> bool:
        """Whether any model of the run has a price other than nothing."""
        return any(self.price_of(model) not in (None, FREE) for model in self.models)

    @property
    def has_early_tools(self) -> bool:
        """Whether any tool of the run may start before the reply that asks for it has ended."""
        if self._has_early_tools is None:
            self._has_early_tools = any(tool.spec.droppable for tool in self.tools.values())
        return self._has_early_tools

    def scope_of(self, frame: Frame) -> Scope:
        """The scope in which what happens at a place is spent: its branch's, or the run's."""
        return self.scope if frame.branch is None else frame.branch.scope

    def used_up(self, scope: Scope) -> tuple[str, str] | None:
        """Scope and kind of the limit that leaves nothing to think with in a scope.

        Tool calls and free models need none.
        """
        return scope.used_up((*_THINKING, "nanodollars") if self.costs_money else _THINKING)

    def time_is_up(self) -> str | None:
        """The limit on time for which everything is to stop now; see :meth:`Clocks.passed`."""
        return self.clocks.passed(self.budget)

    def definitions(self, names: tuple[str, ...]) -> list[ToolDefinition]:
        """The definitions of some tools: the same list each time, which nobody changes."""
        found = self._definitions.get(names)
        if found is None:
            found = [self.tools[name].spec.definition() for name in names]
            self._definitions[names] = found
        return found

    def toolset(self, names: tuple[str, ...]) -> str:
        """The id of the definitions of some tools."""
        found = self._toolsets.get(names)
        if found is None:
            found = self.put([dict(tool) for tool in self.definitions(names)])
            self._toolsets[names] = found
        return found

    # -- recorded effects -----------------------------------------------------------------------

    def recorded(
        self,
        key: str,
        request: JSONObject,
        frame: Frame,
        messages: Sequence[Message] | None = None,
    ) -> JSON:
        """The recorded finish of an effect, or :data:`MISSING` if it has to be performed.

        ``messages`` is the conversation behind the request, to show what is different about it.

        Raises:
            Diverged: something else was asked at this place, or nothing and this is a replay.
            ReplayStopped: the recording was cut off here.
        """
        self.counters.effects += 1
        event = self.index.finished.get(key)
        if event is not None and self._refused_before(event, frame):
            return MISSING
        if event is not None:
            if event.body["request"] != self.address(request):
                raise Diverged(key, self._difference(event, request, messages))
            self.asked.add(key)
            if event.body["status"] == "abandoned":
                raise ReplayStopped(key)
            return event
        end = self.index.ends.get(frame.branch.place) if frame.branch else None
        if end is not None and end.body["how"] in ("cancelled", "failed"):
            raise ReplayStopped(key)
        if self.mode == "replay":
            if self._cut_off_at(key, end):
                raise ReplayStopped(key)
            raise Diverged(key, f"nothing is recorded here, asked is now: {_short(request)}")
        return MISSING

    def _refused_before(self, event: Event, frame: Frame) -> bool:
        """Whether an effect found no room in a budget that was raised since.

        Within a search the policy decides what is asked anew.
        """
        raised = self.limits_raised and self.mode == "live"
        return raised and event.body["status"] == "budget" and frame.branch is None

    def _cut_off_at(self, key: str, end: Event | None) -> bool:
        """Whether the recording itself did not go past this effect."""
        if key in self.index.open:
            return True  # started, and its attempt ended without an answer
        ended = self.recording.ended()
        if ended is None or ended.body["status"] in ("failed", "cancelled", "needs_attention"):
            return True
        if ended.body["status"] == "incomplete" and ended.body["stop_reason"] in CLOCK_LIMITS:
            return True  # time ran out in the middle of a graph of one's own
        if end is not None and end.body["how"] == "parked":
            return True
        waits = [wait["key"] for wait in ended.body.get("waiting", ())]
        # a tool call waits at a key of its own: for an approval, for its result
        return any(wait == key or wait.startswith(f"{key}!") for wait in waits)

    def unasked(self) -> list[str]:
        """Recorded effects that the workflow, come to its end, has not asked for.

        Left out is what stands inside another effect (calls of a judge or a tool, an approval),
        what belongs to a branch that was cancelled again, and what went before a limit was raised:
        the run then took another way.
        """
        if self.limits_raised:
            return []
        found = []
        for key, event in self.index.finished.items():
            inside = any(mark in key for mark in _INSIDE_ANOTHER)
            dropped = any(key.startswith(f"{place}/") for place in self.dropped)
            expected = event.seq > self.index.raised_at and not (inside or dropped)
            if expected and key not in self.asked:
                found.append(key)
        return found

    def result_of(self, event: Event) -> JSON:
        """The result a finished effect holds."""
        return self.recording.get(event.body["result"])

    async def until_live(self, frame: Frame) -> None:
        """Wait until the recorded inputs are taken in, before a branch asks the outside world.

        Raises:
            asyncio.CancelledError: the branch was cancelled, and something in it went on.
        """
        if frame.branch is not None and frame.branch.status in ("cancelling", "cancelled"):
            raise asyncio.CancelledError
        if frame.branch is not None and not frame.branch.live.is_set():
            await frame.branch.live.wait()

    def _difference(
        self, event: Event, request: JSONObject, messages: Sequence[Message] | None
    ) -> str:
        recorded = self._expanded(self.recording.get(event.body["request"]), None)
        now = self._expanded(request, messages)
        return describe_change(recorded, now) or "the request differs"

    def _expanded(self, request: JSONObject, messages: Sequence[Message] | None) -> JSONObject:
        """A request with its conversation and tools written out, as far as they are at hand."""
        shown = dict(request)
        if "conversation" in shown:
            conversation = shown.pop("conversation")
            shown["messages"] = list(messages) if messages else self._messages(conversation)
        if isinstance(shown.get("tools"), str) and self.recording.has(shown["tools"]):
            shown["tools"] = self.recording.get(shown["tools"])
        return shown

    def _messages(self, conversation: str) -> JSON:
        if self.recording.has(conversation):
            return self.recording.messages(conversation)
        return f"conversation {conversation}"

    # -- writing --------------------------------------------------------------------------------

    def enter_chain(self, branch: Branch | None) -> None:
        """Put a branch's tail into the chain; it is committed with the next flush."""
        if branch is not None and branch.tail:
            tail, branch.tail = branch.tail, []
            for decided in tail:
                self._stage(decided)

    def _stage(self, decided: Decided) -> None:
        if decided.settle is not None:
            decided.body.update(decided.settle())
        self.journal.stage(decided.type, decided.key, **decided.body)

    async def commit(self, frame: Frame) -> None:
        """Make durable everything decided so far at this place. Called before anything leaves."""
        self.enter_chain(frame.branch)
        await self.journal.flush()

    def finish(
        self,
        frame: Frame,
        key: str,
        kind: str,
        request: str,
        result: JSON,
        *,
        status: str = "ok",
        settle: Callable[[], JSONObject] | None = None,
        **details: JSON,
    ) -> None:
        """Decide the end of an effect: into the branch's tail, or the chain outside branches.

        Details that are empty are left out.
        """
        body = {name: value for name, value in details.items() if value}
        body |= {"kind": kind, "request": request, "result": self.put(result), "status": status}
        decided = Decided("effect_finished", key, body, settle)
        if frame.branch is not None:
            frame.branch.tail.append(decided)
        else:
            self._stage(decided)

    # -- other ----------------------------------------------------------------------------------

    def show(self, event: JSONObject) -> None:
        """Tell the watcher, if there is one. One that fails is told no more."""
        if self.watch is not None:
            try:
                self.watch(event)
            except Exception:
                self.watch = None
                _LOG.exception("the watcher of run %s failed", self.recording.run_id)

    def deltas(self, branch: Branch | None) -> Callable[[Delta], None] | None:
        """Where the deltas of a model call go."""
        if self.watch is None:
            return None
        name = branch.ask.id if branch else ""
        return lambda delta: self.show(
            {"event": "delta", "branch": name, "kind": delta.kind, "text": delta.text}
        )

    @property
    def now(self) -> float:
        """Wall time in seconds since the epoch."""
        return time.time()


def _short(value: JSON) -> str:
    text = canonical(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
