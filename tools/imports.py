"""Leaving out imports that a program never uses.

Programs written by models often import what they do not need; where a sandbox lacks the module
the import alone would fail them. Dropping those took Monty from 51 % to 96 % of 6,471 programs.
"""

from __future__ import annotations

import ast
import warnings

__all__ = ["without_unused_imports"]


def without_unused_imports(code: str) -> str:
    """The code with unused imports replaced by ``pass``; line numbers stay as they were.

    Code that does not parse, or that runs text as code (``eval``, ``exec``), comes back unchanged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the program's escapes, of no interest here
            tree = ast.parse(code)
        nodes = list(ast.walk(tree))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return code
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    if used & {"eval", "exec", "globals", "locals", "vars", "__all__"}:
        return code
    lines = code.encode().splitlines(keepends=True)  # columns are counted in UTF-8 bytes
    imports = [node for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))]
    # From the end, so that the places of those before it stay true.
    for node in sorted(imports, key=lambda n: (n.lineno, n.col_offset), reverse=True):
        kept = [alias for alias in node.names if _name(node, alias) in {*used, "*"}]
        if len(kept) < len(node.names):
            _replace(lines, node, kept)
    return b"".join(lines).decode()


def _name(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> str:
    """The name an import binds; an import from the future counts as used."""
    if isinstance(node, ast.ImportFrom) and node.module == "__future__":
        return "*"
    return alias.asname or alias.name.split(".")[0]


def _replace(lines: list[bytes], node: ast.Import | ast.ImportFrom, kept: list[ast.alias]) -> None:
    """Put what is kept in the place of an import, with as many line ends as before."""
    text = "pass"
    if kept:
        node.names = kept
        text = ast.unparse(node)
    first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
    head, tail = lines[first][: node.col_offset], lines[last][node.end_col_offset :]
    lines[first] = head + text.encode() + tail
    for number in range(first + 1, last + 1):
        lines[number] = b""
    lines[first] += b"\n" * (last - first)
