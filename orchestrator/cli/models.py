"""``models``: which models there are, what they cost, and what a server can."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longthought.errors import InvalidInput
from longthought.orchestrator.cli.failures import reported
from longthought.orchestrator.cli.local import found_here, nothing_found, options_for, servers_json
from longthought.orchestrator.cli.output import (
    console,
    count,
    mark,
    one_line,
    plain_table,
    print_json,
    progress,
)
from longthought.orchestrator.cli.settings import Settings, settings_of

if TYPE_CHECKING:
    from longthought.orchestrator.models import BackendSettings, LocalServer
    from longthought.orchestrator.models.backends import Probe
    from longthought.orchestrator.models.backends.facts import ServerLoad

__all__ = ["models"]

_SIGNS = {True: "passed", False: "failed", None: "dot"}


@reported
def models(
    context: typer.Context,
    local: Annotated[
        bool, typer.Option(help="Look for model servers on this machine, or not.")
    ] = True,
    probe: Annotated[
        str | None,
        typer.Option(help="Find out what the server of this model or backend can.", metavar="NAME"),
    ] = None,
    base_url: Annotated[
        str | None, typer.Option("--base-url", help="Address to probe.", metavar="URL")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Probe a server elsewhere, which may cost money.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the models that can be named, those served on this machine, and prices.

    Any other name works too: openai/NAME with --base-url for any server that speaks Chat
    Completions, and BACKEND/NAME with a backend of the configuration. A model without a price is
    refused only under a limit of dollars. Servers on this machine are looked for on the ports of
    Ollama, LM Studio, vLLM, llama.cpp, SGLang and serve-model.

    With --probe a server is asked what it is, and about a dozen small calls show what it can. The
    table is followed by its profile, to be pasted into the configuration.

    \b
    Examples:
      longthought models
      longthought models --probe openai/NAME --base-url http://localhost:8000/v1
      longthought models --probe local --json
    """
    settings = settings_of(context)
    if probe is not None:
        raise typer.Exit(_probe(settings, probe, base_url, yes, as_json))
    for option, given in (("base-url", base_url is not None), ("yes", yes)):
        if given:
            raise InvalidInput(option, "goes with --probe", "Name what to probe, or leave it out")
    _list(settings, local, as_json)


# -- the list -----------------------------------------------------------------------------------


def _list(settings: Settings, local: bool, as_json: bool) -> None:
    listed, backends = _listed(settings), _configured(settings)
    book = settings.prices()
    servers = found_here() if local else None
    if as_json:
        told: dict[str, Any] = {"as_of": book.as_of.isoformat(), "models": listed}
        told["backends"] = backends
        print_json(told if servers is None else {**told, "local": servers_json(servers)})
        return
    table = plain_table(
        "model", "input", "cached", "output", "", right=("input", "cached", "output")
    )
    for model in listed:
        price = model["price"] or {}
        figures = [price.get(part, "") for part in ("input", "cached", "output")]
        table.add_row(model["model"], *figures, model["note"])
    console().print(table)
    typer.echo(f"dollars per million tokens, as of {book.as_of.isoformat()}")
    if backends:
        _print_backends(backends)
    if servers is not None:
        _print_local(servers)


def _print_backends(backends: list[dict[str, Any]]) -> None:
    """The configured backends, each with what to write."""
    typer.echo("\nconfigured backends")
    for backend in backends:
        where = ", ".join(backend["base_urls"]) or "nowhere: base_url is missing"
        typer.echo(f"  {backend['name']}/NAME  {backend['kind'] or 'any kind'} at {where}")
        typer.echo(f"    longthought models --probe {backend['name']}")


def _print_local(servers: list[LocalServer]) -> None:
    """The servers on this machine, each model with what to write."""
    typer.echo("\nfound on this machine")
    for server in servers:
        typer.echo(f"  {server.kind} at {server.base_url}{'' if server.models else ', no model'}")
        for model in server.models:
            typer.echo(f"    {options_for(server, model)}")
    if not servers:
        typer.echo(f"  {nothing_found()}")


def _listed(settings: Settings) -> list[dict[str, Any]]:
    from longthought.orchestrator.models.embedded import MODELS
    from longthought.orchestrator.models.registry import priced

    named = {name for name in settings.config.backends if "/" in name}
    own = {name: settings.backend(name) for name in settings.config.backends}
    book = priced(settings.prices(), sorted(named), backends=own)
    found: list[dict[str, Any]] = []
    for name, weights in MODELS.items():
        able = ", ".join(each.task.name for each in weights)
        note = f"in the package; {able} only"
        found.append({"model": name, "price": _free(), "note": note})
    twice = {name.removeprefix("openai/") for name in named if name.startswith("openai/")}
    for name in sorted({*book.prices, *named} - twice):
        price = book.price(name)
        shown = name if "/" in name or name.endswith("*") else f"openai/{name}"
        note = "configured" if name in named else ""
        found.append({"model": shown, "price": price.to_json() if price else None, "note": note})
    return found


def _configured(settings: Settings) -> list[dict[str, Any]]:
    """The backends that have a name of their own."""
    from longthought.orchestrator.models.backends.addresses import public_url
    from longthought.orchestrator.models.registry import BUILT_IN

    found = []
    for name in sorted(settings.config.backends):
        if "/" in name or name in BUILT_IN:
            continue
        backend = settings.backend(name)
        urls = backend.urls or ((backend.known_kind.url,) if backend.kind else ())
        found.append(
            {
                "name": name,
                "kind": backend.kind,
                "base_urls": [public_url(url) for url in urls if url],
                "slots": backend.slots or backend.known_kind.slots,
                "context_window": backend.context_window,
                "price": dict(backend.price) if backend.price is not None else None,
            }
        )
    return found


def _free() -> dict[str, str]:
    return {"input": "0", "cached": "0", "output": "0"}


# -- the probe ----------------------------------------------------------------------------------


def _probe(settings: Settings, name: str, base_url: str | None, yes: bool, as_json: bool) -> int:
    """Probe, print, and return the exit code: 0 if the model answered."""
    from longthought.orchestrator.models.backends import probe
    from longthought.orchestrator.models.backends.addresses import is_loopback, public_url
    from longthought.orchestrator.models.backends.probing import MOST_CALLS, MOST_OUTPUT_TOKENS

    backend, model, profile = _target(settings, name, base_url)
    url = backend.urls[0]
    sends = (
        f"{public_url(url)}: sends up to {MOST_CALLS} small calls, "
        f"at most {MOST_OUTPUT_TOKENS} tokens of output"
    )
    if not is_loopback(url) and not yes:
        fix = "Add --yes to send them"
        raise InvalidInput("probe", f"{sends}, which may cost money", fix)
    if not as_json:
        typer.echo(sends, err=True)
    with progress(f"asking {public_url(url)}", quiet=as_json) as show:
        made = asyncio.run(
            probe(backend, model, tell=lambda trial, calls: show(f"call {calls + 1}: {trial}"))
        )
    _check_reached(made, backend)
    if as_json:
        print_json({**made.to_json(), "profile": made.to_toml(profile)})
    else:
        _print_probe(made, profile)
    return 0 if made.found("answers") else 1


def _target(
    settings: Settings, name: str, base_url: str | None
) -> tuple[BackendSettings, str | None, str]:
    """What to probe: settings with an address, the model's name there, the name of the profile.

    Raises:
        InvalidInput: there is no such backend; or the model runs in this process.
    """
    from longthought.orchestrator.models.backends.addresses import is_loopback
    from longthought.orchestrator.models.registry import BUILT_IN

    prefix, _, rest = name.partition("/")
    own = {one.partition("/")[0] for one in settings.config.backends} - {*BUILT_IN}
    if prefix in own:
        backend = settings.backend(name, base_url).addressed(named=True)
        return backend, rest or None, prefix
    if base_url is None and prefix.partition(":")[0] in ("embedded", "recorded"):
        raise InvalidInput("probe", f"{name} has no server", "Name openai/NAME or a backend")
    elsewhere = "local" if base_url and is_loopback(base_url) else "remote"
    if prefix == "openai":
        backend = settings.backend(name, base_url).addressed(named=False)
        return backend, rest or None, "openai" if not base_url else elsewhere
    if base_url is None:
        listed = ", ".join(sorted(own)) or "none are configured"
        fix = f"Give --base-url too, or name openai/NAME or a backend ({listed})"
        raise InvalidInput("probe", f"there is no backend for {name!r}", fix)
    backend = settings.backend(f"openai/{name}", base_url).addressed(named=False)
    return backend, name, elsewhere


def _check_reached(made: Probe, backend: BackendSettings) -> None:
    """Check that there is something to show.

    Raises:
        InvalidInput: the server does not answer, refuses the key, or lists no model.
    """
    facts, variable = made.facts, backend.api_key_env or "a variable named by api_key_env"
    if facts.status in (401, 403):
        problem = f"refused the key (status {facts.status})"
        raise InvalidInput(made.base_url, problem, f"Put the right one into {variable}")
    if made.model is None and (facts.problem is None or facts.status is not None):
        problem = facts.problem or "lists no model"
        raise InvalidInput(made.base_url, problem, "Name one: --probe openai/NAME or BACKEND/NAME")
    if not made.findings:
        fix = "Start the server or correct the address; longthought models lists those found here"
        raise InvalidInput(made.base_url, f"cannot be reached: {facts.problem}", fix)


def _load(load: ServerLoad) -> str:
    """How busy a server is, in words; empty if it does not say."""
    requests = ((load.running, "running"), (load.waiting, "waiting"))
    shares = (
        (load.memory_used, "of its memory used"),
        (load.prefix_hits, "of prompt tokens found in it"),
    )
    told = [f"{number} {what}" for number, what in requests if number is not None]
    told += [f"{share:.0%} {what}" for share, what in shares if share is not None]
    return ", ".join(told)


def _print_probe(made: Probe, profile: str) -> None:
    from rich.text import Text

    from longthought.orchestrator.models.backends import KINDS
    from longthought.orchestrator.models.backends.addresses import public_url

    facts = made.facts
    title = f"{KINDS[made.kind].title} {facts.version or ''}".strip()
    parts = [title] if made.kind != "generic" else ["a server of no known kind"]
    parts += [f"{facts.context_window:,} tokens of context"] if facts.context_window else []
    parts += [count(facts.slots, "slot")] if facts.slots else []
    if facts.context_capacity:
        parts.append(f"memory for {facts.context_capacity:,} tokens")
    typer.echo(f"{made.model} at {made.base_url}: {', '.join(parts)}")
    if now := _load(facts.load):
        typer.echo(f"  now {now}")
    if len(facts.models) > 1:
        more = ", ".join(model for model in facts.models if model != made.model)
        typer.echo(f"  it also has {one_line(more, 200)}")
    for url, other in (made.others or {}).items():
        said = other.problem or ", ".join(filter(None, (other.kind, other.version)))
        typer.echo(f"  {public_url(url)}: {said or 'answers'}")
    table = plain_table("", "", "seen")
    for finding in made.findings:
        seen = Text(one_line(finding.seen, 110))  # a stranger's words are no markup
        table.add_row(mark(_SIGNS[finding.found]), finding.name, seen)
    console().print(table)
    tokens = made.prompt_tokens + made.completion_tokens
    typer.echo(f"{count(made.calls, 'call')}, {count(tokens, 'token')} reported")
    model = f"{profile}/{made.model}"
    typer.echo(f"\nfor longthought.toml; the model is then {model}\n\n{made.to_toml(profile)}")
