"""A reply that the provider works on by itself: followed, picked up again, and called off.

It goes on whether anybody listens or not, so a connection that is lost costs nothing: the stream is
gone on with where it broke off, and where that is not to be had the reply is looked at from time to
time. See https://developers.openai.com/api/docs/guides/background.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import httpx2
import openai

from longthought.orchestrator.models.openai.connection import Connection
from longthought.orchestrator.models.openai.dialect import ServerFault
from longthought.orchestrator.models.openai.exchange import (
    Lost,
    read_object,
    receive,
    receive_events,
)
from longthought.orchestrator.models.openai.patience import Stalled, Watch
from longthought.orchestrator.models.openai.responses_stream import ResponsesStream
from longthought.types import JSONObject

__all__ = ["BackgroundReply", "Gone"]

_FIRST_LOOK, _LONGEST_LOOK, _SLOWER = 1.0, 30.0, 1.5
"""Seconds until a reply is looked at first, at most between two looks, and how they grow."""
_REJOINS = 5
"""How often a stream is gone on with before the reply is looked at instead."""
_LAST_SECONDS = 2.0
"""How long calling a reply off may take."""
_UNDER_WAY = ("queued", "in_progress")


class Gone(ServerFault):
    """Raised for a reply that the provider keeps no longer, or that was called off."""


class BackgroundReply:
    """One reply in the background, of ``POST path``.

    ``keep`` is awaited with its id as soon as that is known. Whatever ends the waiting before the
    reply has ended calls it off: who cancels a call does not want to pay for it.
    """

    def __init__(
        self,
        connection: Connection,
        path: str,
        keep: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self._connection, self._path, self._keep = connection, path, keep
        self._id = ""
        self._ended = False

    async def whole(self, body: JSONObject) -> JSONObject:
        """Begin it and wait until it has ended.

        Raises:
            ServerFault: nobody can be asked for it any more; see :func:`receive`, too.
            openai.OpenAIError, httpx2.HTTPError: it could not be begun.
        """
        async with self._called_off():
            response = await receive(self._connection, self._path, body)
            await self._begun(response)
            return await self._at_its_end(response)

    async def streamed(self, body: JSONObject, reply: ResponsesStream, limit: int) -> bool:
        """Begin it and take in its events; true if it was cut, see :func:`receive_events`.

        Raises:
            ServerFault: it failed, or nobody can be asked for it any more.
            openai.OpenAIError, httpx2.HTTPError: it could not be begun.
        """
        async with self._called_off():
            cut = await self._followed(body, reply, limit)
            if cut:
                reply.head = {**reply.head, **await self._call_off()}
            self._ended = True
            return cut

    async def picked_up(self, reply_id: str) -> JSONObject:
        """Wait until the reply has ended that somebody else began.

        Raises:
            Gone: it is kept no longer, or was called off.
            ServerFault: nobody can be asked for it any more.
        """
        self._id = reply_id
        async with self._called_off():
            response = await self._at_its_end({"status": "queued"}, first=0.0)
            if response.get("status") == "cancelled":
                raise Gone("the reply was called off")
            return response

    async def _begun(self, response: JSONObject) -> None:
        if self._id or not isinstance(response.get("id"), str):
            return
        self._id = response["id"]
        if self._keep is not None:
            await self._keep(self._id)

    async def _followed(self, body: JSONObject, reply: ResponsesStream, limit: int) -> bool:
        async def heard() -> None:
            await self._begun(reply.head)

        client = self._connection.client
        send = partial(client.ask, self._path, body, stream=True)
        for _ in range(1 + _REJOINS):
            try:
                return await receive_events(self._connection, send, reply, limit, heard)
            except Lost:
                if not self._id:
                    raise
            except Stalled:
                if not self._id:
                    raise
                break
            except (openai.OpenAIError, httpx2.HTTPError):
                if not self._id:
                    raise
                break  # a stream is kept for minutes, a reply for longer
            if reply.number is None:
                break
            send = partial(client.look, self._place, stream=True, starting_after=reply.number)
        reply.finish(await self._at_its_end({"status": "in_progress"}, first=0.0))
        return False

    @property
    def _place(self) -> str:
        return f"{self._path}/{self._id}"

    async def _at_its_end(self, response: JSONObject, first: float = _FIRST_LOOK) -> JSONObject:
        """The reply once it has ended.

        It may take hours, so ``timeout`` is how long the provider may fail to say anything of it.
        """
        now = asyncio.get_running_loop().time
        wait, heard = first, now()
        while response.get("status") in _UNDER_WAY:
            await asyncio.sleep(wait)
            wait = min(_LONGEST_LOOK, max(_FIRST_LOOK, wait * _SLOWER))
            try:
                with Watch(self._connection.patience):
                    response = read_object(await self._connection.client.look(self._place))
                heard = now()
            except (openai.OpenAIError, httpx2.HTTPError, ServerFault) as error:
                fault = self._passing(error)
                if now() - heard >= self._connection.patience.silence:
                    raise fault from None
        self._ended = True
        return response

    def _passing(self, error: Exception) -> ServerFault:
        """What to raise of a look that failed, if no other succeeds in time.

        Raises:
            ServerFault: it will not pass.
        """
        status = error.status_code if isinstance(error, openai.APIStatusError) else None
        if status == 404:
            self._ended = True
            raise Gone("the reply is kept no longer", begun=True) from None
        lost = f"a reply in the background was lost sight of: {error}"
        fault = ServerFault(lost, {"message": lost}, begun=True)
        if status is not None and 400 <= status < 500 and status not in (408, 409, 425, 429):
            raise fault from None
        return fault

    @asynccontextmanager
    async def _called_off(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            if self._id and not self._ended:
                await self._call_off()

    async def _call_off(self) -> JSONObject:
        """End the reply at the provider; what it says of it, nothing if it says nothing in time."""
        client = self._connection.client
        with suppress(openai.OpenAIError, httpx2.HTTPError, ServerFault, TimeoutError):
            async with asyncio.timeout(_LAST_SECONDS):
                return read_object(
                    await client.post(f"{self._place}/cancel", cast_to=httpx2.Response)
                )
        return {}
