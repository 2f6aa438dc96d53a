"""The same job over Responses: how :mod:`benchmarks.protocol_server` answers ``POST /responses``.

The job is that of Chat Completions: the same pieces, limits and token counts. Here a request is
read as the chat request that stands for it, and a reply is written as output items or events.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Protocol

__all__ = ["Job", "chat_request", "events", "whole"]

_ENCRYPTED = "gAAAAB-encrypted-{turn}"
_DELTAS = {
    "output_text": "response.output_text",
    "refusal": "response.refusal",
    "reasoning_text": "response.reasoning_text",
    "summary_text": "response.reasoning_summary_text",
}


class Job(Protocol):
    """What is to be answered: the pieces of the reply in the form of Chat Completions."""

    sent: dict[str, Any]
    request: dict[str, Any]
    pieces: list[dict[str, Any]]
    hidden: int
    cut: bool

    def has(self, mode: str) -> bool:
        """Whether the address asks for a mode."""
        ...

    def usage(self) -> dict[str, Any]:
        """The usage in the form of Chat Completions."""
        ...


def chat_request(body: dict[str, Any]) -> dict[str, Any]:
    """The request of Chat Completions that asks the same."""
    request: dict[str, Any] = {"messages": _messages(body), "stream": body.get("stream", False)}
    if body.get("max_output_tokens") is not None:
        request["max_tokens"] = body["max_output_tokens"]
    return request


def _messages(body: dict[str, Any]) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if body.get("instructions"):
        messages.append({"role": "system", "content": body["instructions"]})
    asked = body["input"]
    if isinstance(asked, str):
        return [*messages, {"role": "user", "content": asked}]
    for item in asked:
        kind = item.get("type", "message")
        if kind == "function_call_output":
            tool = {"role": "tool", "content": item["output"], "tool_call_id": item["call_id"]}
            messages.append(tool)
        elif kind == "message" and item["role"] != "assistant":
            messages.append({"role": item["role"], "content": item["content"]})
        else:
            if not messages or messages[-1]["role"] != "assistant":
                messages.append({"role": "assistant", "content": None})
            _add(messages[-1], kind, item)
    return messages


def _add(message: dict[str, Any], kind: str, item: dict[str, Any]) -> None:
    if kind == "message":
        content = item["content"]
        if not isinstance(content, str):
            content = "".join(part.get("text") or part.get("refusal", "") for part in content)
        message["content"] = (message["content"] or "") + content
    elif kind == "reasoning" and item.get("content"):
        message["reasoning_content"] = "".join(part["text"] for part in item["content"])
    elif kind == "function_call":
        function = {"name": item["name"], "arguments": item["arguments"]}
        call = {"id": item["call_id"], "type": "function", "function": function}
        message.setdefault("tool_calls", []).append(call)


def whole(job: Job) -> dict[str, Any]:
    """The response in one piece."""
    ended = "incomplete" if job.cut else "completed"
    output = [step.item(step.text, step.status) for step in _steps(job)]
    usage = None if job.has("no-usage") else _usage(job.usage())
    return {**_response(job, ended), "output": output, "usage": usage}


def events(job: Job) -> Iterator[bytes]:
    """The events of the response; each item but the last holds one token, with what frames it."""
    stream = _Stream()
    if job.has("odd"):
        yield stream.event("response.output_item.added", output_index=0, item=[7])
    if job.has("malformed"):
        yield b'data: {"type\n\n'
    if job.has("empty"):
        return
    begun = {**_response(job, "in_progress"), "output": [], "usage": None}
    waiting = stream.event("response.created", response=begun)
    waiting += b": a comment\r\n\r\n" + stream.event("response.in_progress", response=begun)
    number, half = 0, len(job.pieces) // 2
    for step in _steps(job):
        for token, frame in stream.step(step):
            if token:
                if number == half and (job.has("truncated") or job.has("broken-off")):
                    return
                if number == half and job.has("error"):
                    waiting += stream.event("error", code="500", message="the engine died")
                number += 1
                yield waiting + frame
                waiting = b""
            else:
                waiting += frame
    if job.has("lost-end"):
        yield waiting
        return
    response = whole(job)
    yield waiting + stream.event(f"response.{response['status']}", response=response)


class _Step:
    """One output item and the pieces it comes in."""

    def __init__(self, kind: str, index: int, ids: str, own: dict[str, Any]) -> None:
        self.kind, self.index, self.own = kind, index, own
        self.id = f"{ids}_{index}"
        self.pieces: list[str] = []
        self.status = "completed"

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def item(self, text: str, status: str) -> dict[str, Any]:
        """The item as it stands with so much text; empty, no part of it has begun."""
        parts = [self.part(text)] if text or status != "in_progress" else []
        match self.kind:
            case "output_text" | "refusal":
                form: dict[str, Any] = {"type": "message", "role": "assistant", "content": parts}
            case "reasoning_text":
                form = {"type": "reasoning", "summary": [], "content": parts}
            case "summary_text":
                form = {"type": "reasoning", "summary": parts}
            case "function_call":
                form = {"type": "function_call", "arguments": text}
            case _:
                form = {"type": self.kind}
        own = dict(self.own)
        if status == "in_progress" and "encrypted_content" in own:
            own["encrypted_content"] = own["encrypted_content"][:8]
        if self.kind not in ("reasoning_text", "summary_text", "reasoning"):
            own["status"] = status
        return {"id": self.id, **form, **own}

    def part(self, text: str) -> dict[str, Any]:
        """The one part of an item."""
        if self.kind == "refusal":
            return {"type": "refusal", "refusal": text}
        part: dict[str, Any] = {"type": self.kind, "text": text}
        if self.kind == "output_text":
            part |= {"annotations": [], "logprobs": []}
        return part


def _steps(job: Job) -> list[_Step]:
    turn = sum(1 for message in job.request["messages"] if message["role"] == "assistant")
    steps: list[_Step] = []

    def begin(kind: str, ids: str, **own: Any) -> _Step:
        steps.append(_Step(kind, len(steps), f"{ids}_{turn}", own))
        return steps[-1]

    secret: dict[str, Any] = {}
    if "reasoning.encrypted_content" in (job.sent.get("include") or ()):
        secret["encrypted_content"] = _ENCRYPTED.format(turn=turn)
    if job.hidden:
        begin("reasoning", "rs", summary=[], **secret)
    for piece in job.pieces:
        if call := piece.get("tool_calls", [None])[0]:
            function = call["function"]
            if "id" in call:
                begin("function_call", "fc", call_id=call["id"], name=function["name"])
            steps[-1].pieces += [function["arguments"]] if function["arguments"] else []
            continue
        kind, ids, own, text = _reading(piece, secret)
        if not steps or steps[-1].kind != kind:
            begin(kind, ids, **own)
        steps[-1].pieces.append(text)
    if job.has("opaque") and steps:
        action = {"type": "search", "query": "numbers"}
        found = _Step("web_search_call", len(steps), f"ws_{turn}", {"action": action})
        steps.append(found)
    if job.cut and steps:
        steps[-1].status = "incomplete"
    return steps


def _reading(piece: dict[str, Any], secret: dict[str, Any]) -> tuple[str, str, dict[str, Any], str]:
    """Of a piece: the kind of its item, the beginning of its id, its own fields, the text."""
    if "reasoning_content" in piece:
        return "reasoning_text", "rs", secret, piece["reasoning_content"]
    if "reasoning" in piece:
        return "summary_text", "rs", secret, piece["reasoning"]
    if "refusal" in piece:
        return "refusal", "msg", {}, piece["refusal"]
    return "output_text", "msg", {}, piece["content"]


class _Stream:
    """Numbers the events of one stream."""

    def __init__(self) -> None:
        self._number = 0

    def event(self, kind: str, **fields: Any) -> bytes:
        """One server-sent event."""
        value = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return f"event: {kind}\ndata: {text}\n\n".encode()

    def step(self, step: _Step) -> Iterator[tuple[bool, bytes]]:
        """The events of one item, and whether each is a token."""
        place = {"output_index": step.index}
        at = {"item_id": step.id, **place}
        called = step.kind == "function_call"
        added = step.item("", "in_progress")
        yield called, self.event("response.output_item.added", **place, item=added)
        if called:
            kind = "response.function_call_arguments"
            for text in step.pieces:
                yield True, self.event(f"{kind}.delta", **at, delta=text)
            if step.status == "completed":
                own = {"name": step.own["name"], "arguments": step.text}
                yield False, self.event(f"{kind}.done", **at, **own)
        elif step.pieces:
            yield from self._part(step, at)
        done = step.item(step.text, step.status)
        yield False, self.event("response.output_item.done", **place, item=done)

    def _part(self, step: _Step, at: dict[str, Any]) -> Iterator[tuple[bool, bytes]]:
        summary = step.kind == "summary_text"
        at = {**at, ("summary_index" if summary else "content_index"): 0}
        frame = "response.reasoning_summary_part" if summary else "response.content_part"
        kind = _DELTAS[step.kind]
        beside: dict[str, Any] = {"logprobs": []} if step.kind == "output_text" else {}
        yield False, self.event(f"{frame}.added", **at, part=step.part(""))
        for text in step.pieces:
            yield True, self.event(f"{kind}.delta", **at, delta=text, **beside)
        field = "refusal" if step.kind == "refusal" else "text"
        yield False, self.event(f"{kind}.done", **at, **{field: step.text}, **beside)
        yield False, self.event(f"{frame}.done", **at, part=step.part(step.text))


def _usage(usage: dict[str, Any]) -> dict[str, Any]:
    """The usage under the names of this protocol."""
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    reasoning = usage["completion_tokens_details"]["reasoning_tokens"]
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": usage["total_tokens"],
    }


def _response(job: Job, status: str) -> dict[str, Any]:
    """What stands around the output."""
    sent = job.sent
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_700_000_000,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": sent.get("instructions"),
        "max_output_tokens": sent.get("max_output_tokens"),
        "model": "toy-2026",
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None, **(sent.get("reasoning") or {})},
        "store": sent.get("store", True),
        "temperature": sent.get("temperature", 1.0),
        "text": {"format": {"type": "text"}, **(sent.get("text") or {})},
        "tool_choice": "auto",
        "tools": sent.get("tools", []),
        "top_p": sent.get("top_p", 1.0),
        "truncation": "disabled",
        "metadata": {},
    }
