"""Addresses of servers: checked, shown without their secrets, and taken apart."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit, urlunsplit

from longthought.errors import ConfigurationError

__all__ = ["below", "checked_url", "is_loopback", "public_url", "root_of"]


def checked_url(url: object, field: str = "base_url") -> str:
    """The address, without a slash at its end.

    Raises:
        ConfigurationError: it is no http address; user, password and query are not shown.
    """
    fix = "Write http://host:port/v1"
    if not isinstance(url, str):
        raise ConfigurationError(field, f"{type(url).__name__} is no address", fix)
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname)
        known = known and (parts.port is None or parts.port > 0) and url.isprintable()
    except ValueError:  # a port that is none, a bracket that is not closed
        raise ConfigurationError(field, "is no http address", fix) from None
    if not known or " " in url:
        raise ConfigurationError(field, f"{public_url(url)!r} is no http address", fix)
    return url.rstrip("/")


def public_url(url: str) -> str:
    """The address without user, password, query and fragment."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def is_loopback(url: str) -> bool:
    """Whether the address is of this machine; names are not looked up."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def root_of(base_url: str) -> str:
    """The address below which a server has what is its own: that before ``/v1``."""
    parts = urlsplit(base_url)
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return urlunsplit(parts._replace(path=path))


def below(base_url: str, path: str) -> str:
    """The address of what is below another; a query of that stays behind the path."""
    parts = urlsplit(base_url)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + path, fragment=""))
