"""The training generator of letter counting: made-up words, spelled with a running count.

One segment is a question with two branches: the word spelled letter by letter, and the answer at
once. No word comes from a list, a reserved one is drawn again. Nothing is written wrong on purpose.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from longthought.orchestrator.models.embedded.letters import problems as p
from longthought.orchestrator.models.embedded.letters import vocabulary as v
from longthought.orchestrator.models.embedded.training.packing import Segment

__all__ = ["random_word", "segments"]

_VOWELS = (*"aeiouaeioe", "ai", "ea", "ee", "oo", "ou", "y")
_ONSETS = (*"bcdfghjklmnprstvwz", "bl", "ch", "cr", "gr", "kn", "pl", "qu", "sh", "st", "th", "tr")
_CODAS = (*"dglmnrstxy", "ck", "ll", "ng", "nt", "ss", "st", "tt", "", "", "", "", "")
_OCCURS_SHARE = 0.85  # of the letters asked; the others are any letter


def random_word(draw: random.Random) -> str:
    """A made-up word of 1 to 16 letters that is not reserved.

    A third each are pronounceable, of any letters, and of few different ones; a third of all has
    letters doubled and tripled.
    """
    while True:
        length = draw.randint(1, p.LONGEST)
        word = draw.choice((_spoken, _any, _few))(draw, length)
        if draw.random() < 1 / 3:
            word = "".join(letter * draw.choice((1, 1, 1, 2, 2, 3)) for letter in word)[:length]
        if not p.is_reserved(word):
            return word


def _spoken(draw: random.Random, length: int) -> str:
    word = ""
    while len(word) < length:
        word += draw.choice(_ONSETS) + draw.choice(_VOWELS) + draw.choice(_CODAS)
    start = draw.randint(0, len(word) - length)  # it may begin in the middle of a syllable
    return word[start : start + length]


def _any(draw: random.Random, length: int) -> str:
    return "".join(draw.choices(p.ALPHABET, k=length))


def _few(draw: random.Random, length: int) -> str:
    return "".join(draw.choices(draw.sample(p.ALPHABET, draw.randint(2, 5)), k=length))


def _problem(draw: random.Random) -> p.Problem:
    word = random_word(draw)
    occurs = draw.random() < _OCCURS_SHARE
    return p.Problem(word, draw.choice(word if occurs else p.ALPHABET))


def _answer(into: Segment, number: int) -> Segment:
    into.add([v.ANSWER, v.count_of(number), v.END], True)
    return into


def _chain(problem: p.Problem) -> Segment:
    made = Segment([v.MODE_CHAIN], [False])
    for place, letter in enumerate(problem.word, 1):
        hits = problem.word[:place].count(problem.letter)
        made.add([v.letter_of(letter), v.count_of(hits)], True)
    return _answer(made, problem.answer)


def segments(seed: int | str, progress: float = 0.0) -> Iterator[Segment]:
    """An endless stream of training examples, the same for the same seed.

    They do not change with the ``progress`` of the training.
    """
    del progress
    draw = random.Random(seed)
    while True:
        problem = _problem(draw)
        prompt = v.prompt(problem.letter, problem.word)
        at_once = _answer(Segment([v.MODE_DIRECT], [False]), problem.answer)
        yield Segment(prompt, [False] * len(prompt), [_chain(problem), at_once])
