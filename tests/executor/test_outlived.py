"""A task that a node leaves behind: what outlives its attempt gets nothing of a backend."""

from __future__ import annotations

import asyncio
from typing import Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from longthought import Context, Store, Workflow
from longthought.budgets import BranchState, Controller
from longthought.orchestrator.models.scripted import ScriptedModel
from longthought.orchestrator.recorded import Recorded
from longthought.orchestrator.seats import Seats


class State(TypedDict, total=False):
    question: str
    answer: str


async def test_a_task_that_outlives_its_run_leaves_nothing_behind(sqlite_store: Store) -> None:
    over, left = asyncio.Event(), []

    async def think(state: State, runtime: Runtime[Context]) -> dict[str, Any]:
        async def late() -> None:
            await over.wait()
            with runtime.context.label("late"):
                await runtime.context.model("more")

        left.append(asyncio.create_task(late()))
        return {"answer": "1"}

    graph = StateGraph(State, context_schema=Context)
    graph.add_node("think", think)
    graph.add_edge(START, "think")
    graph.add_edge("think", END)
    model = ScriptedModel(lambda _: "1")
    workflow = Workflow("own", graph=graph, model=model, store=sqlite_store)
    assert (await workflow.run("1?")).status == "completed"
    over.set()
    with pytest.raises(RuntimeError, match="is over"):
        await left[0]
    assert not workflow._shared_controller().view()["branches"]


async def test_a_seat_of_an_attempt_that_is_over_takes_no_lease() -> None:
    controller = Controller()
    controller.backend("m", 1, capacity=10_000)
    seats = Seats(controller, "run", Recorded())
    seat = seats.at("/think")
    seats.release()
    assert seat.slot.state is BranchState.DONE
    with pytest.raises(ValueError, match="cannot generate"):
        async with controller.permit("m", seat.slot, context=3000):
            pass
    assert controller.view()["backends"]["m"]["leases"] == 0
