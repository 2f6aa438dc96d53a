"""Canonical JSON and salted digests: how a value becomes a name that proves it.

A payload is named by ``id = SHA-256(salt || body)`` with ``salt = HMAC(run key, body)[:16]``. The
salt is stored beside the payload and deleted with it, so that after a deletion the id proves
nothing about what stood there; deleting a payload also destroys the run key, because the key could
rebuild the salt of a guessed body. Within a run the same body always has the same id.
"""

from __future__ import annotations

import binascii
import hashlib
import json
import secrets

from longthought.types import JSON

__all__ = [
    "EMPTY_HEAD",
    "as_recorded",
    "canonical",
    "chain_hash",
    "digest_of",
    "new_run_key",
    "payload_id",
    "salt_of",
]

_PLAIN = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
).encode
_ASCII = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode
_URLSAFE = bytes.maketrans(b"+/", b"-_")

EMPTY_HEAD = ""
"""The head of a run without events."""


def canonical(value: JSON) -> str:
    """JSON with sorted keys and no spaces; NaN and infinities are refused.

    Non-ASCII text stands as it is, unless it holds lone surrogates, which UTF-8 cannot carry: then
    the whole value is written in ASCII escapes (surrogates that make a pair become its character).

    Raises:
        ValueError: the value holds NaN or an infinity, or refers to itself.
        TypeError: the value holds something that JSON does not have.
    """
    text = _PLAIN(value)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        # reading the escapes back joins surrogates that stand as a pair
        joined = json.loads(_ASCII(value))
        text = _PLAIN(joined)
        return text if _is_utf8(text) else _ASCII(joined)
    return text


def as_recorded(value: JSON) -> JSON:
    """A value as a replay is handed it: with its keys in the order of the record."""
    return json.loads(canonical(value))


_BLOCK = 64
_INNER, _OUTER = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))
"""The pads of HMAC, as tables for ``bytes.translate``."""


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def new_run_key() -> bytes:
    """A fresh random run key of 16 bytes."""
    return secrets.token_bytes(16)


def salt_of(run_key: bytes, body: bytes) -> bytes:
    """The 16-byte salt of a payload body under a run key: its HMAC-SHA-256, cut.

    Written out (RFC 2104), because ``hmac.digest`` lets go of the interpreter for however short a
    text: beside the threads of a database it then waits longer to go on than it works.
    """
    key = run_key if len(run_key) <= _BLOCK else hashlib.sha256(run_key).digest()
    key = key.ljust(_BLOCK, b"\0")
    inner = hashlib.sha256(key.translate(_INNER) + body).digest()
    return hashlib.sha256(key.translate(_OUTER) + inner).digest()[:16]


def digest_of(*parts: bytes) -> str:
    """SHA-256 over the parts, base64url without padding: 43 characters."""
    digest = hashlib.sha256(b"".join(parts)).digest()
    return binascii.b2a_base64(digest)[:43].translate(_URLSAFE).decode()


def payload_id(salt: bytes, body: bytes) -> str:
    """The content address of a payload."""
    return digest_of(salt, body)


def chain_hash(previous: str, event: str) -> str:
    """The head after an event, from the head before it and the event's canonical JSON."""
    return digest_of(previous.encode(), b"\n", event.encode())
