"""Cutting a text file into passages: pieces small enough to be shown, with their heading."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MAX_FILE_BYTES", "Passage", "passages", "split"]

MAX_FILE_BYTES = 4_000_000
MAX_PASSAGE_CHARS = 1_500

_HEADING = re.compile(r"^ {0,3}#{1,6}\s+(.+?)\s*#*\s*$")
_FENCE = re.compile(r"^ {0,3}(```|~~~)")


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document and the heading it stands under."""

    heading: str
    body: str


def passages(path: Path) -> Iterator[Passage]:
    """The passages of a file; one that cannot be read has none.

    The first ``MAX_FILE_BYTES`` are read; bytes that are no UTF-8 become replacement characters.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES).decode("utf-8-sig", "replace")
    except OSError:
        return
    yield from split(text, markdown=path.suffix.lower() == ".md")


def split(text: str, *, markdown: bool = True) -> Iterator[Passage]:
    """Paragraphs under one heading, joined up to a passage's size; long ones are cut at spaces."""
    heading, held = "", ""
    for line_heading, paragraph in _paragraphs(text, markdown):
        if held and (line_heading != heading or len(held) + len(paragraph) > MAX_PASSAGE_CHARS):
            yield Passage(heading, held)
            held = ""
        heading = line_heading
        pieces = list(_pieces(paragraph))
        for piece in pieces[:-1]:
            yield Passage(heading, piece)
        held = f"{held}\n\n{pieces[-1]}" if held else pieces[-1]
    if held:
        yield Passage(heading, held)


def _paragraphs(text: str, markdown: bool) -> Iterator[tuple[str, str]]:
    """Every paragraph with its heading; a heading with nothing under it is a paragraph itself."""
    heading, told, lines, fenced = "", True, list[str](), False
    for line in (*text.replace("\x00", " ").splitlines(), ""):
        fenced ^= markdown and bool(_FENCE.match(line))
        found = _HEADING.match(line) if markdown and not fenced else None
        if found or not line.strip():
            if lines:
                yield heading, "\n".join(lines)
                lines, told = [], True
        else:
            lines.append(line.rstrip())
        if found:
            if not told:
                yield heading, heading
            heading, told = found[1], False
    if not told:
        yield heading, heading


def _pieces(paragraph: str) -> Iterator[str]:
    """A paragraph in pieces of at most a passage's size, cut at a space where there is one."""
    while len(paragraph) > MAX_PASSAGE_CHARS:
        end = paragraph.rfind(" ", MAX_PASSAGE_CHARS // 2, MAX_PASSAGE_CHARS)
        end = end if end > 0 else MAX_PASSAGE_CHARS
        yield paragraph[:end]
        paragraph = paragraph[end:].lstrip()
    yield paragraph
