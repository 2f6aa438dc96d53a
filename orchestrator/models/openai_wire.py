"""Between the canonical form and the wire form of Chat Completions, both ways, without I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

from longthought.errors import InvalidInput
from longthought.types import (
    JSON,
    FinishReason,
    JSONObject,
    Message,
    ModelRequest,
    ReasoningItem,
    ToolCallPart,
    Usage,
)

__all__ = [
    "REASONING_FIELDS",
    "assistant_message",
    "estimated_usage",
    "finish_reason",
    "output_bytes",
    "prompt_bytes",
    "reported_usage",
    "request_body",
    "takes_completion_tokens",
]

REASONING_FIELDS = ("reasoning_content", "reasoning")
"""Where servers put visible reasoning; the first field that is there is read."""

_KNOWN_FIELDS = frozenset(
    # What is read here or never goes back: all else is the provider's own and goes back unchanged.
    [
        "role",
        "content",
        "tool_calls",
        "refusal",
        "function_call",
        "annotations",
        "audio",
        "parsed",
        "index",
        "name",
    ]
)
_KNOWN_CALL_FIELDS = frozenset(("id", "type", "function", "index"))
_SAMPLING = ("temperature", "top_p", "seed", "stop", "reasoning_effort", "logprobs")
_FINISH: dict[str, FinishReason] = {
    "length": "length",
    "content_filter": "refusal",
    "error": "error",
    "abort": "error",
}
_MESSAGE_BYTES = 8
_COMPLETION_TOKENS_NAME = re.compile(r"(.*/)?(o\d|gpt-5)")


def takes_completion_tokens(name: str) -> bool:
    """Whether models of this name want ``max_completion_tokens`` instead of ``max_tokens``."""
    return _COMPLETION_TOKENS_NAME.match(name) is not None


def request_body(
    request: ModelRequest,
    model: str,
    *,
    max_tokens: int | None,
    max_tokens_field: str = "max_tokens",
    stream: bool = False,
    include_usage: bool = True,
    send_reasoning: bool = True,
    strict_tools: bool = False,
    extra: Mapping[str, JSON] | None = None,
) -> JSONObject:
    """The body to post. ``request["provider"]`` and ``extra`` are added but replace nothing.

    Without ``max_tokens`` no maximum is sent.

    Raises:
        InvalidInput: extra parameters ask for several answers, of which only one would be paid.
    """
    body: JSONObject = {**(extra or {}), **request.get("provider", {})}
    for name in ("n", "best_of"):
        if body.get(name, 1) != 1:
            raise InvalidInput(name, "a call has one answer", "Draw more samples instead")
    body["model"] = model
    body["messages"] = _wire_messages(request["messages"], send_reasoning)
    if max_tokens is not None:
        body[max_tokens_field] = max_tokens
    if tools := request.get("tools"):
        body["tools"] = [_wire_tool(tool, strict_tools) for tool in tools]
    if sampling := cast("JSONObject", request.get("sampling")):
        body.update({name: sampling[name] for name in _SAMPLING if name in sampling})
    if output := request.get("output"):
        body["response_format"] = _response_format(output)
    if request.get("continue_last"):
        body["continue_final_message"], body["add_generation_prompt"] = True, False
    if stream:
        body["stream"] = True
        if include_usage:
            body["stream_options"] = {"include_usage": True, **body.get("stream_options", {})}
    return body


def _wire_messages(messages: Iterable[Message], send_reasoning: bool) -> list[Any]:
    # A conversation is sent again at every step. Most messages have the same form on both sides
    # and are sent as they are, which costs no call for each.
    wire: list[Any] = []
    for message in messages:
        if "tool_calls" in message or "reasoning" in message or "provider" in message:
            wire.append(_wire_message(message, send_reasoning))
        else:
            wire.append(message)
    return wire


def _wire_message(message: Message, send_reasoning: bool) -> JSONObject:
    wire: JSONObject = {"role": message["role"], "content": message["content"]}
    extras: JSONObject = {}
    call_extras: JSONObject = {}
    if "provider" in message:
        extras = message["provider"]
        call_extras = extras.get("tool_calls", {})
        wire = {**extras, **wire}
        wire.pop("tool_calls", None)
    if "tool_calls" in message:
        wire["tool_calls"] = [
            {
                **call_extras.get(part["id"], {}),
                "id": part["id"],
                "type": "function",
                "function": {"name": part["name"], "arguments": part["arguments"]},
            }
            for part in message["tool_calls"]
        ]
    if "tool_call_id" in message:
        wire["tool_call_id"] = message["tool_call_id"]
    if "name" in message:
        wire["name"] = message["name"]
    if send_reasoning and "reasoning" in message:
        for item in message["reasoning"]:
            field = item.get("provider", {}).get("field")
            if field and "text" in item:
                wire[field] = wire.get(field, "") + item["text"]
    return wire


def _wire_tool(tool: Mapping[str, JSON], strict: bool) -> JSONObject:
    function = {
        "name": tool["name"],
        "description": tool["description"],
        "parameters": tool["parameters"],
    }
    if strict and _is_closed(tool["parameters"]):
        function["strict"] = True
    return {"type": "function", "function": function}


def _response_format(schema: JSONObject) -> JSONObject:
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", str(schema.get("title", "")))[:64] or "output"
    return {
        "type": "json_schema",
        "json_schema": {"name": name, "schema": schema, "strict": _is_closed(schema)},
    }


def _is_closed(schema: JSON) -> bool:
    """Whether every object in the schema names all it may have, as strict mode demands."""
    if isinstance(schema, list):
        return all(_is_closed(item) for item in schema)
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object" or "properties" in schema:
        properties = schema.get("properties", {})
        if schema.get("additionalProperties") is not False:
            return False
        if set(schema.get("required", ())) != set(properties):
            return False
        if not all(_is_closed(value) for value in properties.values()):
            return False
    return all(_is_closed(value) for key, value in schema.items() if key != "properties")


def assistant_message(wire: Mapping[str, JSON], turn: int) -> Message:
    """The canonical message; a tool call without an id of its own gets one from ``turn``."""
    text = wire.get("content")
    if not isinstance(text, str):
        # Some servers answer in parts as they are asked.
        text = "".join(str(part.get("text", "")) for part in text or () if isinstance(part, dict))
    provider = {key: value for key, value in wire.items() if value and key not in _KNOWN_FIELDS}
    text = _joined_halves(text)
    reasoning = _take_reasoning(provider)
    calls, call_extras = _tool_calls(wire.get("tool_calls") or (), turn)
    if call_extras:
        provider["tool_calls"] = call_extras
    if not text and wire.get("refusal"):
        text = str(wire["refusal"])
    message: Message = {"role": "assistant", "content": text or (None if calls else "")}
    if reasoning:
        message["reasoning"] = [reasoning]
    if calls:
        message["tool_calls"] = calls
    if provider:
        message["provider"] = provider
    return message


def _take_reasoning(provider: JSONObject) -> ReasoningItem | None:
    """The visible reasoning, out of ``provider``; a second field beside it repeats the first."""
    item: ReasoningItem | None = None
    for field in REASONING_FIELDS:
        if isinstance(provider.get(field), str):
            text = _joined_halves(provider.pop(field))
            item = item or {"text": text, "provider": {"field": field}}
    return item


def _tool_calls(wire: Iterable[JSON], turn: int) -> tuple[list[ToolCallPart], JSONObject]:
    calls: list[ToolCallPart] = []
    extras: JSONObject = {}
    seen: set[str] = set()
    for index, call in enumerate(wire):
        function = call.get("function") or {}
        arguments = function.get("arguments")
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments or {}, ensure_ascii=False)
        identity = call.get("id") or ""
        if not identity or identity in seen:
            identity = f"call_{turn}_{index}"
        seen.add(identity)
        arguments = _joined_halves(arguments)
        name = function.get("name") or ""
        calls.append({"id": identity, "name": name, "arguments": arguments})
        own = {key: value for key, value in call.items() if key not in _KNOWN_CALL_FIELDS}
        if own:
            extras[identity] = own
    return calls, extras


def _joined_halves(text: str) -> str:
    """The text with its surrogates joined: servers cut escaped characters between two pieces.

    A half that stays alone is replaced; it could be neither stored nor sent.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def finish_reason(wire: JSON, message: Message, refused: bool) -> FinishReason:
    """How a reply ended; what is in it counts more than what the server says."""
    reason = _FINISH.get(wire) if isinstance(wire, str) else None
    if reason is not None:
        return reason
    if message.get("tool_calls"):
        return "tool_calls"
    return "refusal" if refused else "stop"


def reported_usage(wire: JSON) -> Usage | None:
    """The usage that a server sent, None if it sent none that can be used."""
    if not isinstance(wire, dict):
        return None
    prompt, completion = wire.get("prompt_tokens"), wire.get("completion_tokens")
    if not isinstance(prompt, int) or not isinstance(completion, int):
        return None
    cached = (wire.get("prompt_tokens_details") or {}).get("cached_tokens")
    reasoning = (wire.get("completion_tokens_details") or {}).get("reasoning_tokens")
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=cached or wire.get("prompt_cache_hit_tokens") or 0,
        reasoning_tokens=reasoning or 0,
        calls=1,
    )


def estimated_usage(request: ModelRequest, message: Message, limit: int, counted: int) -> Usage:
    """Upper bounds where the server sent no usage: no token is shorter than a byte.

    ``limit`` is the maximum that was sent, ``counted`` the tokens that were seen arriving.
    """
    completion = max(counted, min(limit, output_bytes(message)))
    return Usage(prompt_bytes(request), completion, calls=1, estimated=True)


def prompt_bytes(request: ModelRequest) -> int:
    """UTF-8 bytes of all that a request says, and 8 for the borders of each message."""
    total = sum(_MESSAGE_BYTES + output_bytes(message) for message in request["messages"])
    for part in (request.get("tools"), request.get("output")):
        if part:
            total += _json_bytes(part)
    return total


def output_bytes(message: Message) -> int:
    """UTF-8 bytes of the text, the reasoning and the tool calls of a message."""
    content = message["content"]
    total = len(content.encode()) if isinstance(content, str) else 0
    if isinstance(content, list):
        total = _json_bytes(content)
    for item in message.get("reasoning", ()):
        total += len(item.get("text", "").encode())
    for part in message.get("tool_calls", ()):
        total += len(part["name"].encode()) + len(part["arguments"].encode())
    return total


def _json_bytes(value: JSON) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
