"""``serve-model``: a model that runs here, for every client that speaks Chat Completions."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from longthought.errors import ConfigurationError, InvalidInput
from longthought.orchestrator.cli.failures import reported
from longthought.orchestrator.cli.settings import Settings, settings_of

if TYPE_CHECKING:
    from longthought.orchestrator.serving import ChatServer
    from longthought.types import Model

__all__ = ["serve_model"]

_PORT = 8910


@reported
def serve_model(
    context: typer.Context,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="embedded, embedded/NAME or recorded:FILE; may be given several times. "
            "[default: embedded]",
            metavar="M",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 is any free one.")] = _PORT,
    slots: Annotated[
        int | None, typer.Option(help="Replies of one model drawn at once; more wait.", min=1)
    ] = None,
    api_key_env: Annotated[
        str | None,
        typer.Option(help="Ask clients for the key in this variable.", metavar="VARIABLE"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, on one line, when ready.")
    ] = False,
) -> None:
    """Serve models that run here to clients that speak Chat Completions.

    Ends with Ctrl-C, or with SIGTERM and exit code 0; replies in flight have two seconds left.
    An address that others can reach needs a key.

    \b
    Examples:
      longthought serve-model
      longthought serve-model -m embedded -m embedded/puzzle-small --port 0 --json
      LOCAL_KEY=... longthought serve-model --host 0.0.0.0 --api-key-env LOCAL_KEY
    """
    from longthought.orchestrator.serving import ChatServer

    settings = settings_of(context)
    key = None if api_key_env is None else _key(api_key_env)
    models = [_model(name, settings, slots) for name in model or ["embedded"]]
    server = ChatServer(models, host=host, port=port, api_key=key)

    def ready() -> None:
        if as_json:
            typer.echo(json.dumps({"url": server.url, "models": server.names}))
        else:
            typer.echo(_ready_lines(server, api_key_env))

    before = signal.signal(signal.SIGTERM, _end)
    try:
        server.run(ready)
    finally:
        signal.signal(signal.SIGTERM, before)
        for one in models:
            asyncio.run(one.aclose())


def _end(number: int, frame: object) -> NoReturn:
    """SIGTERM is how a server is told that all is well and it may go."""
    del number, frame
    raise SystemExit(0)


def _model(name: str, settings: Settings, slots: int | None) -> Model:
    from longthought.orchestrator.models import resolve_model

    if name.partition("/")[0] == "openai":
        raise InvalidInput(
            "model", f"{name} runs on a server already", "Clients can be given its address"
        )
    backend = settings.backend(name)
    return resolve_model(name, replace(backend, slots=slots) if slots else backend)


def _key(variable: str) -> str:
    key = os.environ.get(variable, "")
    if not key:
        raise ConfigurationError("api-key-env", f"{variable} is not set", "Put the key into it")
    return key


def _ready_lines(server: ChatServer, variable: str | None) -> str:
    name = server.names[0]
    plays = name == "embedded" or name.startswith("embedded/puzzle")
    question = "4 7 8 8 -> 24" if plays else "How many ...?"
    key = f'OPENAI_API_KEY="${variable}" ' if variable else ""
    command = f'longthought solve "{question}" --model openai/{name} --base-url {server.url}'
    return f"{', '.join(server.names)} at {server.url}, until Ctrl-C\n  {key}{command}"
