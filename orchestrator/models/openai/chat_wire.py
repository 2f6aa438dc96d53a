"""Between the canonical form and the wire form of Chat Completions, both ways, without I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, cast

from longthought.errors import InvalidInput
from longthought.orchestrator.models.openai.dialect import Answer, WireOptions
from longthought.orchestrator.strict_schemas import takes_strict
from longthought.types import (
    JSON,
    FinishReason,
    JSONObject,
    Message,
    ModelRequest,
    ReasoningItem,
    ToolCallPart,
    Usage,
    text_of,
)

__all__ = [
    "REASONING_FIELDS",
    "as_json",
    "assistant_message",
    "finish_reason",
    "is_closed",
    "joined_halves",
    "output_name",
    "read_answer",
    "reported_usage",
    "request_body",
    "takes_completion_tokens",
    "without_repetition",
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
_COMPLETION_TOKENS_NAME = re.compile(r"(.*/)?(o\d|gpt-5)")


def takes_completion_tokens(name: str) -> bool:
    """Whether models of this name want ``max_completion_tokens`` instead of ``max_tokens``."""
    return _COMPLETION_TOKENS_NAME.match(name) is not None


def request_body(request: ModelRequest, options: WireOptions, max_tokens: int | None) -> JSONObject:
    """The body to post. ``request["provider"]`` and the extras are added but replace nothing.

    Without ``max_tokens`` no maximum is sent.

    Raises:
        InvalidInput: extra parameters ask for several answers, of which only one would be paid.
    """
    body: JSONObject = {**options.extra, **request.get("provider", {})}
    for name in ("n", "best_of"):
        if body.get(name, 1) != 1:
            raise InvalidInput(name, "a call has one answer", "Draw more samples instead")
    body["model"] = options.name
    body["messages"] = _wire_messages(request["messages"], options.send_reasoning)
    if max_tokens is not None:
        body[options.max_tokens_field] = max_tokens
    if tools := request.get("tools"):
        body["tools"] = [_wire_tool(tool, options.strict_tools) for tool in tools]
    if sampling := cast("JSONObject", request.get("sampling")):
        body.update({name: sampling[name] for name in _SAMPLING if name in sampling})
        if options.thinking_field and "thinking_tokens" in sampling:
            body[options.thinking_field] = sampling["thinking_tokens"]
    if output := request.get("output"):
        body["response_format"] = _response_format(output)
    if request.get("continue_last"):
        body["continue_final_message"], body["add_generation_prompt"] = True, False
    if options.stream:
        body["stream"] = True
        if options.include_usage:
            running = {"continuous_usage_stats": True} if options.running_usage else {}
            body["stream_options"] = {
                "include_usage": True,
                **running,
                **body.get("stream_options", {}),
            }
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
        wire.pop("responses", None)  # items of the other protocol
    if "tool_calls" in message:
        wire["tool_calls"] = [
            {
                **call_extras.get(part["id"], {}),
                "id": part["id"],
                "type": "function",
                "function": {"name": part["name"], "arguments": as_json(part["arguments"])},
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


@lru_cache(maxsize=1024)
def as_json(arguments: str) -> str:
    """Arguments that a server can read: broken ones stand in an object, whole.

    llama.cpp fails with status 500 over a conversation with arguments that are no JSON, such as
    those of a call that was cut short.
    """
    try:
        if isinstance(json.loads(arguments), dict):
            return arguments
    except (ValueError, RecursionError):
        pass
    return json.dumps({"invalid_arguments": arguments}, ensure_ascii=False) if arguments else "{}"


def _wire_tool(tool: Mapping[str, JSON], strict: bool) -> JSONObject:
    function = {
        "name": tool["name"],
        "description": tool["description"],
        "parameters": tool["parameters"],
    }
    if strict and is_closed(tool["parameters"]):
        function["strict"] = True
    return {"type": "function", "function": function}


def _response_format(schema: JSONObject) -> JSONObject:
    return {
        "type": "json_schema",
        "json_schema": {
            "name": output_name(schema),
            "schema": schema,
            "strict": is_closed(schema),
        },
    }


def output_name(schema: JSONObject) -> str:
    """What a schema is called on the wire, which takes letters, digits, ``_`` and ``-`` only."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", str(schema.get("title", "")))[:64] or "output"


def is_closed(schema: JSON) -> bool:
    """Whether every object in the schema names all it may have, as strict mode demands."""
    return takes_strict(schema)


def read_answer(
    head: Mapping[str, JSON],
    message: JSONObject,
    ending: Mapping[str, JSON],
    logprobs: list[JSONObject] | None,
    turn: int,
) -> Answer:
    """A reply from its parts: ``head`` is what stands beside the choices, ``ending`` the choice."""
    said = assistant_message(message, turn)
    stopped_by = ending.get("stop_reason")
    finish = finish_reason(ending.get("finish_reason"), said, bool(message.get("refusal")))
    return Answer(
        message=said,
        finish_reason=finish,
        usage=reported_usage(head.get("usage")),
        model=str(head.get("model") or ""),
        fingerprint=str(head.get("system_fingerprint") or ""),
        logprobs=logprobs or None,
        # vLLM tells, OpenAI does not. Anything but text is a token's number: it ended by itself.
        tells_stop="stop_reason" in ending,
        stopped_by=stopped_by if isinstance(stopped_by, str) else None,
    )


def without_repetition(wire: JSONObject, continued: Message) -> JSONObject:
    """A whole reply in wire form, without the unfinished message that it repeats and continues.

    llama.cpp puts that before what is new; its streams hold the new alone, as all replies of other
    servers do.
    """
    left = dict(wire)
    said = {"content": text_of(continued)}
    for item in continued.get("reasoning", ()):
        field = item.get("provider", {}).get("field", REASONING_FIELDS[0])
        said[field] = said.get(field, "") + item.get("text", "")
    for field, old in said.items():
        new = left.get(field)
        if old and isinstance(new, str) and new.startswith(old):
            left[field] = new[len(old) :]
            if field != "content" and not left[field].strip():
                del left[field]
    return left


def assistant_message(wire: Mapping[str, JSON], turn: int) -> Message:
    """The canonical message; a tool call without an id of its own gets one from ``turn``."""
    text = wire.get("content")
    if not isinstance(text, str):
        # Some servers answer in parts as they are asked.
        text = "".join(str(part.get("text", "")) for part in text or () if isinstance(part, dict))
    provider = {key: value for key, value in wire.items() if value and key not in _KNOWN_FIELDS}
    text = joined_halves(text)
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
            text = joined_halves(provider.pop(field))
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
        arguments = joined_halves(arguments)
        name = function.get("name") or ""
        calls.append({"id": identity, "name": name, "arguments": arguments})
        own = {key: value for key, value in call.items() if key not in _KNOWN_CALL_FIELDS}
        if own:
            extras[identity] = own
    return calls, extras


def joined_halves(text: str) -> str:
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
