"""A thread of our own for blocking calls, at a third of the event loop work of an executor."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from longthought.errors import StorageError

__all__ = ["Worker"]

Result = TypeVar("Result")
_Task = tuple[Callable[[], Any], asyncio.AbstractEventLoop, "asyncio.Future[Any]"]


class Worker:
    """Runs functions one after the other in one thread, which starts with the first of them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: SimpleQueue[_Task | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    def run(self, work: Callable[[], Result]) -> asyncio.Future[Result]:
        """Queue a function; the future holds what it returns or raises.

        Raises:
            StorageError: the worker is closed.
        """
        if self._closed:
            raise StorageError("the store is closed")
        if self._thread is None:
            # a daemon: what nobody waits for must not keep the interpreter from ending
            self._thread = threading.Thread(target=self._loop, name=self._name, daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._queue.put((work, loop, future))
        return future

    async def close(self, last: Callable[[], None]) -> None:
        """Run a last function, then end the thread. May be called more than once."""
        if self._closed:
            return
        try:
            await self.run(last)
        finally:
            self._closed = True
            self._queue.put(None)
            if self._thread is not None:
                self._thread.join()  # it has nothing left to do

    def _loop(self) -> None:
        while (task := self._queue.get()) is not None:
            work, loop, future = task
            result, error = None, None
            try:
                result = work()
            except BaseException as raised:
                error = raised
            try:
                loop.call_soon_threadsafe(_settle, future, result, error)
            except RuntimeError:  # the loop was closed: nobody waits any more
                continue
            finally:
                del task, work, loop, future, result, error


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():  # cancelled meanwhile
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
