"""Models that other programs serve on this machine: listed, and offered where ours must refuse."""

from __future__ import annotations

import asyncio
import shlex
from typing import TYPE_CHECKING

import typer

from longthought.errors import LongthoughtError, QuestionRefused
from longthought.orchestrator.cli.output import count
from longthought.orchestrator.models.backends.addresses import public_url
from longthought.types import JSONObject

if TYPE_CHECKING:
    from longthought.orchestrator.cli.settings import Settings
    from longthought.orchestrator.models import LocalServer

__all__ = [
    "asked_server",
    "found_here",
    "nothing_found",
    "options_for",
    "refused",
    "servers_json",
    "summary",
]

_NAMED = 3
_QUESTION_CHARS = 60


def found_here() -> list[LocalServer]:
    """The servers on this machine.

    Raises:
        ConfigurationError: ``LONGTHOUGHT_LOCAL_PORTS`` cannot be used.
    """
    from longthought.orchestrator.models import find_local_servers

    return asyncio.run(find_local_servers())


def asked_server(model: str, base_url: str | None, settings: Settings) -> JSONObject:
    """What the server of a model says of itself, where it may be asked without being told to.

    That is where it is on this machine, and its kind is not configured or one that knows more. It
    goes into the record of a run, which needs no server again to be built as it was; nothing is
    said of a server that does not answer, whose calls will fail by themselves.

    Raises:
        ConfigurationError: the backend, or a header of it, cannot be used.
    """
    from longthought.orchestrator.models.backends import ask_server
    from longthought.orchestrator.models.registry import BUILT_IN, settings_of

    name, _, rest = model.partition("/")
    backend = settings_of(model, backends=settings.backends(model, base_url))
    if name.partition(":")[0] in ("embedded", "recorded") or backend is None or not rest:
        return {}
    if not (backend.urls or backend.kind or name in BUILT_IN):
        return {}  # it has no address, which is told where the model is made
    backend = backend.addressed(named=name not in BUILT_IN)
    if not backend.asks_by_itself:
        return {}
    url, headers = backend.urls[0], backend.request_headers()
    facts = asyncio.run(ask_server(url, model=rest, headers=headers))
    if facts.silent and facts.kind is None and backend.kind is None:
        told = f"longthought: {public_url(url)} did not say what it is ({facts.problem})"
        typer.echo(f"{told}. Name its kind in [backends.{name}], see docs/backends.md", err=True)
    return facts.to_json()


def options_for(server: LocalServer, model: str) -> str:
    """The options of ``solve`` that name this model, ready for a shell."""
    return f"--model {shlex.quote(f'openai/{model}')} --base-url {server.base_url}"


def servers_json(servers: list[LocalServer]) -> list[JSONObject]:
    """The servers, each model with the name and the options by which it is used."""
    return [
        {
            **server.to_json(),
            "models": [
                {"id": one, "model": f"openai/{one}", "options": options_for(server, one)}
                for one in server.models
            ],
        }
        for server in servers
    ]


def summary(servers: list[LocalServer]) -> str:
    """The servers in one line: ``Ollama with llama3.2, qwen3 and 4 more``."""
    return "; ".join(f"{server.kind} {_with(server)}" for server in servers)


def nothing_found() -> str:
    """That there is no server, and where was looked.

    Raises:
        ConfigurationError: ``LONGTHOUGHT_LOCAL_PORTS`` cannot be used.
    """
    from longthought.orchestrator.models.local_servers import (
        PORTS_VARIABLE,
        USUAL_PORTS,
        ports_here,
    )

    ports = ports_here()
    which = "the usual ports" if ports is USUAL_PORTS else f"the ports of {PORTS_VARIABLE}"
    listed = ", ".join(f"{kind} {port}" for port, kind in ports.items())
    return f"no model server found on {which} ({listed or 'none'})"


def refused(error: QuestionRefused, question: str, options: JSONObject) -> QuestionRefused:
    """The refusal; that of the embedded model is followed by what could answer on this machine."""
    from longthought.orchestrator.models.local_servers import OWN

    if not str(options["model"]).startswith("embedded"):
        return error
    try:
        servers = [server for server in found_here() if server.kind != OWN]
        told = (
            _offer(servers, question) if servers else f"Looked on this machine: {nothing_found()}"
        )
    except LongthoughtError as problem:  # the refusal is what matters
        told = f"What is here was not looked for: {problem}"
    return QuestionRefused(
        error.field, error.problem, f"{error.fix.rstrip('.')}. {told}".lstrip(". ")
    )


def _offer(servers: list[LocalServer], question: str) -> str:
    told = f"Found here: {summary(servers)}"
    first = next((server for server in servers if server.chat_model), None)
    if first is None or first.chat_model is None:
        return told
    asked = shlex.quote(question) if len(question) <= _QUESTION_CHARS else "'...'"
    return f"{told}. Try: longthought solve {asked} {options_for(first, first.chat_model)}"


def _with(server: LocalServer) -> str:
    if not server.models:
        return "without a model"
    more = len(server.models) - _NAMED
    named = ", ".join(server.models[:_NAMED])
    return f"with {named}" + (f" and {count(more, 'more', 'more')}" if more > 0 else "")
