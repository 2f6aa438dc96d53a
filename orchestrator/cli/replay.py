"""``resume`` goes on with a run; ``replay`` runs it again on what is recorded."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longthought.errors import Diverged, InvalidInput
from longthought.orchestrator.cli import limits
from longthought.orchestrator.cli.failures import reported
from longthought.orchestrator.cli.options import budget_from, workflow_of
from longthought.orchestrator.cli.output import count, mark, print_json, progress
from longthought.orchestrator.cli.settings import Settings, settings_of
from longthought.orchestrator.cli.solve import exit_code, interrupted, print_result
from longthought.types import JSONObject

if TYPE_CHECKING:
    from longthought import Budget, Result, Workflow
    from longthought.storage import Recording

__all__ = ["replay", "replayed", "resume"]

_DECISIONS = ("done", "again")


@reported
def resume(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="The run.")],
    workflow: Annotated[
        str | None, typer.Option(help="Where its workflow is.", metavar="MODULE:ATTRIBUTE")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Take it over from a living process.")
    ] = False,
    decide: Annotated[
        list[str] | None,
        typer.Option(help="KEY=done or KEY=again, for a write of unknown outcome."),
    ] = None,
    tokens: limits.Tokens = None,
    output_tokens: limits.OutputTokens = None,
    usd: limits.Usd = None,
    wall: limits.Wall = None,
    thinking: limits.Thinking = None,
    thinking_tokens: limits.ThinkingTokens = None,
    model_calls: limits.ModelCalls = None,
    tool_calls: limits.ToolCalls = None,
    branches: limits.Branches = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Go on with a run that crashed, was interrupted, waits, or needs attention.

    What is recorded is not done again. A run that has ended is replayed, which costs nothing.
    Limits given here replace the run's own, the others stay; they can only be raised.

    \b
    Examples:
      longthought resume RUN
      longthought resume RUN --tokens 20000
      longthought resume RUN --decide "/2.explore/search/s0/2.act#0:tool=done"
    """
    settings = settings_of(context)
    decisions = [_decision(text) for text in decide or ()]
    given = limits.given(
        tokens,
        output_tokens,
        usd,
        wall,
        thinking,
        model_calls,
        tool_calls,
        branches,
        thinking_tokens,
    )

    async def resumed() -> Result:
        from longthought.orchestrator.raising import limits_in_force
        from longthought.orchestrator.recorded import Recorded

        async with settings.store() as store:
            recording = await store.read(run)
            manifest = recording.manifest()
            wanted = workflow_of(manifest, settings, store, workflow)
            _check_decisions([key for key, _ in decisions], recording, wanted)
            for key, word in decisions:
                await store.send_signal(run, f"decide:{key}", word)
            in_force = limits_in_force(recording, Recorded.of(recording))
            budget = _raised(given, in_force.to_json())
            try:
                return await wanted.resume(run, force=force, budget=budget)
            finally:
                await wanted.aclose()

    try:
        with progress(f"going on with {run}", quiet=as_json):
            result = asyncio.run(resumed())
    except KeyboardInterrupt:
        raise interrupted(settings, run, as_json=as_json) from None
    if as_json:
        print_json(result.to_json())
    else:
        print_result(result)
    raise typer.Exit(exit_code(result))


@reported
def replay(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="The run.")],
    workflow: Annotated[
        str | None, typer.Option(help="Where its workflow is.", metavar="MODULE:ATTRIBUTE")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run a workflow again on its recorded effects alone: no model, no tool is called.

    Exits with 1 if the run would go another way now, and says where.

    \b
    Examples:
      longthought replay RUN
      longthought replay RUN --workflow my_module:workflow --json
    """
    settings = settings_of(context)
    with progress(f"replaying {run}", quiet=as_json):
        told = asyncio.run(replayed(settings, run, workflow))
    if as_json:
        print_json({name: told[name] for name in _TOLD})
    else:
        _print_replay(told)
    raise typer.Exit(1 if told["diverged"] else 0)


_TOLD = ("id", "model_calls", "tool_calls", "effects", "diverged")


async def replayed(settings: Settings, run: str, named: str | None = None) -> JSONObject:
    """Replay one run; ``diverged`` is None, or the key and the difference."""
    async with settings.store() as store:
        recording = await store.read(run)
        if not recording.replayable:
            raise InvalidInput("run", "has deleted payloads", "It can be audited, not replayed")
        workflow = workflow_of(recording.manifest(), settings, store, named)
        told: JSONObject = {"id": run, "model_calls": 0, "tool_calls": 0, "effects": 0}
        try:
            result = await workflow.replay(run)
        except Diverged as error:
            return {**told, "diverged": {"key": error.key, "difference": error.difference}}
        finally:
            await workflow.aclose()
        told.update(
            model_calls=result.model_calls, tool_calls=result.tool_calls, effects=result.effects
        )
        return {**told, "diverged": None, "status": result.status, "answer": result.answer}


def _print_replay(told: JSONObject) -> None:
    diverged = told["diverged"]
    if diverged:
        typer.echo(f"{mark('failed')} {told['id']} goes another way now")
        typer.echo(f"  at        {diverged['key']}")
        typer.echo(f"  because   {diverged['difference']}")
        return
    typer.echo(f"{mark('passed')} {told['id']} replays to the same end: {told['status']}")
    if told["answer"] is not None:
        typer.echo(f"  answer    {told['answer']}")
    calls = f"{count(told['model_calls'], 'model call')}, {count(told['tool_calls'], 'tool call')}"
    typer.echo(f"  from      {count(told['effects'], 'recorded effect')}; made {calls}")


def _decision(text: str) -> tuple[str, str]:
    key, mark_, word = text.rpartition("=")
    if not mark_ or not key or word not in _DECISIONS:
        raise InvalidInput("decide", f"{text!r} cannot be read", "Write KEY=done or KEY=again")
    return key, word


def _check_decisions(keys: list[str], recording: Recording, workflow: Workflow) -> None:
    """Refuse to decide about what is no write of unknown outcome.

    Raises:
        InvalidInput: a key is none; lists those that are.
    """
    unknown = _unknown_outcomes(recording, workflow) if keys else []
    for key in keys:
        if key not in unknown:
            fix = f"Decide {', '.join(unknown)}" if unknown else "None is open in this run"
            raise InvalidInput("decide", f"{key!r} is no write of unknown outcome", fix)


def _unknown_outcomes(recording: Recording, workflow: Workflow) -> list[str]:
    """The keys of the writes that were started and have no known end, in that order."""
    from longthought.orchestrator.recorded import Recorded

    index, tools = Recorded.of(recording), {one.spec.name: one for one in workflow.definition.tools}
    found = []
    for key, seq in index.started.items():
        body, waits = recording.events[seq - 1].body, f"{key}!result:signal"
        if body.get("kind") != "tool" or waits in index.started or waits in index.finished:
            continue  # a result that is to come from outside is waited for
        tool = tools.get(recording.get(body["request"])["tool"])
        if tool is not None and not tool.spec.repeatable:
            found.append(key)
    return found


def _raised(given: dict[str, Any], before: JSONObject) -> Budget | None:
    """The limits with those given; None when none is.

    Raises:
        InvalidInput: a limit would be lowered, or is new.
    """
    if all(value is None for value in given.values()):
        return None
    from longthought.budgets import Budget

    wanted = budget_from(given, before)
    Budget.from_json(before).check_raise(wanted)
    return wanted
