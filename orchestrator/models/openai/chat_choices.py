"""A chat completion with several choices (``n``): one prompt, several replies side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from longthought.orchestrator.models.openai import chat_wire
from longthought.orchestrator.models.openai.chat_stream import ChatStream
from longthought.orchestrator.models.openai.dialect import (
    Answer,
    CutFor,
    Emit,
    ServerFault,
    known_form,
)
from longthought.types import JSONObject, Usage

__all__ = ["ChatChoices"]


class ChatChoices:
    """The choices of one call, whole or while they stream in.

    ``tokens`` is the most that came of any choice that has not ended, ``usage`` what the server
    said of all of them together. No choice is cut for what it thinks.
    """

    cut_for: CutFor | None = None

    def __init__(self, emits: Sequence[Emit | None], turn: int) -> None:
        self.streams = [ChatStream(turn, emit) for emit in emits]
        self.done = False
        self.usage: Usage | None = None
        self._turn = turn
        self._whole: list[Answer | None] = []

    @property
    def tokens(self) -> int:
        """Pieces that came of the longest choice under way."""
        return max((stream.tokens for stream in self.streams if not stream.ended), default=0)

    @property
    def ended(self) -> bool:
        """Whether every choice has ended."""
        return all(stream.ended for stream in self.streams)

    @property
    def complete(self) -> bool:
        """Whether all of every choice that was begun has come, and of one at least."""
        begun = [stream for stream in self.streams if stream.tokens or stream.ended]
        return bool(begun) and all(stream.complete for stream in begun)

    def take(self, kind: str, data: str) -> None:
        """Take in one server-sent event; each choice goes to the reply it belongs to.

        Raises:
            ServerFault: it is an error, or nothing that can be read.
        """
        if data.startswith("[DONE]"):
            self.done = True
            for stream in self.streams:
                stream.take(kind, data)
            return
        try:
            chunk = json.loads(data)
        except ValueError:
            raise ServerFault("a piece of the stream is not JSON") from None
        if not isinstance(chunk, dict) or chunk.get("error") or kind == "error":
            self.streams[0].take(kind, data)  # which says what is wrong with it
            return
        with known_form():
            self._take_usage(chunk)
            for choice in chunk.get("choices") or ():
                own = {**chunk, "usage": None, "choices": [choice]}
                index = choice.get("index", 0)
                if index < len(self.streams):
                    self.streams[index].take(kind, json.dumps(own))

    def _take_usage(self, chunk: JSONObject) -> None:
        """One chunk has it for all choices, or, with llama.cpp, one for each, as each ends."""
        usage = chat_wire.reported_usage(chunk.get("usage"))
        if usage is None:
            return
        if self.usage is not None and "timings" in chunk:
            output = self.usage.completion_tokens + usage.completion_tokens
            usage = replace(usage, completion_tokens=output)
        self.usage = usage

    def take_whole(self, reply: JSONObject) -> None:
        """Take in a reply that came in one piece.

        Raises:
            ServerFault: it has no choice, or no known form.
        """
        if not reply.get("choices"):
            raise ServerFault("the reply holds no choice")
        with known_form():
            self.usage = chat_wire.reported_usage(reply.get("usage"))
            if "timings" in reply and len(reply["choices"]) > 1:
                self.usage = None  # llama.cpp's is that of the first choice alone
            head = {**reply, "usage": None}
            found: dict[int, Answer] = {}
            for place, choice in enumerate(reply["choices"]):
                logprobs = (choice.get("logprobs") or {}).get("content")
                found[choice.get("index", place)] = chat_wire.read_answer(
                    head, choice["message"], choice, logprobs, self._turn
                )
            self._whole = [found.get(index) for index in range(len(self.streams))]
        self.done = True

    def has_ended(self, index: int) -> bool:
        """Whether the server said how a choice ended; one that was cut has not."""
        return bool(self._whole) or self.streams[index].complete

    def answers(self) -> list[Answer | None]:
        """What came of each choice, in their order; None where nothing did."""
        if self._whole:
            return self._whole
        return [s.answer() if s.tokens or s.ended else None for s in self.streams]
