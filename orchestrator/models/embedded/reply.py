"""A reply while it is drawn: its tokens and text, where it stops, and what may be shown so far."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from longthought.types import FinishReason

from . import vocabulary as v
from .conversation import Conversation, expression_before_call

__all__ = ["Reply", "StopScanner"]


class StopScanner:
    """Passes text on up to the first stop string, which is itself left out.

    Text that may be the beginning of a stop string is held back until that is settled.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""

    def feed(self, piece: str) -> tuple[str, bool]:
        """The text that may now be shown, and whether a stop string was found."""
        text = self._held + piece
        found = [place for place in (text.find(stop) for stop in self._stops) if place >= 0]
        if found:
            self._held = ""
            return text[: min(found)], True
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
        self._resumable = True
        self._conversation = conversation
        self._renderer = v.Renderer()
        for token in conversation.trace:
            self._renderer.feed(token)
        self._scanner = StopScanner(stops)
        self._pieces: deque[str] = deque()
        if conversation.continued is not None:
            self._pieces.append(self._join(conversation.continued))

    def _join(self, continued: str) -> str:
        """What stands between the continued text and the reply, besides the usual space.

        A stop string took it off the end of the text: ``;`` after ``left]``, the line break after
        BACK. Together the two texts are exactly what one reply would have been.
        """
        if continued != continued.rstrip():
            self._renderer.fresh()
            return ""
        if continued.endswith("left]"):
            return ";"
        return "\n" if continued.endswith("BACK") else ""

    def accept(self, token: int) -> bool:
        """Take in a drawn token; true when the reply has ended with it."""
        self.tokens.append(token)
        text = self._renderer.feed(token)
        mode = self._conversation.mode
        if token == v.CALL and mode == v.MODE_TOOL:
            self.expression = expression_before_call(self._conversation.prompt + self.tokens)
            if self.expression:
                text = ""  # the call itself says it
        visible, stopped = self._scanner.feed(text)
        self._pieces.append(visible)
        if stopped or token == v.DONE or (mode == v.MODE_VALUE and token in (v.YES, v.NO)):
            self.finish = "stop"
            self._resumable = stopped and token != v.DONE
        elif token == v.CALL and mode == v.MODE_TOOL:
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
