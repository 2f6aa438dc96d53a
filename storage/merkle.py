"""A Merkle tree in the manner of RFC 6962: one root for many leaves, short proofs for each.

Leaves and nodes are hashed with different prefixes, so that no node can pass for a leaf.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence

__all__ = ["inclusion_path", "merkle_root", "root_from_path"]


def merkle_root(leaves: Sequence[str]) -> str:
    """The root over the leaves, base64url without padding."""
    return _text(_root([_leaf(leaf) for leaf in leaves]))


def inclusion_path(leaves: Sequence[str], index: int) -> list[str]:
    """The hashes that lead from one leaf to the root, nearest first."""
    hashes = [_leaf(leaf) for leaf in leaves]
    path: list[str] = []
    while len(hashes) > 1:
        split = _split(len(hashes))
        left, right = hashes[:split], hashes[split:]
        if index < split:
            path.append(_text(_root(right)))
            hashes = left
        else:
            path.append(_text(_root(left)))
            hashes, index = right, index - split
    path.reverse()
    return path


def root_from_path(leaf: str, index: int, size: int, path: Sequence[str]) -> str:
    """The root that a leaf and its path lead to; it proves the leaf if it is the signed one.

    Raises:
        ValueError: the path does not fit a tree of this size.
    """
    if not 0 <= index < size:
        raise ValueError("no leaf has this index")
    turns: list[bool] = []  # from the root down: whether the leaf lies on the right
    while size > 1:
        split = _split(size)
        turns.append(index >= split)
        index, size = (index - split, size - split) if index >= split else (index, split)
    if len(turns) != len(path):
        raise ValueError("the path has the wrong length")
    current = _leaf(leaf)
    for right, other in zip(reversed(turns), path, strict=True):
        pair = (_bytes(other), current) if right else (current, _bytes(other))
        current = _node(*pair)
    return _text(current)


def _leaf(leaf: str) -> bytes:
    return hashlib.sha256(b"\x00" + leaf.encode()).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def _split(size: int) -> int:
    """The largest power of two below size."""
    return 1 << ((size - 1).bit_length() - 1)


def _root(hashes: list[bytes]) -> bytes:
    if not hashes:
        return hashlib.sha256(b"").digest()
    # pairing level by level, an odd last one moving up, gives the tree of RFC 6962
    while len(hashes) > 1:
        paired = [_node(hashes[i], hashes[i + 1]) for i in range(0, len(hashes) - 1, 2)]
        hashes = paired + hashes[len(paired) * 2 :]
    return hashes[0]


def _text(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest)[:43].decode()


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=")
