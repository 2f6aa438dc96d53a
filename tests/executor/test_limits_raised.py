"""A run that its budget ended goes on when the budget is raised."""

from __future__ import annotations

from typing import Any

import pytest

from longthought import Budget, Store, strategies
from longthought.errors import InvalidInput
from longthought.orchestrator.strategies import Policy
from tests.executor.workflows import looking

POLICIES: dict[str, Policy] = {
    "single": strategies.single(),
    "majority": strategies.sample(6),
    "waves": strategies.sample(6, wave=2, stop=strategies.beta(0.999)),
    "backtrack": strategies.backtrack(width=2, depth=2),
}


def plain(request: Any) -> str:
    return "thinking " * 20 + "The answer is 7"


@pytest.mark.parametrize("name", list(POLICIES))
@pytest.mark.parametrize("tokens", [60, 150, 260])
async def test_it_goes_on_and_keeps_what_it_had(store: Store, name: str, tokens: int) -> None:
    def workflow(limit: int) -> Any:
        return looking(
            store,
            script=plain,
            tools=[],
            strategy=POLICIES[name],
            budget=Budget(tokens=limit, final_answer=0),
        )

    whole = await workflow(10_000).run("q")
    first = await workflow(tokens).run("q")
    assert first.spent["tokens"] <= tokens
    if first.status == "completed":
        assert whole.spent["tokens"] <= tokens
        return
    assert (first.status, first.stop_reason) == ("incomplete", "tokens")
    assert (await workflow(tokens).replay(first.id)).status == "incomplete"
    more = await workflow(tokens).resume(first.id, budget=Budget(tokens=10_000, final_answer=0))
    assert (more.status, more.answer) == ("completed", whole.answer)
    assert more.spent["tokens"] >= first.spent["tokens"]
    again = await workflow(tokens).replay(first.id)
    assert (again.status, again.answer, again.model_calls) == ("completed", more.answer, 0)


async def test_a_limit_is_never_lowered(sqlite_store: Store) -> None:
    workflow = looking(sqlite_store, budget=Budget(tokens=50))
    assert workflow.store is sqlite_store
    first = await workflow.run("q")
    with pytest.raises(InvalidInput, match="lower"):
        await workflow.resume(first.id, budget=Budget(tokens=40))
    assert (await sqlite_store.row(first.id)).status == "incomplete"
