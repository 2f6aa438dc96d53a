"""The process that is killed: it measures a curve and tells of every model call before it is made.

``python -m tests.curves.drawer FOLDER``. What it has written to its standard output is known even
if it is killed in the next instant: a pipe outlives its writer.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

from longthought import Store
from longthought.orchestrator.curves import Curve, measure
from longthought.orchestrator.models import ScriptedModel, rng
from longthought.types import ModelRequest
from tests.curves.scripted import asked, questions, setup

QUESTIONS = 10
SAMPLES = 6


def script(request: ModelRequest) -> str:
    """Right about half of the time."""
    greedy = " greedy" if "temperature" in request["sampling"] else ""
    os.write(1, f"{asked(request)} {request['sampling']['seed']}{greedy}\n".encode())
    return str(rng(request).choice([7, 7, 8]))


def pause(request: ModelRequest) -> float:
    return random.SystemRandom().uniform(0, 0.004)


async def draw(folder: Path) -> Curve:
    """Ten questions of six samples, and one greedy answer of each."""
    chosen = ScriptedModel(script, slots=4, latency=pause)
    asked_of = questions({f"question {number}?": "7" for number in range(QUESTIONS)})
    async with Store(directory=folder) as store:
        return await measure(
            asked_of,
            setup(chosen),
            store,
            strategies=("majority", "beta:0.8:2", "greedy"),
            samples=SAMPLES,
        )


if __name__ == "__main__":
    from tests.curves import drawer  # as the module that names and fingerprints know

    asyncio.run(drawer.draw(Path(sys.argv[1])))
