"""``audit``: is every stored run what was written, and does it still replay?"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longthought.errors import InvalidInput, LongthoughtError
from longthought.orchestrator.cli.failures import reported
from longthought.orchestrator.cli.output import count, mark, print_json, progress
from longthought.orchestrator.cli.replay import replayed
from longthought.orchestrator.cli.settings import Settings, settings_of
from longthought.types import JSONObject

if TYPE_CHECKING:
    from longthought.storage.audit import AuditReport

__all__ = ["audit", "audited", "print_audit"]

_ALL = 1_000_000_000


@reported
def audit(
    context: typer.Context,
    run: Annotated[str | None, typer.Argument(help="One run; all of them unless given.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="A checkpoint that was held elsewhere.", metavar="FILE")
    ] = None,
    public_key: Annotated[
        str | None, typer.Option(help="The key every checkpoint must be signed with.")
    ] = None,
    write_checkpoint: Annotated[
        Path | None,
        typer.Option(help="Sign the heads of all runs and write them here.", metavar="FILE"),
    ] = None,
    replay: Annotated[
        bool, typer.Option("--replay/--no-replay", help="Also replay the runs, or not.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Verify what is stored: the chain of every run, checkpoints, and whether runs replay.

    Chain and replay are reported apart. Exits with 1 on any finding and names the event. Whoever
    can write the database can rewrite it whole: only a checkpoint held elsewhere shows that.

    \b
    Examples:
      longthought audit
      longthought audit RUN --json
      longthought audit --write-checkpoint heads.json
      longthought audit --checkpoint heads.json
    """
    settings = settings_of(context)
    held = _held(checkpoint)
    with progress("reading the chain", quiet=as_json) as tell:
        told = asyncio.run(audited(settings, run, held, public_key, replay=replay, tell=tell))
    if write_checkpoint is not None:
        told["written"] = _write(settings, write_checkpoint)
    if as_json:
        print_json(told)
    else:
        print_audit(told)
    raise typer.Exit(0 if told["ok"] else 1)


async def audited(
    settings: Settings,
    run: str | None = None,
    held: JSONObject | None = None,
    public_key: str | None = None,
    *,
    replay: bool = True,
    tell: Callable[[str], None] = lambda _text: None,
) -> JSONObject:
    """The audit of one run or of all; ``ok`` if neither half has a finding."""
    from longthought.storage.audit import audit as audit_chain

    async with settings.store() as store:
        chain = await audit_chain(store, run, held, public_key)
        rows = [await store.row(run)] if run else await store.list_runs(limit=_ALL)
    told: JSONObject = {"ok": chain.ok, "chain": chain.to_json()}
    if replay:
        broken = _broken(chain)
        states = {row.id: row.status for row in rows}
        told["replay"] = await _replays(settings, states, broken, tell)
        told["ok"] = chain.ok and not told["replay"]["findings"]
    return told


async def _replays(
    settings: Settings,
    states: dict[str, str],
    broken: set[str],
    tell: Callable[[str], None],
) -> JSONObject:
    """Replay every run that can be: not those under way, nor those whose chain is broken."""
    findings: list[JSONObject] = []
    left_out: list[JSONObject] = []
    replays = 0
    for number, (run, status) in enumerate(states.items(), 1):
        tell(f"replaying {number} of {len(states)}")
        if run in broken:
            left_out.append({"run_id": run, "reason": "its chain is broken"})
        elif status == "running":
            left_out.append({"run_id": run, "reason": "it is under way"})
        else:
            try:
                told = await replayed(settings, run)
            except InvalidInput as error:
                left_out.append({"run_id": run, "reason": str(error)})
            except LongthoughtError as error:
                findings.append({"run_id": run, "key": "", "problem": str(error)})
            else:
                replays += 1
                if told["diverged"]:
                    key, problem = told["diverged"]["key"], told["diverged"]["difference"]
                    findings.append({"run_id": run, "key": key, "problem": problem})
    return {"ok": not findings, "runs": replays, "findings": findings, "left_out": left_out}


def _broken(chain: AuditReport) -> set[str]:
    return {finding.run_id for finding in chain.findings if finding.run_id}


def print_audit(told: JSONObject) -> None:
    """Print an audit: a line for each half and one for each finding."""
    chain = told["chain"]
    read = f"{count(chain['runs'], 'run')}, {count(chain['events'], 'event')}"
    more = f"{count(chain['payloads'], 'payload')}, {count(chain['checkpoints'], 'checkpoint')}"
    typer.echo(f"chain   {_ok(chain['ok'])}  {read}, {more}")
    if chain["deleted"]:
        typer.echo(f"        {count(chain['deleted'], 'payload')} deleted behind tombstones")
    for finding in chain["findings"]:
        typer.echo(f"        {_where(finding)}: {finding['problem']}")
    if "replay" in told:
        _print_replays(told["replay"])
    if "written" in told:
        written = told["written"]
        typer.echo(f"signed  {count(written['runs'], 'run')} in {written['file']}")
        typer.echo(f"        key {written['public_key']}")
        typer.echo("        keep a copy where whoever can write the store cannot write")


def _print_replays(replay: JSONObject) -> None:
    typer.echo(f"replay  {_ok(replay['ok'])}  {count(replay['runs'], 'run')} to the same end")
    for finding in replay["findings"]:
        typer.echo(f"        {finding['run_id']} {finding['key']}: {finding['problem']}")
    reasons: dict[str, list[str]] = {}
    for entry in replay["left_out"]:
        reasons.setdefault(entry["reason"], []).append(entry["run_id"])
    for reason, runs in reasons.items():
        names = runs[0] if len(runs) == 1 else count(len(runs), "run")
        typer.echo(f"        {names} not replayed: {reason}")


def _ok(ok: bool) -> str:
    return f"{mark('passed')} sound" if ok else f"{mark('failed')} FINDINGS"


def _where(finding: JSONObject) -> str:
    parts = [finding["run_id"] or "store"]
    if finding["seq"] is not None:
        parts.append(f"event {finding['seq']}")
    parts.extend(part for part in (finding["type"], finding["key"]) if part)
    return " ".join(parts)


def _held(path: Path | None) -> JSONObject | None:
    if path is None:
        return None
    try:
        held: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput("checkpoint", f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InvalidInput("checkpoint", f"{path} is no JSON: {error}") from error
    if not isinstance(held, dict):
        raise InvalidInput("checkpoint", f"{path} holds no checkpoint")
    return held


def _write(settings: Settings, path: Path) -> JSONObject:
    async def sign() -> JSONObject:
        async with settings.store() as store:
            return await store.checkpoint()

    signed = asyncio.run(sign())
    try:
        path.write_text(json.dumps(signed, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise InvalidInput(
            "write-checkpoint", f"{path} cannot be written: {error.strerror}"
        ) from error
    return {"file": str(path), "runs": len(signed["runs"]), "public_key": signed["public_key"]}
