"""The process that is killed: it drives one run of eight branches and tells the world of each act.

``python -m tests.chaos.worker`` is a nursery: it has everything imported, reads a job per line and
forks a child for each, which leads a process group of its own. A kill then costs no second import.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import re
import signal
import sys
import threading
import traceback
import uuid
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from longthought import Budget, Candidate, Store, ToolContext, Workflow, answers, strategies
from longthought import verifiers as checking
from longthought.errors import RunNotFound
from longthought.orchestrator.models import toytokens
from longthought.orchestrator.models.scripted import ScriptedModel, call, rng, says
from longthought.tools import tool
from longthought.types import Grant, ModelReply, ModelRequest
from tests.chaos.world import tell

__all__ = ["BRANCHES", "Job", "build", "verdict_name"]

BRANCHES = 8
WORLD = ""
"""The socket of the world; empty in a process that performs nothing."""
LATENCY = random.Random(0)
IDEMPOTENT = True


@dataclass(frozen=True)
class Job:
    """What a worker is to do. ``tokens`` is the limit of the run."""

    world: str
    store: str
    directory: str
    run: str
    question: str
    idempotent: bool
    tokens: int
    latency_seed: str = ""
    force: bool = False
    lease: float = 15.0
    die_in_commit: int = 0
    """Kill itself in this commit, counted from 1: where no report could say when."""
    die_after: float = 0.0
    """Seconds from just before that commit."""


async def pause() -> None:
    await asyncio.sleep(LATENCY.uniform(0, 0.004))


def content_of(request: ModelRequest) -> str:
    turn = sum(1 for message in request["messages"] if message["role"] == "assistant")
    return f"s{request['sampling']['seed']}/model/{turn}"


class _WatchedGrant:
    """Tells the world how much has been said whenever more is asked for."""

    def __init__(self, inner: Grant, what: str, number: str) -> None:
        self.inner, self.what, self.number = inner, what, number

    @property
    def tokens(self) -> int:
        return self.inner.tokens

    async def top_up(self, wanted: int) -> int:
        said = self.inner.tokens  # it asks when the grant is used up, not before
        await tell(WORLD, "said", self.what, call=self.number, tokens=said)
        return await self.inner.top_up(wanted)


class WatchedModel(ScriptedModel):
    """A scripted model behind a meter of the world's."""

    async def generate(self, request: ModelRequest, grant: Grant, emit: Any = None) -> ModelReply:
        what, number = content_of(request), uuid.uuid4().hex
        tokens = toytokens.count_request(request)
        await tell(WORLD, "start", what, kind="model", prompt_tokens=tokens)
        await pause()
        reply = await super().generate(request, _WatchedGrant(grant, what, number), emit)
        said = reply["usage"]["completion_tokens"]
        await tell(WORLD, "end", what, kind="model", call=number, tokens=said)
        await pause()
        return reply


def script(request: ModelRequest) -> Any:
    """Read, write, answer; on every other question both calls stand in one message."""
    branch = request["sampling"]["seed"]
    turn = sum(1 for message in request["messages"] if message["role"] == "assistant")
    question = str(request["messages"][0]["content"])
    both = int(question.split()[-1]) % 2 == 0
    fetch = call("fetch", branch=branch, page=rng(request, "page").randint(0, 99))
    post = call("post", branch=branch, text=f"note of {question}")
    if turn == 0:
        # some replies outgrow their first grant, so that grants are topped up while they flow
        words = 350 if (branch + len(question)) % 3 == 0 else 12
        thought = " ".join(["hm"] * words)
        return says(thought, fetch, post) if both else says(thought, fetch)
    if turn == 1 and not both:
        return says("posting", post)
    return f"branch {branch}: the answer is {42 if branch % 4 else 41}"


@tool(effect="read")
async def fetch(branch: int, page: int) -> str:
    """Fetch a page.

    Args:
        branch: who asks.
        page: which one.
    """
    what = f"s{branch}/fetch"
    await tell(WORLD, "start", what, kind="tool")
    await pause()
    await tell(WORLD, "end", what, kind="tool")
    return f"page {page} of {branch}"


async def _post(branch: int, text: str, idempotency_key: str) -> str:
    what = f"s{branch}/post"
    await tell(WORLD, "start", what, kind="tool")
    await pause()
    key = idempotency_key
    done = await tell(WORLD, "write", what, idempotency_key=key, idempotent=IDEMPOTENT)
    await pause()
    await tell(WORLD, "end", what, kind="tool")
    return f"{done}: {text}"


@tool(effect="write", idempotent=True, name="post")
async def post_once(branch: int, text: str, context: ToolContext) -> str:
    """Post a text to a service that knows idempotency keys.

    Args:
        branch: who posts.
        text: what.
    """
    return await _post(branch, text, context.idempotency_key)


@tool(effect="write", name="post")
async def post_plainly(branch: int, text: str, context: ToolContext) -> str:
    """Post a text to a service that posts as often as it is told to.

    Args:
        branch: who posts.
        text: what.
    """
    return await _post(branch, text, context.idempotency_key)


def verdict_name(text: str) -> str:
    """How the world calls the verdict on a text. Thoughts that were cut short all read the same."""
    branch = re.match(r"branch (\d+):", text)
    return f"s{branch[1]}/verify" if branch else ""


async def judged(candidate: Candidate) -> bool:
    what = verdict_name(candidate.text) or "cut/verify"
    await tell(WORLD, "start", what, kind="verify")
    await pause()
    await tell(WORLD, "end", what, kind="verify")
    return candidate.answer == "42"


def build(idempotent: bool, tokens: int, store: Store | str) -> Workflow:
    """The workflow of every case; the parent replays with it."""
    return Workflow(
        "chaos",
        model=WatchedModel(script, slots=BRANCHES),
        tools=[fetch, post_once if idempotent else post_plainly],
        answer=answers.number(),
        verifier=checking.callable(judged),
        strategy=strategies.sample(BRANCHES),
        budget=Budget(tokens=tokens),
        store=store,
    )


async def drive(job: Job) -> dict[str, Any]:
    """Resume the run, or begin it if it is not there."""
    async with Store(job.store, directory=job.directory, lease=job.lease) as store:
        workflow = build(job.idempotent, job.tokens, store)
        try:
            result = await workflow.resume(job.run, force=job.force)
        except RunNotFound:
            result = await workflow.run(job.question, run_id=job.run, run_key=b"k" * 16)
        calls = {"model_calls": result.model_calls, "tool_calls": result.tool_calls}
        return {**result.to_json(), **calls}


def die_in_commit(number: int, seconds: float) -> None:
    """kill -9 a moment after the commit of that number was begun."""
    commits = itertools.count(1)

    def kill() -> None:
        os.killpg(os.getpid(), signal.SIGKILL)

    def look(_connection: object) -> None:
        if next(commits) == number:
            if seconds <= 0:
                kill()
            threading.Timer(seconds, kill).start()

    sa.event.listen(sa.Engine, "commit", look)


async def work(job: Job) -> None:
    """Drive and tell the world how it went."""
    try:
        said = await drive(job)
    except BaseException as error:
        said = {"error": type(error).__name__, "text": traceback.format_exc()}
    await tell(job.world, "result", "", pid=os.getpid(), **said)


def child(line: str) -> None:
    """The life of a worker after the fork."""
    global WORLD, IDEMPOTENT
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    job = Job(**json.loads(line))
    WORLD, IDEMPOTENT = job.world, job.idempotent
    LATENCY.seed(job.latency_seed)
    if job.die_in_commit:
        die_in_commit(job.die_in_commit, job.die_after)
    asyncio.run(work(job))


def nursery() -> None:
    """Fork a child per line; tell its pid, and how it ended."""
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                child(line)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                with contextlib.suppress(OSError):
                    sys.stderr.flush()
                os._exit(code)
        print(json.dumps({"pid": pid}), flush=True)
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"ended": os.waitstatus_to_exitcode(status)}), flush=True)


if __name__ == "__main__":
    # as the module that pickles, hashes and names know, not as __main__
    from tests.chaos import worker

    print(json.dumps({"ready": True}), flush=True)
    worker.nursery()
