"""A graph of your own: two strategies one after the other, the cheap one first. Runs offline.

python examples/graph.py
"""

import asyncio
from typing import Any, Literal, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from longthought import Context, Workflow, answers, strategies, verifiers


class State(TypedDict, total=False):
    answer: str | None
    passed: bool
    tried: list[str]


async def quick(state: State, runtime: Runtime[Context]) -> dict[str, Any]:
    found = await runtime.context.explore(strategies.single(temperature=0.0))
    passed = found.verdict is not None and found.verdict.passed is True
    return {"answer": found.answer, "passed": passed, "tried": ["quick"]}


async def thorough(state: State, runtime: Runtime[Context]) -> dict[str, Any]:
    found = await runtime.context.explore(strategies.best_of(16, wave=4))
    return {"answer": found.answer, "tried": [*state["tried"], "thorough"]}


def enough(state: State) -> Literal["thorough", "__end__"]:
    return "__end__" if state["passed"] else "thorough"


graph = StateGraph(State, context_schema=Context)
graph.add_node("quick", quick)
graph.add_node("thorough", thorough)
graph.add_edge(START, "quick")
graph.add_conditional_edges("quick", enough, ["thorough", END])
graph.add_edge("thorough", END)

workflow = Workflow(
    "cheap-first",
    graph=graph,
    model="embedded",
    answer=answers.puzzle(),
    verifier=verifiers.puzzle(integers=True),
    source="examples.graph:workflow",
)


async def main() -> None:
    for question in ("4 7 8 8 -> 24", "2 5 9 11 -> 24"):
        run = await workflow.run(question)
        print(question, run.answer, run.state["tried"])
    await workflow.aclose()


if __name__ == "__main__":
    asyncio.run(main())
