"""Training examples packed into rows of equal length, so that little is spent on padding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Rows", "Segment", "pack"]

_WAITING = 6  # segments in hand that fit nowhere before a row is closed


@dataclass(frozen=True, slots=True)
class Segment:
    """One example: its tokens, and for each whether the model is trained to predict it.

    ``branches`` are ways to go on after these tokens (an answer at once, a chain of thought). They
    do not see each other, so one prompt is computed once for all of them.
    """

    tokens: list[int]
    trained: list[bool]
    branches: list[Segment] = field(default_factory=list)

    def add(self, tokens: list[int], trained: bool) -> None:
        """Append tokens."""
        self.tokens.extend(tokens)
        self.trained.extend([trained] * len(tokens))

    def __len__(self) -> int:
        return len(self.tokens) + sum(len(branch) for branch in self.branches)


@dataclass(frozen=True, slots=True)
class Rows:
    """Packed rows, each array of shape (rows, length).

    ``segment`` numbers the segments of a row from 1 (0 is padding), ``position`` counts within one,
    ``branch`` is 0 on its common part and numbers its branches from 1.
    """

    tokens: NDArray[np.int64]
    trained: NDArray[np.bool_]
    segment: NDArray[np.int64]
    position: NDArray[np.int64]
    branch: NDArray[np.int64]

    def batch(self, start: int, stop: int) -> Rows:
        """Some of the rows."""
        part = slice(start, stop)
        return Rows(
            self.tokens[part],
            self.trained[part],
            self.segment[part],
            self.position[part],
            self.branch[part],
        )


def pack(stream: Iterator[Segment], count: int, length: int, padding: int) -> Rows:
    """``count`` rows of whole segments; what does not fit waits for a later row.

    Segments longer than a row are left out.
    """
    shape = (count, length)
    rows = Rows(
        np.full(shape, padding, np.int64),
        np.zeros(shape, np.bool_),
        np.zeros(shape, np.int64),
        np.zeros(shape, np.int64),
        np.zeros(shape, np.int64),
    )
    waiting: list[Segment] = []
    for row in range(count):
        used = number = 0
        while used < length:
            segment = _fitting(waiting, length - used)
            if segment is None:
                if len(waiting) > _WAITING:
                    break
                arrived = next(stream)
                if len(arrived) <= length:
                    waiting.append(arrived)
                continue
            number += 1
            rows.segment[row, used : used + len(segment)] = number
            _write(rows, row, used, 0, 0, segment)
            end = start = used + len(segment.tokens)
            for place, branch in enumerate(segment.branches, 1):
                _write(rows, row, end, start - used, place, branch)
                end += len(branch)
            used = end
    return rows


def _write(rows: Rows, row: int, at: int, position: int, branch: int, part: Segment) -> None:
    count = len(part.tokens)
    place = slice(at, at + count)
    rows.tokens[row, place] = part.tokens
    rows.trained[row, place] = part.trained
    rows.position[row, place] = np.arange(position, position + count)
    rows.branch[row, place] = branch


def _fitting(waiting: list[Segment], room: int) -> Segment | None:
    for place, segment in enumerate(waiting):
        if len(segment) <= room:
            return waiting.pop(place)
    return None
