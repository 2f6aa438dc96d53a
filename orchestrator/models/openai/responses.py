"""The dialect of Responses, OpenAI's newer protocol."""

from __future__ import annotations

from longthought.orchestrator.models.openai import responses_wire
from longthought.orchestrator.models.openai.dialect import (
    Answer,
    Emit,
    ServerFault,
    WireOptions,
    known_form,
)
from longthought.orchestrator.models.openai.responses_stream import ResponsesStream
from longthought.orchestrator.models.openai.thought_count import thought_count
from longthought.types import JSONObject, ModelRequest

__all__ = ["ResponsesDialect"]


class ResponsesDialect:
    """Responses, see https://platform.openai.com/docs/api-reference/responses.

    Nothing is kept at the provider: each request holds the whole conversation, the reasoning of
    earlier turns encrypted as it came. Stop strings and the continuing of a message are not known
    to this protocol, nor are seeds to OpenAI's own endpoint.
    """

    path = "/responses"

    def __init__(self, options: WireOptions) -> None:
        self.options = options

    def body(self, request: ModelRequest, max_tokens: int | None) -> JSONObject:
        """The body to post; without ``max_tokens`` no maximum is sent.

        Raises:
            InvalidInput: extra parameters refer to something that is kept at the provider.
            QuestionRefused: the request has stop strings.
        """
        return responses_wire.request_body(request, self.options, max_tokens)

    def whole(self, request: ModelRequest, reply: JSONObject) -> Answer:
        """A reply that came in one piece.

        Raises:
            ServerFault: it failed, is not there yet, has no output, or no known form.
        """
        with known_form():
            fault = responses_wire.failure(reply)
            if fault is not None:
                raise fault
            if not isinstance(reply.get("output"), list):
                raise ServerFault("the reply holds no output")
            return responses_wire.read_answer(reply, reply["output"], _turn(request))

    def arriving(self, request: ModelRequest, emit: Emit | None) -> ResponsesStream:
        """A reply that is about to stream in."""
        return ResponsesStream(_turn(request), emit, thought_count(request, self.options))


def _turn(request: ModelRequest) -> int:
    """The number of the reply in its conversation, for tool calls that come without an id."""
    return sum(1 for message in request["messages"] if message["role"] == "assistant")
