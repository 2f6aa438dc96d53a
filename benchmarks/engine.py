"""What the embedded engine computes: tokens per CPU second in a batch, and what its cache saves.

The rival is the same engine without a prefix cache, one reply at a time: what a plain loop does.
"""

from __future__ import annotations

import asyncio
import time

from benchmarks.results import arguments, report
from longthought.orchestrator.models.embedded import EmbeddedModel, held_out
from longthought.orchestrator.models.embedded.drawing import draw_replies, reply_with_tool
from longthought.orchestrator.models.embedded.words import apply
from longthought.orchestrator.models.embedded.words import held_out as held_out_problems
from longthought.types import Sampling

__all__ = ["batching", "measure", "sharing", "tool_waits"]

_BATCHES = (1, 16, 64)


def _questions(name: str, count: int) -> list[str]:
    drawn = held_out_problems(count) if name == "words" else held_out(count)
    return [str(one) for one in drawn]


async def batching(name: str, slots: int, samples: int) -> float:
    """Tokens drawn in a second of processor time, with so many replies decoded together."""
    model = EmbeddedModel(name, slots=slots)
    questions = _questions(name, min(300, max(1, samples // slots)))
    await draw_replies(model, questions[:1], 1)  # loading does not count
    begin = time.process_time()
    drawn = await draw_replies(model, questions, slots)
    seconds = time.process_time() - begin
    await model.aclose()
    return sum(reply.tokens for row in drawn for reply in row) / seconds


async def sharing(name: str, samples: int, cache_bytes: int) -> int:
    """Positions that went through the network for the samples of one question."""
    model = EmbeddedModel(name, slots=samples, cache_bytes=cache_bytes)
    await draw_replies(model, _questions(name, 1), samples)
    await model.aclose()
    return model.counters.positions


def _calculate(expression: str) -> str:
    left, operator, right = expression.split()
    return str(apply(int(left), operator, int(right)))


async def tool_waits(cache_bytes: int, problems: int) -> float:
    """Positions for each problem that is answered with a calculator, its rows kept or not."""
    model = EmbeddedModel("words", cache_bytes=cache_bytes)
    for question in _questions("words", problems):
        await reply_with_tool(model, question, _calculate, Sampling(temperature=0.0))
    await model.aclose()
    return model.counters.positions / problems


async def measure(quick: bool) -> dict[str, float]:
    """All figures."""
    samples, problems = (64, 6) if quick else (512, 60)
    figures: dict[str, float] = {}
    for name in ("puzzle-large", "words"):
        rates = {slots: await batching(name, slots, samples) for slots in _BATCHES}
        figures |= {f"{name}_tokens_per_cpu_second_{n}": rate for n, rate in rates.items()}
        figures[f"{name}_batch_64_over_1"] = rates[64] / rates[1]
    kept, lost = await sharing("words", 16, 16 * 2**20), await sharing("words", 16, 0)
    figures |= {"positions_16_samples": kept, "positions_16_samples_ratio": kept / lost}
    waits = await tool_waits(16 * 2**20, problems), await tool_waits(0, problems)
    figures |= {"positions_with_tool": waits[0], "positions_with_tool_ratio": waits[0] / waits[1]}
    return figures


def main() -> None:
    """Measure and report."""
    options = arguments(__doc__ or "")
    report("engine", asyncio.run(measure(options.quick)), options)


if __name__ == "__main__":
    main()
