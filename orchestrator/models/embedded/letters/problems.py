"""Letter counting: the questions, and which words are kept out of training.

A hash of the word reserves half of all words there are, real or not. What is asked at test time is
drawn from real English words that the hash reserves; training sees no word that it does.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import random
from dataclasses import dataclass

from longthought.errors import InvalidInput

from .wordlist import WORDS

__all__ = ["ALPHABET", "LONGEST", "Problem", "held_out", "held_out_words", "is_reserved"]

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
LONGEST = 16
"""The most letters a word may have."""

# The label is chosen so that "strawberry", which everybody asks first, is among the reserved words.
_LABEL = "letters held out: "
_MANY = 4  # counts from here on are drawn together
_DRAWN = tuple(count for count, times in enumerate((4, 5, 6, 4, 1)) for _ in range(times))


@dataclass(frozen=True, slots=True)
class Problem:
    """How often does ``letter`` occur in ``word``? Both in small letters."""

    word: str
    letter: str

    @property
    def answer(self) -> int:
        """The one right answer."""
        return self.word.count(self.letter)

    def __str__(self) -> str:
        return f"How many {self.letter}'s are in {self.word}?"


def is_reserved(word: str) -> bool:
    """Whether a word (in small letters) is kept out of training."""
    digest = hashlib.sha256((_LABEL + word).encode()).digest()
    return int.from_bytes(digest[:4], "big") % 2 == 0


@functools.cache
def held_out_words() -> tuple[str, ...]:
    """The real words that no training run has seen."""
    return tuple(word for word in WORDS if is_reserved(word))


def held_out(count: int = 200, seed: int = 0) -> list[Problem]:
    """``count`` different problems with real words that no training run has seen.

    Of twenty, four have the answer 0, five 1, six 2, four 3, and one 4 or more.

    Raises:
        InvalidInput: there are not so many with frequent letters.
    """
    draw = random.Random(seed)
    pools: list[list[Problem]] = [[] for _ in range(_MANY + 1)]
    for word, letter in itertools.product(held_out_words(), ALPHABET):
        problem = Problem(word, letter)
        pools[min(problem.answer, _MANY)].append(problem)
    for pool in pools:
        draw.shuffle(pool)
    order = list(itertools.islice(itertools.cycle(draw.sample(_DRAWN, len(_DRAWN))), count))
    short = [answer for answer, pool in enumerate(pools) if order.count(answer) > len(pool)]
    if short:
        raise InvalidInput("count", f"there are no {count} problems of this kind", "Ask for fewer")
    return [pools[answer].pop() for answer in order]
