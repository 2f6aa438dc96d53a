"""The tool ``search``: full text search over a folder of ``.txt`` and ``.md`` files.

The index is SQLite FTS5 with the Porter stemmer: no dependency, and quick enough for ten thousands
of passages. It is brought up to date at each call, by the size and time of change of the files.
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from longthought.errors import InvalidInput
from longthought.tools.loops import in_thread
from longthought.tools.passages import Passage, passages
from longthought.tools.protocol import ToolContext, ToolResult, ToolSpec
from longthought.types import JSONObject

__all__ = ["SearchTool", "search"]

SUFFIXES = (".md", ".txt")
MAX_FILES = 50_000
MAX_QUERY_CHARS = 1_000
MAX_TERMS = 32
MAX_TOP = 50
SNIPPET_TOKENS = 60  # FTS5 allows 64
SCHEMA_VERSION = 7301  # also tells our cache file from another database

_SCHEMA = f"""
CREATE TABLE files (name TEXT PRIMARY KEY, stamp TEXT NOT NULL) WITHOUT ROWID;
CREATE VIRTUAL TABLE passages USING fts5(
    name UNINDEXED, heading, body, tokenize = 'porter unicode61 remove_diacritics 2'
);
PRAGMA user_version = {SCHEMA_VERSION};
"""
_FIND = """
SELECT name, heading, snippet(passages, 2, '', '', ' ... ', ?), bm25(passages, 0.0, 3.0, 1.0)
FROM passages WHERE passages MATCH ? ORDER BY 4, rowid LIMIT ?
"""


def search(folder: str | Path, *, top: int = 5, cache: str | Path | None = None) -> SearchTool:
    """The tool ``search`` over the ``.txt`` and ``.md`` files of a folder and its subfolders.

    A call returns the ``top`` best passages with file name, heading and snippet. Hidden files and
    links that lead out of the folder are left out; of a large file the first megabytes are read;
    bytes that are no UTF-8 are replaced. The index lives in memory, or in the file ``cache``, which
    saves reading everything again in the next process. Words in scripts without spaces are found
    only as whole runs. The fingerprint holds the folder's name, not its contents.

    Raises:
        InvalidInput: the folder does not exist, or a value is out of range.
    """
    return SearchTool(folder, top=top, cache=cache)


class SearchTool:
    """See :func:`search`."""

    def __init__(
        self, folder: str | Path, *, top: int = 5, cache: str | Path | None = None
    ) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise InvalidInput("folder", f"{str(folder)!r} is no folder")
        if not 1 <= top <= MAX_TOP:
            raise InvalidInput("top", f"{top!r} is outside 1 to {MAX_TOP}")
        self._root = self.folder.resolve()
        self._cache = None if cache is None else Path(cache)
        query = {"type": "string", "description": "A few words to look for."}
        self.spec = ToolSpec(
            name="search",
            description=(
                "Search the local notes. Returns the passages that fit the words best, "
                "each with its file name and heading."
            ),
            parameters={
                "type": "object",
                "properties": {"query": query},
                "required": ["query"],
                "additionalProperties": False,
            },
            effect="read",
            timeout_s=60.0,
            version="1",
            options={"folder": self._root.name, "top": top},
        )
        self._top = top
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    def validate(self, arguments: JSONObject) -> None:
        """Check that there is a query, and nothing else.

        Raises:
            InvalidInput: the message is written for the model.
        """
        if unknown := sorted(set(arguments) - {"query"}):
            raise InvalidInput("arguments", f"{', '.join(unknown)}: there is no such argument")
        if not isinstance(arguments.get("query"), str):
            raise InvalidInput("arguments", "query: words as text are needed")

    async def call(self, arguments: JSONObject, context: ToolContext) -> ToolResult:
        """Bring the index up to date and search it, in a thread.

        Raises:
            InvalidInput: the arguments cannot be used, or the cache file is not an index.
            OSError: the folder cannot be read any more.
            sqlite3.Error: the index cannot be written.
        """
        self.validate(arguments)
        match = _match(arguments["query"])
        if not match:
            return ToolResult("tool_error", "The query holds no words. Write a few words.")
        hits = await in_thread(lambda: self._search(match))
        if not hits:
            return ToolResult("ok", "Nothing was found. Try other or fewer words.", [])
        return ToolResult("ok", _shown(hits), [hit.to_json() for hit in hits])

    async def aclose(self) -> None:
        """Close the index; a later call opens it again."""
        await in_thread(self._close)

    def _close(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def _search(self, match: str) -> list[_Hit]:
        with self._lock:
            connection = self._connection = self._connection or self._open()
            with connection:  # commits the update, or rolls it back
                self._update(connection)
            rows = connection.execute(_FIND, (SNIPPET_TOKENS, match, self._top))
            return [_Hit(*row) for row in rows]

    def _open(self) -> sqlite3.Connection:
        # The lock sees to it that one thread at a time uses the connection.
        place = ":memory:" if self._cache is None else str(self._cache)
        connection = sqlite3.connect(place, check_same_thread=False)
        try:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if tables == 0:
                connection.executescript(_SCHEMA)
            elif version != SCHEMA_VERSION:
                raise InvalidInput("cache", f"{self._cache} is no index of this version")
        except sqlite3.DatabaseError as error:
            connection.close()
            raise InvalidInput("cache", f"{self._cache} cannot be used: {error}") from error
        except BaseException:
            connection.close()
            raise
        return connection

    def _update(self, connection: sqlite3.Connection) -> None:
        """Take in files that are new or changed, drop those that are gone."""
        known = dict(connection.execute("SELECT name, stamp FROM files"))
        for name, path, stamp in self._files():
            before = known.pop(name, None)
            if before is not None and before != stamp:
                _forget(connection, name)  # reads all passages: not for files that are new
            if before != stamp:
                _take_in(connection, name, stamp, passages(path))
        for name in known:
            _forget(connection, name)

    def _files(self) -> Iterator[tuple[str, Path, str]]:
        """Name, path and stamp of every file to be searched, in a stable order."""
        count = 0
        for place, folders, names in os.walk(self._root):  # does not follow links to folders
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                path = Path(place, name)
                if name.startswith(".") or path.suffix.lower() not in SUFFIXES:
                    continue
                try:
                    if not path.resolve().is_relative_to(self._root) or not path.is_file():
                        continue
                    status = path.stat()
                except (OSError, RuntimeError):  # gone meanwhile, or a link in a circle
                    continue
                count += 1
                if count > MAX_FILES:
                    return
                stamp = f"{status.st_mtime_ns} {status.st_size}"
                yield (
                    os.fsencode(path.relative_to(self._root)).decode("utf-8", "replace"),
                    path,
                    stamp,
                )


@dataclass(frozen=True, slots=True)
class _Hit:
    """One passage found; a smaller score is a better fit."""

    file: str
    heading: str
    snippet: str
    score: float

    def to_json(self) -> JSONObject:
        return {"file": self.file, "heading": self.heading, "snippet": self.snippet}


def _forget(connection: sqlite3.Connection, name: str) -> None:
    connection.execute("DELETE FROM passages WHERE name = ?", (name,))
    connection.execute("DELETE FROM files WHERE name = ?", (name,))


def _take_in(
    connection: sqlite3.Connection, name: str, stamp: str, found: Iterator[Passage]
) -> None:
    rows = ((name, passage.heading, passage.body) for passage in found)
    connection.executemany("INSERT INTO passages VALUES (?, ?, ?)", rows)
    connection.execute("INSERT INTO files VALUES (?, ?)", (name, stamp))


def _match(query: str) -> str:
    """An FTS5 expression for any text: its words, each quoted, any of which may occur."""
    words = re.findall(r"\w+", query[:MAX_QUERY_CHARS].replace("_", " "))
    terms = list(dict.fromkeys(word.casefold() for word in words))[:MAX_TERMS]
    return " OR ".join(f'"{term}"' for term in terms)


def _shown(hits: list[_Hit]) -> str:
    """The hits as the model reads them."""
    parts = []
    for number, hit in enumerate(hits, 1):
        where = f"{hit.file} | {hit.heading}" if hit.heading else hit.file
        parts.append(f"{number}. {where}\n{hit.snippet}")
    return "\n\n".join(parts)
