"""The server: a socket, and uvicorn on it, until it is stopped."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import uvicorn

from longthought.errors import InvalidInput
from longthought.orchestrator.models import resolve_model
from longthought.orchestrator.serving.app import ChatApp
from longthought.types import Model

__all__ = ["ChatServer", "chat_server"]

_KEEP_ALIVE = 75  # seconds; clients give idle connections up earlier, so none is lost in use
_LAST_RESORT = 3  # seconds after the grace


class ChatServer:
    """Serves models on one address; listens from the moment it is made, answers while it runs.

    ``port`` 0 is any free one. ``api_key`` is asked of every client; without one the address has
    to be a loopback address. When it is stopped, replies in flight have ``grace`` seconds left.

    Raises:
        InvalidInput: the address cannot be had, or others could reach it without a key; or the
            models cannot be served side by side.
    """

    def __init__(
        self,
        models: Sequence[Model],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        api_key: str | None = None,
        grace: float = 2.0,
    ) -> None:
        if api_key is None and not _is_loopback(host):
            raise InvalidInput(
                "host",
                f"{host} can be reached from elsewhere, and no key is asked for",
                "Ask for one (--api-key-env VARIABLE), or use 127.0.0.1",
            )
        self._app = ChatApp(models, api_key=api_key)
        self._socket = _bound(host, port)
        port = self._socket.getsockname()[1]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
        self._server = _Server(self._app, grace)

    @property
    def names(self) -> list[str]:
        """The names of the models, as requests give them."""
        return self._app.names

    def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Answer until :meth:`stop`, SIGINT or SIGTERM, once; ``ready`` is called at the beginning.

        The signals count in the main thread alone; they are raised again at the end, for whoever
        handled them before.

        Raises:
            KeyboardInterrupt: it was ended by SIGINT.
        """
        self._server.ready = ready
        asyncio.run(self._server.serve(sockets=[self._socket]))

    def stop(self) -> None:
        """End soon; may be called from any thread."""
        self._server.should_exit = True


class _Server(uvicorn.Server):
    """uvicorn, which says when it is ready, and cuts replies that last too long at its end."""

    def __init__(self, app: ChatApp, grace: float) -> None:
        self._app, self._grace = app, grace
        self.ready: Callable[[], None] = lambda: None
        super().__init__(
            uvicorn.Config(
                app,
                loop="asyncio",
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,  # faults go to standard error; addresses of clients go nowhere
                access_log=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE,
                # for clients that do not even read that their reply was cut
                timeout_graceful_shutdown=math.ceil(grace) + _LAST_RESORT,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self.ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for the replies in flight, and cut them when their grace is over."""
        cut = asyncio.get_running_loop().call_later(self._grace, self._app.cut)
        try:
            await super().shutdown(sockets)
        finally:
            cut.cancel()


@contextmanager
def chat_server(
    *models: str | Model,
    host: str = "127.0.0.1",
    port: int = 0,
    api_key: str | None = None,
    grace: float = 2.0,
) -> Iterator[ChatServer]:
    """A server in a thread of its own, for notebooks and tests; it stops with the block.

    Models are given by name or as objects; those given by name are closed at the end.

    Raises:
        InvalidInput: as :class:`ChatServer`, or there is no such model.
    """
    made = [resolve_model(model) for model in models]
    server = ChatServer(made, host=host, port=port, api_key=api_key, grace=grace)
    listening = threading.Event()

    def run() -> None:
        try:
            server.run(listening.set)
        finally:
            listening.set()
            for spec, model in zip(models, made, strict=True):
                if isinstance(spec, str):
                    asyncio.run(model.aclose())

    thread = threading.Thread(target=run, name="chat-server")
    thread.start()
    listening.wait()
    try:
        yield server
    finally:
        server.stop()
        thread.join()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bound(host: str, port: int) -> socket.socket:
    """A listening socket; the first address that a name stands for."""
    if not 0 <= port < 2**16:
        raise InvalidInput("port", f"{port} is no port", "Use 0 to 65535; 0 is any free one")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise InvalidInput("host", f"{host}: {error.strerror}") from None
    family, address = found[0][0], found[0][4]
    try:
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        problem = f"{host}:{port} cannot be had: {error.strerror}"
        raise InvalidInput("port", problem, "Give another --port; 0 is any free one") from None
