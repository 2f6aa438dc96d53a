"""Which models there are: every weights file was made for one task, ``embedded`` has them all."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from longthought.errors import ConfigurationError

from .letters import LetterTask
from .network import Network, Shape, parameter_shapes
from .puzzles import PuzzleTask
from .tasks import Task
from .words import WordTask

__all__ = ["ALL_TASKS", "MODELS", "Weights"]

ALL_TASKS = "embedded"
"""The name of the model that has every task; the question decides which weights answer."""

_MADE_FOR: dict[str, Task] = {
    "puzzle-large": PuzzleTask(),
    "puzzle-small": PuzzleTask(),
    "words": WordTask(),
    "letters": LetterTask(),
}
"""Name of each file in ``weights/`` -> the task it was made for. Where several were made for one
task, ``embedded`` has the first."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of one task: a file, or a network that is used in its place."""

    task: Task
    path: Path
    network: Network | None = None

    def load(self) -> Network:
        """The network, ready to run.

        Raises:
            ConfigurationError: the file is no weights file.
        """
        return self.network or Network.load(self.path.read_bytes())

    def shape(self) -> Shape:
        """The size of the network; its parameters are not read.

        Raises:
            ConfigurationError: the file is no weights file, or is not there.
        """
        if self.network is not None:
            return self.network.shape
        try:
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return Shape(**json.loads(str(arrays["shape"])))
        except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile) as error:
            problem = f"{self.path} is no weights file ({error})"
            raise ConfigurationError("weights", problem, "Install longthought again") from error

    def parameter_count(self) -> int:
        """How many numbers the network consists of."""
        return sum(math.prod(dimensions) for dimensions in parameter_shapes(self.shape()).values())

    def digest(self) -> str:
        """What identifies the weights, as :attr:`Network.digest` without making a network."""
        if self.network is not None:
            return self.network.digest
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


def _models() -> dict[str, tuple[Weights, ...]]:
    folder = Path(__file__).with_name("weights")
    files = {name: Weights(task, folder / f"{name}.npz") for name, task in _MADE_FOR.items()}
    first: dict[str, Weights] = {}
    for weights in files.values():
        first.setdefault(weights.task.name, weights)
    alone = {f"{ALL_TASKS}/{name}": (weights,) for name, weights in files.items()}
    return {ALL_TASKS: tuple(first.values()), **alone}


MODELS = _models()
"""Name of each model in the package -> its weights, one for each of its tasks."""
