"""Cut a recording after any event: resume finishes it, and performs nothing twice."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from longthought import Budget, Store, Workflow, strategies, verifiers
from longthought.errors import BackendError
from longthought.orchestrator.models.scripted import ScriptedModel, call, rng, says
from longthought.types import Candidate
from tests.executor.copies import copy_prefix
from tests.executor.workflows import jitter, looking, turns_of, two_lookups


def guess(request: Any) -> str:
    return f"The answer is {rng(request).randint(1, 6)}"


def stepping(request: Any) -> str:
    """Steps of thought, each a line that its stop string ends; some go wrong, the third answers."""
    roll = rng(request).random()
    said = sum(str(message["content"]).count("step ") for message in request["messages"])
    if roll < 0.4:
        return "wrong turn\nand more"
    return f"The answer is {said}" if said >= 2 else f"step {said}\nand more"


def no_wrong_turn(candidate: Candidate) -> bool:
    return "wrong" not in candidate.text


def is_six(question: str, answer: str | None) -> bool:
    return answer == "6"


def breaks_some(request: Any, attempt: int) -> Exception | None:
    broken = request["sampling"]["seed"] % 3 == 1 and turns_of(request) == 1
    return BackendError("broken") if broken else None


def many_calls(request: Any) -> Any:
    """Two tool calls side by side, then a wrong and an unknown one, then the answer."""
    match turns_of(request):
        case 0:
            return says("both", call("lookup", name="a"), call("lookup", name="bb"))
        case 1:
            return says("oh", call("lookup", nome="a"), call("nothing", x=1))
    return guess(request)


def thinking(request: Any) -> Any:
    """A thought that is cut, a tool call then asked for; another one, and the answer."""
    turn, last = turns_of(request), request["messages"][-1]
    if last["role"] == "user" and "enough thinking" in last["content"]:
        return says(None, call("lookup", name="a")) if turn < 3 else guess(request)
    return says("never", reasoning="well " * 20)


def workflows(store: Store) -> dict[str, Workflow]:
    return {
        "majority": looking(store),
        "first pass": looking(
            store,
            script=guess,
            verifier=verifiers.callable(is_six),
            strategy=strategies.best_of(8, wave=4),
        ),
        "backtracking": looking(
            store,
            script=stepping,
            tools=[],
            verifier=verifiers.callable(no_wrong_turn, partial=True),
            strategy=strategies.backtrack(width=2, depth=6, steps=30, restarts=1),
        ),
        "failures": looking(
            store, model=ScriptedModel(two_lookups, faults=breaks_some, latency=jitter)
        ),
        "out of tokens": looking(store, budget=Budget(tokens=900), strategy=strategies.sample(6)),
        "told what is left": looking(
            store,
            budget=Budget(tokens=1_500, tool_calls=20),
            tell_left=(0.1, 0.3, 0.6),
        ),
        "thoughts cut": looking(
            store,
            script=thinking,
            sampling={"thinking_tokens": 5},
            strategy=strategies.sample(2),
        ),
        "tool calls": looking(store, script=many_calls, strategy=strategies.sample(2)),
    }


async def test_the_search_that_is_cut_turns_back(sqlite_store: Store) -> None:
    run = await workflows(sqlite_store)["backtracking"].run("q", seed=3, run_key=b"k" * 16)
    recording = await sqlite_store.read(run.id)
    results = [recording.get(e.body["result"]) for e in recording.events if "result" in e.body]
    verdicts = [result["passed"] for result in results if "passed" in result]
    assert run.status == "completed"
    assert False in verdicts[1:-1]
    assert verdicts[-1] is True


NAMES = [
    "majority", "first pass", "backtracking", "failures", "out of tokens", "tool calls",
    "told what is left", "thoughts cut",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
async def test_resume_from_any_prefix(sqlite_store: Store, name: str) -> None:
    store = sqlite_store
    whole = await workflows(store)[name].run("q", seed=3, run_key=b"k" * 16)
    recording = await store.read(whole.id)
    assert whole.status in ("completed", "incomplete")
    for length in range(2, recording.length):
        workflow = workflows(store)[name]
        copied = await copy_prefix(store, recording, length)
        result = await workflow.resume(copied, force=True)
        where = f"{name}, cut after event {length}: {recording.events[length - 1]}"
        assert result.status in ("completed", "incomplete"), (where, result)
        after = await store.read(copied)
        finished = Counter(e.key for e in after.events if e.type == "effect_finished")
        assert max(finished.values()) == 1, where
        before = {e.key: e.body["result"] for e in recording.events[:length] if "result" in e.body}
        for event in after.events:
            if event.key in before and "result" in event.body:
                assert event.body["result"] == before[event.key], where
        limit = workflow.definition.budget.tokens
        assert limit is None or result.spent["tokens"] <= limit, where
        again = await workflow.replay(copied)
        assert (again.answer, again.status) == (result.answer, result.status), where
        assert (again.model_calls, again.tool_calls) == (0, 0), where
        controller = workflow._shared_controller()
        assert controller.view()["branches"] == {}, where
        assert controller.in_use(workflow.definition.models[0].name) == 0, where
