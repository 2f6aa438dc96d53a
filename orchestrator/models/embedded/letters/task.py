"""Letter counting as a task: how it is asked, thought about, continued and ended."""

from __future__ import annotations

from typing import cast

from longthought.orchestrator.models.embedded.tasks import Asked, Language, Mode

from . import vocabulary as v
from .problems import LONGEST, Problem
from .questions import parse_question

__all__ = ["LetterTask"]

_MODES: dict[Mode, int] = {"chain": v.MODE_CHAIN, "direct": v.MODE_DIRECT}


class LetterTask:
    """Count a letter in a word: by spelling it with a running count, or (``direct``) at once."""

    name = "letters"
    call = -1
    language = Language(v.Renderer, v.word_of, v.encode)

    def ask(self, text: str) -> Asked | None:
        """The question in a user's message (see :func:`parse_question`), or None if it is none.

        Raises:
            QuestionRefused: a question about letters that the model was not made for.
        """
        problem = parse_question(text)
        return None if problem is None else Asked(self, problem, ("chain", "direct"))

    def can(self) -> str:
        """What may be asked."""
        return (
            f"how often a letter occurs in a word of 1 to {LONGEST} letters from a to z, "
            'such as "How many r\'s are in strawberry?"'
        )

    def head(self, asked: Asked, mode: Mode) -> list[int]:
        """Letter, word and mode."""
        problem = cast("Problem", asked.problem)
        return [*v.prompt(problem.letter, problem.word), _MODES[mode]]

    def ends(self, mode: Mode, token: int) -> bool:
        """The full stop ends every reply."""
        del mode
        return token == v.END

    def finished(self, token: int) -> bool:
        """Nothing follows the full stop."""
        return token == v.END

    def between(self, continued: str) -> str | None:
        """A stop string took the comma off after a letter and its count."""
        if continued != continued.rstrip():
            return None
        return "," if v.ends_with_pair(continued) else ""

    def expression(self, tokens: list[int]) -> str | None:
        """None: no tool is called here."""
        del tokens
        return None

    def returned(self, result: str) -> list[int] | None:
        """None: no tool is called here."""
        del result
        return None

    def unusable(self, result: str) -> str:
        """What is said of the result of a tool."""
        return f"The result {result!r} could not be used: this model calls no tools."
