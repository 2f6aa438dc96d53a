"""Small transformers whose weights are in the package: a demonstration that needs no network.

They solve make-a-target puzzles by thinking; a brute-force program solves every one of them. What
is real is the inference: decoding, sampling, a key-value cache, failures for a verifier to catch.
"""

from __future__ import annotations

from .conversation import trace_text
from .model import EmbeddedModel
from .network import Network
from .puzzles import Puzzle, held_out
from .questions import parse_question
from .random_play import random_chance, random_play
from .traces import Judgement, judge

__all__ = [
    "EmbeddedModel",
    "Judgement",
    "Network",
    "Puzzle",
    "held_out",
    "judge",
    "parse_question",
    "random_chance",
    "random_play",
    "trace_text",
]
