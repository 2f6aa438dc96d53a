"""Finds the end of a JSON object that comes in pieces, cut anywhere.

A piece costs a handful of calls whatever its length, and one inside a string none: arguments of
tools hold whole programs.
"""

from __future__ import annotations

import re

__all__ = ["ClosingObject"]

_BODY = r'[^"\\]*+(?:\\.[^"\\]*+)*+'
_REST_OF_STRING = re.compile(_BODY, re.DOTALL)
_STRINGS = re.compile(rf'"{_BODY}"|("{_BODY}\\?)\Z', re.DOTALL)
"""A string, or as a group one that has no end yet; nothing is read twice over."""


class ClosingObject:
    """Counts the braces that stand outside of strings, until they are all closed."""

    __slots__ = ("_closed", "_depth", "_escaped", "_in_string")

    def __init__(self) -> None:
        self._closed, self._depth = False, 0
        self._in_string = self._escaped = False

    def closes(self, piece: str) -> bool:
        """Take in a piece; true, once, if every brace is closed at its end and there was one.

        What is no object then, taken together, does not become one by what follows.
        """
        if self._closed:
            return False
        if self._in_string:
            if not self._escaped and '"' not in piece and "\\" not in piece:
                return False
            end = self._end_of_string(piece)
            if self._in_string:
                return False
            piece = piece[end:]
        if '"' in piece:
            piece, quote, string = _STRINGS.sub(r"\1", piece).partition('"')
            if quote:
                self._in_string = True
                self._escaped = (len(string) - len(string.rstrip("\\"))) % 2 == 1
        ends = piece.count("}")
        self._depth += piece.count("{") - ends
        self._closed = ends > 0 and self._depth == 0
        return self._closed

    def _end_of_string(self, piece: str) -> int:
        """Where the string ends that was open, behind its quote."""
        found = _REST_OF_STRING.match(piece, 1 if self._escaped else 0)
        end = found.end() if found else 0
        self._escaped = piece[end:] == "\\"
        self._in_string = self._escaped or end == len(piece)
        return end + 1
