"""The answer to one call on its way: computed and sent for as long as its client is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from longthought.orchestrator.serving.refusals import encoded, error_of
from longthought.orchestrator.serving.replies import (
    ChoiceStream,
    RunningUsage,
    completion,
    usage_of,
)
from longthought.orchestrator.serving.requests import ChatCall
from longthought.orchestrator.serving.served import ServedModel
from longthought.types import Delta, JSONObject, ModelReply, ModelRequest

__all__ = ["Delivery"]

_JSON = [(b"content-type", b"application/json")]
_EVENTS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
_Piece = tuple[int, Delta | ModelReply]


class Delivery(Response):
    """A response that computes what it sends.

    All choices are drawn at the same time. When the client leaves, or the delivery is cut,
    generation is cancelled and has ended before the response is over. The first bytes leave when
    the first piece is there, so that what is refused before has its status.
    """

    def __init__(
        self,
        served: ServedModel,
        call: ChatCall,
        requests: Sequence[ModelRequest],
        in_flight: set[Delivery],
    ) -> None:
        # The base class would render a body and its length, which are not known yet.
        self._served, self._call, self._requests = served, call, requests
        self._in_flight = in_flight
        self._head = served.head()
        self._started = self._was_cut = False
        self._work: asyncio.Task[None] | None = None

    def cut(self) -> None:
        """End it now: the client is told that the server stops."""
        if self._work is not None:
            self._was_cut = True
            self._work.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, unless the client leaves before."""
        deliver = self._streamed if self._call.stream else self._whole
        work = self._work = asyncio.create_task(deliver(send))
        gone = asyncio.create_task(_gone(receive))
        self._in_flight.add(self)
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _ended(work, gone)
            self._in_flight.discard(self)
        if not work.cancelled():
            work.result()
        elif self._was_cut:
            await self._say_cut(send)

    async def _whole(self, send: Send) -> None:
        replies = await self._drawn(None)
        body = encoded(completion(self._head, replies))
        length = (b"content-length", str(len(body)).encode())
        await self._start(send, [*_JSON, length])
        await send({"type": "http.response.body", "body": body})

    async def _streamed(self, send: Send) -> None:
        pieces: asyncio.Queue[_Piece | None] = asyncio.Queue()
        drawing = asyncio.create_task(self._drawn(pieces.put_nowait))
        drawing.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            first = await pieces.get()
            if first is None:
                drawing.result()
            await self._start(send, _EVENTS)
            try:
                await self._send_pieces(send, first, pieces)
                await self._send_end(send, drawing.result())
            except Exception as error:
                await _send_events(send, [error_of(error)], more=False)
                raise
        finally:
            await _ended(drawing)

    async def _drawn(self, put: Callable[[_Piece], None] | None) -> list[ModelReply]:
        """The replies of all choices; ``put`` gets every piece, and every reply as it ends."""

        async def one(index: int, request: ModelRequest) -> ModelReply:
            emit = None if put is None else _at(index, put)
            reply = await self._served.reply(request, emit)
            if put is not None:
                put((index, reply))
            return reply

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(*item)) for item in enumerate(self._requests)]
        except ExceptionGroup as errors:
            # The choices differ in their seeds alone: what one says, all say.
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _send_pieces(
        self, send: Send, piece: _Piece | None, pieces: asyncio.Queue[_Piece | None]
    ) -> None:
        choices = [ChoiceStream(self._head, index) for index in range(len(self._requests))]
        running = self._running_usage()
        events = [self._told(choice.begin(), running) for choice in choices]
        while piece is not None:
            index, said = piece
            chunk = (
                choices[index].take(said) if isinstance(said, Delta) else choices[index].end(said)
            )
            if running is not None:
                running.take(index, said)
            if chunk is not None:
                events.append(self._told(chunk, running))
            if events and pieces.empty():  # what came meanwhile has been taken along
                await _send_events(send, events, more=True)
                events = []
            piece = await pieces.get()
        if events:
            await _send_events(send, events, more=True)

    def _running_usage(self) -> RunningUsage | None:
        if not self._call.running_usage:
            return None
        prompt = self._served.model.count_prompt(self._requests[0])
        return RunningUsage(prompt, len(self._requests))

    def _told(self, chunk: JSONObject, running: RunningUsage | None) -> JSONObject:
        """The chunk with the usage so far: null unless it was asked for, or is not known."""
        if not self._call.include_usage:
            return chunk
        return {**chunk, "usage": None if running is None else running.told()}

    async def _send_end(self, send: Send, replies: Sequence[ModelReply]) -> None:
        if self._call.include_usage:
            head = {**self._head, "object": "chat.completion.chunk"}
            last = {**head, "choices": [], "usage": usage_of(replies)}
            await _send_events(send, [last], more=True)
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    async def _start(self, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        self._started = True
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _say_cut(self, send: Send) -> None:
        error = HTTPException(503, "the server is stopping")
        if not self._started:
            raise error
        if self._call.stream:
            await _send_events(send, [error_of(error)], more=False)


def _at(index: int, put: Callable[[_Piece], None]) -> Callable[[Delta], None]:
    return lambda delta: put((index, delta))


async def _send_events(send: Send, events: Sequence[JSONObject], *, more: bool) -> None:
    body = b"".join(b"data: " + encoded(event) + b"\n\n" for event in events)
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def _gone(receive: Receive) -> None:
    """Ends when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _ended(*tasks: asyncio.Task[Any]) -> None:
    """Cancel these tasks and wait until they have ended."""
    running = [task for task in tasks if not task.done()]
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # who wants it has it; asyncio would complain that nobody looked
