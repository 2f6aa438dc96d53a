"""Upper bounds for the prompt tokens of a request when its tokenizer is not at hand.

A token of a byte-level tokenizer stands for at least one byte, so the bytes of all texts bound
their tokens. What a chat template adds around messages and tools is covered by an allowance. Two
things make that crude bound tight: the figures of earlier calls of the same conversation, and, per
model, the largest amount by which a bound was ever too low. It stays an estimate: what it misses
shows as excess when the call is settled.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from hashlib import blake2b

from longthought.errors import InvalidInput
from longthought.types import JSON, Message, ModelRequest, Usage

__all__ = ["PromptEstimator"]

_Key = tuple[str, bytes, Hashable]


class PromptEstimator:
    """Bounds prompts and learns from settled calls.

    Conversations are told apart by ``ids``: one id for each message, standing for that message
    *and all before it* (a hash chain, for example). Of those only ``capacity`` are remembered, the
    longest unused forgotten first; forgetting makes bounds wider, never lower.

    Args:
        message_tokens: allowance for what the template puts around one message, in tokens.
        base_tokens: the same for a request as a whole; twice that once it has tools.
        part_tokens: allowance for one part that is no text (image, file). The only figure here
            that nothing bounds: raise it for large images.
        capacity: how many conversation prefixes are remembered.
    """

    def __init__(
        self,
        *,
        message_tokens: int = 16,
        base_tokens: int = 64,
        part_tokens: int = 4096,
        capacity: int = 4096,
    ) -> None:
        if capacity < 1:
            raise InvalidInput("capacity", f"{capacity} is below 1", "use 4096")
        self.message_tokens, self.base_tokens = message_tokens, base_tokens
        self.part_tokens, self.capacity = part_tokens, capacity
        self._known: OrderedDict[_Key, int] = OrderedDict()
        self._missed: dict[str, int] = {}
        self._frame = _Frame(None, None, None)

    def bound(self, request: ModelRequest, ids: Sequence[Hashable] = ()) -> int:
        """An upper bound of the prompt tokens; the known figure for a prompt seen before.

        What stands beside the messages is looked at again only if it is another object than before.

        Raises:
            ValueError: ``ids`` has another length than the messages.
        """
        messages, frame = request["messages"], self._frame_of(request)
        if ids and len(ids) != len(messages):
            raise ValueError(f"{len(ids)} ids for {len(messages)} messages")
        model, digest = request["model"], frame.digest
        for last in range(len(ids) - 1, -1, -1):
            key = (model, digest, ids[last])
            known = self._known.get(key)
            if known is not None:
                self._known.move_to_end(key)
                rest = messages[last + 1 :]
                missed = self._missed.get(model, 0) if rest else 0
                return known + self._size(rest) + missed
        tools = self.base_tokens if frame.size else 0
        whole = self.base_tokens + tools + frame.size + self._size(messages)
        return whole + self._missed.get(model, 0)

    def learn(
        self,
        request: ModelRequest,
        ids: Sequence[Hashable],
        usage: Usage,
        *,
        reply: Message | None = None,
        reply_id: Hashable = None,
    ) -> None:
        """Take in what the backend counted for a request.

        With ``reply`` and ``reply_id`` (the id of the conversation including it) the next request
        that goes on from the reply is bounded by the tokens counted so far. Figures that are
        themselves estimates teach nothing.
        """
        if usage.estimated or usage.prompt_tokens <= 0:
            return
        model = request["model"]
        digest = self._frame_of(request).digest
        missed = usage.prompt_tokens - self.bound(request, ids)
        if missed > 0 and not (ids and (model, digest, ids[-1]) in self._known):
            self._missed[model] = self._missed.get(model, 0) + missed
        if ids:
            self._remember((model, digest, ids[-1]), usage.prompt_tokens)
        if reply is not None and reply_id is not None:
            calls = len(reply.get("tool_calls", ()))
            # Written out again the reply may differ in blanks and markers, hence the allowance;
            # hidden reasoning is counted although most templates drop it.
            again = usage.completion_tokens + self.message_tokens * (1 + calls)
            self._remember((model, digest, reply_id), usage.prompt_tokens + again)

    def _frame_of(self, request: ModelRequest) -> _Frame:
        beside = (request.get("tools"), request.get("output"), request.get("provider"))
        if not self._frame.is_of(*beside):
            self._frame = _Frame(*beside)
        return self._frame

    def _remember(self, key: _Key, tokens: int) -> None:
        self._known[key] = tokens
        self._known.move_to_end(key)
        while len(self._known) > self.capacity:
            self._known.popitem(last=False)

    def _size(self, messages: Sequence[Message]) -> int:
        return sum(map(self._message_size, messages))

    def _message_size(self, message: Message) -> int:
        size = self.message_tokens
        content = message["content"]
        if isinstance(content, str):
            size += _bytes(content)
        else:
            for part in content or ():
                text = part.get("text")
                size += self.message_tokens
                size += _bytes(text) if isinstance(text, str) else self.part_tokens
        for call in message.get("tool_calls", ()):
            size += self.message_tokens + _bytes(call["id"])
            size += _bytes(call["name"]) + _bytes(call["arguments"])
        for item in message.get("reasoning", ()):
            size += _bytes(item.get("text", "")) + _bytes(item.get("encrypted", ""))
        return size + _bytes(message.get("name", "")) + _bytes(message.get("tool_call_id", ""))


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


class _Frame:
    """What stands in a prompt beside the messages: its bytes, 0 if there is nothing, and a name."""

    __slots__ = ("_beside", "digest", "size")

    def __init__(self, *beside: JSON) -> None:
        self._beside = beside  # held, so that no other object takes the place of one of them
        text = json.dumps(beside, sort_keys=True, ensure_ascii=False) if any(beside) else ""
        self.size = _bytes(text)
        self.digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()

    def is_of(self, *beside: JSON) -> bool:
        """Whether it was made of these very objects."""
        return all(mine is theirs for mine, theirs in zip(self._beside, beside, strict=True))
