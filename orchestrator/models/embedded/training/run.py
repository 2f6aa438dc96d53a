"""The training run: a fixed number of steps from fixed seeds, so that it can be done again.

Muon on the matrices of the blocks, AdamW on everything else; both learning rates rise over 60
steps, stay, and fall linearly to a fiftieth over the last part.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from longthought.orchestrator.models.embedded.letters import vocabulary as letters
from longthought.orchestrator.models.embedded.network import Shape, parameter_shapes, save_weights
from longthought.orchestrator.models.embedded.puzzles import vocabulary as puzzles
from longthought.orchestrator.models.embedded.words import vocabulary as words

from . import letter_data, puzzle_data, word_data
from .network import Parameters, Tensor, forward, initial_parameters, torch_module
from .packing import Rows, Segment, pack

__all__ = ["PLANS", "Plan", "reference", "save", "train"]

_CHUNK = 64  # steps whose rows are made at once

Stream: TypeAlias = Callable[[str, float], Iterator[Segment]]
"""Examples from a seed and the share of the training that is over (0 to 1)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that decides the outcome of a run, apart from the versions of the libraries.

    A row holds ``length`` tokens, a batch ``batch`` rows.
    """

    shape: Shape
    stream: Stream
    padding: int
    length: int
    steps: int
    batch: int = 16
    seed: int = 0
    muon_rate: float = 0.02
    adam_rate: float = 3e-3
    warm_up: int = 60
    decay_share: float = 0.6


PLANS = {
    "puzzle-large": Plan(
        Shape(puzzles.SIZE, 128, 96, 3, 3),
        puzzle_data.segments,
        puzzles.PADDING,
        length=128,
        steps=6000,
    ),
    "puzzle-small": Plan(
        Shape(puzzles.SIZE, 128, 32, 2, 2),
        puzzle_data.segments,
        puzzles.PADDING,
        length=128,
        steps=2000,
    ),
    "words": Plan(
        Shape(words.SIZE, 256, 96, 4, 3, rotary=True, digits=10),
        word_data.segments,
        words.PADDING,
        length=256,
        steps=4000,
        batch=12,
    ),
    "letters": Plan(
        Shape(letters.SIZE, 96, 64, 2, 2, rotary=True),
        letter_data.segments,
        letters.PADDING,
        length=128,
        steps=2800,
    ),
}
"""Every weights file in the package: its name and how it was made."""


def _rate(plan: Plan, step: int) -> float:
    """The learning rate of a step as a share of the full one."""
    left = (1 - step / plan.steps) / plan.decay_share
    return min(1.0, (step + 1) / plan.warm_up) * (0.02 + 0.98 * min(1.0, left))


# Torch's optimizers, untyped here because torch is an extra.
def _optimizers(plan: Plan, parameters: Parameters) -> list[tuple[Any, float]]:
    optim = torch_module().optim
    blocks = [value for name, value in parameters.items() if value.ndim == 2 and "block" in name]
    others = [
        value for name, value in parameters.items() if not (value.ndim == 2 and "block" in name)
    ]
    muon = optim.Muon(
        blocks, lr=plan.muon_rate, weight_decay=0.01, momentum=0.95, adjust_lr_fn="original"
    )
    adam = optim.AdamW(others, lr=plan.adam_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    return [(muon, plan.muon_rate), (adam, plan.adam_rate)]


def _mask(rows: Rows) -> Tensor:
    """True where a position may look at another: earlier, same segment, no other branch."""
    torch = torch_module()
    segment, branch = torch.from_numpy(rows.segment), torch.from_numpy(rows.branch)
    length = segment.shape[1]
    seen = branch[:, None, None, :]
    same = segment[:, None, :, None] == segment[:, None, None, :]
    within = (seen == 0) | (branch[:, None, :, None] == seen)
    return same & within & torch.ones(length, length, dtype=torch.bool).tril()


def _loss(parameters: Parameters, shape: Shape, batch: Rows) -> Tensor:
    """Mean cross entropy over the trained tokens of the batch, nats per token.

    The token after the end of a segment, or of a branch, is never one that is trained on.
    """
    torch = torch_module()
    chosen = np.zeros_like(batch.trained)
    chosen[:, :-1] = batch.trained[:, 1:]
    following = np.roll(batch.tokens, -1, axis=1)
    logits = forward(
        parameters, shape, batch.tokens, batch.position, _mask(batch), torch.from_numpy(chosen)
    )
    return torch.nn.functional.cross_entropy(logits, torch.from_numpy(following[chosen]))


def _batches(plan: Plan) -> Iterator[Rows]:
    """Endless batches; the rows of 64 steps are made at once, from a seed of their own."""
    for chunk in itertools.count(0, _CHUNK):
        stream = plan.stream(f"{plan.seed}:{chunk}", chunk / plan.steps)
        made = pack(stream, _CHUNK * plan.batch, plan.length, plan.padding)
        for start in range(0, _CHUNK * plan.batch, plan.batch):
            yield made.batch(start, start + plan.batch)


def train(plan: Plan, report: Callable[[str], None]) -> dict[str, np.ndarray]:
    """Run a plan on one CPU thread; returns the parameters by name (32-bit floats).

    ``report`` is told the mean loss every hundred steps.

    Raises:
        MissingExtra: torch is not installed.
    """
    torch = torch_module()
    torch.set_num_threads(1)
    torch.manual_seed(plan.seed)
    parameters = initial_parameters(plan.shape, plan.seed)
    optimizers = _optimizers(plan, parameters)
    losses: list[float] = []
    for step, batch in zip(range(plan.steps), _batches(plan), strict=False):
        loss = _loss(parameters, plan.shape, batch)
        loss.backward()
        for optimizer, rate in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * _rate(plan, step)
        torch.nn.utils.clip_grad_norm_(optimizers[1][0].param_groups[0]["params"], 1.0)
        for optimizer, _ in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
        if step % 100 == 99:
            mean = sum(losses[-100:]) / 100
            report(f"step {step + 1}/{plan.steps} loss {mean:.4f} cpu {time.process_time():.0f} s")
    return {name: value.detach().numpy() for name, value in parameters.items()}


def reference(plan: Plan, parameters: dict[str, np.ndarray], path: Path) -> None:
    """Save torch's logits for a few random sequences, computed from the weights as stored.

    The file holds ``tokens`` (3, 48) and ``logits`` (3, 48, vocabulary); a test compares the numpy
    network with them.
    """
    torch = torch_module()
    tokens = np.random.default_rng(0).integers(0, plan.shape.vocabulary, (3, 48))
    stored = {
        name: torch.from_numpy(parameters[name].astype(np.float16).astype(np.float32))
        for name in parameter_shapes(plan.shape)
    }
    mask = torch.ones(48, 48, dtype=torch.bool).tril()[None, None]
    positions = np.tile(np.arange(48), (3, 1))
    with torch.no_grad():
        logits = forward(stored, plan.shape, tokens, positions, mask).numpy()
    np.savez_compressed(path, tokens=tokens.astype(np.int16), logits=logits.astype(np.float32))


def save(plan: Plan, parameters: dict[str, np.ndarray], path: Path) -> None:
    """Write the weights file of a finished run."""
    save_weights(path, plan.shape, parameters)
