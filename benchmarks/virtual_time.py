"""An event loop whose clock jumps: real sockets, and seconds that cost nothing.

While bytes are on their way nothing is waited for; when there are none, the clock goes on to the
next timer at once. Both ends of a connection have to live in the loop, so that what one has sent
the other can read. Threads are waited for only while there is no timer.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

__all__ = ["VirtualTimeLoop", "run"]

_Result = TypeVar("_Result")
_GRACE = 1e-4
"""Real seconds for bytes that have been sent to be there."""
_Ready = list[tuple[selectors.SelectorKey, int]]


class _JumpingSelector(selectors.BaseSelector):
    """Never waits if a time is given: it says that the time has passed."""

    def __init__(self) -> None:
        self.passed = 0.0
        self._inner = selectors.SelectSelector()  # waits for less than a millisecond, too

    def select(self, timeout: float | None = None) -> _Ready:
        if timeout is None:
            return self._inner.select(None)
        ready = self._inner.select(min(timeout, _GRACE))
        if not ready:
            self.passed += timeout
        return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._inner.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._inner.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._inner.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._inner.get_map()

    def close(self) -> None:
        self._inner.close()


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop of which :meth:`time` begins at 0 and stands still while anything is done."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._jumping.passed


def run(main: Coroutine[Any, Any, _Result]) -> _Result:
    """Like :func:`asyncio.run`, on such a loop."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
