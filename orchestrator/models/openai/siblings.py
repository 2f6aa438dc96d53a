"""Samples of one question that are asked for at the same moment share one call.

A server that takes ``n`` reads, and charges, their common prompt once. Who asks in the same turn of
the loop for the same thing, seeds apart, and with the same grant, is sent together. Seeds have to
follow one another: servers with seeds give choice *i* the first seed plus *i*.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from longthought.errors import BackendError
from longthought.orchestrator.models.openai.dialect import Emit
from longthought.types import Delta, ModelReply, ModelRequest

__all__ = ["Siblings"]

AskAll: TypeAlias = Callable[
    [ModelRequest, int, Sequence[Emit | None]], Awaitable[Sequence[ModelReply | Exception]]
]
"""Sends one request for several: the request, the most tokens of each reply, who is shown what."""


@dataclass(eq=False, slots=True)
class _Caller:
    request: ModelRequest
    emit: Emit | None
    future: asyncio.Future[ModelReply]
    call: _Call | None = None

    @property
    def seed(self) -> int | None:
        return self.request.get("sampling", {}).get("seed")

    def show(self, delta: Delta) -> None:
        if self.emit is not None and not self.future.done():
            self.emit(delta)


class _Call:
    """One call on its way, for all its callers."""

    def __init__(self, callers: list[_Caller], ask: AskAll, limit: int) -> None:
        self._callers, self._ask, self._limit = callers, ask, limit
        self.task = asyncio.create_task(self._perform())
        for caller in callers:
            caller.call = self

    async def leave(self) -> None:
        """A caller was cancelled; after the last one nobody wants the replies any more."""
        if all(caller.future.done() for caller in self._callers) and not self.task.done():
            self.task.cancel()
            await asyncio.wait([self.task])

    async def _perform(self) -> None:
        emits = [caller.show if caller.emit else None for caller in self._callers]
        replies: Sequence[ModelReply | Exception]
        try:
            replies = await self._ask(self._callers[0].request, self._limit, emits)
        except asyncio.CancelledError:
            if all(caller.future.done() for caller in self._callers):
                raise  # the last of them has left
            error = BackendError("something inside the adapter was cancelled")
            replies = [error] * len(self._callers)
        except Exception as error:  # whatever it is, each caller has to hear of it
            replies = [error] * len(self._callers)
        for caller, reply in zip(self._callers, replies, strict=True):
            if caller.future.done():
                continue
            if isinstance(reply, Exception):
                caller.future.set_exception(reply)
            else:
                caller.future.set_result(reply)


class Siblings:
    """Brings callers of one event loop together; ``most`` is how many share a call at most."""

    def __init__(self, ask: AskAll, most: int) -> None:
        self._ask, self._most = ask, most
        self._waiting: dict[tuple[int, str], list[_Caller]] = {}

    async def reply(self, request: ModelRequest, limit: int, emit: Emit | None) -> ModelReply:
        """The reply for one of them. Cancelling the last caller of a call ends the call.

        Raises:
            Exception: the call failed, or held no reply for this caller.
        """
        loop = asyncio.get_running_loop()
        caller = _Caller(request, emit, loop.create_future())
        key = (limit, _common(request))
        if key not in self._waiting:
            self._waiting[key] = []
            loop.call_soon(self._send, key)
        self._waiting[key].append(caller)
        try:
            return await caller.future
        except asyncio.CancelledError:
            if caller.call is not None:
                await caller.call.leave()
            raise

    def _send(self, key: tuple[int, str]) -> None:
        callers = [caller for caller in self._waiting.pop(key) if not caller.future.done()]
        for group in _groups(callers, self._most):
            _Call(group, self._ask, key[0])


def _common(request: ModelRequest) -> str:
    """What requests have to share: all but the seed."""
    sampling = dict(request.get("sampling", {}))
    sampling.pop("seed", None)
    return json.dumps({**request, "sampling": sampling}, sort_keys=True)


def _groups(callers: list[_Caller], most: int) -> list[list[_Caller]]:
    """The callers in groups whose seeds follow one another, or that have none."""
    groups: list[list[_Caller]] = []
    expected: int | None = None
    for caller in sorted(callers, key=lambda caller: -1 if caller.seed is None else caller.seed):
        if not groups or len(groups[-1]) == most or caller.seed != expected:
            groups.append([])
        groups[-1].append(caller)
        expected = None if caller.seed is None else caller.seed + 1
    return groups
