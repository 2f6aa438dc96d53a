"""How long the thought of a reply is: as the backend says, or by what can be seen of it."""

from __future__ import annotations

from longthought.types import Message, ModelReply, ModelRequest, Usage, text_of

__all__ = ["thought_of", "thought_tokens", "too_short"]


def thought_of(message: Message) -> str:
    """The visible reasoning of a message."""
    return "".join(item.get("text", "") for item in message.get("reasoning", ()))


def thought_tokens(message: Message, usage: Usage) -> int:
    """Tokens of the thought of a reply, visible or not.

    Few servers of open models count them. Output is then divided by the bytes of what can be seen,
    which holds for reasoning and answer alike as far as both are prose.
    """
    thought = _bytes(thought_of(message))
    if usage.reasoning_tokens or not thought:
        return usage.reasoning_tokens
    said = _bytes(text_of(message))
    for part in message.get("tool_calls", ()):
        said += _bytes(part["name"]) + _bytes(part["arguments"])
    return -(-usage.completion_tokens * thought // (thought + said))


def too_short(request: ModelRequest, reply: ModelReply) -> bool:
    """Whether a whole reply has a visible thought below ``sampling.min_thinking_tokens``."""
    least = request.get("sampling", {}).get("min_thinking_tokens", 0)
    message = reply["message"]
    if not least or not thought_of(message):
        return False
    if not (text_of(message) or message.get("tool_calls")):
        return False  # cut within the thought
    return thought_tokens(message, Usage.from_json(reply["usage"])) < least


def _bytes(text: str) -> int:
    return len(text.encode())
