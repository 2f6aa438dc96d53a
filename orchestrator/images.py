"""Pictures in questions: a file on this machine as a part of a message."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from longthought.errors import InvalidInput
from longthought.types import JSONObject, Message

__all__ = ["MOST_BYTES", "image_part", "question_with_images"]

MOST_BYTES: Final = 20 * 2**20
"""The largest file that is taken; servers refuse more."""

_BEGINNINGS: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)
_KNOWN: Final = "Use a PNG, JPEG, GIF or WebP file"


def image_part(path: str | Path) -> JSONObject:
    """A picture as the part of a message, whole, in a data URL.

    What kind it is follows from the file's first bytes, not from its name.

    Raises:
        InvalidInput: the file cannot be read, is no picture that models take, or too large.
    """
    try:
        with Path(path).expanduser().open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise InvalidInput("image", f"{path} cannot be read: {error.strerror}", _KNOWN) from error
    except (RuntimeError, ValueError) as error:  # ~ of nobody, a null byte
        raise InvalidInput("image", f"{path} is no path of a file: {error}", _KNOWN) from error
    if len(data) > MOST_BYTES:
        problem = f"{path} is larger than {MOST_BYTES // 2**20} MiB"
        raise InvalidInput("image", problem, "Make it smaller")
    kind = _media_type(data)
    if kind is None:
        raise InvalidInput("image", f"{path} is no picture that models take", _KNOWN)
    url = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def question_with_images(text: str, paths: Sequence[str | Path]) -> list[Message]:
    """A question in words with pictures behind it, as messages.

    Raises:
        InvalidInput: see :func:`image_part`.
    """
    words: list[JSONObject] = [{"type": "text", "text": text}] if text.strip() else []
    return [{"role": "user", "content": [*words, *map(image_part, paths)]}]


def _media_type(data: bytes) -> str | None:
    for beginning, kind in _BEGINNINGS:
        if data.startswith(beginning):
            return kind
    return "image/webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None
