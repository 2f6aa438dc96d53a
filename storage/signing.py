"""The signing key of a data directory: Ed25519, made at first use, readable by its owner alone."""

from __future__ import annotations

import base64
import os
import secrets
import stat
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from longthought.errors import ConfigurationError

__all__ = ["KEY_FILE", "public_text", "sign", "signature_holds", "signing_key"]

KEY_FILE = "signing.key"


def signing_key(directory: Path) -> Ed25519PrivateKey:
    """The signing key in the directory, created if there is none.

    Raises:
        ConfigurationError: the file cannot be used, or others may read it.
    """
    path = directory / KEY_FILE
    try:
        if not path.exists():
            _create(path)
        if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise ConfigurationError(
                KEY_FILE, f"others may read {path}", f"Write: chmod 600 {path}"
            )
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigurationError(KEY_FILE, f"{path} cannot be used: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(KEY_FILE, f"{path} holds no Ed25519 key")
    return key


def _create(path: Path) -> None:
    """Write a new key whole or not at all; of two that do so at once, one wins."""
    content = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(draft)
        except FileExistsError:
            return
    finally:
        draft.unlink()
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def public_text(key: Ed25519PrivateKey) -> str:
    """The public half: 32 bytes in base64url without padding."""
    return _text(key.public_key().public_bytes_raw())


def sign(key: Ed25519PrivateKey, text: str) -> str:
    """The signature over a text: 64 bytes in base64url without padding."""
    return _text(key.sign(text.encode()))


def signature_holds(public_key: str, signature: str, text: str) -> bool:
    """Whether the signature over the text was made with this key; False for malformed ones."""
    try:
        key = Ed25519PublicKey.from_public_bytes(_bytes(public_key))
        key.verify(_bytes(signature), text.encode())
    except (InvalidSignature, ValueError, TypeError, AttributeError):
        return False
    return True


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if _text(raw) != text:
        raise ValueError("not in canonical base64url")
    return raw
