"""Where engines are kept, how they are made there once, and what is said meanwhile."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["EngineMissing", "cache", "download_environment", "made_once", "run_visibly", "tell"]

_TAIL_LINES = 25
_SECONDS_BETWEEN_NEWS = 10.0


class EngineMissing(Exception):
    """An engine that was asked for cannot be had; says what failed and what to do."""

    def __init__(self, engine: str, problem: str, fix: str) -> None:
        super().__init__(f"{engine}: {problem}\nWhat to do: {fix}")


def cache() -> Path:
    """``$XDG_CACHE_HOME/longthought-engines``, made if it is not there."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    directory = Path(base) / "longthought-engines"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def tell(line: str) -> None:
    """A line of progress; not to a captured stream, where nobody would see it."""
    print(line, file=sys.__stderr__, flush=True)


@contextmanager
def made_once(directory: Path) -> Iterator[bool]:
    """Whether ``directory`` is still to be filled: it is empty then. Processes take turns.

    It counts as filled when the block has ended well.
    """
    ready = directory / ".ready"
    with Path(f"{directory}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if ready.exists():
            yield False
            return
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        yield True
        ready.touch()


def download_environment() -> dict[str, str]:
    """The environment for pip: without the exact versions that this project keeps itself to."""
    dropped = ("PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT", "PYTHONPATH", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if name not in dropped}


def run_visibly(
    engine: str,
    command: Sequence[str | Path],
    fix: str,
    *,
    environment: Mapping[str, str] | None = None,
    news: Callable[[str], str | None] = lambda line: None,
) -> None:
    """Run a command at the lowest priority; ``news`` makes a short word of a line of its output.

    Raises:
        EngineMissing: it failed; the end of its output is told before.
    """
    words = [str(word) for word in command]
    try:
        process = subprocess.Popen(
            words,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
            preexec_fn=lambda: os.nice(19) and None,
        )
    except FileNotFoundError:
        raise EngineMissing(engine, f"{words[0]} was not found", fix) from None
    tail: list[str] = []
    last = time.monotonic()
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            tail = [*tail[1 - _TAIL_LINES :], line.rstrip()]
            word = news(line)
            if word and time.monotonic() - last > _SECONDS_BETWEEN_NEWS:
                last = time.monotonic()
                tell(f"{engine}: {word}")
    if process.returncode:
        tell("\n".join(tail))
        said = f"{' '.join(words[:4])} ... ended with {process.returncode}; its end stands above"
        raise EngineMissing(engine, said, fix)
