"""Sockets for the client's connection pool, straight on asyncio.

The pool of httpx2 takes its sockets from a *network backend*. Its own goes through anyio, which
costs a cancel scope for every read and every write, and asks the kernel about each idle connection
at each request. This one costs a method call: a tenth of a call to a model.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import urllib.request
from collections import deque
from collections.abc import Iterable
from functools import cache
from typing import Any

import httpcore2
import httpx2

from longthought.orchestrator.models.openai.dialling import dial

__all__ = ["quick_transport"]

_ENOUGH = 256 * 1024
"""Bytes that may wait to be read before the sender is held up."""
_LITTLE = 16 * 1024
"""Bytes that may wait for what is written after them in the same turn of the loop."""

_AT_ONCE = 1.0
"""Seconds in which it shows that a connection was closed before anything was sent on it."""

_SocketOption = (
    tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]
)


def quick_transport(limits: httpx2.Limits) -> httpx2.AsyncHTTPTransport | None:
    """A transport over such sockets; None where a proxy stands between, which needs httpx2's own.

    It verifies certificates as httpx2 does.
    """
    if any(name != "no" for name in urllib.request.getproxies()):
        return None
    return _Transport(limits)


class _Transport(httpx2.AsyncHTTPTransport):
    """The transport of httpx2 with another backend; it stays as it is if httpx2 has moved on."""

    def __init__(self, limits: httpx2.Limits) -> None:
        context = _certificates()
        super().__init__(verify=context, limits=limits)
        self._pool = _Pool(
            ssl_context=context,
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            network_backend=_Backend(),
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request, once more if the connection it went out on had been closed before.

        Servers close connections that they said to keep: uvicorn and llama.cpp after five seconds,
        llama.cpp after every streamed reply too. A request that meets such a one was never read.
        A server that takes no new connection either has not closed an idle one, it has gone: it
        may have read the request, which then counts as lost with its connection.
        """
        stale: httpx2.TransportError | None = None
        while True:
            try:
                return await super().handle_async_request(request)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                if stale is None:
                    raise
                raise stale from error
            except httpx2.TransportError as error:
                # ends with a fresh connection, which is never stale
                if not isinstance(error.__cause__, _StaleConnection):
                    raise
                stale = error


class _Pool(httpcore2.AsyncConnectionPool):
    """Looks through what it holds once for all the requests that end in one turn of the loop.

    Each end of a request makes the pool go through all its connections: where 64 streams are cut
    off together, 64 times 64. Only a request that waits for a connection needs the look at once;
    what the others leave behind is found with the next one.
    """

    _looked = False

    def _assign_requests_to_connections(self) -> list[Any]:
        if self._looked and not any(request.is_queued() for request in self._requests):
            return []
        if not self._looked:
            self._looked = True
            asyncio.get_running_loop().call_soon(self._turned)
        return super()._assign_requests_to_connections()

    def _turned(self) -> None:
        self._looked = False


@cache
def _certificates() -> ssl.SSLContext:
    """What servers are verified by; reading them takes as long as a hundred calls."""
    return httpx2.create_ssl_context()


class _StaleConnection(httpcore2.RemoteProtocolError):
    """Raised where a connection that had served was closed, and nothing came after a request."""


class _Backend(httpcore2.AsyncNetworkBackend):
    """Opens connections; addresses of both families race as RFC 8305 says."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface of a backend
        local_address: str | None = None,
        socket_options: Iterable[_SocketOption] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        stream = _Stream(loop)
        try:
            async with asyncio.timeout(timeout):
                connected = await dial(host, port, local_address)
                await loop.create_connection(lambda: stream, sock=connected)
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise httpcore2.ConnectError(str(error)) from error
        raw: socket.socket | None = stream.get_extra_info("socket")
        for option in socket_options or ():
            if raw is not None:
                raw.setsockopt(*option)
        return stream

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Stream(asyncio.Protocol, httpcore2.AsyncNetworkStream):
    """One connection. One task reads and one writes at a time, which may be the same."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: Any = None  # a transport of the loop, plain or TLS
        self._arrived: deque[bytes] = deque()
        self._unsent: list[bytes] = []
        self._waiting = 0
        self._held_up = False
        self._over = False
        self._lost: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._full = False
        self._served = False  # whether anything ever came
        self._reused = False  # whether anything had come before something was sent
        self._sent_at = 0.0
        self._silent_since_sent = False

    # -- what the pool calls --------------------------------------------------------------------

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        """What has arrived, at most so much of it; empty at the end of the stream."""
        self._send()
        if not self._arrived:
            await self._more(timeout)
        if not self._arrived:
            if self._is_stale():
                raise _StaleConnection("the server had closed the connection")
            if self._lost is not None:
                raise httpcore2.ReadError(str(self._lost)) from self._lost
            return b""
        data = self._arrived.popleft()
        if len(data) > max_bytes:
            self._arrived.appendleft(data[max_bytes:])
            data = data[:max_bytes]
        self._waiting -= len(data)
        if self._held_up and self._waiting < _ENOUGH:
            self._held_up = False
            self._transport.resume_reading()
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Send; returns when the loop has taken over all of it and little else waits.

        What is written in one go leaves in one piece: a request's head with its body.
        """
        if not self._silent_since_sent:
            self._silent_since_sent = True
            self._reused, self._sent_at = self._served, self._loop.time()
        if self._over and self._lost is not None:
            raise httpcore2.WriteError(str(self._lost)) from self._lost
        if self._transport.is_closing():
            raise httpcore2.WriteError("the connection is closed")
        if not buffer:
            return
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.append(buffer)
        if len(buffer) > _LITTLE:
            self._send()
        if self._full:
            await self._drained(timeout)

    async def aclose(self) -> None:
        """Close at once; what was not sent is dropped."""
        if self._transport is not None:
            self._transport.abort()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore2.AsyncNetworkStream:
        """The same connection, encrypted from here on."""
        try:
            async with asyncio.timeout(timeout):
                self._transport = await self._loop.start_tls(
                    self._transport, self, ssl_context, server_hostname=server_hostname
                )
        except TimeoutError as error:
            await self.aclose()
            raise httpcore2.ConnectTimeout(str(error)) from error
        except (OSError, ssl.SSLError) as error:
            await self.aclose()
            raise httpcore2.ConnectError(str(error)) from error
        except BaseException:
            await self.aclose()
            raise
        return self

    def get_extra_info(self, info: str) -> Any:
        """What the pool asks for; ``is_readable`` of an idle connection means that it is over."""
        match info:
            case "is_readable":
                return self._over or bool(self._arrived)
            case "client_addr":
                return self._transport.get_extra_info("sockname")
            case "server_addr":
                return self._transport.get_extra_info("peername")
            case _:
                return self._transport.get_extra_info(info)

    # -- what the loop calls --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        self._arrived.append(data)
        self._served, self._silent_since_sent = True, False
        self._waiting += len(data)
        if self._waiting >= _ENOUGH and not self._held_up:
            self._held_up = True
            self._transport.pause_reading()
        _wake(self._reader)

    def eof_received(self) -> None:
        """The other side sends no more; the transport closes itself."""
        self._over = True
        _wake(self._reader)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, with an error unless somebody wanted that."""
        self._over, self._lost = True, exc
        _wake(self._reader)
        _wake(self._writer)

    def pause_writing(self) -> None:
        """Much waits to be sent."""
        self._full = True

    def resume_writing(self) -> None:
        """Little waits to be sent."""
        self._full = False
        _wake(self._writer)

    def _send(self) -> None:
        if self._unsent:
            data = b"".join(self._unsent)
            self._unsent.clear()
            self._transport.write(data)

    def _is_stale(self) -> bool:
        at_once = self._loop.time() - self._sent_at < _AT_ONCE
        return self._reused and self._silent_since_sent and at_once

    # -- waiting --------------------------------------------------------------------------------

    async def _more(self, seconds: float | None) -> None:
        if self._over:
            return
        self._reader = self._loop.create_future()
        try:
            if seconds is None:
                await self._reader
            else:
                async with asyncio.timeout(seconds):
                    await self._reader
        except TimeoutError as error:
            raise httpcore2.ReadTimeout(str(error)) from error
        finally:
            self._reader = None

    async def _drained(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                while self._full and not self._over:
                    self._writer = self._loop.create_future()
                    await self._writer
        except TimeoutError as error:
            raise httpcore2.WriteTimeout(str(error)) from error
        finally:
            self._writer = None
        if self._over and self._lost is not None:
            raise httpcore2.WriteError(str(self._lost)) from self._lost


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
