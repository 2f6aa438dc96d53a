"""Conversations of branches that wait for tools and generate, on the embedded engine.

Tokens are random, and everything is drawn from a seed, so every arm of a comparison plays the same.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from longthought.orchestrator.models.embedded.engine import Row
from longthought.orchestrator.models.embedded.network import Shape
from longthought.orchestrator.models.embedded.sampling import Draw, random_stream

__all__ = ["BRANCHES", "DRAWN", "LONG", "SHORT", "Conversation", "Workload"]

BRANCHES = 64
DRAWN, RESULT = (48, 80), (3, 9)
"""Tokens, uniform: of a generation, of a tool's result."""
TOOLS = {"search": 0.4, "tests": 1.0, "build": 1.6}
SPREAD = 0.15
"""Each tool's mean in mean waits, and the standard deviation of the logarithm of one wait."""
VOCABULARY = 126


@dataclass(frozen=True, slots=True)
class Workload:
    """How long conversations are: turns, and tokens of a question (uniform)."""

    turns: int
    question: tuple[int, int]

    @property
    def shape(self) -> Shape:
        """A network of the size of the word model, with room for the longest conversation."""
        longest = self.question[1] + self.turns * (DRAWN[1] + RESULT[1])
        return Shape(VOCABULARY, longest, width=96, layers=4, heads=3, rotary=True)

    @property
    def room(self) -> int:
        """Positions that the prefix cache holds: half of what all branches have when they wait.

        In the mean over the turns of a conversation; before its first one it has nothing.
        """
        step = (sum(DRAWN) + sum(RESULT)) / 2
        grown = [sum(self.question) / 2 + turn * step for turn in range(1, self.turns)]
        rows = sum(tokens - sum(RESULT) / 2 for tokens in grown) / self.turns
        return int(BRANCHES / 2 * rows)


LONG = Workload(turns=7, question=(250, 300))
"""To compute a context anew takes most of what its share of a full batch takes for a turn."""
SHORT = Workload(turns=3, question=(16, 32))
"""To compute one anew costs little."""


@dataclass(slots=True)
class Conversation:
    """A branch's tokens so far, its next tool wait and what it draws; all from a fixed seed."""

    branch: str
    rng: random.Random
    workload: Workload = LONG
    tokens: list[int] = field(default_factory=list)
    computed: int = 0
    turn: int = 0
    _tools: list[str] = field(default_factory=list)

    def wait(self) -> tuple[str, float]:
        """The next tool and how long it takes, in mean waits. Every third call is of each tool."""
        if not self._tools:
            self._tools = self.rng.sample(list(TOOLS), len(TOOLS))
        tool = self._tools.pop()
        return tool, TOOLS[tool] * self.rng.lognormvariate(-SPREAD * SPREAD / 2, SPREAD)

    def ask(self) -> Row:
        """The row of the next turn: the tool's result, or a question, is appended."""
        low, high = self.workload.question if self.turn == 0 else RESULT
        self._append(self.rng.randint(low, high))
        return self._row(self.rng.randint(*DRAWN))

    def grow_old(self) -> None:
        """Begin in the middle: some turns that nobody computed, and more likely in a long wait."""
        calls = self.rng.sample(list(TOOLS), len(TOOLS))
        (first,) = self.rng.choices(range(len(calls)), [TOOLS[tool] for tool in calls])
        self._tools = calls[: first + 1]  # the last is called first
        self.turn = self.rng.randrange(self.workload.turns)
        if self.turn:
            self._append(self.rng.randint(*self.workload.question))
        for _ in range(self.turn):
            self._append(self.rng.randint(*DRAWN))

    def answered(self) -> bool:
        """The turn has ended; whether the conversation has, too."""
        self.turn += 1
        self.computed = len(self.tokens) - 1  # the last token drawn is never computed
        if self.turn < self.workload.turns:
            return False
        self.turn, self.computed = 0, 0
        self.tokens = []
        return True

    def _append(self, count: int) -> None:
        self.tokens += self.rng.choices(range(VOCABULARY), k=count)

    def _row(self, limit: int) -> Row:
        last = self.turn == self.workload.turns - 1
        draw = Draw(stream=random_stream(self.rng.getrandbits(32), 0))
        return Row(list(self.tokens), draw, limit, lambda token: False, lambda: not last)
