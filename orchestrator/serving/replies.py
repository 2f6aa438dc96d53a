"""From replies of our models to Chat Completions: whole objects, and the chunks of a stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from longthought.errors import BackendError
from longthought.types import (
    Delta,
    FinishReason,
    JSONObject,
    Message,
    ModelReply,
    Usage,
    text_of,
)

__all__ = ["ChoiceStream", "RunningUsage", "completion", "usage_of"]

_FINISH: Mapping[FinishReason, str] = {
    "stop": "stop",
    "tool_calls": "tool_calls",
    "length": "length",
    "cut": "length",
    "refusal": "content_filter",
}
_Shown = Literal["content", "reasoning"]
_FIELDS: Mapping[_Shown, str] = {"reasoning": "reasoning_content", "content": "content"}


def completion(head: JSONObject, replies: Sequence[ModelReply]) -> JSONObject:
    """The whole answer: a choice for each reply. ``head`` holds id, created, model, fingerprint.

    Raises:
        BackendError: a reply ended in an error.
    """
    choices = [
        {
            "index": index,
            "message": _message(reply["message"]),
            "finish_reason": _finish(reply),
            **_stop_reason(reply),
            "logprobs": _logprobs(reply),
        }
        for index, reply in enumerate(replies)
    ]
    return {**head, "object": "chat.completion", "choices": choices, "usage": usage_of(replies)}


def usage_of(replies: Sequence[ModelReply]) -> JSONObject:
    """The usage of all choices together.

    They share one prompt, which counts once; of it, what even the first choice found computed
    already is cached.
    """
    usages = [Usage.from_json(reply["usage"]) for reply in replies]
    prompt = max(usage.prompt_tokens for usage in usages)
    said = sum(usage.completion_tokens for usage in usages)
    cached = min(usage.cached_tokens for usage in usages)
    thought = sum(usage.reasoning_tokens for usage in usages)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": said,
        "total_tokens": prompt + said,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": thought},
    }


class ChoiceStream:
    """The chunks of one choice.

    A chunk never stands for less than one token until the last, which also says how the choice
    ended: a client that counts chunks, as ours does to hold a limit, never counts too many. So
    text that stands for no token of its own waits for the next, and tool calls, which are known
    when the reply is whole, come with the end, each in one piece; log-probabilities likewise.
    """

    def __init__(self, head: JSONObject, index: int) -> None:
        self._head = {**head, "object": "chat.completion.chunk"}
        self._index = index
        self._sent: dict[_Shown, int] = {"reasoning": 0, "content": 0}
        self._waiting: dict[_Shown, str] = {"reasoning": "", "content": ""}

    def begin(self) -> JSONObject:
        """The chunk that says who speaks."""
        return self._chunk({"role": "assistant", "content": ""})

    def take(self, delta: Delta) -> JSONObject | None:
        """The chunk that may be sent now that this piece has come, if any."""
        if delta.kind == "tool_call":
            return None
        kind = delta.kind
        self._waiting[kind] += delta.text
        text = self._waiting[kind]
        if not text or not delta.tokens:
            return None
        self._sent[kind] += len(text)
        self._waiting[kind] = ""
        return self._chunk({_FIELDS[kind]: text})

    def end(self, reply: ModelReply) -> JSONObject:
        """The last chunk: all that was not sent yet, and how the choice ended.

        Raises:
            BackendError: the reply ended in an error.
        """
        message = _message(reply["message"])
        delta: JSONObject = {}
        for kind, field in _FIELDS.items():
            if rest := (message.get(field) or "")[self._sent[kind] :]:
                delta[field] = rest
        if calls := message.get("tool_calls"):
            delta["tool_calls"] = [{"index": at, **call} for at, call in enumerate(calls)]
        chunk = self._chunk(delta, _finish(reply), _logprobs(reply))
        chunk["choices"][0].update(_stop_reason(reply))
        return chunk

    def _chunk(
        self, delta: JSONObject, finish: str | None = None, logprobs: JSONObject | None = None
    ) -> JSONObject:
        choice = {
            "index": self._index,
            "delta": delta,
            "finish_reason": finish,
            "logprobs": logprobs,
        }
        return {**self._head, "choices": [choice]}


class RunningUsage:
    """What a stream has used so far: its prompt, which counts once, and all that was said.

    ``prompt`` is the number of its tokens, None if the model does not count prompts; then nothing
    is known until the model tells it with a piece, or a choice has ended.
    """

    def __init__(self, prompt: int | None, choices: int) -> None:
        self._prompt = prompt
        self._said = [0] * choices

    def take(self, index: int, said: Delta | ModelReply) -> None:
        """A piece of a choice has come, or its end."""
        told = said.usage if isinstance(said, Delta) else Usage.from_json(said["usage"])
        if told is not None:
            self._prompt, self._said[index] = told.prompt_tokens, told.completion_tokens
        elif isinstance(said, Delta):
            self._said[index] += said.tokens

    def told(self) -> JSONObject | None:
        """The usage for the next chunk, None if it is not known."""
        if self._prompt is None:
            return None
        said = sum(self._said)
        return {
            "prompt_tokens": self._prompt,
            "completion_tokens": said,
            "total_tokens": self._prompt + said,
        }


def _message(message: Message) -> JSONObject:
    content = None if message["content"] is None else text_of(message)
    wire: JSONObject = {"role": "assistant", "content": content, "refusal": None}
    if thought := "".join(item.get("text", "") for item in message.get("reasoning", ())):
        wire["reasoning_content"] = thought
    if calls := message.get("tool_calls"):
        wire["tool_calls"] = [
            {
                "id": call["id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": call["arguments"]},
            }
            for call in calls
        ]
    return wire


def _finish(reply: ModelReply) -> str:
    reason = _FINISH.get(reply["finish_reason"])
    if reason is None:
        raise BackendError(f"{reply['model']}: the reply ended in an error")
    return reason


def _stop_reason(reply: ModelReply) -> JSONObject:
    """The stop string that ended the choice, in the field in which vLLM says so."""
    return {"stop_reason": reply["stopped_by"]} if "stopped_by" in reply else {}


def _logprobs(reply: ModelReply) -> JSONObject | None:
    tokens = reply.get("logprobs")
    if tokens is None:
        return None
    # Words of a vocabulary are no stretches of the text: there are no bytes to give.
    content = [{"bytes": None, "top_logprobs": [], **token} for token in tokens]
    return {"content": content, "refusal": None}
