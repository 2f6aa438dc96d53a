"""Replay, resume and what happens when the workflow has changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from longthought import Store, answers, strategies
from longthought.errors import Diverged
from longthought.orchestrator.models.scripted import ScriptedModel, call, says
from longthought.tools import tool
from tests.executor.workflows import looking, lookup, two_lookups

QUESTION = "How much is 6 * 7?"


async def test_replay_comes_to_the_same_end_and_calls_nothing(store: Store) -> None:
    workflow = looking(store)
    first = await workflow.run(QUESTION)
    model = workflow.definition.models[0]
    assert isinstance(model, ScriptedModel)
    calls = model.calls
    again = await workflow.replay(first.id)
    assert model.calls == calls
    assert (again.model_calls, again.tool_calls) == (0, 0)
    assert (again.answer, again.text, again.support) == (first.answer, first.text, first.support)
    assert again.effects == first.effects == 4 * 5
    assert again.spent["tokens"] == first.spent["tokens"]


async def test_resume_of_an_ended_run_is_a_replay(store: Store) -> None:
    workflow = looking(store)
    first = await workflow.run(QUESTION)
    again = await workflow.resume(first.id)
    assert again.answer == first.answer
    assert again.model_calls == 0


def _answers_otherwise(request: Any) -> Any:
    return says("looking elsewhere", call("lookup", name="other"))


@tool(effect="read", name="lookup")
async def changed_lookup(name: str) -> int:
    """Look a number up, in another way.

    Args:
        name: which one.
    """
    return len(name) + 1


CHANGES = {
    "prompt": {"system": "Be brief."},
    "tool": {"tools": [changed_lookup]},
    "strategy": {"strategy": strategies.sample(3)},
    "stopper": {"strategy": strategies.sample(4, stop=strategies.first_pass(), wave=2)},
    "selector": {"strategy": strategies.sample(4, select=strategies.best())},
    "temperature": {"sampling": {"temperature": 0.3}},
    "answer": {"answer": answers.choice("AB")},
    "model": {"model": ScriptedModel(two_lookups, name="another")},
}


@pytest.mark.parametrize("change", CHANGES, ids=list(CHANGES))
async def test_a_changed_workflow_diverges_and_says_where(store: Store, change: str) -> None:
    first = await looking(store).run(QUESTION)
    changed = looking(store, **CHANGES[change])
    if change == "selector" and first.support["votes"].get(first.answer, 0) == 4:
        assert (await changed.replay(first.id)).answer == first.answer
        return
    with pytest.raises(Diverged) as caught:
        await changed.replay(first.id)
    assert caught.value.key
    assert "recorded" in caught.value.difference


async def test_the_difference_names_the_field(store: Store) -> None:
    first = await looking(store).run(QUESTION)
    with pytest.raises(Diverged, match=r"messages\[0\].*system") as caught:
        await looking(store, system="Be brief.").replay(first.id)
    assert caught.value.key.endswith("/1.reason#0:model")


async def test_a_changed_seed_diverges(store: Store) -> None:
    first = await looking(store).run(QUESTION, seed=1)
    workflow = looking(store)
    workflow.definition = replace(workflow.definition, strategy=_Shifted())
    with pytest.raises(Diverged, match="seed"):
        await workflow.replay(first.id)


class _Shifted(type(strategies.sample(4))):  # type: ignore[misc]
    """The same strategy with other seeds."""

    def __init__(self) -> None:
        plain = strategies.sample(4)
        super().__init__(plain.n, plain.wave, plain.stopper, plain.selector)

    def start(self, question: str, seed: int) -> Any:
        return super().start(question, seed + 100)


async def test_lookup_is_still_a_function() -> None:
    assert await lookup("abc") == 3
