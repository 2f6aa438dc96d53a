"""The transformer in numpy: one forward pass over ragged rows with a key-value cache.

Pre-norm blocks with RMS norm, squared ReLU, learned positions and a tied embedding. Weights come
from an ``.npz`` file of 16-bit floats and are computed with in 32 bits.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longthought.errors import ConfigurationError

__all__ = ["Cache", "Floats", "Network", "Shape", "parameter_shapes", "save_weights"]

Floats = NDArray[np.float32]
_EPSILON = np.float32(1e-5)


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a network: numbers of tokens, positions, layers and heads, and widths."""

    vocabulary: int
    positions: int
    width: int
    layers: int
    heads: int

    @property
    def inner(self) -> int:
        """Width of the hidden layer of a block."""
        return 4 * self.width


def parameter_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Name -> dimensions of every parameter; matrices are (output, input)."""
    width, inner = shape.width, shape.inner
    shapes: dict[str, tuple[int, ...]] = {
        "embedding": (shape.vocabulary, width),
        "positions": (shape.positions, width),
    }
    for layer in range(shape.layers):
        shapes |= {
            f"block{layer}.norm1": (width,),
            f"block{layer}.qkv": (3 * width, width),
            f"block{layer}.out": (width, width),
            f"block{layer}.norm2": (width,),
            f"block{layer}.up": (inner, width),
            f"block{layer}.down": (width, inner),
        }
    return shapes | {"norm": (width,)}


def save_weights(path: Path, shape: Shape, parameters: Mapping[str, NDArray[np.floating]]) -> None:
    """Write a weights file; equal weights give equal bytes."""
    buffer = io.BytesIO()
    # Typed loosely: the stub takes any keyword for its own switch `allow_pickle`.
    arrays: dict[str, Any] = {"shape": np.array(json.dumps(asdict(shape)))}
    arrays |= {name: parameters[name].astype(np.float16) for name in parameter_shapes(shape)}
    np.savez_compressed(buffer, **arrays)
    path.write_bytes(buffer.getvalue())


@dataclass(slots=True)
class Cache:
    """Keys and values of some rows: each (layers, rows, heads, positions, head width).

    ``lengths`` (rows,) says how many positions of each row are filled.
    """

    keys: Floats
    values: Floats
    lengths: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Block:
    """One block's matrices, transposed; the norm gains are folded into ``qkv`` and ``up``."""

    qkv: Floats
    out: Floats
    up: Floats
    down: Floats


def _norm(stream: Floats) -> Floats:
    mean = np.mean(stream * stream, axis=-1, keepdims=True)
    normed: Floats = stream / np.sqrt(mean + _EPSILON)
    return normed


def _digest(parameters: Mapping[str, NDArray[np.floating]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(parameters):
        digest.update(name.encode() + np.ascontiguousarray(parameters[name], np.float32).tobytes())
    return digest.hexdigest()


class Network:
    """A transformer ready to run. It holds no state but its weights, so threads may share it.

    ``digest`` identifies the weights: the SHA-256 of their file, or of the arrays if there is none.
    """

    def __init__(
        self, shape: Shape, parameters: Mapping[str, NDArray[np.floating]], digest: str = ""
    ) -> None:
        self.shape = shape
        self.digest = digest or _digest(parameters)
        self.parameter_count = sum(
            int(np.prod(dimensions)) for dimensions in parameter_shapes(shape).values()
        )
        full = {name: parameters[name].astype(np.float32) for name in parameter_shapes(shape)}
        self._embedding = full["embedding"]
        self._positions = full["positions"]
        self._blocks = [self._fold(full, f"block{layer}.") for layer in range(shape.layers)]
        self._unembed = np.ascontiguousarray((full["embedding"] * full["norm"]).T)

    @staticmethod
    def _fold(full: Mapping[str, Floats], name: str) -> _Block:
        return _Block(
            np.ascontiguousarray((full[name + "qkv"] * full[name + "norm1"]).T),
            np.ascontiguousarray(full[name + "out"].T),
            np.ascontiguousarray((full[name + "up"] * full[name + "norm2"]).T),
            np.ascontiguousarray(full[name + "down"].T),
        )

    @classmethod
    def load(cls, data: bytes) -> Network:
        """The network of a weights file.

        Raises:
            ConfigurationError: the bytes are no weights file of the expected form.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                shape = Shape(**json.loads(str(arrays["shape"])))
                parameters = {name: arrays[name] for name in parameter_shapes(shape)}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigurationError("weights", f"this is no weights file ({error})") from error
        for name, dimensions in parameter_shapes(shape).items():
            if parameters[name].shape != dimensions:
                raise ConfigurationError("weights", f"{name} is not of shape {dimensions}")
        return cls(shape, parameters, hashlib.sha256(data).hexdigest())

    @classmethod
    def random(cls, shape: Shape, seed: int) -> Network:
        """A network that has learnt nothing, as a control."""
        draw = np.random.default_rng(seed)
        return cls(
            shape,
            {
                name: np.ones(dimensions)
                if len(dimensions) == 1
                else draw.normal(0.0, dimensions[-1] ** -0.5, dimensions)
                for name, dimensions in parameter_shapes(shape).items()
            },
        )

    def new_cache(self, rows: int, positions: int | None = None) -> Cache:
        """An empty cache for ``rows`` rows of at most ``positions`` (default: all) positions."""
        s = self.shape
        dimensions = (s.layers, rows, s.heads, positions or s.positions, s.width // s.heads)
        return Cache(
            np.zeros(dimensions, np.float32),
            np.zeros(dimensions, np.float32),
            np.zeros(rows, np.int64),
        )

    def forward(self, tokens: NDArray[np.int64], cache: Cache, *, every: bool = False) -> Floats:
        """Append ``tokens`` (rows, new) to the rows of the cache, each at its own length.

        Returns the logits of the last position, (rows, vocabulary), or of all the new ones,
        (rows, new, vocabulary), if ``every``.
        """
        rows, new = tokens.shape
        s = self.shape
        positions = cache.lengths[:, None] + np.arange(new)
        seen = int(positions.max()) + 1
        hidden = np.arange(seen) > positions[:, :, None]
        mask = np.where(hidden, np.float32(-1e9), np.float32(0))[:, None]
        stream = self._embedding[tokens] + self._positions[positions]
        row = np.arange(rows)[:, None]
        scale = np.float32((s.width // s.heads) ** -0.5)
        for layer, block in enumerate(self._blocks):
            mixed = (_norm(stream) @ block.qkv).reshape(rows, new, 3, s.heads, -1)
            cache.keys[layer, row, :, positions] = mixed[:, :, 1]
            cache.values[layer, row, :, positions] = mixed[:, :, 2]
            keys = cache.keys[layer, :, :, :seen]
            score = mixed[:, :, 0].transpose(0, 2, 1, 3) @ keys.transpose(0, 1, 3, 2)
            score = score * scale + mask
            score = np.exp(score - score.max(axis=-1, keepdims=True))
            score /= score.sum(axis=-1, keepdims=True)
            read = score @ cache.values[layer, :, :, :seen]
            stream = stream + read.transpose(0, 2, 1, 3).reshape(rows, new, s.width) @ block.out
            inner = np.maximum(_norm(stream) @ block.up, 0)
            stream = stream + (inner * inner) @ block.down
        cache.lengths += new
        logits = _norm(stream if every else stream[:, -1]) @ self._unembed
        return logits.astype(np.float32, copy=False)
