"""The transformer in torch, for training only: the same arithmetic as ``network.py`` runs in numpy.

Parameters are a plain dictionary of tensors under the names that the weights file uses. Torch is
imported on first use, so that the rest of the package never needs it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from longthought.errors import MissingExtra
from longthought.orchestrator.models.embedded.network import (
    Shape,
    digit_places,
    parameter_shapes,
    rotary_angles,
)

__all__ = ["Parameters", "Tensor", "forward", "initial_parameters", "torch_module"]

# Torch is an extra: its types are not to be had where the package is checked.
Tensor: TypeAlias = Any
Parameters: TypeAlias = dict[str, Tensor]


def torch_module() -> ModuleType:
    """Torch itself.

    Raises:
        MissingExtra: torch is not installed.
    """
    try:
        return importlib.import_module("torch")
    except ModuleNotFoundError as error:
        raise MissingExtra(
            "training",
            "torch is not installed",
            "Install it with: pip install 'longthought[train]'",
        ) from error


def initial_parameters(shape: Shape, seed: int) -> Parameters:
    """Fresh parameters; what a block adds to the stream starts small."""
    torch = torch_module()
    generator = torch.Generator().manual_seed(seed)
    parameters: Parameters = {}
    for name, dimensions in parameter_shapes(shape).items():
        kind = name.rsplit(".", 1)[-1]
        if kind.startswith("norm"):
            value = torch.ones(dimensions)
        else:
            spread = 0.6 * dimensions[-1] ** -0.5
            if kind in ("out", "down"):
                spread = 0.02 / (2 * shape.layers) ** 0.5
            elif kind in ("embedding", "positions", "places"):
                spread = 0.02
            value = torch.randn(dimensions, generator=generator) * spread
        parameters[name] = value.requires_grad_()
    return parameters


def forward(
    parameters: Parameters,
    shape: Shape,
    tokens: NDArray[np.int64],
    positions: NDArray[np.int64],
    mask: Tensor,
    chosen: Tensor | None = None,
) -> Tensor:
    """Logits of shape (rows, length, vocabulary), or (count, vocabulary) of the ``chosen`` places.

    ``tokens`` and ``positions`` are (rows, length) integers; ``mask`` is true where a position may
    look at another, (rows or 1, 1, length, length); ``chosen`` is true at (rows, length).
    """
    torch = torch_module()
    f = torch.nn.functional
    rows, length = tokens.shape
    width = shape.width
    turned = _rotation(shape, positions)

    def norm(stream: Tensor, name: str) -> Tensor:
        return f.rms_norm(stream, (width,), parameters[name], eps=1e-5)

    stream = parameters["embedding"][torch.from_numpy(tokens)]
    if not shape.rotary:
        stream = stream + parameters["positions"][torch.from_numpy(positions)]
    if shape.digits:
        stream = stream + parameters["places"][torch.from_numpy(digit_places(tokens, shape.digits))]
    for layer in range(shape.layers):
        name = f"block{layer}."
        mixed = f.linear(norm(stream, name + "norm1"), parameters[name + "qkv"])
        parts = mixed.view(rows, length, 3, shape.heads, width // shape.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        query, key = turned(query), turned(key)
        seen = f.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        seen = seen.transpose(1, 2).reshape(rows, length, width)
        stream = stream + f.linear(seen, parameters[name + "out"])
        inner = f.relu(f.linear(norm(stream, name + "norm2"), parameters[name + "up"])).square()
        stream = stream + f.linear(inner, parameters[name + "down"])
    if chosen is not None:
        stream = stream[chosen]
    return f.linear(norm(stream, "norm"), parameters["embedding"])


def _rotation(shape: Shape, positions: NDArray[np.int64]) -> Callable[[Tensor], Tensor]:
    """What turns (rows, heads, length, head width) by the positions (rows, length)."""
    if not shape.rotary:
        return lambda vectors: vectors
    torch = torch_module()
    angles = torch.from_numpy(rotary_angles(shape)[positions].astype(np.float32))[:, None]
    cos, sin = angles.cos(), angles.sin()

    def turned(vectors: Tensor) -> Tensor:
        first, second = vectors.chunk(2, -1)
        return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)

    return turned
