"""Helpers at the border of event loop and threads, shared by the tools."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

__all__ = ["PerLoop", "in_thread"]

T = TypeVar("T")


class PerLoop(Generic[T]):
    """One value for each running event loop: asyncio's locks must not be shared between loops."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._values: WeakKeyDictionary[asyncio.AbstractEventLoop, T] = WeakKeyDictionary()

    def get(self) -> T:
        """The value of the running loop, made on first use."""
        loop = asyncio.get_running_loop()
        if loop not in self._values:
            self._values[loop] = self._make()
        return self._values[loop]


async def in_thread(function: Callable[[], T]) -> T:
    """Run a blocking function in a thread of its own, with the caller's context variables.

    Unlike ``asyncio.to_thread`` the thread is a daemon outside the loop's small default pool: a
    function that never returns takes no place from others and does not keep the process alive.
    When the caller is cancelled the function runs on and its outcome is dropped.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def settle(done: Callable[[Any], None], outcome: Any) -> None:
        if not future.done():
            done(outcome)

    def body() -> None:
        done: Callable[[Any], None]
        outcome: Any
        try:
            done, outcome = future.set_result, context.run(function)
        except StopIteration as error:  # a future refuses it
            done, outcome = future.set_exception, RuntimeError(f"StopIteration: {error}")
        except BaseException as error:  # handed to the awaiting task, which decides
            done, outcome = future.set_exception, error
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(settle, done, outcome)

    name = getattr(function, "__name__", "function")
    threading.Thread(target=body, name=f"longthought-{name}", daemon=True).start()
    return await future
