"""``why``: what the answer of a run rests on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from longthought.orchestrator.cli.failures import reported
from longthought.orchestrator.cli.output import count, mark, one_line, print_json
from longthought.orchestrator.cli.settings import settings_of

if TYPE_CHECKING:
    from longthought.orchestrator.traces import Explanation

__all__ = ["print_explanation", "why"]

_BASES = {
    "vote": "the vote of the samples",
    "verified": "a sample that the verifier passed",
    "score": "the sample with the best score; none passed",
    "only": "the only sample, taken as it is",
    "chain": "a chain of steps",
    "graph": "a graph of your own",
    "none": "nothing: no branch was picked",
}
_MOST = 12  # lines of effects and of branches before the rest is only counted


@reported
def why(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="The run.")],
    full: Annotated[bool, typer.Option("--full", help="Every effect and branch.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what an answer rests on: votes and margin, verdicts, and which effects decide it.

    Each branch is left out in turn and the choice made again from what is recorded; nothing runs.

    \b
    Examples:
      longthought why RUN
      longthought why RUN --json
    """
    settings = settings_of(context)

    async def read() -> Explanation:
        from longthought.orchestrator.traces import explain

        async with settings.store() as store:
            return explain(await store.read(run))

    told = asyncio.run(read())
    if as_json:
        print_json(told.to_json())
    else:
        print_explanation(told, None if full else _MOST)


def print_explanation(told: Explanation, most: int | None = _MOST) -> None:
    """Print an explanation; of long lists the first ``most`` entries."""
    answer = "no answer" if told.answer is None else told.answer
    typer.echo(f"{answer}  [{told.status}, {told.stop_reason.replace('_', ' ')}]")
    typer.echo(f"  rests on   {_BASES[told.basis]}")
    if told.of:
        typer.echo(f"  samples    {told.samples} of {told.of} came back")
    for name, votes in list(told.votes.items())[:most]:
        sign = mark("picked") if name == told.answer else " "
        typer.echo(f"  votes      {votes:>4} {sign} {one_line(name, 60)}")
    if told.margin is not None:
        typer.echo(f"  margin     {told.margin}")
    if told.verdict:
        shown = {True: "passed", False: "turned down", None: "cannot say"}[told.verdict["passed"]]
        typer.echo(f"  verdict    {shown}: {told.verdict['reason']}")
    _print_decisive(told)
    if told.rests_on:
        typer.echo("  effects behind it:")
        for effect in told.rests_on[:most]:
            sign = mark("picked") if effect["alone"] else " "
            typer.echo(f"    {sign} {effect['key']}")
        _print_more(len(told.rests_on), most, "effect")
    if told.indifferent:
        typer.echo("  would change nothing if they were not there:")
        for branch in told.indifferent[:most]:
            said = "" if branch["answer"] is None else f": {one_line(str(branch['answer']), 60)}"
            typer.echo(f"      {branch['branch']}  {branch['why']}{said}")
        _print_more(len(told.indifferent), most, "branch", "branches")
    for note in told.notes:
        typer.echo(f"  note       {note}")


def _print_decisive(told: Explanation) -> None:
    if told.basis == "vote" and not told.decisive:
        typer.echo(
            f"  decisive   no single sample; {told.fewest or 'all'} of the votes for it "
            "would have to be absent"
        )
    for name in told.decisive:
        if name in told.otherwise:
            other = told.otherwise[name]
            then = "no answer" if other is None else one_line(str(other), 60)
            typer.echo(f"  decisive   {mark('picked')} {name}: without it {then}")


def _print_more(length: int, most: int | None, noun: str, plural: str | None = None) -> None:
    if most is not None and length > most:
        typer.echo(f"      and {count(length - most, f'more {noun}', plural and f'more {plural}')}")
