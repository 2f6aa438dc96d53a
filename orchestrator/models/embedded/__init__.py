"""Small transformers whose weights are in the package: a demonstration that needs no network.

Each was made for one task, such as make-a-target puzzles, which a brute-force program solves, every
one of them. What is real is the inference: decoding, sampling, a key-value cache that survives a
tool call, failures for a verifier to catch.
"""

from __future__ import annotations

from .catalogue import MODELS
from .conversation import trace_text
from .model import EmbeddedModel
from .network import Network
from .puzzles import Judgement, Puzzle, held_out, judge, parse_question, random_chance, random_play
from .questions import task_of

__all__ = [
    "MODELS",
    "EmbeddedModel",
    "Judgement",
    "Network",
    "Puzzle",
    "held_out",
    "judge",
    "parse_question",
    "random_chance",
    "random_play",
    "task_of",
    "trace_text",
]
