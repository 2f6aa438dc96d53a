"""The engines by name: which were asked for, made ready, and started.

``python -m tests.engines.choice llama.cpp vllm`` makes them ready and says what it does.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.engines import llama_cpp, vllm
from tests.engines.places import EngineMissing, tell
from tests.engines.server import Server, free_port

__all__ = ["ENGINES", "VARIABLE", "asked_for", "made_ready", "server_of"]

ENGINES = {"llama.cpp": llama_cpp, "vllm": vllm}

VARIABLE = "LONGTHOUGHT_ENGINES"
"""Names the engines to test with, blanks between them."""


def asked_for() -> list[str]:
    """The engines of ``LONGTHOUGHT_ENGINES``, llama.cpp alone unless it is set.

    Raises:
        EngineMissing: there is none of such a name.
    """
    names = os.environ.get(VARIABLE, "llama.cpp").split()
    for name in names or [""]:
        if name not in ENGINES:
            raise EngineMissing(
                repr(name), "there is no such engine", f"Name some of: {' '.join(ENGINES)}"
            )
    return names


def made_ready(name: str) -> Path:
    """The program of an engine, built or installed first if it is not there.

    Raises:
        EngineMissing: it cannot be had.
    """
    return ENGINES[name].prepare()


def server_of(name: str, scratch: Path) -> Server:
    """A server of an engine with the tiny model, not yet started; ``scratch`` holds its files."""
    engine, program, port = ENGINES[name], made_ready(name), free_port()
    return Server(
        name,
        port,
        engine.SLOTS,
        engine.SLOT_CONTEXT,
        engine.command(program, port, scratch),
        scratch / "server.log",
        engine.environment(),
    )


def main(names: list[str]) -> int:
    """Make engines ready; 1 if one cannot be had."""
    try:
        for name in names or asked_for():
            tell(f"{name}: {made_ready(name)}")
    except EngineMissing as missing:
        tell(str(missing))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
