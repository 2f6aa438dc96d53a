"""Time that a test moves on, so that a limit passes at a moment it has chosen."""

from __future__ import annotations

import asyncio
import time

import pytest

from longthought.budgets import Clocks
from longthought.orchestrator import recorded


class MovedTime:
    """The clocks of runs and that of the running event loop, with all its timers.

    Attributes:
        ahead: seconds by which they are ahead of the real ones.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        real, self.ahead = loop.time, 0.0
        monkeypatch.setattr(loop, "time", lambda: real() + self.ahead)
        monkeypatch.setattr(recorded, "Clocks", lambda _: Clocks(loop.time))


class TimeOfDay:
    """The time of day of this process.

    Attributes:
        ahead: seconds by which it is ahead of the real one.
    """

    def __init__(self) -> None:
        self.real, self.ahead = time.time, 0.0

    def __call__(self) -> float:
        return self.real() + self.ahead
