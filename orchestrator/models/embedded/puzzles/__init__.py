"""Make-a-target puzzles: the first task of the embedded model."""

from __future__ import annotations

from .problems import Puzzle, State, held_out
from .questions import Question, parse_question
from .random_play import random_chance, random_play
from .task import PuzzleTask
from .traces import Judgement, judge

__all__ = [
    "Judgement",
    "Puzzle",
    "PuzzleTask",
    "Question",
    "State",
    "held_out",
    "judge",
    "parse_question",
    "random_chance",
    "random_play",
]
