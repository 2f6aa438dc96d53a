"""Who drives a run: an identity of this process that others can check for life."""

from __future__ import annotations

import os
import socket
from pathlib import Path

__all__ = ["is_gone", "process_identity"]


def process_identity() -> str:
    """``host:pid:start``; the start time keeps a reused pid from looking like the old process."""
    return f"{_host()}:{os.getpid()}:{_start_of(os.getpid())}"


def is_gone(owner: str) -> bool:
    """True only if the owner ran on this host and its process has certainly ended."""
    host, pid_text, start = [*owner.rsplit(":", 2), "", ""][:3]
    if host != _host() or not pid_text.isdigit():
        return False
    pid = int(pid_text)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return _start_of(pid) != start or _is_zombie(pid)


def _host() -> str:
    """The host and its pid namespace: in two containers one pid is two processes."""
    try:
        return f"{socket.gethostname()}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return socket.gethostname()


def _stat_fields(pid: int) -> list[str]:
    try:
        # the process name may hold spaces and brackets; the fields follow the last bracket
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _start_of(pid: int) -> str:
    fields = _stat_fields(pid)
    return fields[19] if len(fields) > 19 else "0"


def _is_zombie(pid: int) -> bool:
    fields = _stat_fields(pid)
    return bool(fields) and fields[0] == "Z"
