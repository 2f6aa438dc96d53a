"""Solve a few puzzles and print what each answer rests on. Runs offline.

python examples/puzzles.py
"""

import asyncio

from longthought import Budget, Store, Workflow, answers, strategies, verifiers
from longthought.orchestrator.traces import explain

QUESTIONS = ["4 7 8 8 -> 24", "2 5 9 11 -> 24", "1 4 6 6 -> 24"]


async def main() -> None:
    async with Store() as store:
        workflow = Workflow(
            "example",
            model="embedded",
            answer=answers.puzzle(),
            verifier=verifiers.puzzle(integers=True),
            strategy=strategies.best_of(16, wave=4),
            budget=Budget(tokens=8_000),
            store=store,
        )
        for run in await asyncio.gather(*map(workflow.run, QUESTIONS)):
            why = explain(await store.read(run.id))
            print(f"{run.answer}: {run.status}, {why.basis}, {run.spent['tokens']} tokens")
        await workflow.aclose()


if __name__ == "__main__":
    asyncio.run(main())
