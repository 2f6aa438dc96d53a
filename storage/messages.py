"""The canonical message as classes, which check stored conversations."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter

from longthought.types import JSON, JSONObject

__all__ = ["CanonicalMessage", "check_message"]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class CanonicalReasoning(_Closed):
    """A piece of reasoning; ``encrypted`` and ``provider`` go back to the provider unchanged."""

    id: str = ""
    text: str = ""
    encrypted: str = ""
    provider: JSONObject | None = None


class CanonicalToolCall(_Closed):
    """One tool call; ``arguments`` is the text the model wrote."""

    id: str
    name: str
    arguments: str


class CanonicalMessage(_Closed):
    """One message of a stored conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | list[JSONObject] | None
    reasoning: list[CanonicalReasoning] = []
    tool_calls: list[CanonicalToolCall] = []
    tool_call_id: str = ""
    name: str = ""
    provider: JSONObject | None = None


_ADAPTER = TypeAdapter(CanonicalMessage)


def check_message(value: JSON) -> CanonicalMessage:
    """A stored message as its class.

    Raises:
        pydantic.ValidationError: it is no canonical message.
    """
    return _ADAPTER.validate_python(value)
