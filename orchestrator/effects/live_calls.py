"""A model call on its way: reserved before it leaves, topped up while it flows, settled on use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace
from typing import cast

from longthought.budgets import (
    Amount,
    Reservation,
    admit,
    call_bound,
    usage_amount,
)
from longthought.errors import (
    BackendError,
    BudgetExhausted,
    EndpointOut,
    InvalidInput,
    QuestionRefused,
    StorageError,
)
from longthought.orchestrator.effects.early_starts import early_starts
from longthought.orchestrator.effects.finishes import (
    budget_fields,
    finish,
    finish_failed,
    finish_reply,
    finish_unusable,
    refused_fields,
)
from longthought.orchestrator.effects.picked_up import PickedUp, picked_up
from longthought.orchestrator.effects.requests import ModelCall
from longthought.orchestrator.effects.thinking_room import (
    limited_thought,
    thinking_bounds,
    with_thought,
)
from longthought.orchestrator.effects.tries import longest_wait, pause, stopped
from longthought.orchestrator.models.scheduling import tell_scheduling
from longthought.orchestrator.places import Frame
from longthought.orchestrator.seats import Ask, Seat
from longthought.orchestrator.session import Session
from longthought.orchestrator.starts import Beginning, beginning_of
from longthought.types import (
    JSON,
    UNBOUNDED_TOKENS,
    Delta,
    ModelReply,
    Paced,
    Turn,
    Usage,
)

__all__ = ["LiveCall"]

_FIRST_GRANT = 256
"""Output tokens granted at first to a model that can ask for more while it generates."""
_LEAST_GRANT = 32
"""Fewer output tokens than this are not worth a call."""
_PROMPT_PER_OUTPUT = 8
"""Sending a prompt again to continue a reply is worth one output token for so many of its own."""


class _Grant:
    """The output tokens of one call; topping up is committed before it may be used."""

    __slots__ = ("_call", "tokens")

    def __init__(self, call: LiveCall, tokens: int) -> None:
        self._call, self.tokens = call, tokens

    async def top_up(self, wanted: int) -> int:
        """See :class:`~longthought.types.Grant`."""
        return await self._call.top_up(wanted)


class LiveCall:
    """One call on its way, with all its tries."""

    def __init__(
        self,
        session: Session,
        call: ModelCall,
        frame: Frame,
        key: str,
        request_id: str,
        ids: list[str],
    ) -> None:
        self.session, self.call, self.frame, self.key = session, call, frame, key
        self.request_id, self.ids = request_id, ids
        self.request = self.asked = call.request(session)
        """As it is sent, and as it was asked: a thought may have less room than it asked for."""
        self.model = call.model
        self.scope = session.scope_of(frame)
        self.price = session.price_of(self.model)
        pacer = getattr(self.model, "placing", self.model)
        self.paced = cast("Paced", pacer) if hasattr(pacer, "try_turn") else None
        self.turn: Turn | None = None
        self.scheduled = bool(getattr(self.model, "takes_scheduling", False))
        self.reservation: Reservation | None = None
        self.found: PickedUp | None = None
        self.lost = Amount()
        """Charged for tries that failed after they had left."""
        self.grant = _Grant(self, 0)
        self.usage = Usage()
        self.running: Usage | None = None
        """What the stream under way has used so far, where the backend tells."""
        self.early = early_starts(session, frame.branch) if call.acts and call.tools else None
        self.prompt_tokens = 0
        self.exact = False
        """Whether that is the number of prompt tokens, and not a bound of it."""
        self.seat: Seat | None = None
        self.ask: Ask | None = None
        """The permit of the try under way, or of the last one."""
        self.permits: list[JSON] = []
        """What is recorded of the permits of all tries."""
        self.emitted = self.thought = 0
        self.tries = 0
        self.dispatched = False
        """Whether ``started`` is on record for the try under way."""
        self.number = session.index.tries.get(key, 0)
        """The number of the last try, those of earlier attempts at the run included."""
        self.queued_at = session.now
        self.started_at = 0.0

    async def perform(self) -> ModelReply:
        """Make the call; what came of it is staged for the record, be it a reply or a failure.

        Raises:
            BackendError, BudgetExhausted, QuestionRefused: see :func:`call_model`.
        """
        session = self.session
        admit(self.scope, self.model.name, self.model.capabilities, self.price)
        session.enter_chain(self.frame.branch)  # what the last call left over can be used again
        self.prompt_tokens = self._prompt_bound()
        self.seat = seat = session.seats.of(self.frame, self.key)
        try:
            self.found = await picked_up(session, self.key, self.model, self.request)
            if self.found is not None:
                return self._taken(self.found)
            for number in range(1, session.definition.retry.attempts + 1):
                try:
                    reply = await self._try()
                except BackendError as error:
                    vain = stopped(session, error, number)
                    if vain is not None:
                        finish_failed(self, vain)
                        raise vain from (None if vain is error else error)
                    await pause(session, error, number)
                except QuestionRefused as error:
                    finish(self, "refused", refused_fields(error))
                    raise
                except BudgetExhausted as error:
                    finish(self, "budget", budget_fields(error))
                    raise
                else:
                    self._finish_reply(reply)
                    return reply
            raise AssertionError("unreachable: the last try returns or raises")
        finally:
            session.seats.leave(seat)

    def _finish_reply(self, reply: ModelReply) -> None:
        """See :func:`finish_reply`; a reply that cannot be used is paid for all the same."""
        try:
            finish_reply(self, reply)
        except Exception as error:
            self._end(release=False)
            raise finish_unusable(self, error) from error

    def _taken(self, found: PickedUp) -> ModelReply:
        """A reply that an earlier attempt began: what that had reserved for it stays charged."""
        self.usage = Usage.from_json(found.reply["usage"])
        self.grant.tokens, self.started_at = found.granted, found.asked_at
        self._finish_reply(found.reply)
        return found.reply

    async def _keep(self, handle: str) -> None:
        """Put on record under which id the provider works on the reply; not once it has ended."""
        if self.ask is None or self.ask.permit.released_at is not None:
            return  # whoever calls a model in the same task next is told of this call still
        self._stage_reserved(self._held() + self.lost, grant=self.grant.tokens, handle=handle)
        await self.session.journal.flush()

    # -- one try --------------------------------------------------------------------------------

    async def _try(self) -> ModelReply:
        while True:
            with suppress(EndpointOut):  # nothing was sent, so that was no try
                return await self._attempt()

    async def _attempt(self) -> ModelReply:
        session = self.session
        try:
            with session.clocks.running("queue"):
                await self._reserve()
                if self.scheduled and self.seat is not None:
                    scheduling = session.seats.scheduling(self.seat)
                    tell_scheduling(replace(scheduling, keep=self._keep))
                while not await self._may_leave():
                    self._give_back_turn()
            return await self._generate()
        except BaseException:
            if self.early is not None:
                self.early.drop()
            raise
        finally:
            self._give_back_turn()

    async def _may_leave(self) -> bool:
        """Wait for a turn, where there is a limit, and for a permit.

        False if the permit is for an endpoint that the call has no turn at: all those that it has
        one at went out while it waited.
        """
        try:
            turn = self.turn = None if self.paced is None else await self._turn(self.paced)
            permit = self._ask(getattr(turn, "places", None)).permit
            if permit.would_wait:
                # what is decided should not wait in memory for a slot
                await self.session.commit(self.frame)
            await permit.__aenter__()
            go: Callable[[str], bool] | None = getattr(turn, "go", None)
            return go is None or go(permit.endpoint)
        except BaseException:
            self._end(release=True)
            raise

    def _give_back_turn(self) -> None:
        """Give slot and turn of a try back; twice is harmless."""
        self._give_back_slot()
        if self.turn is not None:
            self.turn.end()
            self.turn = None

    def _ask(self, only: Collection[str] | None = None) -> Ask:
        """A permit for one try, and what is known of its context."""
        assert self.seat is not None  # noqa: S101 - taken in perform
        tools = self.session.toolset(self.call.tools) if self.call.tools else ""
        self.ask = self.session.seats.ask(
            self.seat,
            self.model,
            tools,
            self.ids,
            self.prompt_tokens,
            exact=self.exact,
            beginning=self._beginning,
            only=only,
        )
        return self.ask

    def _beginning(self) -> Beginning:
        branch = self.frame.branch
        opening = 0 if branch is None else branch.opening
        tools = self.session.definitions(self.call.tools)
        return beginning_of(self.model.name, tools, self.call.messages, opening)

    def _give_back_slot(self) -> None:
        """Give the slot of a try back and keep what is recorded of it; twice is harmless."""
        if self.ask is None or self.ask.permit.released_at is not None:
            return
        self.ask.permit.release()
        held = self.session.seats.held(self.ask.permit)
        if held is not None:
            self.permits.append(held)

    async def _turn(self, paced: Paced) -> Turn:
        """A turn at the endpoint; it is waited for without a slot."""
        assert self.reservation is not None  # noqa: S101 - reserved before
        tokens = self.prompt_tokens + self.reservation.amount.output_tokens
        turn = paced.try_turn(tokens, tries=self.tries)
        if turn is None:
            await self.session.commit(self.frame)  # nor should it wait there for a turn
            within = longest_wait(self.session)
            turn = await paced.turn(tokens, tries=self.tries, within=within)
        return turn

    async def _generate(self) -> ModelReply:
        session = self.session
        try:
            with session.clocks.running("queue"):
                await self._dispatch()
            self.started_at = session.now
            session.counters.model_calls += 1
            sent_at = session.seats.controller.now()
            with session.clocks.running("model"):
                reply = await self.model.generate(self.request, self.grant, self._emitter())
            assert self.ask is not None  # noqa: S101 - a call that left has a permit
            self.usage = Usage.from_json(reply["usage"])
            session.seats.used(self.ask, self.usage, self.model, sent_at)
            return reply
        except asyncio.CancelledError as error:
            if not _being_cancelled():
                self._end(release=False)
                raise BackendError("something inside the adapter was cancelled") from error
            self._cancelled()
            raise
        except BackendError as error:
            session.counters.model_calls -= not error.sent
            self._end(release=not error.sent, refused=error.status is not None)
            raise
        except InvalidInput:
            self._end(release=True)
            raise
        except StorageError:
            self._end(release=False)
            raise
        except Exception as error:
            # an adapter's own mistake is a backend failure to the run: it must not kill siblings
            self._end(release=False)
            raise BackendError(f"{type(error).__name__}: {error}") from error

    async def _reserve(self) -> None:
        most, wish = self._most_output(), self._wished_output()
        least = max(_LEAST_GRANT, self.call.least_output)
        if self.call.goes_on:
            least = max(least, self.prompt_tokens // _PROMPT_PER_OUTPUT)
        least = min(wish, least)
        scope = self.scope
        thought, least_thought = thinking_bounds(self.session, scope, self.call, most)
        self.reservation = await scope.reserve(
            with_thought(call_bound(self.price, self.prompt_tokens, wish), thought),
            minimum=with_thought(call_bound(self.price, self.prompt_tokens, least), least_thought),
            allowance=self.call.last_answer,
        )
        room = self.reservation.amount.thinking_tokens
        last = self.call.last_answer
        self.request = limited_thought(scope, self.asked, room, last=last)
        bounded = scope.limited("tokens") or scope.limited("output_tokens")
        granted = self.reservation.amount.output_tokens
        own_limit = "max_tokens" in self.call.sampling
        unbounded = not scope.hard and not own_limit and not self.model.capabilities.top_up
        self.grant.tokens = granted if bounded or not unbounded else UNBOUNDED_TOKENS

    def _most_output(self) -> int:
        return self.call.sampling.get("max_tokens", self.session.definition.max_output_tokens)

    def _wished_output(self) -> int:
        most = self._most_output()
        return min(most, _FIRST_GRANT) if self.model.capabilities.top_up else most

    def _prompt_bound(self) -> int:
        exact = self.model.count_prompt(self.request)
        self.exact = exact is not None
        return exact if exact is not None else self.session.estimator.bound(self.request, self.ids)

    async def _dispatch(self) -> None:
        """Commit ``started`` with its reservation; only then may the call leave."""
        self.session.enter_chain(self.frame.branch)
        self.number += 1
        self.tries += 1
        self.session.journal.stage(
            "effect_started",
            self.key,
            kind="model",
            request=self.request_id,
            reserved=(self._held() + self.lost).to_json(),
            grant=min(self.grant.tokens, UNBOUNDED_TOKENS),
            attempt=self.number,
        )
        self.emitted = self.thought = 0
        self.running, self.dispatched = None, True
        try:
            await self.session.journal.flush()
        except BaseException:
            self._end(release=True)
            raise

    async def top_up(self, wanted: int) -> int:
        """Reserve more for the stream under way and commit that before it is used."""
        assert self.reservation is not None  # noqa: S101 - only called while generating
        most = self.call.sampling.get("max_tokens")
        if most is not None:
            wanted = min(wanted, most - self.grant.tokens)
        if wanted <= 0:
            return self.grant.tokens
        extra = call_bound(self.price, 0, wanted)
        more = Amount(extra.tokens, extra.output_tokens, extra.nanodollars)
        granted = self.reservation.top_up(more, minimum=Amount())
        if granted.output_tokens or granted.tokens:
            grant = self.grant.tokens + granted.output_tokens
            self._stage_reserved(self._held() + self.lost, grant=grant)
            await self.session.journal.flush()
            self.grant.tokens += granted.output_tokens
        return self.grant.tokens

    def _emitter(self) -> JSON:
        show, early = self.session.deltas(self.frame.branch), self.early
        ask, now = self.ask, self.session.seats.controller.now
        if early is not None:
            early.begin()

        def emit(delta: Delta) -> None:
            if not self.emitted and ask is not None and ask.first_token is None:
                ask.first_token = now()
            self.emitted += delta.tokens
            if delta.kind == "reasoning":
                self.thought += delta.tokens
            if delta.tokens or delta.usage is not None:
                self.running = delta.usage
            if delta.call is not None and early is not None:
                early.told(delta.index, delta.call, self.emitted)
            if show is not None:
                show(delta)

        return emit

    # -- the end of the call --------------------------------------------------------------------

    def _held(self) -> Amount:
        return self.reservation.amount if self.reservation is not None else Amount()

    def _end(self, *, release: bool, refused: bool = False) -> None:
        """Settle a try that brought nothing.

        It is free if it never left, a call without tokens if the server turned it down, and else
        costs what was reserved for it.
        """
        if self.reservation is None or self.reservation.closed:
            return
        if release:
            self._give_back()
            self.reservation.release()
        elif refused:
            call = Amount(model_calls=1)
            self.lost = self.lost + call
            self._give_back()
            self.reservation.settle(call)
        else:
            self.lost = self.lost + self._held()
            self.reservation.forfeit()

    def _stage_reserved(self, reserved: Amount, **fields: JSON) -> None:
        """Say what this attempt has reserved for the call by now, failed tries included."""
        body = {"reserved": reserved.to_json(), **fields}
        self.session.journal.stage("effect_topped_up", self.key, **body)

    def _give_back(self) -> None:
        """Put on record what the tries so far have cost, before others use what this one held."""
        if not self.dispatched:
            return
        self.dispatched = False
        with suppress(StorageError):
            self._stage_reserved(self.lost)

    def _cancelled(self) -> None:
        """Charge a cancelled try; on record as its end only if the search cancelled it.

        Else the run is cancelled as a whole, and makes the call again when it goes on.
        """
        reservation, branch = self.reservation, self.frame.branch
        if reservation is None or reservation.closed:
            return
        self._give_back_slot()  # no tokens flow any more
        held = used = self._held()
        if (so_far := self._used_so_far()) is not None:
            # a thought that nothing limits has nothing reserved for it
            used = so_far if replace(so_far, thinking_tokens=0).fits(used) else used
        reservation.settle(used)
        self.lost = self.lost + used
        if branch is not None and branch.status == "cancelling":
            finish(self, "abandoned", {"output_tokens": self.emitted})
        elif used != held and self.session.journal.status == "running":  # no end on record yet
            self._give_back()

    def _used_so_far(self) -> Amount | None:
        """What the stream under way has come to, None if that is not known."""
        if self.model.capabilities.top_up:
            bound = call_bound(self.price, self.prompt_tokens, self.emitted)
        elif self.running is not None:
            bound = usage_amount(self.price, self.running)
        else:
            return None
        return with_thought(bound, self.thought)

    def finished_number(self) -> int | None:
        """The try that this finish belongs to, None for the first."""
        again = not self.tries and self.key in self.session.index.finished
        number = self.number + again
        return number if number > 1 else None

    def cut_short(self) -> bool:
        """Whether the grant was less than what was wished, and nothing more can be had now."""
        top_up = self.model.capabilities.top_up
        return not top_up and self.grant.tokens < self._wished_output()

    def clock(self) -> list[float]:
        """When it was queued, sent and over, in seconds since the epoch."""
        started = self.started_at or self.session.now
        return [round(at, 4) for at in (self.queued_at, started, self.session.now)]


def _being_cancelled() -> bool:
    """Whether this task was asked to stop; if not, a CancelledError came from something inside."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
