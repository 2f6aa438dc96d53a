"""A connected socket: every address of a host is tried, the next before the last has given up.

asyncio has such a race of its own, which loses the socket that won it if it is cancelled, or its
time is up, in that moment.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from typing import Any, TypeAlias

__all__ = ["dial"]

_HEAD_START = 0.25
"""Seconds that one address has before the next is tried beside it, as RFC 8305 says."""

_Found: TypeAlias = tuple[Any, ...]
"""What ``getaddrinfo`` says of one address."""


async def dial(host: str, port: int, local_address: str | None = None) -> socket.socket:
    """A socket that is connected to a host, from a local address if one is given.

    Raises:
        OSError: no address of the host answers, or it has none.
    """
    loop = asyncio.get_running_loop()
    found = _families_in_turn(await _found(loop, host, port))
    under_way: set[asyncio.Task[socket.socket]] = set()
    failures: list[str] = []
    try:
        for number, address in enumerate(found, 1):
            under_way.add(loop.create_task(_connected(loop, address, local_address)))
            while under_way:
                last = number == len(found)
                wait = None if last else _HEAD_START
                done, _ = await asyncio.wait(
                    under_way, timeout=wait, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    under_way.discard(task)
                    error = task.exception()
                    if error is None:
                        return task.result()
                    failures.append(str(error))
                if not last:
                    break
    finally:
        for task in under_way:
            task.cancel()
            task.add_done_callback(_close)
    raise OSError("; ".join(dict.fromkeys(failures)) or f"{host} has no address")


async def _found(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[_Found]:
    try:  # numbers need no looking up, and no thread of the loop, which may all be busy
        flags = socket.AI_NUMERICHOST
        return [*socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)]
    except socket.gaierror:
        return [*await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


async def _connected(
    loop: asyncio.AbstractEventLoop, address: _Found, local_address: str | None
) -> socket.socket:
    family, kind, protocol, _, at = address
    made = socket.socket(family, kind, protocol)
    try:
        made.setblocking(False)
        if local_address is not None:
            made.bind((local_address, 0))
        await loop.sock_connect(made, at)
    except BaseException:
        made.close()
        raise
    return made


def _families_in_turn(found: list[_Found]) -> list[_Found]:
    """IPv6 and IPv4 by turns, beginning with the one that the system puts first."""
    first = [address for address in found if address[0] == found[0][0]]
    others = [address for address in found if address[0] != found[0][0]]
    pairs = itertools.zip_longest(first, others)
    return [address for pair in pairs for address in pair if address is not None]


def _close(task: asyncio.Task[socket.socket]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()
