"""The run that is killed: ``python -m tests.engines.worker URL STORE RUN``.

Says so when a reply is on its way after another one has ended, and goes on until it is killed.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from longthought import Budget, Store, Workflow, strategies
from longthought.orchestrator.models import OpenAIModel
from longthought.types import Delta, Grant, JSONObject, ModelReply, ModelRequest

__all__ = ["NEVER_ENDS", "Calling", "workflow"]

NEVER_ENDS: JSONObject = {"logit_bias": {"258": -100}}
"""The end mark is never drawn: only the maximum, or a stop string, ends a reply."""


class Calling:
    """A model that is told something more whenever it has tools."""

    def __init__(self, inner: OpenAIModel, told: JSONObject) -> None:
        self.inner, self.told = inner, told
        self.name, self.slots, self.capabilities = inner.name, inner.slots, inner.capabilities

    async def generate(
        self, request: ModelRequest, grant: Grant, emit: Callable[[Delta], None] | None = None
    ) -> ModelReply:
        if request.get("tools"):
            request = {**request, "provider": self.told}
        return await self.inner.generate(request, grant, emit)

    def count_prompt(self, request: ModelRequest) -> int | None:
        return self.inner.count_prompt(request)

    def fingerprint(self) -> JSONObject:
        return self.inner.fingerprint()

    async def aclose(self) -> None:
        await self.inner.aclose()


def workflow(url: str, store: Store | str) -> Workflow:
    """Six samples, two at a time, each of as many tokens as it may have."""
    model = OpenAIModel("tiny", base_url=url, slots=2, extra_body=NEVER_ENDS)
    return Workflow(
        "killed",
        model=model,
        strategy=strategies.sample(6, wave=2),
        budget=Budget(tokens=20_000),
        max_output_tokens=600,
        store=store,
    )


async def main(url: str, store: str, run: str) -> None:
    """Run until somebody kills this process."""
    ended = deltas = 0
    async for item in workflow(url, store).stream("Never end.", run_id=run):
        event: Any = item["event"]
        ended += event == "branch_ended"
        if ended >= 2 and event == "delta":
            deltas += 1
            if deltas == 20:
                print("in mid-stream", flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
