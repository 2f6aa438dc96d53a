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
from typing import Any

import numpy as np

from longthought.orchestrator.models.embedded import vocabulary as v
from longthought.orchestrator.models.embedded.network import Shape, parameter_shapes, save_weights

from .data import ROW_LENGTH, Rows, rows
from .network import Parameters, Tensor, forward, initial_parameters, torch_module

__all__ = ["PLANS", "Plan", "reference", "save", "train"]

_CHUNK = 64  # steps whose rows are made at once


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that decides the outcome of a run, apart from the versions of the libraries."""

    shape: Shape
    steps: int
    batch: int = 16
    seed: int = 0
    muon_rate: float = 0.02
    adam_rate: float = 3e-3
    warm_up: int = 60
    decay_share: float = 0.6


PLANS = {
    "large": Plan(Shape(v.SIZE, ROW_LENGTH, 96, 3, 3), steps=6000),
    "small": Plan(Shape(v.SIZE, ROW_LENGTH, 32, 2, 2), steps=2000),
}
"""The two sizes in the package."""


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


def _loss(parameters: Parameters, shape: Shape, batch: Rows) -> Tensor:
    """Mean cross entropy over the trained tokens of the batch, nats per token."""
    torch = torch_module()
    tokens = torch.from_numpy(batch.tokens)
    segment = torch.from_numpy(batch.segment)
    same = segment[:, None, :, None] == segment[:, None, None, :]
    mask = same & torch.ones(ROW_LENGTH, ROW_LENGTH, dtype=torch.bool).tril()
    logits = forward(parameters, shape, tokens, torch.from_numpy(batch.position), mask)
    chosen = torch.from_numpy(batch.trained)[:, 1:].reshape(-1)
    return torch.nn.functional.cross_entropy(
        logits[:, :-1].reshape(-1, shape.vocabulary)[chosen], tokens[:, 1:].reshape(-1)[chosen]
    )


def _batches(plan: Plan) -> Iterator[Rows]:
    """Endless batches; the rows of 64 steps are made at once, from a seed of their own."""
    for chunk in itertools.count(0, _CHUNK):
        made = rows(f"{plan.seed}:{chunk}", _CHUNK * plan.batch)
        for start in range(0, _CHUNK * plan.batch, plan.batch):
            place = slice(start, start + plan.batch)
            yield Rows(
                made.tokens[place], made.trained[place], made.segment[place], made.position[place]
            )


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
    positions = torch.arange(48).expand(3, 48)
    with torch.no_grad():
        logits = forward(stored, plan.shape, torch.from_numpy(tokens), positions, mask).numpy()
    np.savez_compressed(path, tokens=tokens.astype(np.int16), logits=logits.astype(np.float32))


def save(plan: Plan, parameters: dict[str, np.ndarray], path: Path) -> None:
    """Write the weights file of a finished run."""
    save_weights(path, plan.shape, parameters)
