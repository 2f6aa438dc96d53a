"""Where a step of thought ends, for searches that go step by step."""

from __future__ import annotations

__all__ = ["step_stop"]

_LINE = ("\n",)
_PUZZLE = (";", "BACK")


def step_stop(model: str, verifier: str | None) -> tuple[str, ...]:
    """Stop strings after which a step can be judged, from the kinds of model and verifier.

    A step is a line. On puzzles the embedded model writes ``;`` between its steps, and BACK where
    it gives up: then the search goes back for it.
    """
    return _PUZZLE if (model, verifier) == ("embedded", "puzzle") else _LINE
