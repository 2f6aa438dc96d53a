"""The paired bootstrap over questions: how far a figure would move with other questions.

The questions are drawn anew, with replacement, many times (Efron 1979); each time every figure is
computed on the same questions. So the band of a difference does not hold what both strategies have
in common: that some questions are hard for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from longthought.errors import InvalidInput

__all__ = ["Band", "Bootstrap", "Values"]

Values: TypeAlias = NDArray[np.float64]
"""One figure for each question, in the order of the questions."""

_BLOCK = 4_000_000  # figures of one block of resamples: about 32 MB


@dataclass(frozen=True, slots=True)
class Band:
    """A mean over questions and the 95 % of its resamples that lie in the middle."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole band lies on one side of 0."""
        return self.low > 0 or self.high < 0


class Bootstrap:
    """Resamples of questions, the same for everything that is computed with it.

    Which questions a resample holds depends on their ids, their number and ``seed``, not on the
    order in which they stand.

    Raises:
        InvalidInput: there are no questions, or no resamples.
    """

    def __init__(self, ids: Sequence[str], *, resamples: int = 2_000, seed: int = 0) -> None:
        if not ids:
            raise InvalidInput("questions", "there are none to resample")
        if resamples < 1:
            raise InvalidInput("resamples", f"{resamples} is too few", "Use 1000 or more")
        self._order = sorted(range(len(ids)), key=lambda place: ids[place])
        self._resamples, self._seed = resamples, seed

    def bands(self, figures: Mapping[str, Values]) -> dict[str, Band]:
        """The band of each figure's mean, by its name; all on the same resamples.

        Raises:
            ValueError: a figure has not one value for each question.
        """
        if not figures:
            return {}
        wrong = [name for name, values in figures.items() if len(values) != len(self._order)]
        if wrong:
            raise ValueError(f"{wrong[0]} has not one value for each question")
        matrix = np.stack([values.astype(np.float64)[self._order] for values in figures.values()])
        means = matrix.mean(axis=1)
        drawn = self._resampled(matrix)
        low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
        # a mean and its resamples are summed in different orders: the last digit may differ
        low, high = np.minimum(low, means), np.maximum(high, means)
        return {
            name: Band(float(means[row]), float(low[row]), float(high[row]))
            for row, name in enumerate(figures)
        }

    def _resampled(self, matrix: Values) -> Values:
        """The means of every resample: an array of (resamples, figures)."""
        generator = np.random.default_rng(self._seed)
        size = matrix.shape[1]
        step = max(1, _BLOCK // size)
        blocks = []
        for begin in range(0, self._resamples, step):
            rows = min(step, self._resamples - begin)
            chosen = generator.integers(0, size, size=(rows, size))
            chosen += np.arange(rows)[:, None] * size
            counts = np.bincount(chosen.ravel(), minlength=rows * size).reshape(rows, size)
            blocks.append(counts @ matrix.T / size)
        return np.concatenate(blocks)
