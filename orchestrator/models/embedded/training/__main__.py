"""``python -m longthought.orchestrator.models.embedded.training``: train a model again."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from longthought.errors import MissingExtra

from .run import PLANS, reference, save, train


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: list[str] | None = None) -> int:
    """Train, save the weights, and on request the reference logits. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="longthought.orchestrator.models.embedded.training")
    parser.add_argument("--model", choices=sorted(PLANS), required=True)
    parser.add_argument("--out", type=Path, required=True, help="weights file to write (.npz)")
    parser.add_argument("--reference", type=Path, help="also save logits for the tests (.npz)")
    parser.add_argument("--steps", type=int, help="stop after fewer steps (a trial run)")
    options = parser.parse_args(arguments)
    plan = PLANS[options.model]
    if options.steps:
        plan = dataclasses.replace(plan, steps=options.steps)
    try:
        parameters = train(plan, _say)
    except MissingExtra as error:
        _say(str(error))
        return error.exit_code
    save(plan, parameters, options.out)
    if options.reference:
        reference(plan, parameters, options.reference)
    return 0


if __name__ == "__main__":
    sys.exit(main())
