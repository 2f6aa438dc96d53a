"""The transformer in numpy: one forward pass over ragged rows with a key-value cache.

Pre-norm blocks with RMS norm, squared ReLU and a tied embedding. Positions are learned, or rotary
(arXiv:2104.09864). Where numbers are written digit by digit, an embedding of the digit's place in
its number is added, without which sums are hardly learnt (arXiv:2405.17399). Weights come from an
``.npz`` file of 16-bit floats and are computed with in 32 bits.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longthought.errors import ConfigurationError

__all__ = [
    "PLACES",
    "Cache",
    "Floats",
    "Network",
    "Shape",
    "digit_places",
    "parameter_shapes",
    "rotary_angles",
    "save_weights",
]

Floats = NDArray[np.float32]
PLACES = 6
"""Places a digit may have in its number: 1 to 4, 5 and beyond, and 0 for what is no digit."""
_EPSILON = np.float32(1e-5)
_ROTARY_BASE = 1000.0


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a network: numbers of tokens, positions, layers and heads, and widths.

    ``rotary`` turns queries and keys by their position instead of adding a learned embedding. The
    first ``digits`` tokens are digits, of which numbers are written one by one (0: there are none).
    """

    vocabulary: int
    positions: int
    width: int
    layers: int
    heads: int
    rotary: bool = False
    digits: int = 0

    @property
    def inner(self) -> int:
        """Width of the hidden layer of a block."""
        return 4 * self.width

    @property
    def position_bytes(self) -> int:
        """Bytes that the keys and values of one position take, in 32 bits."""
        return 2 * 4 * self.layers * self.width


def parameter_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Name -> dimensions of every parameter; matrices are (output, input)."""
    width, inner = shape.width, shape.inner
    shapes: dict[str, tuple[int, ...]] = {"embedding": (shape.vocabulary, width)}
    if not shape.rotary:
        shapes["positions"] = (shape.positions, width)
    if shape.digits:
        shapes["places"] = (PLACES, width)
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


def digit_places(
    tokens: NDArray[np.int64], digits: int, before: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """The place of every token of (rows, length) in its number: 1, 2, ... for digits, 0 for others.

    ``before`` (rows,) is the place of the token in front of each row (default 0).
    """
    places = np.empty_like(tokens)
    place = np.zeros(len(tokens), np.int64) if before is None else before
    for column in range(tokens.shape[1]):
        place = np.where(tokens[:, column] < digits, np.minimum(place + 1, PLACES - 1), 0)
        places[:, column] = place
    return places


def rotary_angles(shape: Shape) -> NDArray[np.float64]:
    """By how much each pair of a query or key is turned: radians, (positions, head width / 2)."""
    pairs = shape.width // shape.heads // 2
    frequencies = _ROTARY_BASE ** (-np.arange(pairs) / pairs)
    angles: NDArray[np.float64] = np.arange(shape.positions)[:, None] * frequencies
    return angles


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

    ``lengths`` (rows,) says how many positions of each row are filled, ``places`` (rows,) the place
    in its number of the last token (see :func:`digit_places`).
    """

    keys: Floats
    values: Floats
    lengths: NDArray[np.int64]
    places: NDArray[np.int64]

    def rows(self, start: int, stop: int) -> Cache:
        """A view of some of the rows."""
        part = slice(start, stop)
        return Cache(
            self.keys[:, part], self.values[:, part], self.lengths[part], self.places[part]
        )

    def move(self, row: int, to: int) -> None:
        """Copy what is filled of one row over another."""
        length = int(self.lengths[row])
        self.keys[:, to, :, :length] = self.keys[:, row, :, :length]
        self.values[:, to, :, :length] = self.values[:, row, :, :length]
        self.lengths[to] = length
        self.places[to] = self.places[row]


@dataclass(frozen=True, slots=True)
class _Block:
    """One block's matrices, transposed; the norm gains are folded into ``qkv`` and ``up``."""

    qkv: Floats
    out: Floats
    up: Floats
    down: Floats


def _norm(stream: Floats) -> Floats:
    # np.mean, whose checks would take longer than the sum
    mean = np.add.reduce(stream * stream, axis=-1, keepdims=True) / stream.shape[-1]
    normed: Floats = stream / np.sqrt(mean + _EPSILON)
    return normed


def _turned(vectors: Floats, cos: Floats, sin: Floats) -> Floats:
    """Queries and keys (rows, new, 2, heads, head width), turned by their positions."""
    half = vectors.shape[-1] // 2
    first, second = vectors[..., :half], vectors[..., half:]
    turned = np.empty_like(vectors)
    turned[..., :half] = first * cos - second * sin
    turned[..., half:] = first * sin + second * cos
    return turned


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
        self._positions = full.get("positions")
        self._places = full.get("places")
        angles = rotary_angles(shape) if shape.rotary else np.zeros((0, 0))
        self._cos, self._sin = np.cos(angles, dtype=np.float32), np.sin(angles, dtype=np.float32)
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
        except (OSError, EOFError, zipfile.BadZipFile, ValueError, KeyError, TypeError) as error:
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
            np.zeros(rows, np.int64),
        )

    def place_after(self, tokens: Sequence[int]) -> int:
        """The place in its number of the last of these tokens."""
        tail = np.array([tokens[-PLACES:]], np.int64)
        return int(digit_places(tail, self.shape.digits)[0, -1]) if tail.size else 0

    def _embedded(
        self, tokens: NDArray[np.int64], positions: NDArray[np.int64], cache: Cache
    ) -> Floats:
        stream = self._embedding[tokens]
        if self._positions is not None:
            stream = stream + self._positions[positions]
        if self._places is not None:
            places = digit_places(tokens, self.shape.digits, cache.places)
            cache.places[:] = places[:, -1]
            stream = stream + self._places[places]
        return stream

    def _angles(self, positions: NDArray[np.int64]) -> tuple[Floats, Floats] | None:
        """Cosine and sine for queries and keys at these positions, (rows, new, 1, 1, pairs)."""
        if not self.shape.rotary:
            return None
        return self._cos[positions][:, :, None, None], self._sin[positions][:, :, None, None]

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
        # One line for each position: every matrix is then one product, not one for each row.
        stream = self._embedded(tokens, positions, cache).reshape(rows * new, s.width)
        angles = self._angles(positions)
        row = np.arange(rows)[:, None]
        scale = np.float32((s.width // s.heads) ** -0.5)
        for layer, block in enumerate(self._blocks):
            mixed = (_norm(stream) @ block.qkv).reshape(rows, new, 3, s.heads, -1)
            turned = mixed[:, :, :2] if angles is None else _turned(mixed[:, :, :2], *angles)
            cache.keys[layer, row, :, positions] = turned[:, :, 1]
            cache.values[layer, row, :, positions] = mixed[:, :, 2]
            keys = cache.keys[layer, :, :, :seen]
            score = turned[:, :, 0].transpose(0, 2, 1, 3) @ keys.transpose(0, 1, 3, 2)
            # In place: the scores of a long context are the largest array there is.
            score *= scale
            score += mask
            score -= score.max(axis=-1, keepdims=True)
            np.exp(score, out=score)
            score /= score.sum(axis=-1, keepdims=True)
            read = score @ cache.values[layer, :, :, :seen]
            stream = stream + read.transpose(0, 2, 1, 3).reshape(rows * new, s.width) @ block.out
            inner = _norm(stream) @ block.up
            np.maximum(inner, 0, out=inner)
            inner *= inner
            stream = stream + inner @ block.down
        cache.lengths += new
        last = stream.reshape(rows, new, s.width)
        logits = _norm(last if every else last[:, -1]) @ self._unembed
        return logits.astype(np.float32, copy=False)
