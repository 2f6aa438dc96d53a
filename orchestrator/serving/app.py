"""The application: which address does what, for models that are told apart by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from longthought.errors import InvalidInput
from longthought.orchestrator.serving.delivery import Delivery
from longthought.orchestrator.serving.refusals import (
    KeyGuard,
    answered,
    failed,
    refused,
    turned_down,
)
from longthought.orchestrator.serving.requests import model_requests, read_call
from longthought.orchestrator.serving.served import ServedModel
from longthought.types import Model

__all__ = ["MOST_BYTES", "ChatApp"]

MOST_BYTES = 4 * 2**20
"""The largest body of a request, unless another limit is given."""

_READ_ON = 4  # times the limit are read on and dropped, so that a client gets to hear of it


class ChatApp(Starlette):
    """An ASGI application that answers Chat Completions with these models.

    With ``api_key`` it is asked of every request but ``GET /health``. A body larger than
    ``most_bytes`` is refused. The models are not closed with the application.

    Raises:
        InvalidInput: there is no model, or two have one name; or the key is empty, or no client
            could send it.
    """

    def __init__(
        self,
        models: Iterable[Model],
        *,
        api_key: str | None = None,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        if api_key is not None:
            _check_key(api_key)
        self._served = _by_name([ServedModel(model) for model in models])
        self._most_bytes = most_bytes
        self._in_flight: set[Delivery] = set()
        super().__init__(
            routes=[
                Route("/v1/chat/completions", self._complete, methods=["POST"]),
                Route("/v1/models", self._list, methods=["GET"]),
                Route("/v1/models/{name:path}", self._show, methods=["GET"]),
                Route("/health", self._health, methods=["GET"]),
                Route("/stats", self._stats, methods=["GET"]),
            ],
            middleware=[] if api_key is None else [Middleware(KeyGuard, key=api_key)],
            exception_handlers={
                HTTPException: turned_down,
                InvalidInput: turned_down,
                Exception: failed,
            },
        )
        self.router.redirect_slashes = False

    @property
    def names(self) -> list[str]:
        """The names of the models."""
        return list(self._served)

    def cut(self) -> None:
        """End all replies in flight; their clients are told that the server stops."""
        for delivery in list(self._in_flight):
            delivery.cut()

    async def _complete(self, request: Request) -> Response:
        call = read_call(await self._body(request))
        served = self._served.get(call.model)
        if served is None:
            return self._unknown(call.model)
        return Delivery(served, call, model_requests(call, served.model), self._in_flight)

    async def _body(self, request: Request) -> bytes:
        most = self._most_bytes
        parts: list[bytes] = []
        size = 0
        async for part in request.stream():
            size += len(part)
            if size <= most:
                parts.append(part)
            elif size > _READ_ON * most:
                break
        if size > most:
            # uvicorn would read on for as long as the client sends, were it not to close
            headers = {"connection": "close"}
            raise HTTPException(413, f"the body has more than {most:,} bytes", headers)
        return b"".join(parts)

    async def _list(self, request: Request) -> Response:
        del request
        data = [served.listed() for served in self._served.values()]
        return answered({"object": "list", "data": data})

    async def _show(self, request: Request) -> Response:
        name = request.path_params["name"]
        served = self._served.get(name)
        return self._unknown(name) if served is None else answered(served.listed())

    async def _health(self, request: Request) -> Response:
        del request
        return answered({"status": "ok"})

    async def _stats(self, request: Request) -> Response:
        del request
        return answered({"models": {name: s.stats() for name, s in self._served.items()}})

    def _unknown(self, name: str) -> Response:
        known = ", ".join(self._served)
        message = f"there is no model {name[:100]!r}. There are: {known}"
        return refused(404, message, param="model", code="model_not_found")


def _check_key(key: str) -> None:
    if not key.strip():
        raise InvalidInput("api_key", "is empty", "Give None to ask for no key")
    if not key.isprintable() or key != key.strip():
        problem = "holds what no client can send in a header"
        raise InvalidInput("api_key", problem, "Use visible characters, no white space around them")


def _by_name(served: Sequence[ServedModel]) -> dict[str, ServedModel]:
    if not served:
        raise InvalidInput("models", "there are none to serve", "Name at least one")
    named: dict[str, ServedModel] = {}
    for one in served:
        if one.model.name in named:
            raise InvalidInput("models", f"two are named {one.model.name!r}", "Serve one of them")
        named[one.model.name] = one
    return named
