"""What a task of the embedded model is: a kind of question, and a language to think about it in.

Engine, conversation and reply know nothing of puzzles or words: they ask the task for the tokens of
a question, for the text of a token, and for where a reply ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

__all__ = ["Asked", "Language", "Mode", "Renderer", "Task"]

Mode: TypeAlias = Literal["chain", "tool", "direct", "value"]
"""How a question is answered: by a chain of thought, by one with tool calls, at once, or (puzzles
alone) by a judgement of whether it can be answered at all."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that a task has understood. ``problem`` is the task's own; ``modes`` are those in
    which it can be answered, the usual one first.
    """

    task: Task
    problem: object
    modes: tuple[Mode, ...] = ("chain",)


class Renderer(Protocol):
    """Writes tokens as text, one at a time; what was fed before decides spaces and order."""

    def fresh(self) -> None:
        """The next piece starts a text of its own: no white space before it."""
        ...

    def feed(self, token: int) -> str:
        """The text this token adds; may be empty while a number is still being written."""
        ...

    def settle(self) -> str:
        """The text that :meth:`feed` still holds back: the number ends here, whatever follows.

        Called where a tool call ends the text, and where a text is continued: there the number
        stands already, and must not be written again. A digit fed next begins a number of its own.
        """
        ...


@dataclass(frozen=True, slots=True)
class Language:
    """The tokens of a task and their text.

    ``renderer`` makes a fresh writer of text. ``word_of`` is one token as a word, without
    decoration, as it stands beside its log-probability. ``encode`` gives the tokens of a text that
    the model wrote, decoration skipped; it raises ``InvalidInput`` for a word it does not know.
    """

    renderer: Callable[[], Renderer]
    word_of: Callable[[int], str]
    encode: Callable[[str], list[int]]


class Task(Protocol):
    """One task. Holds no state, so threads and models may share it.

    ``name`` is one word, said of what it answers: "puzzles". ``call`` is the token that ends a
    reply with a call of the tool "calculator" (-1 if the task has none).
    """

    name: str
    call: int
    language: Language

    def ask(self, text: str) -> Asked | None:
        """The question in a user's message, or None if it is not of this kind.

        Raises:
            QuestionRefused: it is of this kind, but outside what the task was made for. What may
                be asked is added to the message (:meth:`can`).
        """
        ...

    def can(self) -> str:
        """What may be asked, as one clause with an example, for the message of a refusal."""
        ...

    def head(self, asked: Asked, mode: Mode) -> list[int]:
        """The tokens of the question, up to where the reply begins."""
        ...

    def ends(self, mode: Mode, token: int) -> bool:
        """Whether a reply is over with this token (a tool call apart)."""
        ...

    def finished(self, token: int) -> bool:
        """Whether nothing can follow this token: a sequence that ends with it is never resumed."""
        ...

    def between(self, continued: str) -> str | None:
        """What a stop string took off the end of a text that is now continued.

        Returned is the text that stands between the two, besides the usual space; None when the
        two fit together as they are and no space is wanted.
        """
        ...

    def expression(self, tokens: list[int]) -> str | None:
        """The expression of a call, from the tokens that end with it; None if none stands there."""
        ...

    def returned(self, result: str) -> list[int] | None:
        """The tokens of a tool's result, or None if the task has no tokens for it."""
        ...

    def unusable(self, result: str) -> str:
        """What is said of a result that :meth:`returned` has no tokens for."""
        ...
