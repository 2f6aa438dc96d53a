"""A process to be killed while a tool runs that was started early: it says so and waits for ever.

``python -m tests.executor.early_worker URL DIRECTORY RUN`` asks the server at URL.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from longthought import Store, Workflow, answers
from longthought.orchestrator.models.openai import OpenAIModel
from longthought.tools import tool

__all__ = ["build"]


def build(url: str, started: Callable[[], asyncio.Future[None] | None]) -> Workflow:
    """One turn with a tool call, whose tool waits for what ``started`` returns."""

    @tool(effect="read")
    async def add(a: int, b: int) -> int:
        """Add two numbers."""
        wait = started()
        if wait is not None:
            await wait
        return a + b

    model = OpenAIModel("toy", base_url=url, api_key="any")
    return Workflow("early", model=model, tools=[add], answer=answers.number())


async def main(url: str, directory: str, run: str) -> None:
    """Run until killed."""

    def started() -> asyncio.Future[None]:
        print("started", flush=True)
        return asyncio.get_running_loop().create_future()

    async with Store(directory=Path(directory)) as store:
        await build(url, started).recorded_in(store).run("Add up.", run_id=run)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
