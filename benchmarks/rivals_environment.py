"""The interpreter that has the other frameworks: said, or made from ``rivals.txt`` when asked."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

__all__ = ["HOW", "VARIABLE", "rivals_python"]

VARIABLE = "LONGTHOUGHT_BENCH_PYTHON"
HOW = (
    f"{VARIABLE} names an interpreter that has what benchmarks/rivals.txt lists; "
    "without it, --rivals makes one in the cache directory."
)

_LIST = Path(__file__).with_name("rivals.txt")


def rivals_python(*, install: bool) -> str:
    """The path of the interpreter, or nothing where there is none and none is to be installed.

    Raises:
        SystemExit: the variable names no program, or the installation failed.
    """
    named = os.environ.get(VARIABLE, "")
    if named:
        if not shutil.which(named):
            raise SystemExit(f"{VARIABLE}: {named} is no program. Name a Python interpreter.")
        return named
    return str(_installed()) if install else ""


def _installed() -> Path:
    """An environment for this Python and this list, made once."""
    wanted = hashlib.sha256(_LIST.read_bytes() + sys.version.encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    directory = cache / "longthought" / f"rivals-{wanted}"
    python = directory / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    complete = directory / "complete"
    if complete.exists():
        return python
    print(f"installing the rivals into {directory}", file=sys.stderr)
    venv.create(directory, clear=True, with_pip=True)
    # our own constraints are not theirs
    environment = {name: value for name, value in os.environ.items() if name != "PIP_CONSTRAINT"}
    command = [str(python), "-m", "pip", "install", "--quiet", "--requirement", str(_LIST)]
    if subprocess.run(command, env=environment, stdout=sys.stderr, check=False).returncode:
        raise SystemExit(f"the rivals could not be installed into {directory}: see above")
    complete.touch()
    return python
