"""``show``: a recorded run as a tree to read."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longthought.orchestrator.cli.failures import reported
from longthought.orchestrator.cli.output import (
    age,
    console,
    count,
    mark,
    moment,
    one_line,
    print_json,
    seconds,
)
from longthought.orchestrator.cli.settings import settings_of
from longthought.types import text_of

if TYPE_CHECKING:
    from rich.tree import Tree

    from longthought.orchestrator.traces import (
        BackendUse,
        BranchNode,
        RunTree,
        SearchNode,
        Step,
        Utilisation,
    )
    from longthought.storage import Recording

__all__ = ["print_tree", "print_use", "show", "spent_by_model"]

_SIGNS = {
    "picked": ("picked", "bold green"),
    "passed": ("passed", "green"),
    "chain": ("passed", "green"),
    "finished": ("dot", ""),
    "dead end": ("failed", "red"),
    "given up": ("failed", "yellow"),
    "cancelled": ("cancelled", "dim"),
    "late": ("cancelled", "dim"),
    "parked": ("waiting", "yellow"),
    "open": ("open", "yellow"),
}
_WORDS = {
    "chain": "",
    "finished": "",
    "late": "came after the pick: charged, not told",
    "given up": "given up: nothing below it led on",
    "cancelled": "cancelled",
    "open": "no end recorded",
}


@reported
def show(
    context: typer.Context,
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="The run, or several.")],
    full: Annotated[bool, typer.Option("--full", help="Whole texts, not one line each.")] = False,
    clocks: Annotated[
        bool,
        typer.Option(
            "--clocks",
            help="Also when each step began, how long it waited, and what slots did, for all runs "
            "together.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a run as a tree: branches, thoughts, tool calls, verdicts, dead ends, tokens, seconds.

    \b
    Examples:
      longthought show RUN
      longthought show RUN --full --clocks
      longthought show RUN --clocks --json
      longthought show RUN OTHER --clocks
    """
    settings = settings_of(context)

    async def read() -> list[Recording]:
        async with settings.store() as store:
            return [await store.read(run) for run in dict.fromkeys(runs)]

    from longthought.orchestrator.traces import run_tree, utilisation

    recordings = asyncio.run(read())
    trees = [run_tree(recording) for recording in recordings]
    use = utilisation(*recordings) if clocks else None
    if as_json:
        shown = [tree.to_json() for tree in trees]
        told = {"utilisation": use.to_json()} if use else {}
        print_json((shown[0] if len(shown) == 1 else {"runs": shown}) | told)
        return
    for tree in trees:
        print_tree(tree, full=full, clocks=clocks)
    if use:
        print_use(use)


def print_use(use: Utilisation) -> None:
    """Print what clocks, slots and leases of one run or several came to."""
    for line in _used(use):
        console().print(line, markup=False, highlight=False)


def print_tree(tree: RunTree, *, full: bool = False, clocks: bool = False) -> None:
    """Print the tree of a run."""
    from rich.text import Text
    from rich.tree import Tree as RichTree

    out = console()
    begun = tree.begun if clocks else None
    painter = _Painter(out.width, full, begun, models=len(tree.models) > 1)
    root = RichTree(Text(f"{tree.id}  {tree.workflow}", style="bold"), guide_style="dim")
    root.add(Text(f"question  {one_line(_question(tree.question), out.width - 16)}"))
    for search in tree.searches:
        painter.search(root, search, alone=len(tree.searches) == 1)
    for step in tree.loose:
        painter.step(root, step)
    for line, style in _ending(tree):
        root.add(Text(line, style=style))
    out.print(root)


class _Painter:
    """Draws branches and steps.

    ``begun`` is the moment offsets count from, None without them; ``models`` names the model of
    each branch.
    """

    def __init__(self, width: int, full: bool, begun: float | None, *, models: bool) -> None:
        self.width, self.full, self.begun, self.models = width, full, begun, models

    def search(self, root: Tree, search: SearchNode, *, alone: bool) -> None:
        from rich.text import Text

        holder = root if alone else root.add(Text(f"search {search.place}", style="bold"))
        for branch in search.branches:
            self.branch(holder, branch, depth=2)
        for note in search.notes:
            holder.add(Text(f"{note['input'].replace('_', ' ')}: {_note(note)}", style="yellow"))

    def branch(self, holder: Tree, branch: BranchNode, depth: int) -> None:
        from rich.text import Text

        sign, style = _SIGNS[branch.verdict]
        words = _WORDS.get(branch.verdict, branch.verdict)
        label = Text(f"{mark(sign)} {branch.id}", style=style)
        if self.models and branch.model:
            label.append(f"  {branch.model}", style="cyan")
        if words:
            label.append(f"  {words}")
        if branch.reason:
            label.append(f" ({one_line(branch.reason, 80)})")
        answer = branch.outcome.get("answer")
        if answer is not None and branch.outcome.get("final", True):
            label.append(f"  {one_line(str(answer), 60)}", style="bold")
        if branch.tokens:
            label.append(f"  {count(branch.tokens, 'token')}", style="dim")
        node = holder.add(label)
        for step in branch.steps:
            self.step(node, step, depth + 1)
        for child in branch.children:
            # a chain of steps is drawn as a list: nesting would run out of the page
            self.branch(holder if len(branch.children) == 1 else node, child, depth)

    def step(self, holder: Tree, step: Step, depth: int = 2) -> None:
        from rich.text import Text

        figures = self._figures(step)
        room = max(24, self.width - 4 * depth - len(figures) - 14)
        line = Text(f"{step.kind:<7}", style="cyan")
        body = _body(step)
        line.append(body if self.full else one_line(body, room), style=_style(step))
        if figures:
            line.append(f"  {figures}", style="dim")
        node = holder.add(line)
        for inner in step.inner:
            self.step(node, inner, depth + 1)

    def _figures(self, step: Step) -> str:
        parts = [count(step.tokens, "token")] if step.tokens else []
        if step.seconds is not None:
            parts.append(seconds(step.seconds))
        if self.begun is not None and step.clock:
            parts.append(f"at {step.clock[1] - self.begun:.3f} s")
            if step.queued and step.queued >= 0.0005:
                parts.append(f"waited {seconds(step.queued)}")
            if step.early:
                ahead = f"{seconds(step.early['seconds'])}, {count(step.early['tokens'], 'token')}"
                parts.append(f"early by {ahead}")
        if step.tries > 1:
            parts.append(f"try {step.tries}")
        return ", ".join(parts)


def _body(step: Step) -> str:
    """What a step says, in one text."""
    if step.status == "open":
        return f"{step.name}: no end recorded"
    match step.kind:
        case "model":
            text = step.reasoning + step.text
            for call in step.calls:
                text += f" [{call['name']} {call['arguments']}]"
            if step.finish_reason in ("length", "cut", "refusal"):
                text += f" ({step.finish_reason})"
            if step.status == "abandoned":
                return "cancelled on the way"
            return text if step.status == "ok" else f"{step.status}: {text}"
        case "tool":
            shown = step.arguments
            shown = shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False)
            result = step.text if step.status == "ok" else f"{step.status}: {step.text}"
            return f"{step.name} {shown} = {result}"
        case "verify":
            verdict = {True: mark("passed"), False: mark("failed"), None: "?"}[step.passed]
            score = "" if step.score is None else f" {step.score:g}"
            return f"{verdict}{score} {step.text}"
        case "signal":
            return f"{step.name}: {step.text or 'waits'}"
    return f"{step.name} {step.text}".strip()


def _style(step: Step) -> str:
    if step.status == "open":
        return "yellow"
    if step.status not in ("ok", "abandoned") or step.passed is False:
        return "red"
    return "dim" if step.status == "abandoned" else ""


def _ending(tree: RunTree) -> list[tuple[str, str]]:
    """The last lines: status, answer, what it waits for, what needs attention."""
    reason = f" ({tree.stop_reason.replace('_', ' ')})" if tree.stop_reason else ""
    lines = [(f"status    {tree.status}{reason}, begun {age(tree.begun)}", "")]
    if tree.attempts > 1:
        lines.append((f"attempts  {tree.attempts}", ""))
    if tree.answer is not None:
        lines.append((f"answer    {tree.answer}", "bold"))
    if tree.best:
        rests = tree.best.get("support", {}).get("samples")
        samples = "" if rests is None else f", {count(rests, 'sample')}"
        lines.append((f"best      {tree.best['answer']} (so far{samples})", "bold"))
    if tree.error:
        lines.append((f"error     {tree.error}", "red"))
    for wait in tree.waiting:
        if "ask" not in wait:
            lines.append((f"waits     until {moment(wait['until'])}", "yellow"))
            lines.append(("          longthought wake", "dim"))
            continue
        until = f", until {moment(wait['until'])}" if "until" in wait else ""
        lines.append((f"waits     for {wait['name']} at {wait['key']}{until}", "yellow"))
        if wait.get("ask") is not None:
            lines.append(
                (f"          asks {json.dumps(wait['ask'], ensure_ascii=False)}", "yellow")
            )
        hint = f"longthought signal {tree.id} {wait['name']} VALUE --key '{wait['key']}'"
        lines.append((f"          {hint}", "dim"))
    if tree.attention:
        where = f" at {tree.attention['key']}" if tree.attention["key"] else ""
        lines.append((f"attention {tree.attention['problem']}{where}", "red"))
        lines.append((f"          {tree.attention['difference']}", "red"))
    if tree.deleted:
        lines.append((f"deleted   {count(tree.deleted, 'payload')} behind a tombstone", "yellow"))
    if tree.spent:
        lines.append((f"spent     {_spent(tree.spent)}", ""))
        lines += [(f"          {line}", "dim") for line in spent_by_model(tree.spent)]
    return lines


def _spent(spent: dict[str, Any]) -> str:
    clocks = ", ".join(f"{name} {seconds(value)}" for name, value in spent["seconds"].items())
    money = f", {spent['usd']:.6f} dollars" if spent["usd"] else ""
    return (
        f"{count(spent['tokens'], 'token')} ({spent['output_tokens']:,} output), "
        f"{count(spent['model_calls'], 'model call')}, "
        f"{count(spent['tool_calls'], 'tool call')}{money}; {clocks}"
    )


def _used(use: Utilisation) -> list[str]:
    """What slots and leases did, as lines."""
    clocks = ", ".join(f"{name} {seconds(value)}" for name, value in use.seconds.items())
    lines = [f"clocks    {clocks}"]
    if use.runs != 1:
        lines.insert(0, f"runs      {_together(use)}")
    for name, whole in use.backends.items():
        lines += _used_of(name, whole)
        for endpoint, one in whole.endpoints.items():
            lines += _used_of(f"{name} at {endpoint}", one)
    overlap = use.permit_seconds_during_tools, use.tool_seconds_in_generation
    lines.append(
        f"overlap   slots held while a tool ran {seconds(overlap[0])}, "
        f"tools in the model's clock {seconds(overlap[1])}"
    )
    return lines


def _used_of(name: str, one: BackendUse) -> list[str]:
    """The same of one backend, or of one of its endpoints."""
    slots = (
        f"slots     {name}: {count(one.permits, 'permit')}, busy {seconds(one.busy_seconds)} "
        f"({one.share:.1%} of {one.slots}, {one.at_once} at once), "
        f"waited for {seconds(one.queued_seconds)}"
    )
    lines = [slots]
    if one.leases:
        changes = ", ".join(f"{number} {what}" for what, number in one.leases.items())
        lines.append(
            f"leases    {name}: {changes}; held {seconds(one.lease_seconds)}, "
            f"{seconds(one.acting_seconds)} of it while a tool ran"
        )
    lost = one.recomputed_tokens
    again = "not reported" if lost is None else count(lost, "token")
    lines.append(
        f"cache     {name}: {count(one.known_tokens, 'token')} known, "
        f"{one.cached_tokens:,} found; computed anew: {again}"
    )
    return lines


def _together(use: Utilisation) -> str:
    """How many runs there were, and how long they took."""
    from longthought.orchestrator.traces import quantile

    told = f"{use.runs:,} in {seconds(use.period_seconds)}, {len(use.latencies):,} ended"
    if use.latencies:
        p50, p95 = (seconds(quantile(use.latencies, share)) for share in (0.5, 0.95))
        told += f", half of them within {p50}, 95 % within {p95}"
    return told


def spent_by_model(spent: dict[str, Any]) -> list[str]:
    """What each model has cost, a line for each, where there were several."""
    return [
        f"{name}: {count(one['tokens'], 'token')}, {count(one['model_calls'], 'model call')}"
        + (f", {one['usd']:.6f} dollars" if one["usd"] else "")
        for name, one in spent.get("by_model", {}).items()
    ]


def _question(question: Any) -> str:
    if isinstance(question, str):
        return question
    if question is None:
        return "[deleted]"
    return " / ".join(_shown(message) for message in question)


def _shown(message: Any) -> str:
    """The text of a message; of a part that is none, what it is."""
    content = message["content"]
    if not isinstance(content, list):
        return text_of(message)
    return " ".join(str(part.get("text") or f"[{part.get('type', 'part')}]") for part in content)


def _note(note: dict[str, Any]) -> str:
    match note["input"]:
        case "exhausted":
            return f"the {note['kind']} limit of {note['scope']} is used up"
        case "rejected":
            return f"the verifier turned down {note['ask']}"
        case "cancel":
            return ", ".join(note["asks"])
    return "there is room again"
