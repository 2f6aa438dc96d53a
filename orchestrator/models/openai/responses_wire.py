"""Between the canonical form and the wire form of Responses, both ways, without I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from longthought.errors import InvalidInput, QuestionRefused
from longthought.orchestrator.models.openai.chat_wire import is_closed, output_name
from longthought.orchestrator.models.openai.dialect import Answer, ServerFault, WireOptions
from longthought.orchestrator.models.openai.responses_items import (
    PROVIDER_FIELD,
    has_refusal,
    items_of,
    message_of,
)
from longthought.types import (
    JSON,
    FinishReason,
    JSONObject,
    Message,
    ModelRequest,
    Usage,
)

__all__ = ["failure", "finish_reason", "read_answer", "reported_usage", "request_body"]

_ENCRYPTED = "reasoning.encrypted_content"
_LOGPROBS = "message.output_text.logprobs"
_SAMPLING = ("temperature", "top_p")
_KEPT_THERE = {
    # What the server adds to the prompt from its own memory is in no bound and in no record, and
    # a reply that it works on by itself has to be waited for.
    "background": False,
    "conversation": None,
    "previous_response_id": None,
    "prompt": None,
}
_PLAIN_NAME = re.compile(r"(.*/)?(ft:)?(chatgpt|gpt-3|gpt-4|gpt-5[\d.]*-chat)")


def request_body(request: ModelRequest, options: WireOptions, max_tokens: int | None) -> JSONObject:
    """The body to post. ``request["provider"]`` and the extras are added but replace nothing.

    They do replace that nothing is stored (``store``) and that reasoning comes encrypted
    (``include``), and may have ``reasoning``, ``text`` and ``tools`` beside ours. Without
    ``max_tokens`` no maximum is sent. A seed is left out unless the server takes one.

    Raises:
        InvalidInput: extra parameters refer to something that is kept at the provider.
        QuestionRefused: the request has stop strings or a message to be continued.
    """
    body: JSONObject = {"store": False, **options.extra, **request.get("provider", {})}
    for name, harmless in _KEPT_THERE.items():
        if body.get(name, harmless) != harmless:
            fix = "Leave it out"
            if name == "background":
                fix = f"{fix}, or set `background` of the backend, or of RequestParameters"
            raise InvalidInput(name, "a call holds its whole conversation and its whole reply", fix)
    if request.get("continue_last"):
        raise QuestionRefused(
            "continue_last",
            f"{options.name} is asked by the Responses protocol, which always begins a new message",
            'Ask again instead, or use api="chat"',
        )
    sampling = cast("JSONObject", request.get("sampling", {}))
    if sampling.get("stop"):
        raise QuestionRefused(
            "stop",
            f"{options.name} is asked by the Responses protocol, which has no stop strings",
            'Use api="chat", or give the server\'s own parameter in `provider`',
        )
    body["model"] = options.name
    body["input"] = _input_items(request["messages"], options.send_reasoning)
    if max_tokens is not None:
        body["max_output_tokens"] = max_tokens
    if tools := request.get("tools"):
        ours = [_wire_tool(cast("JSONObject", tool), options.strict_tools) for tool in tools]
        body["tools"] = [*ours, *body.get("tools", ())]
    if output := request.get("output"):
        body["text"] = {**body.get("text", {}), "format": _text_format(output)}
    body.update({name: sampling[name] for name in _SAMPLING if name in sampling})
    if options.seeds and "seed" in sampling:
        body["seed"] = sampling["seed"]
    if "reasoning_effort" in sampling:
        effort = sampling["reasoning_effort"]
        body["reasoning"] = {**(body.get("reasoning") or {}), "effort": effort}
    if include := _included(body, options, bool(sampling.get("logprobs"))):
        body["include"] = include
    body["stream"] = options.stream
    return body


def _included(body: JSONObject, options: WireOptions, logprobs: bool) -> list[str]:
    """What a reply is to hold beside its text; models that do not reason refuse to be asked."""
    include: list[str] = list(body.get("include") or ())
    if "include" not in body and options.send_reasoning and not _PLAIN_NAME.match(options.name):
        include.append(_ENCRYPTED)
    if logprobs and _LOGPROBS not in include:
        include.append(_LOGPROBS)
    return include


def _input_items(messages: Iterable[Message], send_reasoning: bool) -> list[JSONObject]:
    # A conversation is sent again at every step: what has the same form on both sides is sent as
    # it is, which costs no call for each.
    items: list[JSONObject] = []
    for message in messages:
        role, content = message["role"], message["content"]
        if role == "assistant":
            items += items_of(message, send_reasoning)
        elif role == "tool":
            items.append(_tool_output(message))
        elif isinstance(content, str) and len(message) == 2:
            items.append(cast("JSONObject", message))
        else:
            items.append({**_extras(message), "role": role, "content": _input_content(content)})
    return items


def _tool_output(message: Message) -> JSONObject:
    content = message["content"]
    item: JSONObject = {
        "type": "function_call_output",
        "call_id": message.get("tool_call_id", ""),
        "output": content if isinstance(content, str) else _input_content(content),
    }
    return {**_extras(message), **item} if "provider" in message else item


def _extras(message: Message) -> JSONObject:
    """The provider's own fields; a name is left out, for which this protocol has no place."""
    extras: JSONObject = message.get("provider", {})
    return {name: value for name, value in extras.items() if name != PROVIDER_FIELD}


def _input_content(content: str | list[JSONObject] | None) -> str | list[JSONObject]:
    if not isinstance(content, list):
        return content or ""
    return [_input_part(part) for part in content]


def _input_part(part: JSONObject) -> JSONObject:
    """A part in the form of Chat Completions as one of Responses; any other is left as it is."""
    kind = part.get("type")
    if kind == "text":
        return {**part, "type": "input_text"}
    if kind == "image_url":
        image = part.get("image_url")
        fields: JSONObject = dict(image) if isinstance(image, dict) else {"url": image}
        url = fields.pop("url", None)
        return {"detail": "auto", **fields, "type": "input_image", "image_url": url}
    if kind == "file" and isinstance(part.get("file"), dict):
        return {**part["file"], "type": "input_file"}
    return part


def _wire_tool(tool: JSONObject, strict: bool) -> JSONObject:
    return {
        "type": "function",
        "name": tool["name"],
        "description": tool["description"],
        "parameters": tool["parameters"],
        "strict": strict and is_closed(tool["parameters"]),  # left out it would mean true
    }


def _text_format(schema: JSONObject) -> JSONObject:
    return {
        "type": "json_schema",
        "name": output_name(schema),
        "schema": schema,
        "strict": is_closed(schema),
    }


def read_answer(
    response: Mapping[str, JSON],
    items: Sequence[JSONObject],
    turn: int,
    logprobs: Sequence[JSONObject] = (),
) -> Answer:
    """A reply from its items; ``response`` is what stands around them.

    ``logprobs`` are those that came apart from the items, if the items have none.
    """
    said = message_of(items, turn)
    within = [
        entry
        for item in items
        if item.get("type") == "message" and isinstance(item.get("content"), list)
        for part in item["content"]
        for entry in part.get("logprobs") or ()
    ]
    return Answer(
        message=said,
        finish_reason=finish_reason(response, said, has_refusal(items)),
        usage=reported_usage(response.get("usage")),
        model=str(response.get("model") or ""),
        fingerprint=str(response.get("system_fingerprint") or ""),
        logprobs=within or list(logprobs) or None,
        # llama.cpp has no such field, and calls replies that it cut at their maximum completed.
        tells_length="incomplete_details" in response,
    )


def finish_reason(response: Mapping[str, JSON], message: Message, refused: bool) -> FinishReason:
    """How a reply ended; that it was cut short says the server, all else what is in it."""
    status = response.get("status")
    if status == "cancelled":
        return "error"
    reason = (response.get("incomplete_details") or {}).get("reason")
    if status == "incomplete" or (reason and status != "completed"):
        return "refusal" if reason == "content_filter" else "length"
    if message.get("tool_calls"):
        return "tool_calls"
    return "refusal" if refused else "stop"


def failure(response: Mapping[str, JSON], *, begun: bool = False) -> ServerFault | None:
    """What went wrong with a response, None if nothing did."""
    error, status = response.get("error"), response.get("status")
    if error or status == "failed":
        return ServerFault("the reply failed", error or {"message": "it failed"}, begun=begun)
    if status in ("queued", "in_progress"):
        return ServerFault(f"the reply is not there yet: it is {status}")
    return None


def reported_usage(wire: JSON) -> Usage | None:
    """The usage that a server sent, None if it sent none that can be used."""
    if not isinstance(wire, dict):
        return None
    prompt, completion = wire.get("input_tokens"), wire.get("output_tokens")
    if not isinstance(prompt, int) or not isinstance(completion, int):
        return None
    cached = (wire.get("input_tokens_details") or {}).get("cached_tokens")
    reasoning = (wire.get("output_tokens_details") or {}).get("reasoning_tokens")
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=cached or 0,
        reasoning_tokens=reasoning or 0,
        calls=1,
    )
