"""The dialect of Chat Completions, which nearly every server speaks."""

from __future__ import annotations

from longthought.orchestrator.models.openai import chat_wire
from longthought.orchestrator.models.openai.chat_stream import ChatStream
from longthought.orchestrator.models.openai.dialect import (
    Answer,
    Emit,
    ServerFault,
    WireOptions,
    known_form,
)
from longthought.orchestrator.models.openai.thought_count import thought_count
from longthought.types import JSONObject, ModelRequest

__all__ = ["ChatDialect", "turn_of"]


class ChatDialect:
    """Chat Completions, see https://platform.openai.com/docs/api-reference/chat."""

    path = "/chat/completions"

    def __init__(self, options: WireOptions) -> None:
        self.options = options

    def body(self, request: ModelRequest, max_tokens: int | None) -> JSONObject:
        """The body to post; without ``max_tokens`` no maximum is sent.

        Raises:
            InvalidInput: extra parameters ask for several answers.
        """
        return chat_wire.request_body(request, self.options, max_tokens)

    def whole(self, request: ModelRequest, reply: JSONObject) -> Answer:
        """A reply that came in one piece.

        Raises:
            ServerFault: it has no choice, or no known form.
        """
        if not reply.get("choices"):
            raise ServerFault("the reply holds no choice")
        with known_form():
            choice = reply["choices"][0]
            logprobs = (choice.get("logprobs") or {}).get("content")
            message, turn = choice["message"], turn_of(request)
            if request.get("continue_last") and "timings" in reply:  # llama.cpp
                message = chat_wire.without_repetition(message, request["messages"][-1])
            return chat_wire.read_answer(reply, message, choice, logprobs, turn)

    def arriving(self, request: ModelRequest, emit: Emit | None) -> ChatStream:
        """A reply that is about to stream in."""
        return ChatStream(turn_of(request), emit, thought_count(request, self.options))


def turn_of(request: ModelRequest) -> int:
    """The number of the reply in its conversation, for tool calls that come without an id."""
    return sum(1 for message in request["messages"] if message["role"] == "assistant")
