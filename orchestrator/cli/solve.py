"""``solve``: one question, answered and recorded."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longthought.errors import InvalidInput, QuestionRefused
from longthought.orchestrator.cli import asking, limits
from longthought.orchestrator.cli.failures import INTERRUPTED, reported
from longthought.orchestrator.cli.local import refused
from longthought.orchestrator.cli.options import (
    ANSWERS,
    STRATEGIES,
    budget_from,
    definition_options,
    schema_text,
    workflow_from_options,
)
from longthought.orchestrator.cli.output import (
    count,
    moment,
    one_line,
    print_json,
    progress,
    seconds,
)
from longthought.orchestrator.cli.settings import Settings, settings_of
from longthought.orchestrator.cli.show import spent_by_model
from longthought.orchestrator.cli.streaming import watcher
from longthought.orchestrator.images import question_with_images
from longthought.types import JSONObject, Message

if TYPE_CHECKING:
    from longthought import Result, Workflow
    from longthought.budgets import Budget
    from longthought.storage import Recording

__all__ = ["exit_code", "interrupted", "print_result", "solve"]


@reported
def solve(
    context: typer.Context,
    question: Annotated[str, typer.Argument(help="The question; - reads it from standard input.")],
    model: asking.Models = None,
    base_url: asking.BaseUrl = None,
    image: asking.Images = None,
    strategy: Annotated[
        str | None, typer.Option("--strategy", "-s", help=", ".join(STRATEGIES) + ".", metavar="S")
    ] = None,
    n: Annotated[
        int | None, typer.Option("-n", help="Samples; for backtrack, attempts from the question.")
    ] = None,
    wave: Annotated[int | None, typer.Option(help="Samples asked for at a time.")] = None,
    stop: Annotated[
        str | None, typer.Option(help="beta:0.95, first-pass or never.", metavar="RULE")
    ] = None,
    verifier: asking.Verifier = None,
    answer: Annotated[str | None, typer.Option(help=f"{ANSWERS}.", metavar="KIND")] = None,
    schema: asking.Schema = None,
    tools: Annotated[
        str | None, typer.Option(help="calculator,python,search:FOLDER.", metavar="LIST")
    ] = None,
    system: asking.System = None,
    temperature: asking.Temperature = None,
    max_tokens: asking.MaxTokens = None,
    seed: Annotated[int, typer.Option(help="Equal seeds draw equal samples.")] = 0,
    tokens: limits.Tokens = None,
    output_tokens: limits.OutputTokens = None,
    usd: limits.Usd = None,
    wall: limits.Wall = None,
    thinking: limits.Thinking = None,
    thinking_tokens: limits.ThinkingTokens = None,
    model_calls: limits.ModelCalls = None,
    tool_calls: limits.ToolCalls = None,
    branches: limits.Branches = None,
    run_id: Annotated[
        str | None, typer.Option("--id", help="Name of the run; made up unless given.")
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Show thoughts while they come.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Answer a question; every step is recorded.

    A question of the embedded model is answered as suits its task: a puzzle best of 16, each sample
    verified; a word problem by the vote of 16 samples whose sums were checked.

    \b
    Examples:
      longthought solve "4 7 8 8 -> 24"
      echo "2 5 9 11 -> 24" | longthought solve - --json
      longthought solve "4 7 8 8 -> 24" --strategy backtrack --tokens 4000
      longthought solve "How many ...?" --model openai/NAME --base-url http://localhost:11434/v1 \\
          --answer number --strategy sample -n 16 --stop beta:0.95
      longthought solve "Who is on it?" --model openai/A --model openai/B --image photo.png \\
          --schema person.json --json
    """
    settings = settings_of(context)
    question = _question(question)
    given = {
        "model": model[0] if model else None,
        "others": model[1:] if model else None,
        "base_url": base_url,
        "strategy": strategy,
        "n": n,
        "wave": wave,
        "stop": stop,
        "verifier": verifier,
        "answer": answer,
        "output": schema_text(schema) if schema else None,
        "images": image,
        "tools": tools,
        "system": system,
        "temperature": temperature,
        "max_tokens": max_tokens,
    }
    limited = limits.given(
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
    budget = budget_from(limited, settings.config.defaults.get("budget", {}))
    options = definition_options(question, given, settings)
    asked = question_with_images(question, image) if image else question
    run_id = run_id or f"run-{uuid.uuid4().hex[:16]}"
    watch = watcher(options["strategy"], as_json) if stream else None
    shown = stream or as_json

    async def answered() -> Result:
        async with settings.store() as store:
            workflow = workflow_from_options(options, settings, store)
            return await _run(workflow, asked, seed, budget, run_id, options, watch)

    try:
        with progress(f"thinking about {one_line(question, 40)}", quiet=shown) as tell:
            if watch is None:
                watch = _counting(tell)
            result = asyncio.run(answered())
    except KeyboardInterrupt:
        raise interrupted(settings, run_id, as_json=as_json, stream=stream) from None
    except QuestionRefused as error:
        raise refused(error, question, options) from None
    if as_json:
        _print_result_json(result.to_json(), stream=stream)
    else:
        print_result(result)
    raise typer.Exit(exit_code(result))


async def _run(
    workflow: Workflow,
    question: str | list[Message],
    seed: int,
    budget: Budget,
    run_id: str,
    options: JSONObject,
    watch: Any,
) -> Result:
    try:
        return await workflow.run(
            question, seed=seed, budget=budget, run_id=run_id, watch=watch, options=options
        )
    finally:
        await workflow.aclose()


def print_result(result: Result) -> None:
    """The result as a few lines; the answer alone stands on the first."""
    if result.answer is not None:
        typer.echo(result.answer)
    else:
        typer.echo("no answer")
    lines = [("status", _status(result))]
    if result.support:
        lines.append(("rests on", _support(result.support)))
    if result.spent:
        lines.append(("spent", _spent(result.spent)))
        lines += [("", line) for line in spent_by_model(result.spent)]
    if result.error:
        lines.append(("error", one_line(result.error, 2000)))
    for wait in result.waiting:
        if "until" in wait:
            lines.append(("waits", f"until {moment(wait['until'])}; then: longthought wake"))
            continue
        lines.append(("waits for", f"{wait['name']} at {wait['key']}"))
        hint = f"longthought signal {result.id} {wait['name']} VALUE"
        lines.append(("", f"{hint}; then: longthought resume {result.id}"))
    lines.append(("run", f"{result.id}  (longthought show {result.id})"))
    for name, text in lines:
        typer.echo(f"  {name:<10}{text}")


def exit_code(result: Result) -> int:
    """0 with an answer, also a best one so far, and while parked; else, or if rejected, 1."""
    answered = result.status in ("completed", "incomplete") and result.answer is not None
    rejected = result.stop_reason == "rejected"
    return 0 if (answered and not rejected) or result.status == "parked" else 1


def interrupted(
    settings: Settings, run_id: str, *, as_json: bool = False, stream: bool = False
) -> typer.Exit:
    """Print the best answer so far of a run that Ctrl-C has stopped, and how to go on with it."""
    from longthought.orchestrator.traces import run_tree

    async def begun() -> Recording:
        async with settings.store() as store:
            return await store.read(run_id)

    try:
        tree = run_tree(asyncio.run(begun()))
    except InvalidInput:
        typer.echo("longthought: interrupted before the run began", err=True)
        return typer.Exit(INTERRUPTED)
    answer = tree.best.get("answer", tree.answer)  # or it had just come to its end
    if as_json:
        found = {"id": run_id, "answer": answer, "status": tree.status}
        found |= {"stop_reason": tree.stop_reason, "spent": tree.spent}
        _print_result_json(found, stream=stream)
    elif answer is not None:
        typer.echo(answer)
        typer.echo("  the best answer so far")
    typer.echo(f"longthought: interrupted. Go on with: longthought resume {run_id}", err=True)
    return typer.Exit(INTERRUPTED)


def _print_result_json(value: JSONObject, *, stream: bool) -> None:
    """As a document, or as the last line of what was shown."""
    if stream:
        typer.echo(json.dumps({"event": "result", **value}, ensure_ascii=False))
    else:
        print_json(value)


def _question(text: str) -> str:
    if text == "-":
        text = sys.stdin.read()
    if not text.strip():
        raise InvalidInput("question", "is empty", "Ask something, or - to read standard input")
    return text.strip()


def _counting(tell: Any) -> Any:
    """Counts branches for the line of progress, and says the best answer so far."""
    seen = {"branch": 0, "branch_ended": 0, "tool": 0, "best": 0}
    best = ""

    def watch(event: JSONObject) -> None:
        nonlocal best
        if event["event"] in seen:
            seen[event["event"]] += 1
            if event["event"] == "best" and event["answer"] is not None:
                best = f", best so far {one_line(event['answer'], 40)}"
            text = f"{count(seen['branch'], 'branch', 'branches')}, {seen['branch_ended']} back"
            if seen["tool"]:
                text += f", {count(seen['tool'], 'tool call')}"
            tell(text + best)

    return watch


def _status(result: Result) -> str:
    return f"{result.status} ({result.stop_reason.replace('_', ' ')})"


def _support(support: JSONObject) -> str:
    parts = []
    if "votes" in support:
        votes = list(support["votes"].values())
        parts.append(f"{votes[0] if votes else 0} votes, margin {support.get('margin', 0)}")
    if "samples" in support:
        parts.append(f"{support['samples']} of {count(support['of'], 'sample')}")
    if "dead_ends" in support:
        parts.append(f"{count(support['steps'], 'step')}")
        parts.append(f"{count(support['dead_ends'], 'dead end')}")
        parts.append(f"{count(support['restarts'], 'restart')}")
    return ", ".join(parts) or json.dumps(support, ensure_ascii=False)


def _spent(spent: JSONObject) -> str:
    parts = [f"{count(spent['tokens'], 'token')} ({spent['output_tokens']:,} output)"]
    parts.append(count(spent["model_calls"], "model call"))
    if spent["tool_calls"]:
        parts.append(count(spent["tool_calls"], "tool call"))
    if spent["usd"]:
        parts.append(f"{spent['usd']:.6f} dollars")
    parts.append(seconds(spent["seconds"].get("wall", 0.0)))
    return ", ".join(parts)
