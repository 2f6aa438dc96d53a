"""A reply while it is drawn: its tokens and text, where it stops, and what may be shown so far."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from longthought.types import FinishReason

from .conversation import Conversation

__all__ = ["Reply", "StopScanner"]


class StopScanner:
    """Passes text on up to the first stop string, which is itself left out.

    Text that may be the beginning of a stop string is held back until that is settled.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.found: str | None = None

    def feed(self, piece: str) -> tuple[str, bool]:
        """The text that may now be shown, and whether a stop string was found."""
        text = self._held + piece
        found = [(place, stop) for stop in self._stops if (place := text.find(stop)) >= 0]
        if found:
            self._held = ""
            place, self.found = min(found)
            return text[:place], True
        held = max(
            (n for stop in self._stops for n in range(1, len(stop)) if text.endswith(stop[:n])),
            default=0,
        )
        cut = len(text) - held
        self._held = text[cut:]
        return text[:cut], False

    def flush(self) -> str:
        """What was held back, when no more text comes."""
        held, self._held = self._held, ""
        return held


class Reply:
    """Follows one reply token by token; :meth:`accept` runs in the engine's thread, in order."""

    def __init__(self, conversation: Conversation, stops: Sequence[str]) -> None:
        self.tokens: list[int] = []
        self.finish: FinishReason | None = None
        self.expression: str | None = None
        self.stopped_by: str | None = None
        self._resumable = True
        self._conversation = conversation
        self._renderer = conversation.task.language.renderer()
        for token in conversation.trace:
            self._renderer.feed(token)
        self._scanner = StopScanner(stops)
        self._pieces: deque[str] = deque()
        if conversation.continued is not None:
            self._pieces.append(self._join(conversation.continued))

    def _join(self, continued: str) -> str:
        """What stands between the continued text and the reply, besides the usual space.

        Together the two texts are exactly what one reply would have been.
        """
        self._renderer.settle()  # a number at the end of the text stands there already
        joint = self._conversation.task.between(continued)
        if joint is None:
            self._renderer.fresh()
        return joint or ""

    def accept(self, token: int) -> bool:
        """Take in a drawn token; true when the reply has ended with it."""
        conversation, task = self._conversation, self._conversation.task
        self.tokens.append(token)
        called = conversation.mode == "tool" and token == task.call
        if called:
            self.expression = task.expression(conversation.prompt + self.tokens)
        # The call itself says what the token of a call would: only the number before it is shown.
        text = self._renderer.settle() if self.expression else self._renderer.feed(token)
        visible, stopped = self._scanner.feed(text)
        self._pieces.append(visible)
        if stopped or task.ends(conversation.mode, token):
            self.finish = "stop"
            self.stopped_by = self._scanner.found
            self._resumable = stopped and not task.finished(token)
        elif called:
            # A call without an operation before it can be made by nobody: the reply just ends.
            self.finish = "tool_calls" if self.expression else "stop"
        return self.finish is not None

    def worth_keeping(self) -> bool:
        """Whether the sequence may come back longer: a finished one does not."""
        return self._resumable

    def take(self) -> str:
        """The text that has come since the last call."""
        return "".join(self._pieces.popleft() for _ in range(len(self._pieces)))

    def rest(self) -> str:
        """The text that is still to be shown when the reply is over."""
        return self.take() + self._scanner.flush()
