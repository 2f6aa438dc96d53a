"""Drawing tokens: temperature, top-p, and a random stream of its own for every sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .network import Floats

__all__ = ["Draw", "draw_tokens", "random_stream"]


def random_stream(seed: int | None, place: int) -> np.random.Generator:
    """A random stream. ``place`` is the length of the prompt: the reply that continues a
    conversation under the same seed must not repeat the draws of the one before.
    """
    if seed is None:
        return np.random.default_rng()
    return np.random.default_rng([seed % 2**64, place])


@dataclass(slots=True)
class Draw:
    """How one sequence is drawn. ``temperature`` 0 takes the likeliest token."""

    temperature: float = 1.0
    top_p: float = 1.0
    stream: np.random.Generator = field(default_factory=np.random.default_rng)


def draw_tokens(
    logits: Floats, draws: Sequence[Draw]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """One token per row of ``logits`` (rows, vocabulary), and its log-probability in nats.

    The log-probability is the model's own, before temperature and top-p.
    """
    exact = logits.astype(np.float64)
    exact -= exact.max(axis=1, keepdims=True)
    log_total = np.log(np.exp(exact).sum(axis=1))
    warmth = np.array([draw.temperature for draw in draws])
    greedy = warmth <= 0
    with np.errstate(over="ignore"):  # next to no temperature: nothing is left but the likeliest
        weights = np.exp(exact / np.where(greedy, 1.0, warmth)[:, None])
    top_p = np.array([draw.top_p for draw in draws])
    if (top_p < 1).any():
        _cut(weights, top_p)
    cumulated = weights.cumsum(axis=1)
    # A stream is advanced only by its own sequence, whatever shares the batch with it.
    points = np.array([0.0 if draw.temperature <= 0 else draw.stream.random() for draw in draws])
    tokens = (cumulated <= (points * cumulated[:, -1])[:, None]).sum(axis=1)
    tokens = np.where(greedy, exact.argmax(axis=1), np.minimum(tokens, logits.shape[1] - 1))
    return tokens, exact[np.arange(len(draws)), tokens] - log_total


def _cut(weights: NDArray[np.float64], top_p: NDArray[np.float64]) -> None:
    """Zero what lies outside the smallest set of tokens that holds ``top_p`` of the weight."""
    order = np.argsort(-weights, axis=1, kind="stable")
    ranked = np.take_along_axis(weights, order, axis=1)
    before = ranked.cumsum(axis=1) - ranked
    beyond = before >= (top_p * ranked.sum(axis=1))[:, None]
    beyond[:, 0] = False
    np.put_along_axis(weights, order, np.where(beyond, 0.0, ranked), axis=1)
