"""llama.cpp's own server, built from the sources that the package llama-cpp-python carries.

Package registries have the sources and no ready program. ``LONGTHOUGHT_LLAMA_SERVER`` names another
``llama-server``, of any version, which is then used as it is.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tarfile
from pathlib import Path

from tests.engines.gguf_file import write_gguf
from tests.engines.places import (
    EngineMissing,
    cache,
    download_environment,
    made_once,
    run_visibly,
    tell,
)

__all__ = ["SLOTS", "SLOT_CONTEXT", "VARIABLE", "VERSION", "command", "environment", "prepare"]

VERSION = "0.3.36"
"""Of llama-cpp-python; it carries llama.cpp 0.5.0-dev at commit 0c1e57098."""

VARIABLE = "LONGTHOUGHT_LLAMA_SERVER"
SLOTS = 4
SLOT_CONTEXT = 2048
"""Tokens of context that each slot has."""

_NAME = "llama.cpp"
_SOURCES = "vendor/llama.cpp"
_OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    # The model is tiny: what counts is the time of the build.
    "CMAKE_CXX_FLAGS_RELEASE": "-O1 -DNDEBUG",
    "CMAKE_C_FLAGS_RELEASE": "-O2 -DNDEBUG",
    "BUILD_SHARED_LIBS": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_APP": "OFF",
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",
    "LLAMA_OPENSSL": "OFF",
    "LLAMA_ALL_WARNINGS": "OFF",
    "GGML_ALL_WARNINGS": "OFF",
    "GGML_OPENMP": "OFF",
    "GGML_LLAMAFILE": "OFF",
    "GGML_CCACHE": "OFF",
}


def prepare() -> Path:
    """The path of ``llama-server``, which is built first if it is not there; that takes minutes.

    Raises:
        EngineMissing: there is none and it cannot be built.
    """
    own = os.environ.get(VARIABLE)
    if own:
        if not os.access(own, os.X_OK):
            raise EngineMissing(_NAME, f"{own} is no program", f"Correct {VARIABLE}, or unset it")
        return Path(own)
    directory = cache() / f"llama-cpp-python-{VERSION}"
    with made_once(directory) as needed:
        if needed:
            _build(directory)
    return directory / "llama-server"


def command(program: Path, port: int, scratch: Path) -> list[str]:
    """The command line of a server with a model made in ``scratch``."""
    model = scratch / "tiny.gguf"
    write_gguf(model)
    return [
        str(program),
        *("--model", str(model), "--alias", "tiny"),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--parallel", str(SLOTS), "--ctx-size", str(SLOTS * SLOT_CONTEXT), "--no-kv-unified"),
        *("--threads", "1", "--threads-http", "8"),
        *("--metrics", "--slots", "--jinja", "--no-ui", "--offline"),
        *("--reasoning", "off"),
    ]


def environment() -> dict[str, str]:
    """What a server needs beside its command line: nothing."""
    return {}


def _build(into: Path) -> None:
    fix = f"Install cmake, make and a C++17 compiler, or set {VARIABLE} to a llama-server you have"
    for tool in ("cmake", "c++"):
        if shutil.which(tool) is None:
            raise EngineMissing(_NAME, f"{tool} was not found", fix)
    tell(f"{_NAME}: downloading the sources in llama-cpp-python {VERSION} (77 MB)")
    run_visibly(
        _NAME,
        [
            *(sys.executable, "-m", "pip", "download", "--no-deps", "--dest", into),
            *("--no-binary", "llama-cpp-python", f"llama-cpp-python=={VERSION}"),
        ],
        f"See whether pip reaches a package registry, or set {VARIABLE}",
        environment=download_environment(),
    )
    sources = _unpacked(into)
    make = into / "build"
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    options = [f"-D{name}={value}" for name, value in _OPTIONS.items()]
    tell(f"{_NAME}: building llama-server on two cores at the lowest priority, 5 to 20 minutes")
    run_visibly(_NAME, ["cmake", "-S", sources, "-B", make, *generator, *options], fix)
    run_visibly(
        _NAME,
        ["cmake", "--build", make, "--target", "llama-server", "--parallel", "2"],
        fix,
        news=_progress,
    )
    shutil.move(make / "bin" / "llama-server", into / "llama-server")
    for leftover in [item for item in into.iterdir() if item.name != "llama-server"]:
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    tell(f"{_NAME}: ready")


def _unpacked(into: Path) -> Path:
    (archive,) = into.glob("llama_cpp_python-*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(into, filter="data")
    archive.unlink()
    (sources,) = into.glob(f"llama_cpp_python-*/{_SOURCES}")
    return sources


def _progress(line: str) -> str | None:
    found = re.match(r"\[\s*(\d+/\d+|\d+%)\]", line)
    return f"built {found[1]}" if found else None
