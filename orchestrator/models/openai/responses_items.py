"""Output items of Responses and the one canonical message that stands for them, both ways.

A reply is a list of items whose order matters: reasoning belongs to what follows it. Text, tool
calls and reasoning stand in the fields of the message, once; ``provider["responses"]`` is the list
of items with holes where they were. A text in it is a number: so many characters of the message.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import cast

from longthought.orchestrator.models.openai.chat_wire import as_json, joined_halves
from longthought.types import JSON, JSONObject, Message, ReasoningItem, ToolCallPart

__all__ = ["PROVIDER_FIELD", "REASONING_BREAK", "has_refusal", "items_of", "message_of"]

PROVIDER_FIELD = "responses"
REASONING_BREAK = "\n\n"
"""What stands between the parts of one reasoning item in its ``text``."""


class _Misfit(Exception):
    """The message has changed since its items were left in it."""


def message_of(items: Sequence[JSONObject], turn: int) -> Message:
    """The message that stands for the items of a reply.

    A tool call without an id of its own gets one from ``turn`` and its place. An item that is
    ``in_progress`` was cut off; such reasoning can be read but not sent back.

    Raises:
        AttributeError, LookupError, TypeError, ValueError: an item has no known form.
    """
    reply = _Reply(turn)
    for place, item in enumerate(_printable(items)):
        reply.add(place, item)
    return reply.message()


class _Reply:
    """What the fields of a message take from its items, one after the other."""

    def __init__(self, turn: int) -> None:
        self._turn = turn
        self._texts: list[str] = []
        self._refusals: list[str] = []
        self._reasoning: list[ReasoningItem] = []
        self._calls: list[ToolCallPart] = []
        self._call_ids: set[str] = set()
        self._entries: list[JSONObject] = []

    def add(self, place: int, item: JSONObject) -> None:
        """Take one item apart."""
        match item.get("type"):
            case "message":
                self._entries.append(self._message(item))
            case "function_call":
                self._entries.append(self._call(place, item))
            case "reasoning":
                found = _reasoning_item(item)
                self._reasoning.append(found)
                if "provider" in found:
                    self._entries.append({"type": "reasoning", "id": found.get("id", "")})
            case _:
                self._entries.append(item)

    def message(self) -> Message:
        """The canonical message."""
        text = "".join(self._texts) or "".join(self._refusals)
        message: Message = {"role": "assistant", "content": text or (None if self._calls else "")}
        if self._reasoning:
            message["reasoning"] = self._reasoning
        if self._calls:
            message["tool_calls"] = self._calls
        if self._entries:
            message["provider"] = {PROVIDER_FIELD: self._entries}
        return message

    def _message(self, item: JSONObject) -> JSONObject:
        content = item.get("content")
        if isinstance(content, str):
            self._texts.append(content)
            return {**item, "content": len(content)}
        if content is None:
            return item
        parts: list[JSONObject] = []
        for part in content:
            hole = dict(part)
            if isinstance(part.get("text"), str):
                self._texts.append(part["text"])
                hole["text"] = len(part["text"])
            if isinstance(part.get("refusal"), str):
                self._refusals.append(part["refusal"])
            if part.get("logprobs"):
                hole["logprobs"] = []  # they stand in the reply, and are no part of a prompt
            parts.append(hole)
        return {**item, "content": parts}

    def _call(self, place: int, item: JSONObject) -> JSONObject:
        hole = dict(item)
        name, arguments = hole.pop("name", None) or "", hole.pop("arguments", None)
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments or {}, ensure_ascii=False)
        identity = hole.get("call_id") or ""
        if not identity or identity in self._call_ids:
            identity = f"call_{self._turn}_{place}"
        self._call_ids.add(identity)
        self._calls.append({"id": identity, "name": name, "arguments": arguments})
        return {**hole, "call_id": identity}


def has_refusal(items: Sequence[JSONObject]) -> bool:
    """Whether the model refused to answer in one of the items."""
    for item in items:
        content = item.get("content") if item.get("type") == "message" else None
        if isinstance(content, list) and any(part.get("refusal") for part in content):
            return True
    return False


def _reasoning_item(item: JSONObject) -> ReasoningItem:
    rest = dict(item)
    found: ReasoningItem = {}
    for field in ("content", "summary"):
        texts = [part["text"] for part in rest.get(field) or () if part.get("text")]
        if texts:
            found["text"] = REASONING_BREAK.join(texts)
            rest[field] = [
                {**part, "text": len(part["text"])} if part.get("text") else part
                for part in rest[field]
            ]
            break
    if rest.get("id"):
        found["id"] = rest.pop("id")
    if rest.get("encrypted_content"):
        found["encrypted"] = rest.pop("encrypted_content")
    if rest.get("status") != "in_progress":
        found["provider"] = rest
    return found


def items_of(message: Message, send_reasoning: bool = True) -> list[JSONObject]:
    """The items to send for an assistant message: those it came from, where it has them.

    Without them, or if its text, calls or reasoning were changed since, it is sent as a text and
    calls: reasoning and ids hold for the very items they came with. Reasoning that nothing follows
    is left out, since servers turn it down.
    """
    if not send_reasoning:
        return _plain(message)
    entries = message["provider"].get(PROVIDER_FIELD) if "provider" in message else None
    if entries is None:
        return [*_foreign_reasoning(message), *_plain(message)]
    try:
        return _filled(message, entries)
    except (_Misfit, AttributeError, LookupError, TypeError):
        return _plain(message)


def _filled(message: Message, entries: Sequence[JSONObject]) -> list[JSONObject]:
    """The items as they came, none if they are reasoning alone.

    A conversation is sent again at every step, hence one pass without calls for single parts.

    Raises:
        _Misfit, AttributeError, LookupError, TypeError: the message holds something else than they
            left in it.
    """
    content = message["content"] or ""
    if not isinstance(content, str):
        raise _Misfit
    calls: Sequence[ToolCallPart] = message.get("tool_calls", ())
    thoughts = [item for item in message.get("reasoning", ()) if "provider" in item]
    items: list[JSONObject] = []
    text, refusals, call_at, thought_at, speaks = content, "", 0, 0, False
    for entry in entries:
        kind = entry.get("type")
        speaks = speaks or kind != "reasoning"
        if kind == "message":
            item, text, refused = _spoken(entry, text)
            refusals += refused
        elif kind == "function_call":
            call = calls[call_at]
            call_at += 1
            if call["id"] != entry["call_id"]:
                raise _Misfit
            item = {**entry, "name": call["name"], "arguments": as_json(call["arguments"])}
        elif kind == "reasoning":
            item = _wire_reasoning(thoughts[thought_at], entry["id"])
            thought_at += 1
        else:
            item = entry
        items.append(item)
    if call_at < len(calls) or thought_at < len(thoughts):
        raise _Misfit
    if text and not text == content == refusals:
        raise _Misfit
    return items if speaks else []


def _spoken(entry: JSONObject, text: str) -> tuple[JSONObject, str, str]:
    """A message with its text again, what is left of the text, and the refusals in it."""
    content = entry.get("content")
    if content is None:
        return entry, text, ""
    if isinstance(content, int):
        own, text = _taken(text, content)
        return {**entry, "content": own}, text, ""
    parts: list[JSONObject] = []
    refusals = ""
    for part in content:
        if "text" in part and isinstance(part["text"], int):
            own, text = _taken(text, part["text"])
            part = {**part, "text": own}
        elif "refusal" in part:
            refusals += part["refusal"] or ""
        parts.append(part)
    return {**entry, "content": parts}, text, refusals


def _taken(text: str, length: int) -> tuple[str, str]:
    if len(text) < length:
        raise _Misfit
    return text[:length], text[length:]


def _wire_reasoning(item: ReasoningItem, identity: str) -> JSONObject:
    """The item of Responses for a piece of reasoning.

    Raises:
        _Misfit: it is another one, or its text is not the one that was left in it.
    """
    if item.get("id", "") != identity:
        raise _Misfit
    wire: JSONObject = {**item["provider"], "type": "reasoning"}
    if identity:
        wire["id"] = identity
    if "encrypted" in item:
        wire["encrypted_content"] = item["encrypted"]
    if "text" not in item:
        return wire
    text = item["text"]
    for field in ("content", "summary"):
        parts: list[JSONObject] = []
        for part in wire.get(field) or ():
            if "text" in part and isinstance(part["text"], int):
                own, rest = _taken(text, part["text"])
                part, text = {**part, "text": own}, rest.removeprefix(REASONING_BREAK)
            parts.append(part)
        if parts:
            wire[field] = parts
    if text:
        raise _Misfit
    return wire


def _foreign_reasoning(message: Message) -> list[JSONObject]:
    """Encrypted reasoning of a message that somebody put together without its items."""
    return [
        {
            "type": "reasoning",
            "id": item.get("id", ""),
            "summary": [],
            "encrypted_content": item["encrypted"],
        }
        for item in message.get("reasoning", ())
        if "encrypted" in item
    ]


def _plain(message: Message) -> list[JSONObject]:
    items: list[JSONObject] = []
    content = message["content"]
    if content:
        # Not as `output_text`: that needs an id and a status, which only the server can give, and
        # strict servers refuse it without.
        items.append({"type": "message", "role": "assistant", "content": _written(content)})
    items += [
        {
            "type": "function_call",
            "call_id": call["id"],
            "name": call["name"],
            "arguments": as_json(call["arguments"]),
        }
        for call in message.get("tool_calls", ())
    ]
    return items


def _written(content: str | list[JSONObject]) -> JSON:
    if isinstance(content, str):
        return content
    return [{**p, "type": "output_text"} if p.get("type") == "text" else p for p in content]


def _printable(items: Sequence[JSONObject]) -> Sequence[JSONObject]:
    """The items with halves of characters joined or replaced: they could not be sent back."""
    text = json.dumps(items, ensure_ascii=False)
    printable = joined_halves(text)
    return items if printable is text else cast("list[JSONObject]", json.loads(printable))
