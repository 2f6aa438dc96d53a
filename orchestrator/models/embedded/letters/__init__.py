"""Counting letters, by spelling the word: the third task of the embedded model."""

from __future__ import annotations

from .problems import Problem, held_out, is_reserved
from .questions import parse_question
from .task import LetterTask

__all__ = ["LetterTask", "Problem", "held_out", "is_reserved", "parse_question"]
